//! Many entries, however they lie, are found without looking at all of them.

use std::time::{Duration, Instant};

use super::super::{CacheLimits, RegistrationCache};
use crate::memory::fake_domain::FakeDomain;
use crate::memory::{RegionAccess, SharedMemory};

const LIMITS: CacheLimits = CacheLimits { bytes: usize::MAX, entries: usize::MAX };
const ACCESS: RegionAccess = RegionAccess::LocalRead;

/// Registers `ranges`, and looks all of them up again without the hints' or the index' help being needed for long.
fn all_are_found(ranges: impl Iterator<Item = (usize, usize)> + Clone, bytes: usize) {
    let (domain, cache) = (FakeDomain::without_snapshots(), RegistrationCache::without_timer(LIMITS));
    let memory = SharedMemory::from(vec![0; bytes]);
    let keys: Vec<u32> = ranges
        .clone()
        .map(|(start, length)| {
            cache.get(&memory, start..start + length, &domain, ACCESS).expect("registers").local_key()
        })
        .collect();
    let registered = domain.registered();
    assert_eq!(registered, keys.len() as u64);
    let begun = Instant::now();
    for ((start, length), key) in ranges.zip(&keys) {
        let lease = cache.get(&memory, start..start + length, &domain, ACCESS).expect("a hit");
        assert_eq!(lease.local_key(), *key);
    }
    assert_eq!(domain.registered(), registered);
    let each = begun.elapsed() / keys.len() as u32;
    assert!(each < Duration::from_micros(50), "{each:?} a lookup");
}

#[test]
fn twenty_thousand_ranges_that_all_overlap() {
    all_are_found((0..20_000).map(|start| (start, 40_000)), 60_000);
}

#[test]
fn twenty_thousand_ranges_of_all_lengths() {
    let starts = (0..20_000usize).map(|number| (number * 7000, 1 + (number * 7919) % 7000));
    all_are_found(starts, 20_000 * 7000);
}
