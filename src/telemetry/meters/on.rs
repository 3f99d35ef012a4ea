//! What is counted, by the connections of one device and by the process.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Count, Durations, Event, Phase, Refused};
use crate::{CacheStatistics, Error, ErrorKind};

const COUNTS: usize = Count::ALL.len();

/// What one connection has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    counts: [u64; COUNTS],
    /// What of that its device's meters have.
    taken: [u64; COUNTS],
    /// Messages in the frame that is being filled.
    in_frame: u32,
}

impl Tally {
    #[inline]
    pub(crate) fn add(&mut self, count: Count, more: u64) {
        let counted = &mut self.counts[count as usize];
        *counted = counted.wrapping_add(more);
    }

    /// A message was put into the open frame.
    #[inline]
    pub(crate) fn message_in_frame(&mut self) {
        self.in_frame += 1;
        self.add(Count::FramesCoalesced, u64::from(self.in_frame == 2));
    }

    /// The frame was posted.
    #[inline]
    pub(crate) fn frame_sent(&mut self) {
        self.in_frame = 0;
        self.add(Count::FramesSent, 1);
    }

    /// What there is more than none of.
    pub(crate) fn named(&self) -> BTreeMap<String, u64> {
        let name = |(name, label): (&str, Option<(&str, &str)>)| match label {
            Some((label, value)) => format!("{name}{{{label}=\"{value}\"}}"),
            None => name.to_owned(),
        };
        Count::ALL.into_iter().map(name).zip(self.counts).filter(|(_, count)| *count > 0).collect()
    }

    pub(crate) fn counts(&self) -> &[u64; COUNTS] {
        &self.counts
    }
}

/// What all connections of a device have counted, also those that are gone; it lives as long as the process.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) transport: &'static str,
    pub(crate) device: String,
    counts: [AtomicU64; COUNTS],
    pub(crate) durations: [Durations; Phase::ALL.len()],
    pub(crate) events: [AtomicU64; 2],
    pub(crate) refusals: [AtomicU64; Refused::ALL.len()],
    /// By phase and kind of error: what has failed; connections that ended have no phase.
    failures: Mutex<BTreeMap<(Option<usize>, String), u64>>,
    caches: Mutex<CacheCounts>,
}

/// What registration caches have counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct CacheCounts {
    /// Of each cache, what it had counted when it was looked at.
    known: BTreeMap<usize, CacheStatistics>,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) uncached: u64,
    pub(crate) evictions: u64,
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

static ALL: Mutex<Vec<Arc<Meters>>> = Mutex::new(Vec::new());

impl Meters {
    /// Those of a device.
    pub(crate) fn of(transport: &'static str, device: &str) -> Arc<Self> {
        let mut all = lock(&ALL);
        if let Some(known) = all.iter().find(|meters| meters.transport == transport && meters.device == device) {
            return Arc::clone(known);
        }
        let made = Arc::new(Self {
            transport,
            device: device.to_owned(),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            durations: Default::default(),
            events: Default::default(),
            refusals: Default::default(),
            failures: Mutex::default(),
            caches: Mutex::default(),
        });
        all.push(Arc::clone(&made));
        made
    }

    /// Those of what belongs to no device.
    pub(crate) fn of_process() -> Arc<Self> {
        Self::of("", "")
    }

    pub(crate) fn all() -> Vec<Arc<Self>> {
        lock(&ALL).clone()
    }

    /// Takes what a connection has counted since the last time.
    pub(crate) fn take(&self, tally: &mut Tally) {
        for (index, total) in self.counts.iter().enumerate() {
            let more = tally.counts[index].wrapping_sub(tally.taken[index]);
            if more > 0 {
                total.fetch_add(more, Ordering::Relaxed);
            }
        }
        tally.taken = tally.counts;
    }

    pub(crate) fn counts(&self) -> [u64; COUNTS] {
        std::array::from_fn(|index| self.counts[index].load(Ordering::Relaxed))
    }

    pub(crate) fn happened(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, kind: ErrorKind) {
        self.count_failure(None, kind);
    }

    pub(crate) fn failed(&self, phase: Phase, error: &Error) {
        self.count_failure(Some(phase as usize), error.kind());
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.refusals[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn count_failure(&self, phase: Option<usize>, kind: impl Debug) {
        // There are as many as there are kinds.
        *lock(&self.failures).entry((phase, format!("{kind:?}"))).or_default() += 1;
    }

    pub(crate) fn failures(&self) -> BTreeMap<(Option<usize>, String), u64> {
        lock(&self.failures).clone()
    }

    /// Takes what the caches of the device have counted; each has its number.
    pub(crate) fn caches(&self, caches: &BTreeMap<usize, CacheStatistics>) -> CacheCounts {
        let mut counts = lock(&self.caches);
        (counts.entries, counts.bytes) = (0, 0);
        for (number, now) in caches {
            let before = counts.known.get(number).copied().unwrap_or_default();
            counts.hits += now.hits.saturating_sub(before.hits);
            counts.misses += now.misses.saturating_sub(before.misses);
            counts.uncached += now.uncached.saturating_sub(before.uncached);
            counts.evictions += now.evictions.saturating_sub(before.evictions);
            counts.entries += now.entries;
            counts.bytes += now.bytes;
        }
        counts.known = caches.clone();
        counts.clone()
    }
}

/// Times one thing.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<(Instant, Arc<Meters>, Phase)>);

impl Timer {
    pub(crate) fn begin(meters: &Arc<Meters>, phase: Phase) -> Self {
        Self(Some((Instant::now(), Arc::clone(meters), phase)))
    }

    /// It has ended well. What fails is not timed.
    pub(crate) fn end(&mut self) {
        if let Some((begun, meters, phase)) = self.0.take() {
            meters.durations[phase as usize].record(begun.elapsed());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_taken_once_and_goes_on() {
        let meters = Meters::of("test", "a_tally_is_taken_once");
        let mut tally = Tally::default();
        tally.add(Count::MessagesSent, 3);
        meters.take(&mut tally);
        meters.take(&mut tally);
        tally.add(Count::MessagesSent, 4);
        for _ in 0..3 {
            tally.message_in_frame();
        }
        tally.frame_sent();
        tally.message_in_frame();
        tally.frame_sent();
        meters.take(&mut tally);
        let count = |count| meters.counts()[count as usize];
        assert_eq!((count(Count::MessagesSent), tally.counts()[Count::MessagesSent as usize]), (7, 7));
        assert_eq!((count(Count::FramesCoalesced), count(Count::FramesSent)), (1, 2));
    }

    #[test]
    fn a_cache_that_comes_after_another_counts_from_the_beginning() {
        let meters = Meters::of("test", "a_cache_that_comes");
        let cache =
            |number, hits| BTreeMap::from([(number, CacheStatistics { hits, bytes: 5, ..CacheStatistics::default() })]);
        assert_eq!(meters.caches(&cache(1, 10)).hits, 10);
        assert_eq!(meters.caches(&cache(1, 12)).hits, 12);
        let after = meters.caches(&cache(2, 3));
        assert_eq!((after.hits, after.bytes), (15, 5));
    }
}
