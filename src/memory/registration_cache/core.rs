//! What a cache and its entries share.

use std::cell::Cell;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Instant;

use super::entry::{Entry, Graves, Quarantined, Record, is_foreign};
use super::hints::{HintWriter, Hints};
use super::index::Index;
use super::pending::Pending;
use super::state::Claim;
use super::wanted::Wanted;
use super::{CacheLimits, CacheStatistics, Lease, slots};
use crate::memory::Epoch;
use crate::service::Service;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::locks::{Mutex, MutexGuard};

/// The cache itself. Registering, deregistering and dropping owners happen without its lock.
pub(super) struct Core {
    pub(super) id: u64,
    pub(super) epoch: Epoch,
    pub(super) this: Weak<Core>,
    /// Counts misses; see [`Recency`](super::entry::Recency).
    pub(super) period: AtomicU64,
    pub(super) hints: Hints,
    /// Whose timer and clock it has; `None` is the process'.
    pub(super) service: Option<Arc<Service>>,
    inner: Mutex<Inner>,
}

/// What the lock guards.
pub(super) struct Inner {
    pub(super) limits: CacheLimits,
    pub(super) index: Index,
    pub(super) pending: Vec<Arc<Pending>>,
    /// What is registered, is being registered and is not yet deregistered: never beyond the limits, but for
    /// leases that were there when the limits were lowered.
    pub(super) charged: Charge,
    pub(super) counts: CacheStatistics,
    /// A timer looks for last owners.
    pub(super) sweeping: bool,
    /// There will be no more entries.
    pub(super) closed: bool,
    writer: HintWriter,
    free: Vec<&'static Entry>,
}

/// Room that registrations take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) bytes: usize,
    pub(super) entries: usize,
}

/// Entries that were taken out of the index and are to be released without the lock.
#[derive(Default)]
pub(super) struct Removed {
    victims: Vec<Victim>,
    pub(super) charge: Charge,
}

struct Victim {
    entry: &'static Entry,
    record: Record,
}

thread_local! {
    /// What this thread hit last, in whichever cache.
    static LAST: Cell<Option<&'static Entry>> = const { Cell::new(None) };
}

impl Core {
    pub(super) fn new(id: u64, limits: CacheLimits, service: Option<Arc<Service>>) -> Arc<Self> {
        let (hints, writer) = Hints::new();
        let inner = Inner {
            limits,
            index: Index::default(),
            pending: Vec::new(),
            charged: Charge::default(),
            counts: CacheStatistics::default(),
            sweeping: false,
            closed: false,
            writer,
            free: Vec::new(),
        };
        Arc::new_cyclic(|this| Self {
            id,
            epoch: Epoch::current(),
            this: Weak::clone(this),
            period: AtomicU64::new(0),
            hints,
            service,
            inner: Mutex::new(inner),
        })
    }

    /// What the time is for its entries.
    pub(super) fn now(&self) -> Instant {
        self.service.as_ref().map_or_else(Instant::now, |service| service.now())
    }

