//! How long something took, in classes, so that nothing is lost however often it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Classes of each power of two: what is told is wrong by 1/16 at most.
const PARTS: u32 = 3;
/// Classes of nanoseconds up to about an hour.
const CLASSES: usize = 42 << PARTS;

/// Durations that were recorded, and how many of each class were told.
#[derive(Debug)]
pub(crate) struct Durations {
    classes: Box<[Class]>,
}

#[derive(Debug, Default)]
struct Class {
    recorded: AtomicU64,
    told: AtomicU64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { classes: (0..CLASSES).map(|_| Class::default()).collect() }
    }
}

impl Durations {
    pub(crate) fn record(&self, duration: Duration) {
        self.classes[class(duration)].recorded.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells what was recorded and not told: about how many seconds, and how often.
    pub(crate) fn tell(&self, mut to: impl FnMut(f64, usize)) {
        for (index, class) in self.classes.iter().enumerate() {
            let recorded = class.recorded.load(Ordering::Relaxed);
            let told = class.told.swap(recorded, Ordering::Relaxed);
            if recorded > told {
                to(middle(index), (recorded - told) as usize);
            }
        }
    }
}

fn class(duration: Duration) -> usize {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanoseconds < 1 << PARTS {
        return nanoseconds as usize;
    }
    let power = nanoseconds.ilog2();
    let part = (nanoseconds >> (power - PARTS)) as usize & ((1 << PARTS) - 1);
    ((((power - PARTS + 1) as usize) << PARTS) + part).min(CLASSES - 1)
}

/// The middle of a class, in seconds.
fn middle(class: usize) -> f64 {
    let (octave, part) = (class >> PARTS, class & ((1 << PARTS) - 1));
    let nanoseconds = match octave {
        0 => part as f64,
        octave => ((1 << PARTS) as f64 + part as f64 + 0.5) * 2f64.powi(octave as i32 - 1),
    };
    nanoseconds / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_about_what_was_recorded_and_told_once() {
        let durations = Durations::default();
        let times = [0, 1, 7, 8, 9, 1000, 1023, 1024, 123_456_789, 3_600_000_000_000].map(Duration::from_nanos);
        for time in times {
            durations.record(time);
            let mut told = Vec::new();
            durations.tell(|seconds, times| told.push((seconds, times)));
            let [(seconds, 1)] = told[..] else { panic!("{told:?}") };
            assert!((seconds - time.as_secs_f64()).abs() <= time.as_secs_f64() / 16.0 + 1e-12, "{time:?}: {seconds}");
        }
        durations.tell(|_, _| panic!("all was told"));
        durations.record(Duration::MAX);
        durations.record(Duration::MAX);
        let mut told = Vec::new();
        durations.tell(|seconds, times| told.push((seconds, times)));
        assert!(matches!(told[..], [(seconds, 2)] if seconds > 3600.0), "{told:?}");
    }
}
