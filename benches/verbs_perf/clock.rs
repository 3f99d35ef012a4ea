//! Time stamps as perftest takes them: the processor's counter, which is cheap, where there is one.

use std::time::{Duration, Instant};

/// A number that grows with time.
#[inline]
pub(crate) fn stamp() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// What a stamp's unit is.
pub(crate) struct Unit {
    nanoseconds: f64,
}

impl Unit {
    /// Measures it, for some 50 ms.
    pub(crate) fn measure() -> Self {
        let (begun, first) = (Instant::now(), stamp());
        while begun.elapsed() < Duration::from_millis(50) {}
        let (elapsed, last) = (begun.elapsed(), stamp());
        Self { nanoseconds: elapsed.as_nanos() as f64 / (last - first) as f64 }
    }

    /// The nanoseconds of a difference of stamps.
    pub(crate) fn nanoseconds(&self, difference: u64) -> f64 {
        difference as f64 * self.nanoseconds
    }
}
