//! Protection domains.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::{Context, Error, Result};

/// A protection domain (`ibv_alloc_pd(3)`): keys of one are worth nothing in another.
pub struct ProtectionDomain {
    raw: NonNull<ffi::ibv_pd>,
    context: Arc<Context>,
    creator: Creator,
}

// SAFETY: a protection domain is an immutable handle; verbs calls on it are thread-safe.
unsafe impl Send for ProtectionDomain {}
// SAFETY: as above.
unsafe impl Sync for ProtectionDomain {}

impl ProtectionDomain {
    /// Allocates a domain on an open device.
    pub fn allocate(context: &Arc<Context>) -> Result<Arc<Self>> {
        // SAFETY: the context is open.
        let raw = unsafe { ffi::ibv_alloc_pd(context.raw()) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("ibv_alloc_pd"))?;
        Ok(Arc::new(Self { raw, context: Arc::clone(context), creator: Creator::here() }))
    }

    /// The device it belongs to.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(super) fn raw(&self) -> *mut ffi::ibv_pd {
        self.raw.as_ptr()
    }
}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectionDomain").field("device", &self.context.name()).finish_non_exhaustive()
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        if self.creator.may_destroy("protection domain") {
            // SAFETY: regions and queue pairs hold an `Arc` of this domain, so none is left.
            fork::destroyed("ibv_dealloc_pd", unsafe { ffi::ibv_dealloc_pd(self.raw()) });
        }
    }
}
