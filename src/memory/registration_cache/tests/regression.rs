//! Each promise on its own.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::super::index::QUIET;
use super::super::{CacheLimits, Lease, RegistrationCache};
use super::arena::{Arena, PIECE};
use crate::memory::fake_domain::{FakeDomain, Faults};
use crate::memory::{Access, Owners, RegionAccess, SharedMemory};
use crate::{ErrorKind, Result};

const READ: RegionAccess = RegionAccess::LocalRead;
const REMOTE: RegionAccess = RegionAccess::Remote { access: Access::READ, on_demand: false };
const PLENTY: CacheLimits = CacheLimits { bytes: 1 << 30, entries: 1000 };

struct Setting {
    domain: Arc<FakeDomain>,
    cache: RegistrationCache,
}

impl Setting {
    fn new(limits: CacheLimits) -> Self {
        Self { domain: Arc::new(FakeDomain::new()), cache: RegistrationCache::without_timer(limits) }
    }

    fn get(&self, memory: &SharedMemory, range: std::ops::Range<usize>, access: RegionAccess) -> Result<Lease> {
        self.cache.get(memory, range, &*self.domain, access)
    }

    fn key(&self, memory: &SharedMemory) -> u32 {
        self.get(memory, 0..memory.len(), READ).expect("a lease").local_key()
    }
}

fn memory(length: usize) -> SharedMemory {
    SharedMemory::from(vec![1; length])
}

#[test]
fn a_range_that_is_contained_is_a_hit() {
    let setting = Setting::new(PLENTY);
    let memory = memory(100_000);
    let key = setting.key(&memory);
    for range in [0..1, 5000..70_000, 99_999..100_000, 0..100_000] {
        assert_eq!(setting.get(&memory, range, READ).expect("a hit").local_key(), key);
    }
    let statistics = setting.cache.statistics();
    assert_eq!((statistics.hits, statistics.misses, statistics.entries), (4, 1, 1));
    let error = setting.get(&memory, 0..100_001, READ).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::OutOfBounds);
    let error = setting.get(&memory, 0..1, RegionAccess::Local).expect_err("it would be written");
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
}

#[test]
fn an_unmapped_and_remapped_range_is_registered_anew() {
    let (setting, arena) = (Setting::new(PLENTY), Arena::new());
    let first = SharedMemory::from_owner(arena.map(0, 1).expect("free"));
    let (key, address) = (setting.key(&first), first.as_ptr());
    drop(first);
    assert!(arena.map(0, 2).is_none(), "the cache owns it: its addresses are taken");
    setting.cache.sweep();
    let second = SharedMemory::from_owner(arena.map(0, 2).expect("free"));
    assert_eq!(second.as_ptr(), address);
    let lease = setting.get(&second, 0..PIECE, READ).expect("registers");
    assert_ne!(lease.local_key(), key);
    let seen = setting.domain.dma_read(lease.local_key(), address.addr(), PIECE).expect("live");
    assert_eq!(seen, second[..]);
}

#[test]
fn overlapping_ranges_with_other_access_are_apart() {
    let setting = Setting::new(PLENTY);
    let memory = memory(40_000);
    let read = setting.get(&memory, 0..30_000, READ).expect("registers");
    let remote = setting.get(&memory, 10_000..20_000, REMOTE).expect("registers");
    let beyond = setting.get(&memory, 20_000..40_000, READ).expect("registers");
    assert_eq!(setting.domain.live(), 3);
    assert_eq!(setting.get(&memory, 12_000..20_000, REMOTE).expect("a hit").local_key(), remote.local_key());
    assert_eq!(setting.get(&memory, 12_000..20_000, READ).expect("a hit").local_key(), read.local_key());
    assert_eq!(setting.get(&memory, 30_000..40_000, READ).expect("a hit").local_key(), beyond.local_key());
    // Both together contain it, neither alone does.
    let across = setting.get(&memory, 15_000..35_000, READ).expect("registers");
    assert_eq!((setting.domain.live(), setting.cache.statistics().misses), (4, 4));
    assert!(across.is_cached());
}

#[test]
fn a_range_that_contains_others_takes_their_place() {
    let setting = Setting::new(PLENTY);
    let memory = memory(40_000);
    let used = setting.get(&memory, 10_000..20_000, READ).expect("registers");
    drop(setting.get(&memory, 20_000..30_000, READ).expect("registers"));
    let whole = setting.get(&memory, 0..40_000, READ).expect("registers");
    assert_eq!(setting.domain.live(), 2, "the idle one is gone");
    setting.domain.dma_read(used.local_key(), memory.as_ptr().addr() + 10_000, 10_000).expect("it is in use");
    assert_eq!(setting.get(&memory, 10_000..20_000, READ).expect("a hit").local_key(), whole.local_key());
    drop(used);
    assert_eq!((setting.domain.live(), setting.cache.statistics().entries), (1, 1));
}

