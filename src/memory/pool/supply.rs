//! Where blocks come from when no idle one is at hand: slabs, which are mapped, cut and given back here.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Budget, Class, IdleBlock, PoolOptions, Reservoir, thread_number};
use crate::Result;
use crate::memory::Slab;
use crate::memory::mapping::{HUGE_PAGE, Pages};

/// A class starts with as little as this, so that a program that needs little pins little.
const FIRST_SLAB: usize = 64 << 10;
/// The same where each slab is a file that peers map: few of them.
const FIRST_SHAREABLE: usize = 1 << 20;
/// Each slab of a class is twice the one before, up to this, unless [`largest_slab`] says less: few registrations, and little
/// that is never used.
const LARGEST_SLAB: usize = 16 << 20;
/// So many fresh blocks are cut at once.
const BATCH: usize = 32;

/// The slabs of a pool. Used by one thread at a time, the one that has found no idle block.
pub(super) struct Supply {
    options: PoolOptions,
    budget: Arc<Budget>,
    reservoir: &'static Reservoir,
    first: usize,
    largest: usize,
    classes: Vec<Slabs>,
}

struct Slabs {
    slabs: Vec<Cut>,
    /// What the next slab should have.
    next: usize,
}

/// A slab and how far it is cut.
struct Cut {
    slab: Arc<Slab>,
    cut: usize,
    blocks: usize,
}

/// From this size on a block that lies in another thread's cache is taken before the pool grows.
const STEAL_FIRST: usize = 1 << 20;

impl Supply {
    pub(super) fn new(options: PoolOptions, budget: Arc<Budget>, reservoir: &'static Reservoir) -> Self {
        let (first, largest) = match options.is_shareable() {
            true => (FIRST_SHAREABLE, LARGEST_SLAB),
            false => (FIRST_SLAB, largest_slab()),
        };
        let classes = Class::all().map(|_| Slabs { slabs: Vec::new(), next: first }).collect();
        Self { options, budget, reservoir, first, largest, classes }
    }

