//! Memory regions.

use std::fmt;
use std::ops::{BitOr, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::fork::Creator;
use super::{Error, ProtectionDomain, Result};

/// Memory that can be registered and outlives its registrations.
///
/// # Safety
/// [`address`](Self::address) and [`length`](Self::length) name one mapped range that stays mapped, at that
/// address, until the value is dropped. While a region over it exists the implementor lets nobody hold a
/// reference into bytes that the device may be writing: through a local operation in flight, or, where
/// the region was registered for remote access, at any time.
pub unsafe trait Registrable: Send + Sync + 'static {
    /// The first byte.
    fn address(&self) -> *mut u8;
    /// The length in bytes.
    fn length(&self) -> usize;
}

/// What a region may be used for (`ibv_reg_mr(3)`). Local reading is always allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Access(u32);

impl Access {
    /// Reading by this process' own queue pairs only.
    pub const LOCAL_READ: Self = Self(0);
    /// Writing by this process' own queue pairs: receives, and destinations of reads.
    pub const LOCAL_WRITE: Self = Self(ffi::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0);
    /// Reading by peers that have the key.
    pub const REMOTE_READ: Self = Self(ffi::ibv_access_flags::IBV_ACCESS_REMOTE_READ.0);
    /// Writing by peers that have the key. Implies local writing (IBTA 1.4, 10.6.3.1).
    pub const REMOTE_WRITE: Self =
        Self(ffi::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0 | ffi::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0);

    /// Whether all of `other` is allowed.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) const fn raw(self) -> u32 {
        self.0
    }
}

impl BitOr for Access {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({:#x})", self.0)
    }
}

/// A registered range (`ibv_reg_mr(3)`). It holds its memory and its domain; dropping it deregisters,
/// after which the device refuses every access with its keys.
pub struct MemoryRegion {
    raw: NonNull<ffi::ibv_mr>,
    registered: bool,
    creator: Creator,
    // Dropped after `Drop::drop` has deregistered: the domain and the memory outlive the region.
    _domain: Arc<ProtectionDomain>,
    memory: Arc<dyn Registrable>,
}

// SAFETY: a region is an immutable handle; deregistration is thread-safe.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for MemoryRegion {}

impl MemoryRegion {
    /// Registers exactly `range` (bytes within `memory`), which pins its pages.
    ///
    /// # Errors
    /// `ENOMEM` if RLIMIT_MEMLOCK is too low, `EINVAL` if the range is empty or leaves the memory,
    /// `EFAULT` if local or remote writing is asked of memory mapped read-only.
    pub fn register(
        domain: &Arc<ProtectionDomain>,
        memory: Arc<dyn Registrable>,
        range: Range<usize>,
        access: Access,
    ) -> Result<Self> {
        if range.start >= range.end || range.end > memory.length() {
            return Err(Error::returned("ibv_reg_mr", libc::EINVAL));
        }
        let address = memory.address().wrapping_add(range.start).cast();
        // SAFETY: the range was checked to lie within the memory, which `Registrable` keeps mapped and
        // which this region keeps alive until it is deregistered.
        let raw = unsafe { ffi::ibv_reg_mr(domain.raw(), address, range.len(), access.raw() as i32) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("ibv_reg_mr"))?;
        Ok(Self { raw, registered: true, creator: Creator::here(), _domain: Arc::clone(domain), memory })
    }

    /// Deregisters, and tells whether that worked: only then can no peer reach the memory any more.
    ///
    /// # Errors
    /// The device's error. The memory then stays mapped for ever, since the device may still reach it.
    pub fn deregister(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.registered = false;
        if !self.creator.may_destroy("memory region") {
            // The region is the parent's. The range is not mapped in this child (MADV_DONTFORK).
            return Ok(());
        }
        // SAFETY: the region is deregistered once; its domain and memory are still held.
        let answer = unsafe { ffi::ibv_dereg_mr(self.raw.as_ptr()) };
        Error::check("ibv_dereg_mr", answer).inspect_err(|error| {
            tracing::error!(%error, "a memory region could not be deregistered; its memory is set aside");
            // The device may still reach the pages: they are never given back.
            std::mem::forget(Arc::clone(&self.memory));
        })
    }

    /// Address of the first registered byte, as work requests name it.
    pub fn address(&self) -> u64 {
        // SAFETY: the region is registered, so its structure may be read.
        unsafe { (*self.raw.as_ptr()).addr as u64 }
    }

    /// Registered bytes.
    pub fn length(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.raw.as_ptr()).length }
    }

    /// The key for this process' own requests.
    pub fn local_key(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw.as_ptr()).lkey }
    }

    /// The key that a peer presents. Whoever has it can use the region.
    pub fn remote_key(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw.as_ptr()).rkey }
    }
}

impl fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegion").field("length", &self.length()).finish_non_exhaustive()
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        if self.registered {
            let _ = self.end();
        }
    }
}
