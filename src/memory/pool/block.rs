//! A part of a slab, idle or in use.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Class, Reservoir};
use crate::memory::foreign::Returns;
use crate::memory::{Epoch, Slab};

/// A range of a slab. The buffers that are pieces of it share it; the last one returns it.
pub(crate) struct Block {
    slab: Arc<Slab>,
    /// Who takes it back; a block of nobody goes with its slab.
    home: Option<&'static Reservoir>,
    /// Of a block in a peer's pages: who tells that peer that it is free again, and what the peer calls it.
    foreign: Option<(Arc<Returns>, u32)>,
    class: Option<Class>,
    epoch: Epoch,
    pointer: NonNull<u8>,
    length: usize,
    /// How many buffers are in it; 1 while it is idle.
    pieces: AtomicUsize,
    /// Whether it may hold anything but zeros.
    is_used: AtomicBool,
}

// SAFETY: the pointer is into the slab, which the block keeps, and no more than a place in it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

/// The right to all bytes of a block, while no buffer is in it. It cannot be cloned, so a block is in one list or in
/// use, never both.
pub(crate) struct IdleBlock(Arc<Block>);

impl IdleBlock {
    /// All of a slab that nobody else cuts.
    pub(crate) fn of_slab(slab: Arc<Slab>, home: Option<&'static Reservoir>) -> Self {
        let length = slab.mapping().length();
        Self::new(slab, home, None, 0, length)
    }

    /// Block `index` of a slab that is cut into blocks of `class`. The caller cuts each once.
    pub(super) fn carve(slab: &Arc<Slab>, home: &'static Reservoir, class: Class, index: usize) -> Self {
        let start = index * class.size();
        assert!(start + class.size() <= slab.mapping().length(), "a block lies in its slab");
        Self::new(Arc::clone(slab), Some(home), Some(class), start, class.size())
    }

    fn new(
        slab: Arc<Slab>,
        home: Option<&'static Reservoir>,
        class: Option<Class>,
        start: usize,
        length: usize,
    ) -> Self {
        let (pieces, is_used) = (AtomicUsize::new(1), AtomicBool::new(false));
        let pointer = slab.mapping().at(start);
        let (foreign, epoch) = (None, Epoch::current());
        Self(Arc::new(Block { slab, home, foreign, class, epoch, pointer, length, pieces, is_used }))
    }

    /// `length` bytes of a peer's pages from `start` on, which the peer has handed over as `token`. What is left of an earlier
    /// one is used again.
    pub(crate) fn of_peer(
        spare: Option<Self>,
        slab: &Arc<Slab>,
        (start, length): (usize, usize),
        (returns, token): (&Arc<Returns>, u32),
    ) -> Self {
        let mut this = spare.unwrap_or_else(|| Self::new(Arc::clone(slab), None, None, 0, 0));
        if Arc::get_mut(&mut this.0).is_none() {
            // Somebody is just about to let go of it.
            this = Self::new(Arc::clone(slab), None, None, 0, 0);
        }
        if let Some(block) = Arc::get_mut(&mut this.0) {
            if !Arc::ptr_eq(&block.slab, slab) {
                block.slab = Arc::clone(slab);
            }
            (block.pointer, block.length) = (slab.mapping().at(start), length);
            match &mut block.foreign {
                Some((known, name)) if Arc::ptr_eq(known, returns) => *name = token,
                foreign => *foreign = Some((Arc::clone(returns), token)),
            }
        }
        this
    }

    /// What the peer calls it whose pages it lies in.
    pub(crate) fn token(&self) -> Option<u32> {
        self.0.foreign.as_ref().map(|(_, token)| *token)
    }

    /// The only piece of the block is given up.
    pub(crate) fn vacated(block: Arc<Block>) -> Self {
        Self(block)
    }

    /// Puts the first piece into it. Tells whether the block has been in use before.
    #[inline]
    pub(crate) fn occupy(self) -> (Arc<Block>, bool) {
        let was_used = self.0.is_used.load(Ordering::Relaxed);
        #[cfg(test)]
        let was_used = was_used && !super::planted::is(super::planted::Bug::NotZeroed);
        if !was_used {
            self.0.is_used.store(true, Ordering::Relaxed);
        }
        (self.0, was_used)
    }

    /// Gives it back to where it came from.
    #[inline]
    pub(super) fn go_home(self) {
        match (self.0.home, &self.0.foreign) {
            (Some(home), _) => home.take_back(self),
            (None, Some((returns, _))) => Arc::clone(returns).push(self),
            (None, None) => {}
        }
    }

    pub(crate) fn slab(&self) -> &Arc<Slab> {
        &self.0.slab
    }

    pub(super) fn class(&self) -> Option<Class> {
        self.0.class
    }

    pub(super) fn length(&self) -> usize {
        self.0.length
    }

    #[cfg(test)]
    pub(super) fn again(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Block {
    pub(crate) fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Whether it lies in pages of the peer that hears of `returns`.
    pub(crate) fn is_of(&self, returns: &Arc<Returns>) -> bool {
        self.foreign.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, returns))
    }

    #[inline]
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    /// Another piece of the same block.
    pub(crate) fn share(self: &Arc<Self>) -> Arc<Self> {
        // As for `Arc`: whoever holds a piece keeps the count above zero, so no order is needed.
        self.pieces.fetch_add(1, Ordering::Relaxed);
        Arc::clone(self)
    }

    /// Whether the caller's piece is the only one; then it stays so until the caller shares it.
    pub(crate) fn is_sole(&self) -> bool {
        self.pieces.load(Ordering::Acquire) == 1
    }

    /// A piece goes. The last returns the block.
    #[inline]
    pub(crate) fn release(self: Arc<Self>) {
        if !self.epoch.is_current() {
            // The parent's: its pages are not mapped here, and its locks may be held for ever.
            std::mem::forget(self);
            return;
        }
        #[cfg(test)]
        if super::planted::is(super::planted::Bug::ReturnedEarly) && !self.is_sole() {
            return IdleBlock(self).go_home();
        }
        if !self.is_sole() {
            // Release, so that the last sees what was done to the other pieces; acquire, in case it is this.
            if self.pieces.fetch_sub(1, Ordering::AcqRel) != 1 {
                // The last may be home by now, and its slab given back: then the room is free when this is dropped.
                let home = self.home;
                drop(self);
                if let Some(home) = home {
                    home.room_may_be_free();
                }
                return;
            }
            self.pieces.store(1, Ordering::Relaxed);
        }
        IdleBlock(self).go_home();
    }
}