#[test]
fn eviction_passes_over_what_is_in_flight() {
    let setting = Setting::new(CacheLimits { bytes: 1 << 30, entries: 2 });
    let [first, second, third] = [5000; 3].map(memory);
    let in_flight = setting.get(&first, 0..5000, READ).expect("registers");
    let key = setting.key(&second);
    setting.key(&third);
    assert!(setting.domain.region(key).is_none(), "the idle one went");
    setting.domain.dma_read(in_flight.local_key(), first.as_ptr().addr(), 5000).expect("the one in use did not");
    let also = setting.get(&third, 0..5000, READ).expect("a hit");
    let more = setting.get(&second, 0..5000, READ).expect("registers");
    assert!(also.is_cached() && !more.is_cached(), "there is no room");
    assert_eq!((setting.domain.live_bytes(), setting.cache.statistics().uncached), (15_000, 1));
    drop(more);
    assert_eq!(setting.domain.live(), 2);
}

#[test]
fn the_least_recently_used_goes_first() {
    let setting = Setting::new(CacheLimits { bytes: 1 << 30, entries: 100 });
    let memories: Vec<_> = (0..100).map(|_| memory(100)).collect();
    let keys: Vec<u32> = memories.iter().map(|memory| setting.key(memory)).collect();
    // A use a thread and a use here, so that the order is that of both.
    for memory in memories.iter().step_by(2).rev() {
        setting.cache.core.next_period();
        std::thread::scope(|scope| scope.spawn(|| setting.key(memory)).join()).expect("a hit");
    }
    let expected = (1..100).step_by(2).chain((0..100).step_by(2).rev());
    let mut newer = Vec::new();
    for (round, oldest) in expected.enumerate() {
        assert!(setting.domain.region(keys[oldest]).is_some(), "round {round}: {oldest} went too early");
        newer.push(memory(200));
        setting.key(&newer[round]);
        assert!(setting.domain.region(keys[oldest]).is_none(), "round {round}: {oldest} should have gone");
    }
    assert_eq!(setting.cache.statistics().entries, 100);
}

#[test]
fn what_is_larger_than_the_cache_evicts_nothing() {
    let setting = Setting::new(CacheLimits { bytes: 100_000, entries: 10 });
    let small = memory(5000);
    let key = setting.key(&small);
    assert!(!setting.get(&memory(200_000), 0..200_000, READ).expect("registers").is_cached());
    assert_eq!((setting.key(&small), setting.domain.live()), (key, 1));
}

#[test]
fn the_cache_can_be_disabled_and_dropped_during_an_abort() {
    let setting = Setting::new(PLENTY);
    let (used, idle) = (memory(9000), memory(100));
    setting.key(&idle);
    let in_flight = setting.get(&used, 0..9000, READ).expect("registers");
    setting.cache.disable();
    assert_eq!(setting.domain.live(), 1, "the idle one is gone");
    let again = setting.get(&used, 0..9000, READ).expect("registers");
    assert!(!again.is_cached() && again.local_key() != in_flight.local_key());
    drop(again);
    let Setting { domain, cache } = setting;
    drop(cache);
    domain.dma_read(in_flight.local_key(), used.as_ptr().addr(), 9000).expect("the lease is valid");
    drop(in_flight);
    assert_eq!(domain.live(), 0);
    assert!(matches!(used.owners(), Owners::Counted { owners: 1, .. }), "the owner was let go");
}

#[test]
fn nothing_of_zero_length_is_registered() {
    let setting = Setting::new(PLENTY);
    let lease = setting.get(&memory(0), 0..0, READ).expect("nothing to do");
    assert_eq!(lease.local_key(), 0);
    assert_eq!(setting.get(&memory(10), 4..4, READ).expect("nothing to do").local_key(), 0);
    assert_eq!((setting.domain.registered(), setting.cache.statistics().misses), (0, 0));
}

