//! The times that were taken, and what they come to.

use std::time::Duration;

use serde::Serialize;

/// Times of iterations. Their room is allocated before the first.
pub(crate) struct Samples {
    nanoseconds: Vec<u64>,
    /// By how much a time is divided: 2 where it is of a round trip.
    divisor: u64,
}

/// The distribution of latencies, in nanoseconds; percentiles are nearest ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Distribution {
    /// The shortest.
    pub(crate) min: u64,
    /// The median.
    pub(crate) p50: u64,
    /// Of 100, 99 are as short.
    pub(crate) p99: u64,
    /// Of 1000, 999 are as short.
    pub(crate) p999: u64,
    /// The longest.
    pub(crate) max: u64,
}

impl Samples {
    /// Room for the times of `iterations` round trips.
    pub(crate) fn of_round_trips(iterations: u32) -> Self {
        Self { nanoseconds: Vec::with_capacity(iterations as usize), divisor: 2 }
    }

    /// Room for the times of `iterations` operations.
    pub(crate) fn of_operations(iterations: u32) -> Self {
        Self { divisor: 1, ..Self::of_round_trips(iterations) }
    }

    /// Adds the time of one.
    pub(crate) fn add(&mut self, time: Duration) {
        self.nanoseconds.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What they come to; `None` if there are none.
    pub(crate) fn distribution(mut self) -> Option<Distribution> {
        self.nanoseconds.sort_unstable();
        let last = self.nanoseconds.len().checked_sub(1)?;
        let rank = |per_mille: usize| {
            let rank = ((last + 1) * per_mille).div_ceil(1000);
            self.nanoseconds[rank.saturating_sub(1)] / self.divisor
        };
        Some(Distribution { min: rank(0), p50: rank(500), p99: rank(990), p999: rank(999), max: rank(1000) })
    }
}
