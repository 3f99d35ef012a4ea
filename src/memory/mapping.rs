//! Pages of our own, mapped once, and the one way to touch those that a peer may write.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::Epoch;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// Pages backed by a memfd, zeroed at first, unmapped when dropped. A forked child does not inherit them.
///
/// The type itself hands out no references: `Buffer` makes slices of ranges that it alone owns, and
/// everything a peer may write goes through [`load`](Self::load) and [`store`](Self::store).
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

    /// Copies `destination.len()` bytes from `offset` on, though a peer may be writing them: each aligned
    /// word is read whole, the order among words is open.
    ///
    /// # Panics
    /// If the range leaves the mapping.
    pub(crate) fn load(&self, offset: usize, destination: &mut [u8]) {
        self.check(offset, destination.len());
        let mut done = 0;
        while done < destination.len() {
            let at = offset + done;
            if at.is_multiple_of(8) && destination.len() - done >= 8 {
                let word = self.word(at).load(Ordering::Relaxed);
                destination[done..done + 8].copy_from_slice(&word.to_ne_bytes());
                done += 8;
            } else {
                destination[done] = self.byte(at).load(Ordering::Relaxed);
                done += 1;
            }
        }
        // What was written before the bytes we saw is seen from here on, as far as the device orders it.
        std::sync::atomic::fence(Ordering::Acquire);
    }

    /// Copies `source` to `offset` on, though a peer may be reading or writing there.
    ///
    /// # Panics
    /// If the range leaves the mapping.
    pub(crate) fn store(&self, offset: usize, source: &[u8]) {
        self.check(offset, source.len());
        std::sync::atomic::fence(Ordering::Release);
        let mut done = 0;
        while done < source.len() {
            let at = offset + done;
            if at.is_multiple_of(8) && source.len() - done >= 8 {
                let mut word = [0; 8];
                word.copy_from_slice(&source[done..done + 8]);
                self.word(at).store(u64::from_ne_bytes(word), Ordering::Relaxed);
                done += 8;
            } else {
                self.byte(at).store(source[done], Ordering::Relaxed);
                done += 1;
            }
        }
    }

    fn check(&self, offset: usize, length: usize) {
        let end = offset.checked_add(length).expect("a range within the mapping");
        assert!(end <= self.length, "bytes {offset}..{end} leave a mapping of {} bytes", self.length);
    }

    /// The aligned word at `offset`, which the callers have checked.
    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        // SAFETY: the offset lies within the mapping.
        let word = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: mapped as long as `self`, aligned (pages are), and only ever accessed atomically while a peer
        // or another thread can reach it.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        debug_assert!(offset < self.length);
        // SAFETY: the offset lies within the mapping.
        let byte = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: as in `word`; a byte needs no alignment.
        unsafe { AtomicU8::from_ptr(byte) }
    }
}

#[cfg(feature = "verbs")]
// SAFETY: the range is mapped at one address until drop. References into it are made by `Buffer` alone, which
// is moved into an operation while the device may write it and consumed by exposure before a peer can.
unsafe impl crate::verbs::Registrable for Mapping {
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
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn store_then_load_gives_the_bytes_and_leaves_the_rest(offset in 0usize..200, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mapping = Mapping::new(600).expect("memory");
            mapping.store(0, &[0xee; 600]);
            mapping.store(offset, &bytes);
            let mut all = [0; 600];
            mapping.load(0, &mut all);
            let end = offset + bytes.len();
            prop_assert_eq!(&all[offset..end], &bytes[..]);
            prop_assert!(all[..offset].iter().chain(&all[end..]).all(|&byte| byte == 0xee));
            let mut some = vec![0; bytes.len()];
            mapping.load(offset, &mut some);
            prop_assert_eq!(some, bytes);
        }
    }

    #[test]
    #[should_panic(expected = "leave a mapping")]
    fn a_load_out_of_bounds_panics() {
        let mapping = Mapping::new(1).expect("memory");
        mapping.load(mapping.length() - 3, &mut [0; 4]);
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        assert!(Mapping::new(usize::MAX).is_err());
        assert!(Mapping::new(isize::MAX as usize).is_err());
    }
}
