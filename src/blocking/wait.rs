//! Running a future to its end on the thread that asks for it.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, Failed, Result};

thread_local! {
    /// Calls of this thread that block, one within the other.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// How this thread is woken. Who wakes it late only has it look once more.
    static PARKED: (Arc<Parked>, Waker) = Parked::here();
}

/// Whether this thread is in a call that blocks: nothing else of its runtime, if it has one, is run meanwhile.
pub(crate) fn is_blocking() -> bool {
    DEPTH.get() > 0
}

/// Runs `future` to its end on this thread, which is parked while there is nothing to do.
///
/// ```
/// assert_eq!(zcmi::blocking::block_on(async { 1 + 1 }), 2);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        // Without a deadline it comes back with a result only.
        if let Some(output) = run(future.as_mut(), None) {
            return output;
        }
    }
}

/// As [`block_on`], for no longer than `timeout`: `None` if the future has not ended by then. It is dropped.
///
/// ```
/// use std::time::Duration;
/// use zcmi::blocking::block_on_timeout;
///
/// assert_eq!(block_on_timeout(std::future::pending::<()>(), Duration::from_millis(1)), None);
/// assert_eq!(block_on_timeout(async { 2 }, Duration::ZERO), Some(2)); // tried once in any case
/// ```
pub fn block_on_timeout<F: Future>(future: F, timeout: Duration) -> Option<F::Output> {
    // One that lies beyond what the clock can tell is none.
    match Instant::now().checked_add(timeout) {
        // A runtime's budget is for tasks, which give way to others.
        Some(deadline) => run(pin!(tokio::task::unconstrained(future)), Some(deadline)),
        None => Some(block_on(future)),
    }
}

fn run<F: Future>(future: Pin<&mut F>, deadline: Option<Instant>) -> Option<F::Output> {
    let _within = Within::enter();
    let mut future = Some(future);
    let mut run_with = |(parked, waker): &(Arc<Parked>, Waker)| {
        future.take().and_then(|future| parked.run(future, &mut Context::from_waker(waker), deadline))
    };
    // One within another has a waker of its own: it must not take what wakes the outer one.
    if DEPTH.get() > 1 {
        return run_with(&Parked::here());
    }
    match PARKED.try_with(&mut run_with) {
        Ok(output) => output,
        // The thread is about to end.
        Err(_) => run_with(&Parked::here()),
    }
}

struct Within;

impl Within {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

struct Parked {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Parked {
    fn here() -> (Arc<Self>, Waker) {
        let parked = Arc::new(Self { thread: std::thread::current(), is_woken: AtomicBool::new(false) });
        (Arc::clone(&parked), Waker::from(parked))
    }

    fn run<F: Future>(
        &self,
        mut future: Pin<&mut F>,
        context: &mut Context<'_>,
        deadline: Option<Instant>,
    ) -> Option<F::Output> {
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Some(output);
            }
            loop {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                if left.is_some_and(|left| left.is_zero()) {
                    return None;
                }
                if self.is_woken.swap(false, Ordering::Acquire) {
                    break;
                }
                // It may come back for no reason.
                match left {
                    Some(left) => std::thread::park_timeout(left),
                    None => std::thread::park(),
                }
            }
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The first alone: an unparked thread looks.
        if !self.is_woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

/// Waits for an operation, for no longer than `timeout` if there is one.
pub(super) fn wait<T>(
    timeout: Option<Duration>,
    operation: &'static str,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout {
        None => block_on(future),
        Some(timeout) => block_on_timeout(future, timeout).unwrap_or_else(|| Err(late(timeout, operation))),
    }
}

/// As [`wait`], of an operation that owns memory. It goes on after `timeout`.
pub(super) fn wait_owned<T, B: std::fmt::Debug>(
    timeout: Option<Duration>,
    operation: &'static str,
    future: impl Future<Output = std::result::Result<T, Failed<B>>>,
) -> std::result::Result<T, Failed<B>> {
    match timeout {
        None => block_on(future),
        Some(timeout) => block_on_timeout(future, timeout)
            .unwrap_or_else(|| Err(Failed { error: late(timeout, operation), buffer: None })),
    }
}

fn late(timeout: Duration, operation: &'static str) -> Error {
    Error::new(ErrorKind::TimedOut, operation).with_detail(format!("not done within {timeout:?}"))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[test]
    fn one_within_another_does_not_take_what_wakes_the_outer() {
        let (wake, woken) = std::sync::mpsc::channel::<Waker>();
        let (mut is_first, is_there) = (true, Arc::new(AtomicBool::new(false)));
        let there = Arc::clone(&is_there);
        let outer = poll_fn(|context| {
            if is_there.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            if std::mem::take(&mut is_first) {
                wake.send(context.waker().clone()).expect("somebody wakes");
                // The outer is woken while this waits, and this never is.
                block_on_timeout(std::future::pending::<()>(), Duration::from_millis(50));
            }
            Poll::Pending
        });
        let waking = std::thread::spawn(move || {
            let waker = woken.recv().expect("a waker");
            there.store(true, Ordering::Relaxed);
            waker.wake();
        });
        assert_eq!(block_on_timeout(outer, Duration::from_secs(5)), Some(()));
        waking.join().expect("no panic");
    }

    #[test]
    fn it_waits_for_the_waker_and_no_longer_than_told() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let sending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            sender.send(7)
        });
        assert_eq!(block_on(receiver), Ok(7));
        sending.join().expect("the thread succeeds").expect("it was received");

        let (begun, timeout) = (Instant::now(), Duration::from_millis(30));
        assert_eq!(block_on_timeout(std::future::pending::<()>(), timeout), None);
        assert!(begun.elapsed() >= timeout);
        assert_eq!(block_on_timeout(async { 3 }, Duration::MAX), Some(3));
    }

    #[test]
    fn a_wake_up_before_it_is_parked_is_not_lost() {
        let mut polls = 0;
        let woken = poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls == 1000 { Poll::Ready(polls) } else { Poll::Pending }
        });
        assert_eq!(block_on_timeout(woken, Duration::from_secs(20)), Some(1000));
    }

    #[test]
    fn one_within_another_is_fine_and_is_known() {
        assert!(!is_blocking());
        let inner = block_on(async { block_on_timeout(async { is_blocking() }, Duration::from_secs(1)) });
        assert_eq!((inner, is_blocking()), (Some(true), false));
        let panicked = std::panic::catch_unwind(|| block_on(async { panic!("on purpose") }));
        assert!(panicked.is_err() && !is_blocking());
    }

    /// More than tokio lets a task do before it gives way.
    #[test]
    fn a_task_may_block_as_often_as_it_likes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            for number in 0..1000 {
                sender.send(number).expect("it is received");
                assert_eq!(block_on_timeout(receiver.recv(), Duration::from_secs(20)), Some(Some(number)));
            }
        });
    }
}
