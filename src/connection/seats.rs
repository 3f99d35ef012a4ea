//! How many connections a worker has, and may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The places for connections of one worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats(Arc<AtomicU32>);

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Seats);

impl Seats {
    /// A place, if there are fewer than `most` connections.
    pub(super) fn take(&self, most: u32) -> Option<Seat> {
        let more = |taken: u32| (taken < most).then_some(taken + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_they_come_back() {
        let seats = Seats::default();
        let first = seats.take(2).expect("free");
        let _second = seats.clone().take(2).expect("free");
        assert!(seats.take(2).is_none());
        drop(first);
        assert!(seats.take(2).is_some());
    }
}
