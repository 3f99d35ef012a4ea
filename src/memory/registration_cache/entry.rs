//! One registration that the cache keeps.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, Weak};

use super::core::Core;
use super::slots;
use super::state::{Claim, State};
use super::wanted::Wanted;
use crate::memory::{Epoch, Owners, Registration, SharedMemory};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::locks::Mutex;

/// A place for a registration. Places are never freed but used again, so a reference may be out of date: what
/// it leads to is checked after pinning, and stays as it is until that pin ends.
#[repr(C, align(64))]
pub(super) struct Entry {
    // What a hit touches is one cache line.
    state: State,
    base: AtomicUsize,
    end: AtomicUsize,
    owner: AtomicU64,
    period: AtomicU64,
    tick: AtomicU64,
    key: AtomicU32,
    /// Its place for good, and that of its record.
    pub(super) number: u32,
}

/// Where an entry's record is: emptied by whoever has the claim to it.
pub(super) type RecordPlace = Mutex<Option<Record>>;

/// What an entry keeps, and where it is accounted for.
pub(super) struct Record {
    pub(super) registration: Arc<dyn Registration>,
    pub(super) memory: Option<Arc<SharedMemory>>,
    pub(super) core: Weak<Core>,
    pub(super) pinned: usize,
    /// The process that registered it.
    pub(super) epoch: Epoch,
}

thread_local! {
    static TICK: Cell<u64> = const { Cell::new(0) };
}

/// When an entry was last used: misses divide time into periods that all threads agree on, within a period each thread
/// counts its own hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Recency {
    pub(super) period: u64,
    pub(super) tick: u64,
}

impl Entry {
    pub(super) fn new(number: u32) -> Self {
        Self {
            state: State::new(),
            base: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            owner: AtomicU64::new(0),
            period: AtomicU64::new(0),
            tick: AtomicU64::new(0),
            key: AtomicU32::new(0),
            number,
        }
    }

    /// Makes this, a free place, an entry that serves `range` and has one lease.
    pub(super) fn open(&self, range: &Wanted, record: Record, period: u64) {
        self.base.store(range.base, Ordering::Relaxed);
        self.end.store(range.end, Ordering::Relaxed);
        self.owner.store(range.owner, Ordering::Relaxed);
        self.key.store(record.registration.local_key(), Ordering::Relaxed);
        if let Some(place) = slots::record(self.number) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
        }
        self.touch(period);
        self.state.open_pinned();
    }

    /// Pins the entry if it serves `wanted`, and answers its key.
    #[inline]
    pub(super) fn lease(&'static self, wanted: &Wanted, period: u64) -> Option<u32> {
        if !self.serves(wanted) {
            return None;
        }
        // It may have become something else before it was pinned.
        if !self.state.pin() || !self.serves(wanted) {
            self.take_back();
            return None;
        }
        self.touch(period);
        Some(self.key())
    }

    /// Ends a lease.
    #[inline]
    pub(super) fn unpin(&'static self) {
        if let Some(claim) = self.state.unpin() {
            self.retire(claim);
        }
    }

    /// The key of an entry that the caller has pinned.
    #[inline]
    pub(super) fn key(&self) -> u32 {
        self.key.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// What it serves. Only what is in an index is sure to stay what it is.
    #[inline]
    pub(super) fn range(&self) -> Wanted {
        Wanted {
            base: self.base.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            owner: self.owner.load(Ordering::Relaxed),
        }
    }

    pub(super) fn recency(&self) -> Recency {
        Recency { period: self.period.load(Ordering::Relaxed), tick: self.tick.load(Ordering::Relaxed) }
    }

    /// Notes that it is used now.
    #[inline]
    pub(super) fn touch(&self, period: u64) {
        let tick = TICK.with(|tick| tick.replace(tick.get() + 1));
        self.period.store(period, Ordering::Relaxed);
        self.tick.store(tick, Ordering::Relaxed);
    }

    /// What it holds, for the one who has the claim to it.
    pub(super) fn take(&self, _: &Claim) -> Option<Record> {
        // Whoever else locks it does so with the cache locked, for entries in the index. In a forked child it may
        // be locked for ever.
        slots::record(self.number)?.try_lock().ok()?.take()
    }

    /// Who owns the memory of an entry that is in the index.
    pub(super) fn owners(&self) -> Option<Owners> {
        let record = slots::record(self.number)?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(record.as_ref()?.memory.as_ref()?.owners())
    }

    /// The registration of an entry that the caller has pinned.
    pub(super) fn registration(&self) -> Option<Arc<dyn Registration>> {
        let record = slots::record(self.number)?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&record.as_ref()?.registration))
    }

    #[inline]
    fn serves(&self, wanted: &Wanted) -> bool {
        #[cfg(test)]
        if super::mutation::Mutation::AccessNotChecked.is_on() {
            return self.range().base <= wanted.base && wanted.end <= self.range().end;
        }
        self.range().contains(wanted)
    }

    #[cold]
    fn take_back(&'static self) {
        if let Some(claim) = self.state.undo() {
            self.retire(claim);
        }
    }

    /// The last lease of a doomed entry has ended.
    #[cold]
    fn retire(&'static self, claim: Claim) {
        let Some(record) = self.take(&claim) else { return };
        if is_foreign(record.epoch) {
            std::mem::forget(record);
            return;
        }
        let (core, pinned) = (Weak::clone(&record.core), record.pinned);
        let released = release(record.registration, record.memory);
        match core.upgrade() {
            Some(core) => core.retired(self, &claim, pinned, released),
            None => slots::give_back([self]),
        }
    }
}

impl Record {
    /// Deregisters, and answers the owner, if it was held. To be called without a lock, and the owner to be dropped so.
    pub(super) fn deregister(self) -> Result<Option<Arc<SharedMemory>>, Quarantined> {
        deregister(self.registration, self.memory)
    }
}

/// The device has not let go of the memory, which is never given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quarantined;

/// Deregisters, and answers `memory`.
fn deregister(
    registration: Arc<dyn Registration>,
    memory: Option<Arc<SharedMemory>>,
) -> Result<Option<Arc<SharedMemory>>, Quarantined> {
    let ended = catch_unwind(AssertUnwindSafe(|| registration.end()));
    if let Ok(Ok(())) = ended {
        return Ok(memory);
    }
    let error = ended.ok().and_then(crate::Result::err);
    tracing::error!(error = error.map(tracing::field::display), "memory stays registered, and is never given back");
    std::mem::forget(memory);
    Err(Quarantined)
}

/// Deregisters, then lets go of `memory`.
pub(super) fn release(
    registration: Arc<dyn Registration>,
    memory: Option<Arc<SharedMemory>>,
) -> Result<(), Quarantined> {
    let mut graves = Graves::default();
    graves.add(deregister(registration, memory)?);
    Ok(())
}

/// Owners of memory that is not registered any more. Dropping them runs foreign code, so it happens without a lock.
#[derive(Default)]
pub(super) struct Graves(Vec<Arc<SharedMemory>>);

impl Graves {
    pub(super) fn add(&mut self, owner: Option<Arc<SharedMemory>>) {
        self.0.extend(owner);
    }

    pub(super) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }
}

impl Drop for Graves {
    fn drop(&mut self) {
        for owner in self.0.drain(..) {
            if catch_unwind(AssertUnwindSafe(|| drop(owner))).is_err() {
                tracing::error!("the owner of some registered memory panicked while it was dropped");
            }
        }
    }
}

/// Leaves a parent's objects alone in a forked child: answers whether `epoch` is another process'.
#[inline]
pub(super) fn is_foreign(epoch: Epoch) -> bool {
    !epoch.is_current()
}
