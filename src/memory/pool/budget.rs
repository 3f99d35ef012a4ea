//! How much a pool may map.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The limit of a pool, and what of it is mapped.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    mapped: AtomicUsize,
    slabs: AtomicUsize,
}

/// Room for a mapping, given back when it is dropped: after the mapping is gone.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, mapped: AtomicUsize::new(0), slabs: AtomicUsize::new(0) })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn mapped(&self) -> usize {
        self.mapped.load(Ordering::Relaxed)
    }

    pub(super) fn slabs(&self) -> usize {
        self.slabs.load(Ordering::Relaxed)
    }

    /// Bytes that could be reserved.
    pub(super) fn left(&self) -> usize {
        self.limit - self.mapped()
    }

    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let more = |mapped: usize| mapped.checked_add(bytes).filter(|&mapped| mapped <= self.limit);
        self.mapped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.slabs.fetch_add(1, Ordering::Relaxed);
        Some(Room { budget: Arc::clone(self), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.slabs.fetch_sub(1, Ordering::Relaxed);
        self.budget.mapped.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
