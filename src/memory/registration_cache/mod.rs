//! The registration cache: memory that the pool did not allocate stays registered from one use to the next.
//!
//! # What is promised
//!
//! - An entry is a registration of exactly the range that was asked for. A lookup is a hit if an entry of the same access
//!   contains the range. Ranges are not merged; an entry that a later one contains is given up.
//! - An entry holds an owner token of its memory, so the addresses cannot come to mean something else. It goes soon
//!   after only entries own the memory: a few are looked at in each miss, more by a timer. Where that cannot be known it goes
//!   when it was not used for two seconds.
//! - Bytes (of whole pages) and entries are bounded. The least recently used idle entry goes first. What is leased is never
//!   evicted; where room cannot be made, the registration is the lease's own.
//! - When the device or the process has no room, all idle entries go and registering is tried once more.
//! - Registering, deregistering and dropping owners happen without a lock; memory is deregistered before its owner is
//!   dropped, and never given back if that fails.
//! - A forked child uses and destroys nothing of its parent's.
//!
//! # How a hit is fast
//!
//! A hit takes no lock: a table of [hints] leads from an address to [entries](entry), whose places are never freed;
//! one atomic addition [pins](state) the entry and counts the hit, and then it is checked to be the one that was wanted. All
//! else, an exact [index] included, is under one lock that only misses take.

mod core;
mod entry;
mod exact;
mod hints;
mod index;
mod lease;
mod limits;
mod miss;
#[cfg(test)]
mod mutation;
mod pending;
mod shared;
mod slots;
mod state;
mod statistics;
mod sweep;
#[cfg(all(test, not(loom)))]
mod tests;
mod wanted;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::core::Core;
use self::entry::is_foreign;
use self::wanted::Wanted;
use super::{Domain, RegionAccess, Registrable, SharedMemory};
use crate::service::Service;
use crate::{Error, ErrorKind, Result};

pub(crate) use lease::Lease;
pub use limits::CacheLimits;
pub use statistics::CacheStatistics;

/// The registrations of one domain that outlive their uses.
pub(crate) struct RegistrationCache {
    core: Arc<Core>,
}

impl RegistrationCache {
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self::of_service(limits, None)
    }

    /// A cache whose timer is of `service`; `None` is the process'.
    fn of_service(limits: CacheLimits, service: Option<Arc<Service>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { core: Core::new(NEXT.fetch_add(1, Ordering::Relaxed), limits, service) }
    }

    /// As [`new`](Self::new), and only [`sweep`](Self::sweep) and misses look for last owners.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn without_timer(limits: CacheLimits) -> Self {
        let cache = Self::new(limits);
        cache.core.lock().sweeping = true;
        cache
    }

    /// A lease on a registration of `range` of `memory` in `domain`, always the same one of this cache.
    ///
    /// # Errors
    /// [`OutOfBounds`](ErrorKind::OutOfBounds); [`AccessDenied`](ErrorKind::AccessDenied) if the access would write;
    /// [`Unsupported`](ErrorKind::Unsupported) in a forked child; whatever the domain answers.
    #[inline]
    pub(crate) fn get(
        &self,
        memory: &SharedMemory,
        range: Range<usize>,
        domain: &dyn Domain,
        access: RegionAccess,
    ) -> Result<Lease> {
        if is_foreign(self.core.epoch) {
            return Err(foreign());
        }
        if range.start > range.end || range.end > memory.length() {
            return Err(out_of_bounds(&range, memory.length()));
        }
        if range.is_empty() {
            return Ok(Lease::empty());
        }
        let wanted = Wanted::new(memory.address().addr() + range.start, range.len(), self.core.id, access);
        match self.core.hit(&wanted) {
            Some(lease) => Ok(lease),
            None => self.core.miss(&wanted, memory, range, domain, access),
        }
    }

    /// Drops some of the idle entries whose memory nobody else owns, in turn.
    #[cfg(test)]
    pub(crate) fn sweep(&self) {
        if !is_foreign(self.core.epoch) {
            self.core.sweep(std::time::Instant::now());
        }
    }

    /// Evicts all idle entries.
    pub(crate) fn flush(&self) {
        if !is_foreign(self.core.epoch) {
            self.core.flush(false);
        }
    }

    /// Keeps nothing from now on. Leases in flight stay valid, and deregister when they end.
    pub(crate) fn disable(&self) {
        self.set_limits(CacheLimits::NONE);
    }

    /// Changes the limits. Idle entries that do not fit go now, others as soon as their leases end.
    pub(crate) fn set_limits(&self, limits: CacheLimits) {
        if is_foreign(self.core.epoch) {
            return;
        }
        self.core.lock().limits = limits;
        if limits.keep_nothing() {
            self.core.flush(true);
        } else {
            self.core.trim();
        }
    }

    /// What the cache has done so far. In a forked child, nothing.
    pub(crate) fn statistics(&self) -> CacheStatistics {
        if is_foreign(self.core.epoch) {
            return CacheStatistics::default();
        }
        self.core.lock().statistics()
    }
}

impl Drop for RegistrationCache {
    fn drop(&mut self) {
        if is_foreign(self.core.epoch) {
            // Another thread of the parent may have been changing it: nothing in it can be relied on.
            std::mem::forget(Arc::clone(&self.core));
            return;
        }
        self.disable();
        self.core.lock().close();
    }
}

impl fmt::Debug for RegistrationCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationCache").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

#[cold]
fn foreign() -> Error {
    Error::new(ErrorKind::Unsupported, "register memory").with_detail("the domain belongs to the parent process")
}

#[cold]
fn out_of_bounds(range: &Range<usize>, length: usize) -> Error {
    let detail = format!("bytes {range:?} of a memory of {length}");
    Error::new(ErrorKind::OutOfBounds, "register memory").with_detail(detail)
}
