//! Futures that the service thread brings to their end: what is left to do for something that was dropped.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use crate::service::Service;
use crate::sync::lock;
use crate::sync::locks::Mutex;

/// How long what wakes itself while it is polled is left alone: the thread has other things to do.
const BREATH: Duration = Duration::from_millis(1);

thread_local! {
    /// Whether this is the service thread, inside of a turn.
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `future` on the service thread until it ends, or until `patience` is over: then it is dropped. It must not
/// block.
pub(crate) fn run(future: impl Future<Output = ()> + Send + 'static, patience: Duration) {
    let task = Arc::new(Task { future: Mutex::new(Some(Box::pin(future))), turn: Turn::default() });
    let late = Arc::downgrade(&task);
    run_at(Instant::now() + patience, move || {
        if let Some(task) = late.upgrade() {
            drop(lock(&task.future).take());
        }
    });
    task.wake();
}

/// Runs `job` on the service thread at `when` or soon after.
pub(crate) fn run_at(when: Instant, job: impl FnOnce() + Send + 'static) {
    match Service::of_process() {
        Ok(service) => drop(service.run_at(when, job)),
        // Every connection has started it: this is a child that was forked and can have no thread.
        Err(error) => tracing::error!(%error, "a timer cannot be set"),
    }
}

struct Task {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    turn: Turn,
}

impl Task {
    fn poll(self: &Arc<Self>) {
        let mut future = lock(&self.future);
        if let Some(running) = future.as_mut()
            && running.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(self)))).is_ready()
        {
            *future = None;
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let task = Arc::clone(&self);
        self.turn.take(move || {
            task.turn.begin();
            task.poll();
        });
    }
}

/// The right to one job on the service thread at a time.
#[derive(Default)]
pub(crate) struct Turn {
    is_taken: AtomicBool,
}

impl Turn {
    /// Has the service thread run `job`, unless one waits already. The job calls [`begin`](Self::begin) first.
    pub(crate) fn take(&self, job: impl FnOnce() + Send + 'static) {
        if self.is_taken.swap(true, Ordering::AcqRel) {
            return;
        }
        let job = move || {
            let _in_turn = InTurn::new();
            job();
        };
        let now = Instant::now();
        run_at(if IN_TURN.get() { now + BREATH } else { now }, job);
    }

    /// From here on another job can be taken.
    pub(crate) fn begin(&self) {
        self.is_taken.store(false, Ordering::Release);
    }
}

/// Ends with the job, also if that panics.
struct InTurn;

impl InTurn {
    fn new() -> Self {
        IN_TURN.set(true);
        Self
    }
}

impl Drop for InTurn {
    fn drop(&mut self) {
        IN_TURN.set(false);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::task::Poll;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_future_is_polled_when_it_is_woken_until_it_ends() {
        let (done, heard) = mpsc::channel();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        run(
            async move {
                let _held = held;
                done.send(receiver.await).expect("the test listens");
            },
            SOON,
        );
        assert!(heard.recv_timeout(Duration::from_millis(20)).is_err(), "it waits");
        sender.send(7).expect("it listens");
        assert_eq!(heard.recv_timeout(SOON), Ok(Ok(7)));
        let begun = Instant::now();
        while Arc::strong_count(&alive) > 1 {
            assert!(begun.elapsed() < SOON, "it is dropped when it has ended");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_always_wakes_itself_keeps_nobody_else_from_running() {
        let (polled, heard) = mpsc::channel();
        run(
            std::future::poll_fn(move |context| {
                context.waker().wake_by_ref();
                let _ = polled.send(Instant::now());
                Poll::Pending
            }),
            Duration::from_millis(100),
        );
        let service = Service::of_process().expect("a thread");
        let (done, other) = mpsc::channel();
        service.run_job(move || done.send(()).expect("the test listens"));
        assert_eq!(other.recv_timeout(SOON), Ok(()));
        // It ends with its patience, and its end of the channel with it.
        let polls: Vec<_> = heard.iter().collect();
        assert!((2..=110).contains(&polls.len()), "{} polls in 100 ms", polls.len());
    }
}
