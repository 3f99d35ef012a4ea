//! What is measured.

use clap::ValueEnum;
use serde::Serialize;

/// What a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// fetch_add and compare_swap on a word of the peer's memory
    Atomic,
    /// Registering memory that is registered already
    CacheHit,
    /// Buffers that are handed over
    HandOver,
    /// Messages
    Message,
    /// Reading the peer's memory
    Read,
    /// Registering memory with the device
    Registration,
    /// Writing the peer's memory
    Write,
}

/// Bytes in flight at most, if that is more than one operation: who may lock little memory measures too.
const IN_FLIGHT: usize = 8 << 20;

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Test {
    CacheHit,
    CompareSwap,
    FetchAdd,
    HandOver,
    Read,
    Register,
    Send,
    Write,
}

/// In which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Measure {
    /// One after the other.
    Latency,
    /// Many in flight.
    Rate,
}

/// A test with its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) test: Test,
    pub(crate) measure: Measure,
    pub(crate) size: usize,
    /// Operations in flight.
    pub(crate) depth: usize,
}

impl What {
    /// All, in the order in which they are measured.
    pub(crate) const ALL: [Self; 7] =
        [Self::Message, Self::HandOver, Self::Read, Self::Write, Self::Atomic, Self::Registration, Self::CacheHit];

    pub(crate) fn tests(self) -> &'static [Test] {
        match self {
            Self::Atomic => &[Test::FetchAdd, Test::CompareSwap],
            Self::CacheHit => &[Test::CacheHit],
            Self::HandOver => &[Test::HandOver],
            Self::Message => &[Test::Send],
            Self::Read => &[Test::Read],
            Self::Registration => &[Test::Register],
            Self::Write => &[Test::Write],
        }
    }
}

impl Test {
    /// As JSON has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CacheHit => "cache_hit",
            Self::CompareSwap => "compare_swap",
            Self::FetchAdd => "fetch_add",
            Self::HandOver => "hand_over",
            Self::Read => "read",
            Self::Register => "register",
            Self::Send => "send",
            Self::Write => "write",
        }
    }

    /// Whether a latency is half of the time there and back.
    pub(crate) fn is_round_trip(self) -> bool {
        matches!(self, Self::HandOver | Self::Send)
    }

    fn is_atomic(self) -> bool {
        matches!(self, Self::CompareSwap | Self::FetchAdd)
    }

    fn is_local(self) -> bool {
        matches!(self, Self::CacheHit | Self::Register)
    }
}

/// The cases of `what`, by `sizes`, with rates of `depth` operations in flight.
pub(crate) fn cases(what: &[What], measures: &[Measure], sizes: &[usize], depth: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for what in What::ALL.into_iter().filter(|one| what.contains(one)) {
        for &test in what.tests() {
            for &measure in measures {
                // What takes no peer is not in flight.
                if test.is_local() && measure == Measure::Rate {
                    continue;
                }
                let sizes = if test.is_atomic() { &[size_of::<u64>()][..] } else { sizes };
                cases.extend(sizes.iter().map(|&size| {
                    let depth = if measure == Measure::Rate { depth.min(IN_FLIGHT / size).max(1) } else { 1 };
                    Case { test, measure, size, depth }
                }));
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_has_the_sizes_and_measures_that_it_can() {
        let cases =
            cases(&[What::Atomic, What::CacheHit, What::Message], &[Measure::Latency, Measure::Rate], &[64, 128], 4);
        let names: Vec<_> = cases.iter().map(|case| (case.test.name(), case.size, case.depth)).collect();
        let expected = [
            ("send", 64, 1),
            ("send", 128, 1),
            ("send", 64, 4),
            ("send", 128, 4),
            ("fetch_add", 8, 1),
            ("fetch_add", 8, 4),
            ("compare_swap", 8, 1),
            ("compare_swap", 8, 4),
            ("cache_hit", 64, 1),
            ("cache_hit", 128, 1),
        ];
        assert_eq!(names, expected);
    }
}
