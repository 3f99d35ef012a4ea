//! Waiting with a bound, on the clock of an engine.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::service::{Service, TimerId};

/// What `future` answers within `patience`; none if it does not.
pub(super) async fn within<F: Future>(service: &Arc<Service>, patience: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let deadline = service.now().checked_add(patience);
    let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
    let mut alarm: Option<Alarm> = None;
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        let Some(deadline) = deadline else { return Poll::Pending };
        if service.now() >= deadline {
            return Poll::Ready(None);
        }
        *waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        if alarm.is_none() {
            let waker = Arc::downgrade(&waker);
            let timer = service.run_at(deadline, move || {
                let waker =
                    waker.upgrade().and_then(|waker| waker.lock().unwrap_or_else(PoisonError::into_inner).take());
                if let Some(waker) = waker {
                    waker.wake();
                }
            });
            alarm = Some(Alarm { service, timer });
        }
        Poll::Pending
    })
    .await
}

/// Takes the timer back when nobody waits any more.
struct Alarm<'a> {
    service: &'a Service,
    timer: TimerId,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.service.cancel(self.timer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_in_time_leaves_no_timer_behind_and_what_does_not_is_given_up() {
        let service = Service::of_process().expect("a thread");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let before = service.timers();
            for round in 0..100_000 {
                // Polled twice, so that it waits.
                assert_eq!(within(&service, Duration::from_secs(10), tokio::task::yield_now()).await, Some(()));
                if round % 2 == 0 {
                    // Given up while it waits.
                    let mut waiting = pin!(within(&service, Duration::from_secs(10), std::future::pending::<()>()));
                    assert!(waiting.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())).is_pending());
                }
            }
            assert!(service.timers() < before + 1_000, "{} timers are left", service.timers());
            let begun = service.now();
            let patience = Duration::from_millis(30);
            assert_eq!(within(&service, patience, std::future::pending::<()>()).await, None);
            assert!(service.now() - begun >= patience);
        });
    }
}
