//! Addresses at which memory can be mapped, unmapped and mapped again.

#![allow(unsafe_code, reason = "mapping at chosen addresses; each block carries its proof")]

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Reserved addresses for `SLOTS` pieces of memory.
pub(super) struct Arena {
    base: *mut c_void,
    taken: [AtomicBool; SLOTS],
}

/// How many pieces there is room for.
pub(super) const SLOTS: usize = 6;
/// The length of a piece.
pub(super) const PIECE: usize = 4 * 4096;

// SAFETY: the addresses are only used through pieces, each of which has its own.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// A piece of memory that is unmapped when dropped.
pub(super) struct Piece {
    arena: Arc<Arena>,
    slot: usize,
}

impl Arena {
    pub(super) fn new() -> Arc<Self> {
        // SAFETY: the kernel chooses an address that nothing else uses.
        let base =
            unsafe { mmap_anonymous(std::ptr::null_mut(), SLOTS * PIECE, ProtFlags::empty(), MapFlags::PRIVATE) };
        let base = base.expect("addresses");
        Arc::new(Self { base, taken: std::array::from_fn(|_| AtomicBool::new(false)) })
    }

    /// Maps a piece at `slot` whose bytes depend on `seed`, unless the last one there is still mapped.
    pub(super) fn map(self: &Arc<Self>, slot: usize, seed: u64) -> Option<Piece> {
        if self.taken[slot].swap(true, Ordering::AcqRel) {
            return None;
        }
        let at = self.address(slot);
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
        // SAFETY: the range is the arena's, and no piece is there.
        unsafe { mmap_anonymous(at, PIECE, protection, flags) }.expect("memory");
        // SAFETY: just mapped, and nothing else refers to it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>(), PIECE) };
        for (offset, byte) in bytes.iter_mut().enumerate() {
            *byte = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8 ^ (offset / 7) as u8 ^ offset as u8;
        }
        // SAFETY: the range was just mapped, and `bytes` is not used any more.
        unsafe { mprotect(at, PIECE, MprotectFlags::READ) }.expect("protection");
        Some(Piece { arena: Arc::clone(self), slot })
    }

    /// Whether a piece is mapped there.
    pub(super) fn is_taken(&self, slot: usize) -> bool {
        self.taken[slot].load(Ordering::Acquire)
    }

    fn address(&self, slot: usize) -> *mut c_void {
        self.base.wrapping_byte_add(slot * PIECE)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped until the piece is dropped, and never written again.
        unsafe { std::slice::from_raw_parts(self.arena.address(self.slot).cast(), PIECE) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: replaces the piece, which nobody borrows any more, by a reservation.
        let reserved = unsafe {
            mmap_anonymous(
                self.arena.address(self.slot),
                PIECE,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::FIXED,
            )
        };
        reserved.expect("addresses");
        self.arena.taken[self.slot].store(false, Ordering::Release);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: pieces hold the arena, so none is left.
        unsafe { munmap(self.base, SLOTS * PIECE) }.expect("the arena was mapped");
    }
}
