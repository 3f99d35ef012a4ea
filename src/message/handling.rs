//! A handler at work: it can be stopped, and its panic is an outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::call_frame::Refusal;

/// How a handler ended.
pub(super) enum Outcome<T> {
    Answered(T),
    Refused(Refusal),
}

/// Stops a handler from outside.
#[derive(Default)]
pub(super) struct Stop {
    /// 0 is none.
    reason: AtomicU8,
    waker: AtomicWaker,
}

const CANCELLED: u8 = 1;
const OUT_OF_TIME: u8 = 2;

impl Stop {
    /// The client has given the call up.
    pub(super) fn cancel(&self) {
        self.stop(CANCELLED);
    }

    /// The client's time is over.
    pub(super) fn time_out(&self) {
        self.stop(OUT_OF_TIME);
    }

    fn stop(&self, reason: u8) {
        self.reason.store(reason, Ordering::Release);
        self.waker.wake();
    }

    fn reason(&self) -> Option<Refusal> {
        match self.reason.load(Ordering::Acquire) {
            CANCELLED => Some(Refusal::Cancelled),
            OUT_OF_TIME => Some(Refusal::OutOfTime),
            _ => None,
        }
    }
}

/// The future of a handler.
pub(super) struct Handling<F> {
    // Some until it has ended.
    future: Option<Pin<Box<F>>>,
    stop: Arc<Stop>,
}

impl<F: Future> Handling<F> {
    pub(super) fn new(future: F, stop: Arc<Stop>) -> Self {
        Self { future: Some(Box::pin(future)), stop }
    }

    fn drop_future(&mut self) {
        let future = self.future.take();
        if catch_unwind(AssertUnwindSafe(|| drop(future))).is_err() {
            tracing::error!("a handler panicked when it was dropped");
        }
    }
}

impl<F: Future> Future for Handling<F> {
    type Output = Outcome<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.stop.waker.register(context.waker());
        if let Some(reason) = this.stop.reason() {
            this.drop_future();
            return Poll::Ready(Outcome::Refused(reason));
        }
        let Some(future) = &mut this.future else { return Poll::Pending };
        let outcome = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Outcome::Answered(output),
            Err(_) => {
                tracing::error!("a handler panicked");
                Outcome::Refused(Refusal::Panicked)
            }
        };
        this.drop_future();
        Poll::Ready(outcome)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Waker;

    struct Loud(Arc<AtomicU8>);

    impl Drop for Loud {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose");
        }
    }

    #[test]
    fn it_is_dropped_as_soon_as_it_is_stopped_and_a_panic_goes_nowhere() {
        let (stop, dropped) = (Arc::new(Stop::default()), Arc::new(AtomicU8::new(0)));
        let loud = Loud(Arc::clone(&dropped));
        let never = async move {
            let _loud = loud;
            std::future::pending::<()>().await;
        };
        let mut handling = pin!(Handling::new(never, Arc::clone(&stop)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(handling.as_mut().poll(&mut context).is_pending());
        stop.time_out();
        assert!(matches!(handling.as_mut().poll(&mut context), Poll::Ready(Outcome::Refused(Refusal::OutOfTime))));
        assert_eq!(dropped.load(Ordering::Relaxed), 1);

        let panics = pin!(Handling::new(async { panic!("on purpose") }, Arc::default()));
        assert!(matches!(panics.poll(&mut context), Poll::Ready(Outcome::Refused(Refusal::Panicked))));
        let answers = pin!(Handling::new(async { 7 }, Arc::default()));
        assert!(matches!(answers.poll(&mut context), Poll::Ready(Outcome::Answered(7))));
    }
}