    /// A block of `class`, or none if the pool is at its limit.
    ///
    /// # Errors
    /// If the system has no memory, and no idle block is found elsewhere.
    pub(super) fn block(&mut self, class: Class) -> Result<Option<IdleBlock>> {
        // Another thread may have made some while this one waited for its turn.
        if let Some(block) = self.reservoir.take(class).or_else(|| self.carve(class)) {
            return Ok(Some(block));
        }
        // A large one is better taken from another thread's cache than mapped anew.
        if class.size() >= STEAL_FIRST
            && let Some(block) = self.reservoir.depot.steal(thread_number(), class)
        {
            return Ok(Some(block));
        }
        let mut failure = match self.grow(class) {
            Ok(true) => return Ok(self.carve(class)),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if let Some(block) = self.reservoir.depot.steal(thread_number(), class) {
            return Ok(Some(block));
        }
        for other in Class::all().rev().filter(|&other| other != class) {
            if self.give_back(other) == 0 {
                continue;
            }
            match self.grow(class) {
                Ok(true) => return Ok(self.carve(class)),
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// A slab of its own of `length` bytes, or none if the pool is at its limit.
    ///
    /// # Errors
    /// If the system has no memory.
    pub(super) fn slab_of_its_own(&mut self, length: usize) -> Result<Option<IdleBlock>> {
        let mut others = Class::all().rev();
        loop {
            if let Some(slab) = self.map(length)? {
                let block = IdleBlock::of_slab(slab, Some(self.reservoir));
                self.reservoir.depot.account(thread_number(), block.length() as i64);
                return Ok(Some(block));
            }
            if !others.by_ref().any(|class| self.give_back(class) > 0) {
                return Ok(None);
            }
        }
    }

    /// Unmaps all slabs that are idle, and tells how many bytes they had.
    pub(super) fn trim(&mut self) -> usize {
        Class::all().map(|class| self.give_back(class)).sum()
    }

    /// Cuts blocks from the slabs of `class`, one for the caller and some for later.
    fn carve(&mut self, class: Class) -> Option<IdleBlock> {
        let slabs = &mut self.classes[class.index()].slabs;
        let cut = slabs.iter_mut().find(|cut| cut.cut < cut.blocks)?;
        let count = BATCH.min(cut.blocks - cut.cut);
        let mut fresh = (cut.cut..cut.cut + count).map(|index| {
            #[cfg(test)]
            let index = if super::planted::is(super::planted::Bug::CarvedTwice) { index / 2 } else { index };
            IdleBlock::carve(&cut.slab, self.reservoir, class, index)
        });
        let first = fresh.next();
        self.reservoir.depot.supply(class, fresh);
        cut.cut += count;
        self.reservoir.depot.account(thread_number(), class.size() as i64);
        first
    }

    /// Maps another slab for `class`, if the limit leaves room for one block.
    fn grow(&mut self, class: Class) -> Result<bool> {
        let size = class.size();
        let next = &self.classes[class.index()].next;
        let granule = self.options.granule();
        let room = self.budget.left() / granule * granule;
        let blocks = (next / size).max(1).min(room / size);
        if blocks == 0 {
            return Ok(false);
        }
        let Some(slab) = self.map(blocks * size)? else { return Ok(false) };
        let blocks = slab.mapping().length() / size;
        let slabs = &mut self.classes[class.index()];
        slabs.next = (slabs.next * 2).min(self.largest);
        slabs.slabs.push(Cut { slab, cut: 0, blocks });
        Ok(true)
    }

    /// Maps a slab of at least `length` bytes, or nothing if the limit has no room for it.
    fn map(&self, length: usize) -> Result<Option<Arc<Slab>>> {
        let mut result = Ok(None);
        for &pages in self.options.pages() {
            let granule = if pages == Pages::Huge { HUGE_PAGE } else { self.options.granule() };
            let Some(length) = length.checked_next_multiple_of(granule) else { continue };
            let Some(room) = self.budget.reserve(length) else { continue };
            match Slab::in_room(length, pages, room) {
                Ok(slab) => return Ok(Some(slab)),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Unmaps the slabs of `class` that nothing is in use of, and tells how many bytes they had.
    fn give_back(&mut self, class: Class) -> usize {
        let slabs = &mut self.classes[class.index()];
        if slabs.slabs.is_empty() {
            return 0;
        }
        let mut idle = HashMap::<_, Vec<IdleBlock>>::new();
        for block in self.reservoir.depot.drain(class) {
            idle.entry(Arc::as_ptr(block.slab())).or_default().push(block);
        }
        let mut bytes = 0;
        slabs.slabs.retain(|cut| {
            let all = idle.get(&Arc::as_ptr(&cut.slab)).map_or(0, Vec::len) == cut.cut;
            if all {
                bytes += cut.slab.mapping().length();
                // Unregistered and unmapped with the last block.
                idle.remove(&Arc::as_ptr(&cut.slab));
            }
            !all
        });
        if slabs.slabs.is_empty() {
            slabs.next = self.first;
        }
        self.reservoir.depot.supply(class, idle.into_values().flatten());
        bytes
    }
}

/// What an allocation of `length` bytes takes of the limit at least.
pub(super) fn least(options: &PoolOptions, class: Option<Class>, length: usize) -> Option<usize> {
    match class {
        Some(class) => Some(options.least(class)),
        None => length.checked_next_multiple_of(options.granule()),
    }
}

/// Small where little can be locked: a slab is pinned whole, and one too large would fail where smaller ones fit.
fn largest_slab() -> usize {
    use rustix::process::{Resource, geteuid, getrlimit};
    match getrlimit(Resource::Memlock).current {
        // Root is not bound by it.
        Some(bytes) if !geteuid().is_root() => ((bytes / 8) as usize).clamp(FIRST_SLAB, LARGEST_SLAB),
        _ => LARGEST_SLAB,
    }
}