#[test]
fn threads_that_want_the_same_range_at_once_register_it_once() {
    let setting = Setting::new(PLENTY);
    setting.domain.set_faults(Faults { slowness: Duration::from_millis(30), ..Faults::default() });
    let memory = memory(50_000);
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for part in 0..4usize {
            let (setting, memory, barrier) = (&setting, &memory, &barrier);
            scope.spawn(move || {
                barrier.wait();
                // The first wants all of it, the others wait for it even if they want less.
                std::thread::sleep(Duration::from_millis(5 * part as u64));
                drop(setting.get(memory, part * 100..50_000, READ).expect("a lease"));
            });
        }
    });
    assert_eq!((setting.domain.registered(), setting.cache.statistics().hits), (1, 3));
}

#[test]
fn who_waited_in_vain_tries_for_itself() {
    let setting = Setting::new(PLENTY);
    // The first thread's two attempts.
    setting.domain.set_faults(Faults { slowness: Duration::from_millis(20), refuse: 2, ..Faults::default() });
    let (memory, barrier) = (memory(50_000), Barrier::new(2));
    let leases = std::thread::scope(|scope| {
        let running = [0, 5].map(|pause| {
            let (setting, memory, barrier) = (&setting, &memory, &barrier);
            scope.spawn(move || {
                barrier.wait();
                std::thread::sleep(Duration::from_millis(pause));
                setting.get(memory, 0..50_000, READ).map(|lease| lease.local_key())
            })
        });
        running.map(|thread| thread.join().expect("no panic"))
    });
    assert_eq!(leases[0].as_ref().map_err(|error| error.kind()), Err(ErrorKind::MemoryLimit));
    assert!(leases[1].is_ok());
}

#[test]
fn want_of_memory_flushes_what_is_idle_and_tries_again() {
    let setting = Setting::new(PLENTY);
    let [idle, used, wanted] = [20_000; 3].map(memory);
    setting.key(&idle);
    let used = setting.get(&used, 0..20_000, READ).expect("registers");
    setting.domain.set_faults(Faults { byte_limit: 45_000, ..Faults::default() });
    let lease = setting.get(&wanted, 0..20_000, READ).expect("registers once the idle one is gone");
    assert_eq!((setting.domain.live(), setting.cache.statistics().evictions), (2, 1));
    let error = setting.get(&idle, 0..20_000, READ).expect_err("everything is in use");
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    assert_eq!(setting.cache.statistics().entries, 2, "what failed takes no room");
    drop((used, lease));
    setting.domain.set_faults(Faults { refuse: 1, ..Faults::default() });
    setting.key(&idle);
}

#[test]
fn memory_that_cannot_be_deregistered_is_never_given_back() {
    let (setting, arena) = (Setting::new(PLENTY), Arena::new());
    let memory = SharedMemory::from_owner(arena.map(3, 1).expect("free"));
    setting.key(&memory);
    drop(memory);
    setting.domain.set_faults(Faults { stuck: 1, ..Faults::default() });
    setting.cache.flush();
    let statistics = setting.cache.statistics();
    assert_eq!((statistics.quarantined, statistics.entries, statistics.bytes), (1, 0, 0));
    drop(setting);
    assert!(arena.map(3, 2).is_none(), "the device may still reach it");
}

#[test]
fn several_entries_of_one_owner_do_not_keep_it_alive() {
    let setting = Setting::new(PLENTY);
    let owner = Arc::new(vec![0; 9000]);
    let memory = SharedMemory::from(Arc::clone(&owner));
    let in_flight = setting.get(&memory, 0..3000, READ).expect("registers");
    drop(setting.get(&memory, 3000..6000, READ).expect("registers"));
    drop(setting.get(&memory.slice(5000..), 0..4000, REMOTE).expect("registers"));
    drop(memory);
    setting.cache.sweep();
    assert_eq!(setting.domain.live(), 3, "we own it too");
    drop(owner);
    setting.cache.sweep();
    assert_eq!(setting.domain.live(), 1);
    drop(in_flight);
    setting.cache.sweep();
    assert_eq!(setting.domain.live(), 0);
}

#[test]
fn what_perhaps_nobody_owns_goes_when_it_is_not_used() {
    let setting = Setting::new(PLENTY);
    let bytes = bytes::Bytes::from(vec![0; 9000]);
    let [first, second] = [0..4000, 4000..9000].map(|range| SharedMemory::from(bytes.slice(range)));
    setting.key(&first);
    setting.key(&second);
    drop(bytes);
    let begun = Instant::now();
    setting.cache.core.sweep(begun + QUIET / 2);
    setting.key(&first);
    setting.cache.core.sweep(begun + QUIET * 9 / 10);
    setting.cache.core.sweep(begun + QUIET * 3 / 2);
    let statistics = setting.cache.statistics();
    assert_eq!((statistics.entries, statistics.dropped, statistics.hits), (1, 1, 1));
    drop(second);
    drop(first);
    setting.cache.sweep();
    assert_eq!(setting.domain.live(), 0, "nobody else owns it, for certain");
}

