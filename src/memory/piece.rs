//! A range of a block, without any claim on its bytes.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::ops::{Bound, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

use super::Domain;
use super::Slab;
use super::foreign::Returns;
use super::mapping::EMPTY;
use super::pool::{Block, IdleBlock};
use crate::Result;

/// What buffers consist of. It keeps the memory, and makes no reference into it: `Buffer` and `SharedBuffer` do, who know
/// what they may.
pub(super) struct Piece {
    /// `None` without bytes.
    block: Option<Arc<Block>>,
    pointer: NonNull<u8>,
    length: usize,
    /// Of the last use.
    key: Key,
}

/// A key in a domain, kept so that using a buffer there again looks nothing up.
#[derive(Clone, Copy)]
struct Key {
    domain: u64,
    key: u32,
}

// SAFETY: a piece is a place in memory and a count of its block, which are the same on every thread.
unsafe impl Send for Piece {}
// SAFETY: as above; it has no inner mutability.
unsafe impl Sync for Piece {}

impl Piece {
    /// No bytes.
    pub(super) const EMPTY: Self = Self { block: None, pointer: EMPTY, length: 0, key: Key::NONE };

    /// The first `length` bytes of a block.
    #[inline]
    pub(super) fn new(block: Arc<Block>, length: usize) -> Self {
        assert!(length <= block.length(), "a buffer lies in its block");
        let pointer = block.pointer();
        Self { block: Some(block), pointer, length, key: Key::NONE }
    }

    #[inline]
    pub(super) fn length(&self) -> usize {
        self.length
    }

    #[inline]
    pub(super) fn address(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// What it is cut from; `None` without bytes.
    pub(super) fn slab(&self) -> Option<&Arc<Slab>> {
        self.block.as_deref().map(Block::slab)
    }

    /// Another piece of the same bytes.
    pub(super) fn share(&self) -> Self {
        Self { block: self.block.as_ref().map(Block::share), ..*self }
    }

    /// Whether no other piece of the block is left.
    pub(super) fn is_sole(&self) -> bool {
        self.block.as_deref().is_none_or(Block::is_sole)
    }

    /// Where it begins in its slab.
    pub(super) fn place(&self) -> Option<usize> {
        let base = self.slab()?.mapping().base();
        self.address().addr().checked_sub(base.addr())
    }

    /// Whether it is the only piece of a block in pages of the peer that hears of `returns`.
    pub(super) fn is_all_of(&self, returns: &Arc<Returns>) -> bool {
        self.block.as_deref().is_some_and(|block| block.is_of(returns) && block.is_sole())
    }

    /// Gives up a piece that is the only one of a block in pages of the peer that hears of `returns`; answers the block and where
    /// the piece begins in it.
    pub(super) fn vacate(mut self, returns: &Arc<Returns>) -> std::result::Result<(IdleBlock, usize), Self> {
        match self.block.take() {
            Some(block) if block.is_of(returns) && block.is_sole() => {
                let start = self.address().addr() - block.pointer().as_ptr().addr();
                Ok((IdleBlock::vacated(block), start))
            }
            block => {
                self.block = block;
                Err(self)
            }
        }
    }

    /// Keeps `range`.
    ///
    /// # Panics
    /// If it leaves the piece.
    pub(super) fn narrow(&mut self, range: impl RangeBounds<usize>) {
        let start = match range.start_bound() {
            Bound::Included(&start) => Some(start),
            Bound::Excluded(&before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.checked_add(1),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => Some(self.length),
        };
        let length = self.length;
        match (start, end) {
            (Some(start), Some(end)) if start <= end && end <= length => {
                self.pointer = self.at(start);
                self.length = end - start;
            }
            _ => panic!("a range leaves a buffer of {length} bytes"),
        }
    }

    /// Keeps what is before `at`, and answers the rest.
    ///
    /// # Panics
    /// If `at` lies behind the end.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        assert!(at <= self.length, "a split at {at} of a buffer of {} bytes", self.length);
        // A piece of no bytes needs no block.
        if at == 0 {
            return std::mem::replace(self, Self::EMPTY);
        }
        if at == self.length {
            return Self::EMPTY;
        }
        let mut rest = self.share();
        rest.narrow(at..);
        self.length = at;
        rest
    }

    /// Takes in `next`, if it is of the same block and right behind; gives it back if not.
    pub(super) fn join(&mut self, next: Self) -> std::result::Result<(), Self> {
        if next.length == 0 {
            return Ok(());
        }
        if self.length == 0 {
            *self = next;
            return Ok(());
        }
        let is_same = match (&self.block, &next.block) {
            (Some(block), Some(other)) => Arc::ptr_eq(block, other),
            _ => false,
        };
        if !is_same || self.at(self.length) != next.pointer {
            return Err(next);
        }
        self.length += next.length;
        Ok(())
    }

    /// The local key in `domain`, which registers the slab on first use. Without bytes there is nothing to register, and no
    /// device looks at the key.
    #[inline]
    pub(super) fn bind(&mut self, domain: &dyn Domain) -> Result<u32> {
        let id = domain.id();
        if self.key.domain != id {
            self.key = Key { domain: id, key: self.key(domain)? };
        }
        Ok(self.key.key)
    }

    /// As [`bind`](Self::bind), remembering nothing new.
    #[inline]
    pub(super) fn key(&self, domain: &dyn Domain) -> Result<u32> {
        match &self.block {
            _ if self.key.domain == domain.id() => Ok(self.key.key),
            Some(block) => block.slab().local_key(domain),
            None => Ok(0),
        }
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: at most one past the last byte of the piece, which lies in one mapping.
        unsafe { self.pointer.add(offset) }
    }
}

impl Key {
    /// Of a domain that does not exist.
    const NONE: Self = Self { domain: u64::MAX, key: 0 };
}

impl Drop for Piece {
    #[inline]
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            block.release();
        }
    }
}