    /// A lease on an entry that contains `wanted`, if one is found without a lock.
    #[inline]
    pub(super) fn hit(&self, wanted: &Wanted) -> Option<Lease> {
        let period = self.period.load(Ordering::Relaxed);
        LAST.with(|last| {
            if let Some(entry) = last.get()
                && let Some(key) = entry.lease(wanted, period)
            {
                return Some(Lease::cached(entry, key));
            }
            self.hints.find(wanted, |entry| {
                let key = entry.lease(wanted, period)?;
                last.set(Some(entry));
                Some(Lease::cached(entry, key))
            })
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a period, under the lock.
    pub(super) fn next_period(&self) -> u64 {
        // The lock orders the writers.
        let period = self.period.load(Ordering::Relaxed) + 1;
        self.period.store(period, Ordering::Relaxed);
        period
    }

    /// Deregisters what was removed, gives its room back, and drops the owners.
    pub(super) fn release(&self, removed: Removed) {
        drop(self.deregister(removed, Charge::default()));
    }

    /// Deregisters what was removed and gives its room back, but for what the caller has a use for: `kept`. The owners are
    /// the caller's to drop, when nobody waits for it: that runs foreign code.
    pub(super) fn deregister(&self, removed: Removed, kept: Charge) -> Graves {
        let mut graves = Graves::default();
        if removed.victims.is_empty() {
            return graves;
        }
        let (mut free, mut quarantined) = (Vec::with_capacity(removed.victims.len()), 0);
        for Victim { entry, record } in removed.victims {
            #[cfg(test)]
            if super::mutation::Mutation::NotDeregistered.is_on() {
                super::mutation::leave_behind(record);
                continue;
            }
            match record.deregister() {
                Ok(owner) => graves.add(owner),
                Err(Quarantined) => quarantined += 1,
            }
            free.push(entry);
        }
        let mut inner = self.lock();
        inner.counts.quarantined += quarantined;
        inner.refund(removed.charge.beyond(kept));
        inner.make_free(free);
        drop(inner);
        graves
    }

    /// The last lease of an entry has ended that is in the index no more.
    pub(super) fn retired(
        &self,
        entry: &'static Entry,
        claim: &Claim,
        pinned: usize,
        released: Result<(), Quarantined>,
    ) {
        let mut inner = self.lock();
        inner.counts.hits += claim.hits;
        inner.counts.quarantined += u64::from(released.is_err());
        inner.refund(Charge { bytes: pinned, entries: 1 });
        inner.make_free([entry]);
    }

    /// Gives up all idle entries, and those in use as soon as they are not if `all`.
    pub(super) fn flush(&self, all: bool) {
        drop(self.flush_registrations(all));
    }

    /// As [`flush`](Self::flush); the owners are the caller's to drop.
    pub(super) fn flush_registrations(&self, all: bool) -> Graves {
        let removed = {
            let mut inner = self.lock();
            let closed = inner.index.close_idle();
            let mut removed = inner.remove(&self.hints, closed);
            inner.counts.evictions += removed.charge.entries as u64;
            if all {
                let entries: Vec<_> = inner.index.entries().collect();
                inner.give_up(&self.hints, entries, &mut removed);
            }
            removed
        };
        self.deregister(removed, Charge::default())
    }

    /// Evicts until the limits are kept, as far as entries are idle.
    pub(super) fn trim(&self) {
        let removed = {
            let mut inner = self.lock();
            let (period, total) = (self.next_period(), inner.charged);
            inner.evict(&self.hints, period, total, true).0
        };
        self.release(removed);
    }
}

impl Inner {
    /// Makes an entry of a registration, with one lease, if a place is left.
    pub(super) fn add(&mut self, core: &Core, range: &Wanted, record: Record) -> Result<&'static Entry, Record> {
        if self.free.is_empty() {
            self.free = slots::take();
        }
        let Some(entry) = self.free.pop() else { return Err(record) };
        entry.open(range, record, core.period.load(Ordering::Relaxed));
        self.index.insert(entry, core.now());
        self.writer.insert(&core.hints, entry, self.index.entries());
        Ok(entry)
    }

    /// The entry that contains `wanted`, which the hints did not lead to.
    pub(super) fn find(&mut self, hints: &Hints, wanted: &Wanted) -> Option<&'static Entry> {
        let entry = self.index.find(wanted)?;
        self.writer.renew(hints, entry);
        Some(entry)
    }

    /// Takes out the least recently used until `total` is within the limits, and answers whether it is then. If it cannot be,
    /// nothing is taken out unless `partly`.
    pub(super) fn evict(&mut self, hints: &Hints, period: u64, total: Charge, partly: bool) -> (Removed, bool) {
        let limits = self.limits;
        let fits = |freed: Charge| {
            let left = total.beyond(freed);
            left.bytes <= limits.bytes && left.entries <= limits.entries
        };
        let mut freed = Charge::default();
        let closed = self.index.close_oldest(period, partly, |chosen| {
            if let Some(entry) = chosen {
                freed.add(Charge { bytes: entry.range().pinned(), entries: 1 });
            }
            fits(freed)
        });
        let removed = self.remove(hints, closed);
        self.counts.evictions += removed.charge.entries as u64;
        // Somebody may have been faster, so that less was closed than was chosen.
        let enough = fits(removed.charge);
        (removed, enough)
    }

    /// Takes closed entries out of the index.
    pub(super) fn remove(&mut self, hints: &Hints, closed: Vec<(&'static Entry, Claim)>) -> Removed {
        let mut removed = Removed::default();
        for (entry, claim) in closed {
            self.counts.hits += claim.hits;
            self.forget(hints, entry);
            removed.add(entry, &claim);
        }
        removed
    }

    /// Takes entries out of the index that are perhaps in use: their last leases release them.
    pub(super) fn give_up(&mut self, hints: &Hints, entries: Vec<&'static Entry>, removed: &mut Removed) {
        for entry in entries {
            self.forget(hints, entry);
            self.counts.evictions += 1;
            if let Some(claim) = entry.state().doom() {
                self.counts.hits += claim.hits;
                removed.add(entry, &claim);
            }
        }
    }

    pub(super) fn refund(&mut self, charge: Charge) {
        self.charged = self.charged.beyond(charge);
    }

    pub(super) fn statistics(&self) -> CacheStatistics {
        let live: u64 = self.index.entries().map(|entry| entry.state().hits()).sum();
        let Charge { bytes, entries } = self.charged;
        CacheStatistics { hits: self.counts.hits + live, bytes, entries, ..self.counts }
    }

    /// Lets other caches use the free places, from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
        slots::give_back(std::mem::take(&mut self.free));
    }

    fn make_free(&mut self, entries: impl IntoIterator<Item = &'static Entry>) {
        if self.closed { slots::give_back(entries) } else { self.free.extend(entries) }
    }

    fn forget(&mut self, hints: &Hints, entry: &'static Entry) {
        self.writer.remove(hints, entry);
        self.index.remove(entry);
    }
}

impl Charge {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.entries += other.entries;
    }

    /// By how much it is more than `other`.
    pub(super) fn beyond(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), entries: self.entries.saturating_sub(other.entries) }
    }
}

impl Removed {
    pub(super) fn append(&mut self, mut other: Self) {
        self.charge.add(other.charge);
        self.victims.append(&mut other.victims);
    }

    fn add(&mut self, entry: &'static Entry, claim: &Claim) {
        if let Some(record) = entry.take(claim) {
            self.charge.add(Charge { bytes: record.pinned, entries: 1 });
            self.victims.push(Victim { entry, record });
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A forked child has no say in the parent's registrations; it never had an entry of its own here.
        debug_assert!(is_foreign(self.epoch) || self.inner.get_mut().is_ok_and(|inner| inner.index.len() == 0));
    }
}
