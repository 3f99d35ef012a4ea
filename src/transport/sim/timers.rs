//! Waiting for virtual time to pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::here;
use super::state::{Action, State};
use super::world::World;

impl State {
    /// A moment of the world's clock, in nanoseconds since it began; one that has passed is now.
    pub(super) fn at_instant(&self, when: Instant) -> u64 {
        let left = when.saturating_duration_since(self.clock().now());
        self.now().saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Ready when its time has come.
#[must_use = "a future does nothing unless it is polled"]
pub struct Sleep {
    world: Arc<World>,
    until: Instant,
    /// Who is woken.
    waker: Option<Waker>,
}

/// Waits for `time`.
///
/// # Panics
/// Outside of a simulation.
pub fn sleep(time: Duration) -> Sleep {
    let world = here::expect().world;
    let until = world.clock().now() + time;
    Sleep { world, until, waker: None }
}

impl Sleep {
    /// Wakes the task of `context` at `until`.
    pub(super) fn until(world: Arc<World>, until: Instant) -> Self {
        Self { world, until, waker: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.clock().now() >= self.until {
            return Poll::Ready(());
        }
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            let waker = context.waker().clone();
            self.waker = Some(waker.clone());
            self.world.with(|state| {
                let at = state.at_instant(self.until);
                state.at(at, Action::Wake(waker));
            });
        }
        Poll::Pending
    }
}
