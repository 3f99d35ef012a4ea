//! The time and the allocations of an operation.

use std::time::Instant;

use crate::allocations::ALLOCATIONS;

/// What one operation costs.
pub(crate) struct Cost {
    /// The median of many short runs.
    pub(crate) nanoseconds: f64,
    /// Heap allocations of the calling thread.
    pub(crate) allocations: f64,
}

/// Runs `operation` in 201 runs of `count` after one to warm up.
pub(crate) fn cost(count: u32, mut operation: impl FnMut()) -> Cost {
    const RUNS: usize = 201;
    let mut run = || {
        let start = Instant::now();
        (0..count).for_each(|_| operation());
        start.elapsed().as_nanos() as f64 / f64::from(count)
    };
    run();
    let mut times = Vec::with_capacity(RUNS);
    let before = ALLOCATIONS.get();
    times.extend((0..RUNS).map(|_| run()));
    let allocations = (ALLOCATIONS.get() - before) as f64 / f64::from(count) / RUNS as f64;
    times.sort_by(f64::total_cmp);
    Cost { nanoseconds: times[RUNS / 2], allocations }
}
