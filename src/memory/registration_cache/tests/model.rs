//! A cache under random steps, and what must be true after each.

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::{CacheLimits, Lease, RegistrationCache};
use super::arena::{Arena, PIECE, Piece, SLOTS};
use crate::ErrorKind;
use crate::memory::fake_domain::{FakeDomain, Faults};
use crate::memory::{Access, RegionAccess, SharedMemory};

/// Something that a program or a device does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A token more of the memory at a slot, which is mapped anew if none is left.
    Map {
        slot: usize,
    },
    /// Lets all our tokens of a slot go.
    Drop {
        slot: usize,
    },
    Get {
        slot: usize,
        start: usize,
        length: usize,
        access: usize,
    },
    /// Ends one of the leases.
    End {
        lease: usize,
    },
    Flush,
    Sweep,
    Limit {
        pages: usize,
        entries: usize,
    },
    Disable,
    /// The device has no memory, so many times.
    Refuse {
        times: usize,
    },
    /// The device has so little memory.
    Shrink {
        pages: usize,
    },
    /// The device does not let go, once.
    Stick,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slot = || 0..SLOTS;
    // Few places, so that ranges are the same, contain each other and overlap.
    let place = || prop_oneof![3 => (0..16usize).prop_map(|part| part * PIECE / 16), 1 => 0..PIECE];
    let get = || {
        (slot(), place(), place(), 0..ACCESSES.len()).prop_map(|(slot, start, length, access)| Step::Get {
            slot,
            start,
            length: length.min(PIECE - start),
            access,
        })
    };
    let step = prop_oneof![
        8 => slot().prop_map(|slot| Step::Map { slot }),
        8 => slot().prop_map(|slot| Step::Drop { slot }),
        30 => get(),
        20 => (0..8usize).prop_map(|lease| Step::End { lease }),
        1 => Just(Step::Flush),
        3 => Just(Step::Sweep),
        2 => (1..24usize, 1..10usize).prop_map(|(pages, entries)| Step::Limit { pages, entries }),
        1 => Just(Step::Disable),
        1 => (1..3usize).prop_map(|times| Step::Refuse { times }),
        1 => (0..12usize).prop_map(|pages| Step::Shrink { pages }),
        1 => Just(Step::Stick),
    ];
    proptest::collection::vec(step, 1..120)
}

const ACCESSES: [RegionAccess; 2] =
    [RegionAccess::LocalRead, RegionAccess::Remote { access: Access::READ, on_demand: false }];
const PAGE: usize = 4096;

/// The cache, all that surrounds it, and what is known about it.
pub(super) struct World {
    arena: Arc<Arena>,
    domain: FakeDomain,
    cache: RegistrationCache,
    limits: CacheLimits,
    /// Leases that were there when the limits were lowered may be beyond them.
    lowered: bool,
    tokens: Vec<Vec<SharedMemory>>,
    leases: Vec<Held>,
    seed: u64,
}

/// A lease, and what it is to give access to.
struct Held {
    lease: Lease,
    slot: usize,
    range: Range<usize>,
    access: RegionAccess,
    address: usize,
    bytes: Vec<u8>,
}

/// What is wrong.
type Verdict = Result<(), String>;

impl World {
    pub(super) fn new() -> Self {
        let limits = CacheLimits { bytes: 12 * PAGE, entries: 5 };
        Self {
            arena: Arena::new(),
            domain: FakeDomain::new(),
            cache: RegistrationCache::without_timer(limits),
            limits,
            lowered: false,
            tokens: vec![Vec::new(); SLOTS],
            leases: Vec::new(),
            seed: 0,
        }
    }

    /// Runs `steps`, then ends everything; the first thing that is wrong is the answer.
    pub(super) fn run(steps: &[Step]) -> Verdict {
        let mut world = Self::new();
        for (number, step) in steps.iter().enumerate() {
            let done = world.step(step).and_then(|()| world.check());
            done.map_err(|wrong| format!("step {number}, {step:?}: {wrong}"))?;
        }
        world.end()
    }

    fn step(&mut self, step: &Step) -> Verdict {
        match *step {
            Step::Map { slot } => self.map(slot),
            Step::Drop { slot } => self.tokens[slot].clear(),
            Step::Get { slot, start, length, access } => {
                return self.get(slot, start..start + length, ACCESSES[access]);
            }
            Step::End { lease } if lease < self.leases.len() => drop(self.leases.swap_remove(lease)),
            Step::End { .. } => {}
            Step::Flush => self.cache.flush(),
            Step::Sweep => return self.sweep(),
            Step::Limit { pages, entries } => self.limit(CacheLimits { bytes: pages * PAGE, entries }),
            Step::Disable => self.limit(CacheLimits::NONE),
            Step::Refuse { times } => self.domain.set_faults(Faults { refuse: times, ..self.domain.faults() }),
            Step::Shrink { pages } => {
                self.domain.set_faults(Faults { byte_limit: pages * PAGE, ..self.domain.faults() })
            }
            Step::Stick => self.domain.set_faults(Faults { stuck: 1, ..self.domain.faults() }),
        }
        Ok(())
    }

