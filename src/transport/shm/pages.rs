//! The memory of a pair of rings: mapped by both, written by one.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, SeekFrom, fallocate, fcntl_add_seals, fstat, ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::ring::{OurPages, TheirPages, Word};
use crate::failpoint;
use crate::memory::{Epoch, volatile};

/// Where the bytes begin. Words before are far enough from each other to be in lines of their own, also for who fetches two at once.
const DATA: usize = 4096;
const LAYOUT: usize = 384;
/// What the word there is: another layout has another.
const RINGS: u64 = u64::from_le_bytes(*b"zcmring1");

/// From so many bytes on the processor copies faster as a whole than by words.
const MANY: usize = 512;
/// Bytes of a ring that a peer may have.
const CAPACITIES: std::ops::RangeInclusive<usize> = 4096..=1 << 20;
const PAGE: usize = 4096;

/// The file stays as it is, and nobody else can write it.
const SEALS: SealFlags = SealFlags::FUTURE_WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

fn offset(word: Word) -> usize {
    match word {
        Word::Sent => 0,
        Word::Received => 128,
        Word::Doze => 256,
    }
}

/// Ours to write.
pub(super) struct Ours(Map);

/// The peer's, which we cannot write.
pub(crate) struct Theirs(Map);

/// All of a file, mapped until it is dropped. A forked child does not inherit it.
struct Map {
    base: NonNull<u8>,
    length: usize,
    epoch: Epoch,
}

// SAFETY: every access is atomic, and what it is mapped by stays mapped until drop.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Ours {
    /// Makes pages with a ring of `capacity` bytes, a power of two; answers the file to give to the peer too.
    pub(super) fn new(capacity: usize) -> io::Result<(Self, OwnedFd)> {
        let length = DATA + capacity;
        let file = create()?;
        ftruncate(&file, length as u64)?;
        // The pages themselves, so that neither side runs out of memory when it touches them.
        rustix::io::retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, length as u64))?;
        let ours = Self(Map::new(&file, length, ProtFlags::READ | ProtFlags::WRITE)?);
        failpoint::reach("ring.made");
        // Touched, or they count as holes.
        for at in (0..length).step_by(PAGE) {
            ours.0.byte(at).store(0, Ordering::Relaxed);
        }
        ours.0.at(LAYOUT).store(RINGS, Ordering::Release);
        fcntl_add_seals(&file, SEALS)?;
        Ok((ours, file))
    }
}

/// A file of no pages, which cannot be executed where the kernel knows how to say that (Linux 6.3).
fn create() -> rustix::io::Result<OwnedFd> {
    let (name, how) = ("zcmi-ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    match memfd_create(name, how | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, how),
        made => made,
    }
}

impl Theirs {
    /// Maps what a peer has given, if it is what it has to be.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(file: impl AsFd) -> Result<Self, String> {
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(|_| "it has given a descriptor that is no memfd")?;
        if !seals.contains(SEALS) {
            return Err(format!("it has given memory that it could change under us: sealed {seals:?}, not {SEALS:?}"));
        }
        let stat = fstat(&file).map_err(|errno| format!("the size of its memory is not known: {errno}"))?;
        let length = usize::try_from(stat.st_size).unwrap_or_default();
        let capacity = length.checked_sub(DATA).filter(|capacity| capacity.is_power_of_two());
        if !capacity.is_some_and(|capacity| CAPACITIES.contains(&capacity)) {
            return Err(format!("it has given memory of {length} bytes, which is no ring's"));
        }
        // Nobody can take out pages any more: only those that were never there would have to be allocated by us.
        if rustix::fs::seek(&file, SeekFrom::Hole(0)) != Ok(length as u64) {
            return Err("it has given memory of which not all pages are there".to_owned());
        }
        let map = Map::new(file, length, ProtFlags::READ);
        let map = map.map_err(|error| format!("its memory could not be mapped: {error}"))?;
        failpoint::reach("ring.mapped");
        match map.at(LAYOUT).load(Ordering::Acquire) {
            RINGS => Ok(Self(map)),
            other => Err(format!("it has given memory of layout {other:#x}, not {RINGS:#x}")),
        }
    }
}

impl OurPages for Ours {
    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn set(&self, word: Word, value: u64) {
        self.0.at(offset(word)).store(value, Ordering::Release);
    }

    fn copy_in(&self, at: usize, bytes: &[u8]) {
        let to = self.0.ring(at, bytes.len());
        if bytes.len() >= MANY {
            fence(Ordering::Release);
            // SAFETY: `ring` has found so many bytes there, which are mapped and which we may write; everybody accesses them atomically or
            // by this.
            return unsafe { volatile::copy(bytes.as_ptr(), to, bytes.len()) };
        }
        // SAFETY: as above.
        unsafe { volatile::store_words(to, bytes) };
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

impl TheirPages for Theirs {
    fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn word(&self, word: Word) -> u64 {
        self.0.at(offset(word)).load(Ordering::Acquire)
    }

    fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        let from = self.0.ring(at, bytes.len());
        if bytes.len() >= MANY {
            // SAFETY: `ring` has found so many bytes there, which are mapped; everybody accesses them atomically or by this.
            unsafe { volatile::copy(from, bytes.as_mut_ptr(), bytes.len()) };
            return fence(Ordering::Acquire);
        }
        // SAFETY: as above.
        unsafe { volatile::load_words(from, bytes) };
    }
}

impl Map {
    /// Maps the first `length` bytes of `file`, which has so many and cannot lose them.
    fn new(file: impl AsFd, length: usize, how: ProtFlags) -> io::Result<Self> {
        // SAFETY: the kernel chooses an address that nothing else uses.
        let base = unsafe { mmap(std::ptr::null_mut(), length, how, MapFlags::SHARED, file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = Self { base, length, epoch: Epoch::current() };
        // SAFETY: the range was just mapped; the advice does not change this process' view of it.
        unsafe { madvise(base.as_ptr().cast(), length, Advice::LinuxDontFork) }?;
        Ok(map)
    }

    fn capacity(&self) -> usize {
        self.length - DATA
    }

    /// A word before the data.
    fn at(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + 8 <= DATA && offset.is_multiple_of(8), "a word before the data");
        let at = self.base.as_ptr().wrapping_add(offset).cast();
        // SAFETY: aligned, as pages are, and mapped for as long as this is borrowed; everybody accesses it atomically. Where it is
        // mapped for reading only, it is only loaded.
        unsafe { AtomicU64::from_ptr(at) }
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.length, "a byte of the file");
        // SAFETY: mapped for as long as this is borrowed; everybody accesses it atomically.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().wrapping_add(at)) }
    }

    /// The address of `length` bytes of the ring from `at` on.
    fn ring(&self, at: usize, length: usize) -> *mut u8 {
        let end = at.checked_add(length);
        assert!(end.is_some_and(|end| end <= self.capacity()), "{length} bytes at {at} leave the ring");
        self.base.as_ptr().wrapping_add(DATA + at)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if !self.epoch.is_current() {
            // A forked child did not inherit the range (MADV_DONTFORK): something else may be mapped there.
            return;
        }
        // SAFETY: nothing refers to the range any more: what refers to it borrows this.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.length) } {
            tracing::error!(%error, "a mapping could not be removed and is leaked");
        }
    }
}
