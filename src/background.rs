//! What is left to do when nobody waits: timers, and futures that are brought to their end for something that was dropped.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::service::Service;
use crate::sync::lock;
use crate::sync::locks::Mutex;

/// How long what wakes itself while it is polled is left alone: the thread has other things to do.
const BREATH: Duration = Duration::from_millis(1);

thread_local! {
    /// Whether this is the service thread, inside of a turn.
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
}

/// The service and the clock of a connection, for what is built on it.
#[derive(Clone)]
pub(crate) struct Background(Arc<Service>);

impl Background {
    /// Where what `connection` does in the background is done.
    pub(crate) fn of(connection: &Connection) -> Self {
        Self(Arc::clone(connection.service()))
    }

    /// What the time is.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.0.now()
    }

    /// Runs `future` until it ends, or until `patience` is over: then it is dropped. It must not block.
    pub(crate) fn run(&self, future: impl Future<Output = ()> + Send + 'static, patience: Duration) {
        let background = self.clone();
        let task = Arc::new(Task { future: Mutex::new(Some(Box::pin(future))), turn: Turn::default(), background });
        let late = Arc::downgrade(&task);
        self.run_at(self.now() + patience, move || {
            if let Some(task) = late.upgrade() {
                drop(lock(&task.future).take());
            }
        });
        task.wake();
    }

    /// Runs `job` at `when` or soon after.
    pub(crate) fn run_at(&self, when: Instant, job: impl FnOnce() + Send + 'static) {
        // In a forked child nobody runs it, and the lock may be held for ever.
        if self.0.is_ours() {
            self.0.run_at(when, job);
        }
    }
}

struct Task {
    background: Background,
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
        self.turn.take(&self.background, move || {
            task.turn.begin();
            task.poll();
        });
    }
}

/// The right to one job on the service at a time.
#[derive(Default)]
pub(crate) struct Turn {
    is_taken: AtomicBool,
}

impl Turn {
    /// Has the service run `job`, unless one waits already. The job calls [`begin`](Self::begin) first.
    pub(crate) fn take(&self, background: &Background, job: impl FnOnce() + Send + 'static) {
        if self.is_taken.swap(true, Ordering::AcqRel) {
            return;
        }
        let job = move || {
            let _in_turn = InTurn::new();
            job();
        };
        let now = background.now();
        background.run_at(if IN_TURN.get() { now + BREATH } else { now }, job);
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

    fn background() -> Background {
        Background(Service::of_process().expect("a thread"))
    }

    #[test]
    fn a_future_is_polled_when_it_is_woken_until_it_ends() {
        let (done, heard) = mpsc::channel();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        background().run(
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
        background().run(
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
