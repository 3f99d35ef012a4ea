//! Times of single operations, and what is said of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Times, to three digits.
#[derive(Debug)]
pub(crate) struct Samples {
    histogram: Histogram<u64>,
    /// Of a time there and back only half counts.
    divisor: f64,
}

/// Percentiles in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Samples {
    pub(crate) fn new(is_round_trip: bool) -> Self {
        // Ten minutes, which is longer than anything may take, and three digits are allowed.
        let histogram = Histogram::new_with_max(600_000_000_000, 3).unwrap_or_else(|error| unreachable!("{error}"));
        Self { histogram, divisor: if is_round_trip { 2.0 } else { 1.0 } }
    }

    pub(crate) fn record(&mut self, time: Duration) {
        // What is 0 by the clock took something.
        self.histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(crate) fn latency(&self) -> Latency {
        let at = |percent| self.histogram.value_at_percentile(percent) as f64 / self.divisor;
        Latency {
            min: self.histogram.min() as f64 / self.divisor,
            mean: self.histogram.mean() / self.divisor,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: self.histogram.max() as f64 / self.divisor,
        }
    }
}

impl Latency {
    /// Of several rounds: the medians, and the least and the greatest of all.
    pub(crate) fn of_rounds(rounds: &[Self]) -> Option<Self> {
        let median_of = |field: fn(&Self) -> f64| median(rounds.iter().map(field));
        Some(Self {
            min: rounds.iter().map(|round| round.min).min_by(f64::total_cmp)?,
            mean: median_of(|round| round.mean)?,
            p50: median_of(|round| round.p50)?,
            p90: median_of(|round| round.p90)?,
            p99: median_of(|round| round.p99)?,
            p999: median_of(|round| round.p999)?,
            max: rounds.iter().map(|round| round.max).max_by(f64::total_cmp)?,
        })
    }
}

/// The median; of an even number the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle)?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], *upper) } else { *upper })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut samples = Samples::new(true);
        for time in 1..=1000 {
            samples.record(Duration::from_nanos(2 * time));
        }
        let latency = samples.latency();
        for (found, expected) in [
            (latency.min, 1.0),
            (latency.mean, 500.5),
            (latency.p50, 500.0),
            (latency.p90, 900.0),
            (latency.p99, 990.0),
            (latency.p999, 999.0),
            (latency.max, 1000.0),
        ] {
            assert!((found - expected).abs() <= 0.002 * expected + 0.5, "{found} {expected}");
        }
    }

    #[test]
    fn rounds_have_a_median_and_extremes() {
        let of = |value: f64| Latency {
            min: value,
            mean: value,
            p50: value,
            p90: value,
            p99: value,
            p999: value,
            max: value,
        };
        let latency = Latency::of_rounds(&[of(9.0), of(1.0), of(2.0)]).expect("there are rounds");
        assert_eq!((latency.min, latency.p50, latency.p999, latency.max), (1.0, 2.0, 2.0, 9.0));
        assert_eq!(Latency::of_rounds(&[]), None);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), Some(2.5));
    }
}
