//! How much a cache may keep registered.

use crate::memory::locked_memory;

/// How much memory that is not in use the registration cache may keep registered with a device, and what is in use
/// counts too. What does not fit is registered for as long as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of whole pages. With zero, nothing is kept.
    pub bytes: usize,
    /// Registrations. With zero, nothing is kept.
    pub entries: usize,
}

impl CacheLimits {
    /// Keeps nothing.
    pub const NONE: Self = Self { bytes: 0, entries: 0 };

    pub(super) fn keep_nothing(&self) -> bool {
        self.bytes == 0 || self.entries == 0
    }
}

impl Default for CacheLimits {
    /// 16,384 registrations of at most 1 GiB, half of what `RLIMIT_MEMLOCK` allows (unless the process may exceed it),
    /// or a quarter of what its control group may use, whichever is least.
    fn default() -> Self {
        Self { bytes: locked_memory::default_cache_bytes(), entries: 16_384 }
    }
}
