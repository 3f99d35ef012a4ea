//! The pool's face.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::inner::Inner;
use super::{Allocation, Budget, Class, PoolOptions, PoolStatistics, global};
use crate::{Buffer, Result};

/// Memory for [`Buffer`]s that is mapped and registered once and used again and again, up to a limit.
///
/// A buffer goes back to its pool when it is dropped, on whatever thread. Taking one that is idle costs some tens of
/// nanoseconds whatever its length, and no allocation. Memory comes in slabs, which double in size from 64 KiB on; a device
/// registers a slab as a whole on the first use of a buffer in it. Buffers longer than 64 MiB have a slab of their own, which goes with them.
///
/// Clones are the same pool. When the last is dropped idle memory goes at once, and the buffers that are in use
/// stay good until they are dropped.
///
/// # Contents
/// **A buffer from a pool holds whatever this process had in that memory before** — perhaps a secret, or another peer's data.
/// Overwrite or zero it before a peer may see it, or take it by [`allocate_zeroed`](Self::allocate_zeroed).
///
/// # Alignment
/// 64 bytes; 4 KiB from 4 KiB on; more by [`allocate_aligned`](Self::allocate_aligned).
///
/// # At the limit
/// First the idle blocks of other threads are used, then slabs of other sizes that are wholly idle are given back for the
/// room; then `allocate` fails, `allocate_async` and `allocate_timeout` wait. Those who wait get blocks in the order in which they
/// came. One who waits for a size of which nothing exists needs a whole slab of others to become idle;
/// as long as those are in use and go round, it waits.
///
/// # Forks
/// A forked child does not inherit the memory: it can only drop the parent's pools and buffers, which does nothing.
///
/// ```
/// let pool = zcmi::Pool::builder().limit(1 << 20).build()?;
/// let buffer = pool.allocate(100_000)?;
/// assert!(pool.statistics().in_use_bytes >= 100_000);
/// drop(buffer);
/// assert_eq!(pool.statistics().in_use_bytes, 0);
/// # Ok::<(), zcmi::Error>(())
/// ```
#[derive(Clone)]
pub struct Pool {
    pub(super) inner: Arc<Inner>,
}

impl Pool {
    /// Settings to start from.
    pub fn builder() -> PoolOptions {
        PoolOptions::new()
    }

    /// The pool that [`Buffer::allocate`] takes from. Its limit is the physical memory. It lives as long as the process; a
    /// forked child has another.
    pub fn global() -> &'static Self {
        global::global()
    }

    /// Lets `act` use the [global](Self::global) pool, or what a simulation has put in its place.
    #[inline]
    pub(crate) fn with_global<R>(act: impl FnOnce(&Self) -> R) -> R {
        global::with(act)
    }

    /// Takes the place of the global pool on this thread; `None` ends that. Answers what it was before.
    #[cfg(all(any(test, feature = "internals"), not(loom)))]
    pub(crate) fn replace_global_on_this_thread(pool: Option<Self>) -> Option<Self> {
        global::replace_on_this_thread(pool)
    }

    pub(super) fn new(budget: Arc<Budget>, options: PoolOptions) -> Self {
        Self { inner: Arc::new(Inner::new(budget, options)) }
    }

    /// Takes a buffer of `length` bytes, of [whatever contents](Self#contents).
    ///
    /// # Errors
    /// [`PoolExhausted`](crate::ErrorKind::PoolExhausted) at the limit, or for a length that the limit never has room for.
    /// [`MemoryLimit`](crate::ErrorKind::MemoryLimit) or [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted)
    /// if the system has no memory. [`Unsupported`](crate::ErrorKind::Unsupported) in a child that was forked from the pool's process.
    #[inline]
    pub fn allocate(&self, length: usize) -> Result<Buffer> {
        // The way that is taken nearly always, and nothing else.
        if length > 0
            && self.inner.is_ours()
            && let Some(class) = Class::of(length)
            && let Some(block) = self.inner.reservoir.take(class)
        {
            return Ok(Buffer::of_block(block, length));
        }
        self.inner.allocate_now(&self.inner.request(length, 1)?)
    }

    /// As [`allocate`](Self::allocate), and the bytes are zero. Memory that was never used needs no zeroing.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn allocate_zeroed(&self, length: usize) -> Result<Buffer> {
        let request = self.inner.request(length, 1)?;
        if length == 0 {
            return Ok(Buffer::default());
        }
        match self.inner.block(&request)? {
            Some(block) => Ok(Buffer::zeroed(block, length)),
            None => Err(self.inner.exhausted(length, "at the limit")),
        }
    }

    /// As [`allocate`](Self::allocate), at an address that is a multiple of `alignment`. It takes at least `alignment` bytes of the
    /// pool.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), and [`Unsupported`](crate::ErrorKind::Unsupported) unless `alignment` is a power of two up to
    /// 2 MiB.
    pub fn allocate_aligned(&self, length: usize, alignment: usize) -> Result<Buffer> {
        self.inner.allocate_now(&self.inner.request(length, alignment)?)
    }

    /// As [`allocate`](Self::allocate), and waits at the limit until there is room. Dropping the future loses nothing. It
    /// needs no runtime.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), of a length that the limit never has room for.
    pub fn allocate_async(&self, length: usize) -> Allocation {
        Allocation::new(self.clone(), self.inner.request(length, 1))
    }

    /// As [`allocate`](Self::allocate), and blocks the thread at the limit, for no longer than `patience`.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), at the limit after `patience`.
    pub fn allocate_timeout(&self, length: usize, patience: Duration) -> Result<Buffer> {
        let request = self.inner.request(length, 1)?;
        if let Some(buffer) = self.inner.allocate(&request)? {
            return Ok(buffer);
        }
        Allocation::new(self.clone(), Ok(request)).wait(patience)
    }

    /// Unregisters and unmaps the slabs that nothing is in use of, and tells how many bytes they had.
    pub fn trim(&self) -> usize {
        self.inner.trim()
    }

    /// Whether the pages of its buffers can be shared with peers, as [`PoolOptions::shareable`] says.
    pub fn is_shareable(&self) -> bool {
        self.inner.is_shareable()
    }

    /// Buffers taken so far.
    #[cfg(all(feature = "metrics", not(loom)))]
    pub(crate) fn allocations(&self) -> u64 {
        self.inner.allocations()
    }

    /// What the pool has now.
    pub fn statistics(&self) -> PoolStatistics {
        self.inner.statistics()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limit", &self.inner.limit()).finish_non_exhaustive()
    }
}
