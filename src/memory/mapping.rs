//! Pages of our own, mapped once.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::fmt;
use std::io;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use super::{Epoch, Registrable};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// The length of a huge page.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// What a mapping consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// Huge ones, from the reserve of the kernel.
    Huge,
    /// Allocated on first touch.
    Ordinary,
    /// Allocated at once.
    Populated,
    /// The same, in a file that can be given to peers: sealed, so that nobody can change its size.
    Shareable,
}

/// Seals of a file that peers map: it keeps its size. Whoever has it may write it.
pub(crate) const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Whose the pages are, and who else may have them.
enum Reach {
    Ours,
    /// Ours; peers that are given the file can map it.
    Shareable(OwnedFd),
    /// A peer's, who learns that they are unmapped by the end of this pipe.
    Foreign(#[expect(dead_code, reason = "closing it is what counts")] Arc<OwnedFd>),
}

/// Pages backed by a memfd, zeroed at first, unmapped when dropped. A forked child does not inherit them.
///
/// The type itself hands out no references: `Buffer` makes slices of ranges that it alone owns, `SharedBuffer` of what nobody
/// writes, and everything a peer may write goes through `volatile`.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
    epoch: Epoch,
    /// Goes when it is unmapped.
    reach: Reach,
}

// SAFETY: the mapping is plain memory; every access is through `Buffer`'s exclusive ranges, `SharedBuffer`'s read-only ones or atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes, rounded up to whole pages, at least one.
    #[cfg(any(test, feature = "internals", feature = "verbs"))]
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        Self::of(length, Pages::Ordinary)
    }

    /// Maps `length` bytes of `pages`, rounded up to whole ones, at least one. The address is a multiple of 2 MiB, or of
    /// the power of two that is not less than a shorter length.
    ///
    /// Ordinary pages are allocated on first touch. If the machine or the control group is out of memory then, the process gets
    /// killed, or `SIGBUS` where overcommit is forbidden. Pages of the other kinds are all there when this answers.
    pub(super) fn of(length: usize, pages: Pages) -> io::Result<Self> {
        let (granule, kind) = match pages {
            Pages::Huge => (HUGE_PAGE, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB),
            Pages::Ordinary | Pages::Populated => (rustix::param::page_size(), MemfdFlags::empty()),
            Pages::Shareable => (rustix::param::page_size(), MemfdFlags::ALLOW_SEALING),
        };
        let length = length
            .max(1)
            .checked_next_multiple_of(granule)
            .filter(|&length| isize::try_from(length).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let name = if pages == Pages::Shareable { "zcmi-pages" } else { "zcmi" };
        let file = memfd_create(name, MemfdFlags::CLOEXEC | kind)?;
        ftruncate(&file, length as u64)?;
        if pages != Pages::Ordinary {
            // The pages themselves and not a promise: of huge ones too, which a control group may refuse as late as on a fault.
            let allocate = || fallocate(&file, FallocateFlags::empty(), 0, length as u64);
            rustix::io::retry_on_intr(allocate).map_err(|error| match error {
                Errno::NOSPC => io::ErrorKind::OutOfMemory.into(),
                error => io::Error::from(error),
            })?;
        }
        let base = match pages {
            // The kernel aligns them.
            Pages::Huge => map_at(std::ptr::null_mut(), length, &file)?,
            Pages::Ordinary | Pages::Populated | Pages::Shareable => map_aligned(length, &file)?,
        };
        let reach = match pages {
            Pages::Shareable => {
                fcntl_add_seals(&file, SEALS)?;
                Reach::Shareable(file)
            }
            Pages::Huge | Pages::Ordinary | Pages::Populated => Reach::Ours,
        };
        Self::mapped(base, length, reach)
    }

    /// Maps all of a file of a peer, which was found to have `length` bytes and to be sealed. When it is unmapped, `tether` is let go.
    pub(super) fn of_peer(file: &OwnedFd, length: usize, tether: Arc<OwnedFd>) -> io::Result<Self> {
        Self::mapped(map_aligned(length, file)?, length, Reach::Foreign(tether))
    }

    fn mapped(base: NonNull<u8>, length: usize, reach: Reach) -> io::Result<Self> {
        let mapping = Self { base, length, epoch: Epoch::current(), reach };
        // SAFETY: the range was just mapped; the advice does not change this process' view of it.
        unsafe { madvise(base.as_ptr().cast(), length, Advice::LinuxDontFork) }?;
        Ok(mapping)
    }

    /// The file to give to peers, if they may have it.
    pub(super) fn file(&self) -> Option<&OwnedFd> {
        match &self.reach {
            Reach::Shareable(file) => Some(file),
            Reach::Foreign(_) | Reach::Ours => None,
        }
    }

    /// Whether peers may have the pages too. A device must not be given those: a peer could take out pages under it.
    pub(super) fn is_of_peers_too(&self) -> bool {
        !matches!(self.reach, Reach::Ours)
    }

    /// Whether this process made it; a forked child has not got it.
    pub(crate) fn is_ours(&self) -> bool {
        self.epoch.is_current()
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The byte at `offset`.
    ///
    /// # Panics
    /// If it lies outside.
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.length, "a place in the mapping");
        // SAFETY: at most one past the last byte of the mapping.
        unsafe { self.base.add(offset) }
    }
}

