//! Telling a forked child from its parent, without a system call.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::sync::locks::OnceLock;

/// A number that this process has and its parent has not. What was made under another epoch belongs to the
/// parent: a child must neither use nor destroy it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// The epoch of this process.
    #[inline]
    pub(crate) fn current() -> Self {
        static WORD: OnceLock<&'static AtomicU64> = OnceLock::new();
        let word = WORD.get_or_init(wiped_on_fork);
        match word.load(Ordering::Relaxed) {
            0 => Self::begin(word),
            current => Self(current),
        }
    }

    #[cold]
    fn begin(word: &AtomicU64) -> Self {
        let fresh = rand::random::<u64>() | 1;
        match word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Self(fresh),
            Err(current) => Self(current),
        }
    }

    /// Whether this process is the one that the epoch was taken in.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }
}

/// A word on a page of its own that the kernel zeroes in a child (`MADV_WIPEONFORK`, Linux 4.14).
fn wiped_on_fork() -> &'static AtomicU64 {
    let page = rustix::param::page_size();
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: the kernel chooses an address that nothing else uses.
    let mapped = unsafe { mmap_anonymous(std::ptr::null_mut(), page, protection, flags) };
    let word = mapped.ok().filter(|&word| {
        // SAFETY: the page was just mapped and nothing refers to it yet.
        unsafe { madvise(word, page, Advice::LinuxWipeOnFork) }.is_ok()
    });
    match word {
        // SAFETY: a page is aligned, zeroed, mapped for ever and only used as this atomic.
        Some(word) => unsafe { AtomicU64::from_ptr(word.cast()) },
        // Without the advice forks go unnoticed here; verbs objects still know their process.
        None => Box::leak(Box::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_another_epoch() {
        let ours = Epoch::current();
        assert!(ours.is_current());
        // SAFETY: the child makes no allocation and takes no lock before it exits.
        match unsafe { libc::fork() } {
            0 => {
                let status = if ours.is_current() { 1 } else { 0 };
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(status) }
            }
            child => {
                let mut status = -1;
                // SAFETY: waits for the child just made; `status` is writable.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0, "the child took itself for its parent");
            }
        }
        assert!(ours.is_current());
    }
}