#[test]
fn the_timer_drops_what_nobody_else_owns_and_then_stops() {
    let domain = FakeDomain::new();
    let cache = RegistrationCache::new(PLENTY);
    let (kept, gone) = (memory(100), memory(100));
    for memory in [&kept, &gone] {
        drop(cache.get(memory, 0..100, &domain, READ).expect("registers"));
    }
    drop(gone);
    let wait_for = |entries: usize| {
        let begun = Instant::now();
        while cache.statistics().entries != entries {
            assert!(begun.elapsed() < Duration::from_secs(10), "still {:?}", cache.statistics());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for(1);
    assert!(cache.core.lock().sweeping);
    drop(kept);
    wait_for(0);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!cache.core.lock().sweeping, "there is nothing to look after");
    assert_eq!((domain.live(), cache.statistics().dropped), (0, 2));
}

#[test]
fn an_owner_that_uses_the_cache_while_it_is_dropped_blocks_nothing() {
    struct Nested(Vec<u8>, Arc<Setting>);
    impl AsRef<[u8]> for Nested {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Nested {
        fn drop(&mut self) {
            self.1.key(&memory(300));
            self.1.cache.flush();
        }
    }
    let setting = Arc::new(Setting::new(PLENTY));
    setting.key(&SharedMemory::from_owner(Nested(vec![0; 99], Arc::clone(&setting))));
    setting.cache.sweep();
    assert_eq!((setting.domain.live(), Arc::strong_count(&setting)), (0, 1));
}

/// What is evicted for a registration has an owner that, while it is dropped, wants the very same one.
#[test]
fn an_evicted_owner_that_wants_what_is_being_registered_waits_for_nobody() {
    struct Wanting(Vec<u8>, SharedMemory, Arc<Setting>);
    impl AsRef<[u8]> for Wanting {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Wanting {
        fn drop(&mut self) {
            self.2.key(&self.1);
        }
    }
    let setting = Arc::new(Setting::new(CacheLimits { bytes: usize::MAX, entries: 1 }));
    let header = memory(500);
    let owner = SharedMemory::from_owner(Wanting(vec![0; 99], header.clone(), Arc::clone(&setting)));
    setting.key(&owner);
    // The cache's token is the last.
    drop(owner);
    let (done, ended) = std::sync::mpsc::channel();
    let other = Arc::clone(&setting);
    let wanted = header.clone();
    std::thread::spawn(move || done.send(other.key(&wanted)));
    ended.recv_timeout(Duration::from_secs(20)).expect("it waits for itself");
    // The same where there is no room on the device.
    let owner = SharedMemory::from_owner(Wanting(vec![0; 99], header.clone(), Arc::clone(&setting)));
    setting.key(&owner);
    drop(owner);
    setting.domain.set_faults(Faults { refuse: 1, ..Faults::default() });
    let other = Arc::clone(&setting);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(other.key(&header)));
    ended.recv_timeout(Duration::from_secs(20)).expect("it waits for itself");
}

#[test]
fn many_threads_use_few_entries_in_little_room() {
    let setting = Setting::new(CacheLimits { bytes: 1 << 20, entries: 8 });
    let memories: Vec<_> = (0..24).map(|number| SharedMemory::from(vec![number as u8; 6000])).collect();
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (setting, memories) = (&setting, &memories);
            scope.spawn(move || {
                for round in 0..3000usize {
                    let memory = &memories[(round * (thread + 1) * 7 + round / 5) % memories.len()];
                    let lease = setting.get(memory, 10..5000, READ).expect("a lease");
                    let seen = setting.domain.dma_read(lease.local_key(), memory.as_ptr().addr() + 10, 4990);
                    assert_eq!(seen.expect("live")[..], memory[10..5000]);
                    if round % 500 == 0 {
                        setting.cache.flush();
                    }
                }
            });
        }
    });
    let statistics = setting.cache.statistics();
    assert_eq!((statistics.hits + statistics.misses, statistics.entries), (12_000, setting.domain.live()));
    assert!(statistics.entries <= 8);
    drop(setting.cache);
    assert_eq!(setting.domain.live(), 0);
}
