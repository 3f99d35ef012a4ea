//! What the clones of a pool share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use super::supply::{Supply, least};
use super::waiters::Ticket;
use super::{Budget, Class, IdleBlock, PoolOptions, PoolStatistics, Reservoir};
use crate::memory::Epoch;
use crate::sync::{Mutex, lock};
use crate::{Buffer, Error, ErrorKind, Result};

/// What all clones of a pool have in common. Buffers do not keep it.
pub(super) struct Inner {
    pub(super) reservoir: &'static Reservoir,
    epoch: Epoch,
    budget: Arc<Budget>,
    options: PoolOptions,
    supply: Mutex<Supply>,
    waits: AtomicU64,
    failures: AtomicU64,
}

/// A length that can be had, and what it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) length: usize,
    /// `None` for a slab of its own.
    pub(super) class: Option<Class>,
}

impl Inner {
    pub(super) fn new(budget: Arc<Budget>, options: PoolOptions) -> Self {
        let reservoir = Reservoir::open();
        let supply = Mutex::new(Supply::new(options.clone(), Arc::clone(&budget), reservoir));
        let (waits, failures) = Default::default();
        Self { reservoir, epoch: Epoch::current(), budget, options, supply, waits, failures }
    }

    /// Whether this process made the pool.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        self.epoch.is_current()
    }

    pub(super) fn request(&self, length: usize, alignment: usize) -> Result<Request> {
        let refuse = |kind, detail: String| Err(self.failed(kind).with_detail(detail));
        if !self.is_ours() {
            return refuse(
                ErrorKind::Unsupported,
                "the pool belongs to the process that this one was forked from".into(),
            );
        }
        if !alignment.is_power_of_two() || alignment > 2 << 20 {
            let detail = format!("an alignment of {alignment}, must be a power of two up to {}", 2 << 20);
            return refuse(ErrorKind::Unsupported, detail);
        }
        let class = Class::aligned(length, alignment);
        match least(&self.options, class, length).filter(|&least| isize::try_from(least).is_ok()) {
            None => refuse(ErrorKind::MemoryLimit, format!("{length} bytes")),
            Some(least) if least > self.budget.limit() => {
                let detail =
                    format!("{length} bytes never fit: they take {least}, the limit is {}", self.budget.limit());
                refuse(ErrorKind::PoolExhausted, detail)
            }
            Some(_) => Ok(Request { length, class }),
        }
    }

    pub(super) fn allocate_now(&self, request: &Request) -> Result<Buffer> {
        self.allocate(request)?.ok_or_else(|| self.exhausted(request.length, "at the limit"))
    }

    /// A buffer, or none at the limit.
    pub(super) fn allocate(&self, request: &Request) -> Result<Option<Buffer>> {
        if request.length == 0 {
            return Ok(Some(Buffer::default()));
        }
        Ok(self.block(request)?.map(|block| Buffer::of_block(block, request.length)))
    }

    /// A block, or none at the limit.
    pub(super) fn block(&self, request: &Request) -> Result<Option<IdleBlock>> {
        let Some(class) = request.class else { return lock(&self.supply).slab_of_its_own(request.length) };
        if let Some(block) = self.reservoir.take(class) {
            return Ok(Some(block));
        }
        let block = lock(&self.supply).block(class)?;
        if block.is_some() && self.reservoir.waiters.are_there() {
            // There may be more where this came from.
            self.reservoir.waiters.notify();
        }
        Ok(block)
    }

    pub(super) fn trim(&self) -> usize {
        if !self.is_ours() {
            return 0;
        }
        let bytes = lock(&self.supply).trim();
        self.reservoir.waiters.notify();
        bytes
    }

    pub(super) fn limit(&self) -> usize {
        self.budget.limit()
    }

    pub(super) fn is_shareable(&self) -> bool {
        self.options.is_shareable()
    }

    /// Takes a place in the queue.
    pub(super) fn wait(&self, request: &Request, waker: &Waker) -> Ticket {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.reservoir.waiters.enter(request.class, waker.clone())
    }

    pub(super) fn exhausted(&self, length: usize, why: &str) -> Error {
        let figures = self.statistics();
        self.failed(ErrorKind::PoolExhausted).with_detail(format!(
            "{length} bytes, {why}: of {} bytes {} are mapped and {} in use, {} others wait",
            figures.limit, figures.mapped_bytes, figures.in_use_bytes, figures.waiting
        ))
    }

    fn failed(&self, kind: ErrorKind) -> Error {
        self.failures.fetch_add(1, Ordering::Relaxed);
        Error::new(kind, "allocate")
    }

    #[cfg(all(feature = "metrics", not(loom)))]
    pub(super) fn allocations(&self) -> u64 {
        if self.is_ours() { self.reservoir.depot.allocations() } else { 0 }
    }

    pub(super) fn statistics(&self) -> PoolStatistics {
        let mapped = self.budget.mapped();
        // The locks of a parent may be held for ever.
        let in_use = if self.is_ours() { self.reservoir.depot.taken() } else { 0 };
        PoolStatistics {
            limit: self.budget.limit(),
            mapped_bytes: mapped,
            in_use_bytes: in_use,
            idle_bytes: mapped.saturating_sub(in_use),
            slabs: self.budget.slabs(),
            waits: self.waits.load(Ordering::Relaxed),
            waiting: self.reservoir.waiters.count(),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A parent's is left alone: its locks may be held for ever.
        if self.is_ours() {
            self.reservoir.close(&self.budget);
        }
    }
}