    fn map(&mut self, slot: usize) {
        let token = match self.tokens[slot].first() {
            Some(token) => token.clone(),
            None => {
                self.seed += 1;
                // What the cache or a lease still owns cannot be mapped anew.
                let Some(piece): Option<Piece> = self.arena.map(slot, self.seed) else { return };
                SharedMemory::from_owner(piece)
            }
        };
        self.tokens[slot].push(token);
    }

    fn limit(&mut self, limits: CacheLimits) {
        self.cache.set_limits(limits);
        self.limits = limits;
        self.lowered = true;
    }

    fn get(&mut self, slot: usize, range: Range<usize>, access: RegionAccess) -> Verdict {
        let Some(memory) = self.tokens[slot].first() else { return Ok(()) };
        let before = (self.cache.statistics(), self.domain.registered());
        let faults = self.domain.faults();
        let address = memory.as_ptr().addr() + range.start;
        let lease = match self.cache.get(memory, range.clone(), &self.domain, access) {
            Ok(lease) => lease,
            Err(error) => {
                let excused = error.kind() == ErrorKind::MemoryLimit && (faults.refuse > 1 || faults.byte_limit > 0);
                return if excused { Ok(()) } else { Err(format!("no lease: {error}")) };
            }
        };
        let after = (self.cache.statistics(), self.domain.registered());
        if range.is_empty() {
            return if (lease.local_key(), after) == (0, before) { Ok(()) } else { Err("something of nothing".into()) };
        }
        let hit = after.1 == before.1;
        if hit != (after.0.hits == before.0.hits + 1) || hit == (after.0.misses == before.0.misses + 1) {
            return Err(format!("miscounted: {before:?} {after:?}"));
        }
        let region = self.domain.region(lease.local_key()).ok_or("a key that is not registered")?;
        if region.access != access {
            return Err(format!("access {:?} instead of {access:?}", region.access));
        }
        if !hit && (region.address, region.length) != (address, range.len()) {
            return Err("registered something else than was asked for".into());
        }
        if hit && self.limits.entries == 0 {
            return Err("a hit in a cache that is disabled".into());
        }
        self.leases.push(Held { lease, slot, access, address, bytes: memory[range.clone()].to_vec(), range });
        Ok(())
    }

    /// Sweeps so long that every entry has its turn: then nothing is owned by the cache alone.
    fn sweep(&mut self) -> Verdict {
        self.cache.sweep();
        let used = |slot: usize| !self.tokens[slot].is_empty() || self.leases.iter().any(|held| held.slot == slot);
        // Unless the device has not let go of something for ever.
        if self.domain.quarantined() > 0 {
            return Ok(());
        }
        match (0..SLOTS).find(|&slot| !used(slot) && self.arena.is_taken(slot)) {
            Some(slot) => Err(format!("after a sweep slot {slot} is mapped for nobody")),
            None => Ok(()),
        }
    }

    /// What is true after every step.
    fn check(&mut self) -> Verdict {
        for held in &self.leases {
            let Held { lease, range, access, address, bytes, .. } = held;
            let seen = self.domain.dma_read(lease.local_key(), *address, range.len())?;
            if seen != *bytes {
                return Err(format!("stale bytes at {range:?} for {access:?}"));
            }
        }
        let statistics = self.cache.statistics();
        let uncached = self.leases.iter().filter(|held| !held.lease.is_cached());
        let (live, uncached) = (self.domain.live() - self.domain.quarantined(), uncached.count());
        if statistics.entries != live - uncached {
            return Err(format!("{live} live, {uncached} of them uncached, but {statistics:?}"));
        }
        if statistics.quarantined > self.domain.quarantined() as u64 {
            return Err("more quarantined than did not end".into());
        }
        let within = statistics.entries <= self.limits.entries && statistics.bytes <= self.limits.bytes;
        self.lowered &= !within;
        if !within && !self.lowered {
            return Err(format!("beyond the limits: {statistics:?} of {:?}", self.limits));
        }
        Ok(())
    }

    /// Ends the cache before the leases, and looks for what is left.
    fn end(self) -> Verdict {
        let Self { arena, domain, cache, tokens, leases, .. } = self;
        drop(cache);
        for held in &leases {
            let seen = domain.dma_read(held.lease.local_key(), held.address, held.range.len());
            if seen? != held.bytes {
                return Err("stale bytes after the cache".into());
            }
        }
        drop((leases, tokens));
        if domain.live() != domain.quarantined() {
            return Err(format!("{} registrations are left", domain.live() - domain.quarantined()));
        }
        let left = (0..SLOTS).filter(|&slot| arena.is_taken(slot)).count();
        if left > domain.quarantined() {
            return Err(format!("{left} mappings are left"));
        }
        Ok(())
    }
}