// SAFETY: the range is mapped at one address until drop. References into it are made by `Buffer` alone, which
// is moved into an operation while the device may write it and consumed by exposure before a peer can, and by
// `SharedBuffer`, which is a source of operations and never a destination.
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
        if self.length == 0 {
            return;
        }
        if !self.is_ours() {
            // A forked child did not inherit the range (MADV_DONTFORK): something else may be mapped there.
            return;
        }
        // SAFETY: the last owner goes; buffers and registrations hold an `Arc` of the mapping.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.length) } {
            tracing::error!(%error, "a mapping could not be removed and is leaked");
        }
    }
}

/// Where buffers of no bytes are: nowhere, and aligned to all that can be asked for.
pub(super) const EMPTY: NonNull<u8> = NonNull::without_provenance(NonZero::new(HUGE_PAGE).expect("not zero"));

/// Maps `file` at an address as aligned as [`Mapping::of`] says.
fn map_aligned(length: usize, file: &OwnedFd) -> io::Result<NonNull<u8>> {
    let page = rustix::param::page_size();
    let alignment = length.checked_next_power_of_two().map_or(HUGE_PAGE, |least| least.min(HUGE_PAGE));
    if alignment <= page {
        return map_at(std::ptr::null_mut(), length, file);
    }
    // Reserves so much that an aligned part is in it, and lets go of the rest.
    let whole = length.checked_add(alignment).ok_or(io::ErrorKind::OutOfMemory)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: the kernel chooses an address that nothing else uses.
    let reserved = unsafe { mmap_anonymous(std::ptr::null_mut(), whole, ProtFlags::empty(), flags) }?;
    let before = reserved.addr().next_multiple_of(alignment) - reserved.addr();
    let mapped = map_at(reserved.wrapping_byte_add(before), length, file);
    let unused = match &mapped {
        Ok(_) => [(0, before), (before + length, alignment - before)],
        Err(_) => [(0, whole), (0, 0)],
    };
    for (offset, length) in unused.into_iter().filter(|&(_, length)| length > 0) {
        // SAFETY: the range was just reserved, the file is mapped elsewhere, and nothing refers to it.
        unsafe { munmap(reserved.wrapping_byte_add(offset), length) }?;
    }
    mapped
}

/// Maps `file` wherever the kernel likes or, not null, at `place`, which is reserved for it.
fn map_at(place: *mut std::ffi::c_void, length: usize, file: &OwnedFd) -> io::Result<NonNull<u8>> {
    let fixed = if place.is_null() { MapFlags::empty() } else { MapFlags::FIXED };
    // SAFETY: the kernel chooses an address that nothing else uses, or `place` was reserved and nothing refers to it.
    let base = unsafe { mmap(place, length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | fixed, file, 0) }?;
    Ok(NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ones_are_aligned_to_huge_pages_and_short_ones_to_their_length() {
        for (length, alignment) in [(1, 4096), (5000, 8192), (64 << 10, 64 << 10), (3 << 20, HUGE_PAGE)] {
            for pages in [Pages::Ordinary, Pages::Populated] {
                let mapping = Mapping::of(length, pages).expect("memory");
                assert!(mapping.base().addr().is_multiple_of(alignment), "{length}");
                assert!(mapping.length() >= length);
            }
        }
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        assert!(Mapping::new(usize::MAX).is_err());
        assert!(Mapping::new(isize::MAX as usize).is_err());
    }
}
