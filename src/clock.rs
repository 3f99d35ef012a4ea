//! What the time is: the host's monotonic clock, or that of a simulation.

use std::time::Instant;
#[cfg(any(test, feature = "internals"))]
use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A clock that is cheap to clone. Whoever decides by time asks the clock of its engine or service, and no other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(#[cfg(any(test, feature = "internals"))] Option<Arc<Virtual>>);

/// Time that goes on when it is told to.
#[cfg(any(test, feature = "internals"))]
#[derive(Debug)]
struct Virtual {
    base: Instant,
    nanoseconds: AtomicU64,
}

impl Clock {
    /// The monotonic clock of the host.
    pub(crate) fn real() -> Self {
        Self::default()
    }

    #[cfg(not(any(test, feature = "internals")))]
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        Instant::now()
    }

    #[cfg(any(test, feature = "internals"))]
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(time) => time.base + Duration::from_nanos(time.nanoseconds.load(Ordering::Relaxed)),
        }
    }

    /// Whether it stands still while somebody looks at it.
    #[inline]
    pub(crate) fn is_virtual(&self) -> bool {
        #[cfg(any(test, feature = "internals"))]
        return self.0.is_some();
        #[cfg(not(any(test, feature = "internals")))]
        false
    }
}

#[cfg(any(test, feature = "internals"))]
impl Clock {
    /// A clock that begins at no time in particular.
    pub(crate) fn of_simulation() -> Self {
        Self(Some(Arc::new(Virtual { base: Instant::now(), nanoseconds: AtomicU64::new(0) })))
    }

    /// Nanoseconds since a simulation's clock began; 0 for the real one.
    pub(crate) fn nanoseconds(&self) -> u64 {
        self.0.as_ref().map_or(0, |time| time.nanoseconds.load(Ordering::Relaxed))
    }

    /// Moves a simulation's clock to `nanoseconds` after its begin, never back.
    pub(crate) fn advance_to(&self, nanoseconds: u64) {
        if let Some(time) = &self.0 {
            time.nanoseconds.fetch_max(nanoseconds, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_time_goes_on_only_when_it_is_told_to() {
        let clock = Clock::of_simulation();
        let begun = clock.now();
        assert!(clock.is_virtual() && clock.clone().now() == begun);
        clock.advance_to(1_500);
        clock.advance_to(1_000);
        assert_eq!((clock.now() - begun, clock.nanoseconds()), (Duration::from_nanos(1_500), 1_500));
        assert!(!Clock::real().is_virtual() && Clock::real().now() >= begun);
    }
}
