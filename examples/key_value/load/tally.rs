//! Counting what was done, and how long it took.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::store::Counts;

/// Parts into which the time is cut for the throughput over time.
const PARTS: u32 = 100;
/// The longest latency that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// Decimal digits to which latencies are kept.
const DIGITS: u8 = 3;

/// What a client did, or all.
pub(crate) struct Tally {
    /// How GETs were answered.
    pub(crate) counts: Counts,
    /// GETs that found no such key.
    pub(crate) absent: u64,
    /// Connections that were lost.
    pub(crate) losses: u64,
    /// How long a part of the time is.
    pub(crate) part: Duration,
    /// Operations of each kind begun in each part of the time.
    pub(crate) parts: [Vec<u64>; 2],
    /// Latencies of each kind, in nanoseconds.
    pub(crate) latencies: [Histogram<u64>; 2],
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Get,
    Put,
}

impl Tally {
    /// Nothing yet, of a run that takes so long.
    pub(crate) fn new(duration: Duration) -> Self {
        let latencies = || Histogram::new_with_max(LONGEST, DIGITS).expect("bounds that make sense");
        Self {
            counts: Counts::default(),
            absent: 0,
            losses: 0,
            part: duration / PARTS,
            parts: [vec![0; PARTS as usize], vec![0; PARTS as usize]],
            latencies: [latencies(), latencies()],
        }
    }

    /// An operation was done that began so long after the beginning.
    pub(crate) fn count(&mut self, kind: Kind, begun: Duration, took: Duration) {
        let part = (begun.as_nanos() / self.part.as_nanos().max(1)) as usize;
        if let Some(count) = self.parts[kind as usize].get_mut(part) {
            *count += 1;
        }
        self.latencies[kind as usize].saturating_record(took.as_nanos() as u64);
    }

    /// Adds what another did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.torn += other.counts.torn;
        self.counts.second_reads += other.counts.second_reads;
        self.counts.asked += other.counts.asked;
        self.absent += other.absent;
        self.losses += other.losses;
        for kind in [Kind::Get as usize, Kind::Put as usize] {
            self.parts[kind].iter_mut().zip(&other.parts[kind]).for_each(|(sum, more)| *sum += more);
            self.latencies[kind].add(&other.latencies[kind]).expect("of the same bounds");
        }
    }
}
