//! Buffers: memory that the device can use and that its owner alone can touch.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::fmt;
use std::ops::{Deref, DerefMut, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;

use super::Slab;
use super::exposed::ExposedBuffer;
use super::foreign::Returns;
use super::piece::Piece;
use super::pool::{IdleBlock, Pool};
use super::{Domain, SharedBuffer};
use crate::Result;

/// A piece of registered memory for sending, receiving, reading and writing without a copy.
///
/// It derefs to `[u8]`. While an operation uses it, the operation owns it; while a peer may access it, it is an
/// [`ExposedBuffer`]. So a `Buffer` in hand is touched by nobody else. It is registered with a device
/// when it is first used there, and stays so.
///
/// It comes from a [`Pool`] and goes back there when it is dropped, or when the last piece is that it was
/// [split](Self::split_at) into.
///
/// ```
/// let mut buffer = zcmi::Buffer::allocate(4096)?;
/// buffer[..5].copy_from_slice(b"hello");
/// let (hello, rest) = buffer.split_at(5);
/// assert_eq!((&*hello, rest.len()), (&b"hello"[..], 4091));
/// # Ok::<(), zcmi::Error>(())
/// ```
pub struct Buffer(Piece);

impl Buffer {
    /// Takes `length` bytes of the [process' pool](Pool::global), zeroed. [`Pool::allocate`] does not zero, and has a limit that
    /// can be set.
    ///
    /// # Errors
    /// [`MemoryLimit`](crate::ErrorKind::MemoryLimit), [`PoolExhausted`](crate::ErrorKind::PoolExhausted) or
    /// [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted). Never for no bytes.
    pub fn allocate(length: usize) -> Result<Self> {
        match length {
            0 => Ok(Self::default()),
            length => Pool::with_global(|pool| pool.allocate_zeroed(length)),
        }
    }

    /// Allocates `count` buffers of `length` bytes in one slab with one registration, outside of any pool.
    #[cfg(test)]
    pub(crate) fn allocate_many(count: usize, length: usize) -> Result<Vec<Self>> {
        // A cache line apart, so that neighbours do not share one.
        let stride = length.max(1).next_multiple_of(64);
        let slab = Slab::new(stride.saturating_mul(count))?;
        let mut rest = Self(Piece::new(IdleBlock::of_slab(slab, None).occupy().0, stride * count));
        let cut = |_| {
            let next = rest.split_off(stride);
            let mut buffer = std::mem::replace(&mut rest, next);
            buffer.truncate(length);
            buffer
        };
        Ok((0..count).map(cut).collect())
    }

    /// Splits it in two: the bytes before `mid`, and those from there on. Both return the block when they are gone.
    ///
    /// # Panics
    /// If `mid` lies behind the end.
    #[must_use = "what is not kept is dropped"]
    pub fn split_at(mut self, mid: usize) -> (Self, Self) {
        let rest = self.split_off(mid);
        (self, rest)
    }

    /// Keeps the bytes before `at` and answers those from there on.
    ///
    /// # Panics
    /// If `at` lies behind the end.
    #[must_use = "what is not kept is dropped; `truncate` shortens"]
    pub fn split_off(&mut self, at: usize) -> Self {
        Self(self.0.split_off(at))
    }

    /// Keeps the first `length` bytes; what is behind them cannot be had again before the block is returned. Does nothing to a shorter
    /// buffer.
    pub fn truncate(&mut self, length: usize) {
        self.0.narrow(0..length.min(self.0.length()));
    }

    /// Narrows it to `range`; the other bytes cannot be had again before the block is returned.
    ///
    /// # Panics
    /// If the range leaves the buffer.
    #[must_use]
    pub fn slice(mut self, range: impl RangeBounds<usize>) -> Self {
        self.0.narrow(range);
        self
    }

    /// Joins it with `next`, if that is the piece that it was split from right behind it.
    ///
    /// # Errors
    /// Gives `next` back, if it is not.
    pub fn unsplit(&mut self, next: Self) -> std::result::Result<(), Self> {
        self.0.join(next.0).map_err(Self)
    }

    /// Makes it readable by many: from here on nobody can write it, until the last gives it
    /// [back](SharedBuffer::try_into_buffer). Copies and allocates nothing.
    #[must_use]
    pub fn freeze(self) -> SharedBuffer {
        SharedBuffer::new(self.0)
    }

    /// Its bytes as [`Bytes`], without a copy. The block is returned when the last `Bytes` of it is gone.
    ///
    /// To send it, [`freeze`](Self::freeze) it instead: nobody can see of `Bytes` that they are registered already, so they
    /// are again, and the registration keeps the block for about two seconds more.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.freeze().into()
    }

    /// Lets peers access the buffer through grants. Nobody can have a slice of it from here on.
    pub fn expose(self) -> ExposedBuffer {
        ExposedBuffer::new(self)
    }

    /// Makes the buffer usable in `domain`, which registers it on first use. Without bytes there is nothing to register, and
    /// no device looks at the key.
    #[inline]
    pub(crate) fn bind(&mut self, domain: &dyn Domain) -> Result<u32> {
        self.0.bind(domain)
    }

    /// The first `length` bytes of a block, whatever is in them.
    #[inline]
    pub(super) fn of_block(block: IdleBlock, length: usize) -> Self {
        Self(Piece::new(block.occupy().0, length))
    }

    /// The first `length` bytes of a block, zeroed.
    pub(super) fn zeroed(block: IdleBlock, length: usize) -> Self {
        let (block, was_used) = block.occupy();
        let mut buffer = Self(Piece::new(block, length));
        if was_used {
            buffer.fill(0);
        }
        buffer
    }

    /// Of a piece that nobody else has a view of.
    pub(super) fn of_piece(piece: Piece) -> Self {
        Self(piece)
    }

    /// Whether peers may have its pages too. A device is not given it.
    pub(crate) fn is_of_peers_too(&self) -> bool {
        self.0.slab().is_some_and(|slab| slab.mapping().is_of_peers_too())
    }

    /// Where its bytes begin in a slab that peers may be given, if it lies in one.
    pub(crate) fn shareable(&self) -> Option<(&Arc<Slab>, usize)> {
        let slab = self.0.slab().filter(|slab| slab.file().is_some())?;
        Some((slab, self.0.place()?))
    }

    /// Whether it is the only piece of a block in pages of the peer that hears of `returns`.
    pub(crate) fn is_all_of(&self, returns: &Arc<Returns>) -> bool {
        self.0.is_all_of(returns)
    }

    /// Gives up what lies in pages of the peer that hears of `returns`, if no other piece of the block is left; answers the block
    /// and where the bytes begin in it.
    pub(crate) fn vacate(self, returns: &Arc<Returns>) -> std::result::Result<(IdleBlock, usize), Self> {
        self.0.vacate(returns).map_err(Self)
    }

    /// What it is cut from; `None` without bytes.
    #[cfg(test)]
    pub(super) fn slab(&self) -> Option<&Arc<Slab>> {
        self.0.slab()
    }

    pub(super) fn address(&self) -> *mut u8 {
        self.0.address()
    }
}

