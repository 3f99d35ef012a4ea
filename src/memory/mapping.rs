//! Pages of our own, mapped once.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::fmt;
use std::io;
use std::ptr::NonNull;

use super::{Epoch, Registrable};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// Pages backed by a memfd, zeroed at first, unmapped when dropped. A forked child does not inherit them.
///
/// The type itself hands out no references: `Buffer` makes slices of ranges that it alone owns, and
/// everything a peer may write goes through `volatile`.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
    epoch: Epoch,
}

// SAFETY: the mapping is plain memory; every access is through `Buffer`'s exclusive ranges or atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes, rounded up to whole pages, at least one.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let length = length
            .max(1)
            .checked_next_multiple_of(page)
            .filter(|&length| isize::try_from(length).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let file = memfd_create("zcmi", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, length as u64)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses an address that nothing else uses.
        let base = unsafe { mmap(std::ptr::null_mut(), length, protection, flags, &file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { base, length, epoch: Epoch::current() };
        // SAFETY: the range was just mapped; the advice does not change this process' view of it.
        unsafe { madvise(base.as_ptr().cast(), length, Advice::LinuxDontFork) }?;
        Ok(mapping)
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

// SAFETY: the range is mapped at one address until drop. References into it are made by `Buffer` alone, which
// is moved into an operation while the device may write it and consumed by exposure before a peer can.
unsafe impl Registrable for Mapping {
    fn address(&self) -> *mut u8 {
        self.base()
    }

    fn length(&self) -> usize {
        self.length
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.epoch.is_current() {
            // A forked child did not inherit the range (MADV_DONTFORK): something else may be mapped there.
            return;
        }
        // SAFETY: the last owner goes; buffers and registrations hold an `Arc` of the mapping.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.length) } {
            tracing::error!(%error, "a mapping could not be removed and is leaked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_length_is_an_error() {
        assert!(Mapping::new(usize::MAX).is_err());
        assert!(Mapping::new(isize::MAX as usize).is_err());
    }
}