impl Default for Buffer {
    /// No bytes, and no memory.
    fn default() -> Self {
        Self(Piece::EMPTY)
    }
}

impl Deref for Buffer {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in a live mapping, or is empty, and belongs to this buffer alone: blocks are disjoint and idle
        // or in use, pieces of a block are disjoint, and neither an operation nor a grant has it while the buffer is in hand.
        unsafe { std::slice::from_raw_parts(self.address(), self.0.length()) }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` excludes every other slice of it.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.0.length()) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        buffer.into_bytes()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("length", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_one_slab_do_not_overlap() {
        let mut buffers = Buffer::allocate_many(5, 100).expect("memory");
        let first = buffers[0].address().addr();
        for (value, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.address() as usize % 64, 0);
            assert_eq!((buffer.len(), buffer.address().addr() - first), (100, value * 128));
            buffer.fill(value as u8);
        }
        for (value, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|&byte| byte == value as u8));
        }
    }

    #[test]
    fn an_empty_buffer_is_allowed_and_has_no_memory() {
        let empty = Buffer::allocate(0).expect("nothing is needed");
        assert!(empty.is_empty() && empty.slab().is_none());
        assert!(Buffer::allocate_many(3, 0).expect("memory").iter().all(|buffer| buffer.is_empty()));
    }

    #[test]
    fn more_memory_than_there_is_is_an_error() {
        let error = Buffer::allocate(usize::MAX).expect_err("no machine has that");
        assert_eq!(error.kind(), crate::ErrorKind::MemoryLimit);
    }

    #[test]
    fn pieces_are_joined_only_with_their_neighbours() {
        let mut buffer = Buffer::allocate(300).expect("memory");
        buffer.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
        let (mut first, rest) = buffer.split_at(100);
        let (second, third) = rest.split_at(100);
        let third = first.unsplit(third).expect_err("the second is missing");
        let other = first.unsplit(Buffer::allocate(8).expect("memory")).expect_err("another block");
        assert_eq!(other.len(), 8);
        first.unsplit(second).expect("neighbours");
        first.unsplit(third).expect("neighbours");
        first.unsplit(Buffer::default()).expect("nothing");
        assert!(first.iter().enumerate().all(|(index, &byte)| byte == index as u8) && first.len() == 300);
        assert_eq!(&*first.slice(10..=12), [10, 11, 12]);
    }

    #[test]
    #[should_panic(expected = "a split at 9")]
    fn a_split_behind_the_end_panics() {
        let _ = Buffer::allocate(8).expect("memory").split_at(9);
    }

    #[test]
    #[should_panic(expected = "leaves a buffer of 8 bytes")]
    fn a_slice_beyond_the_end_panics() {
        let _ = Buffer::allocate(8).expect("memory").slice(4..9);
    }

    #[test]
    fn a_buffer_is_cheap_to_move() {
        assert!(size_of::<Buffer>() <= 64 && size_of::<crate::Result<Buffer>>() == size_of::<Buffer>());
    }
}
