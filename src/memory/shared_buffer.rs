//! Buffers that many read.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::fmt;
use std::ops::{Deref, RangeBounds};

use bytes::Bytes;

use super::piece::Piece;
use super::{Buffer, Domain};
use crate::Result;

/// Registered memory that can be read by many and written by nobody; made by [`Buffer::freeze`].
///
/// It derefs to `[u8]`. Cloning and slicing copy and allocate nothing. The memory goes back to its pool with the last
/// clone, slice and piece of it.
///
/// ```
/// let mut buffer = zcmi::Buffer::allocate(100)?;
/// buffer[..5].copy_from_slice(b"hello");
/// let shared = buffer.freeze();
/// let hello = shared.slice(..5);
/// assert_eq!((&*hello, shared.len()), (&b"hello"[..], 100));
/// # Ok::<(), zcmi::Error>(())
/// ```
pub struct SharedBuffer(Piece);

impl SharedBuffer {
    /// Of a piece that is written by nobody any more.
    pub(super) fn new(piece: Piece) -> Self {
        Self(piece)
    }

    /// A part of it.
    ///
    /// # Panics
    /// If the range leaves the buffer.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let mut piece = self.0.share();
        piece.narrow(range);
        Self(piece)
    }

    /// Gives the buffer back to write to.
    ///
    /// # Errors
    /// Itself, while any other clone, slice or piece of the memory is left, be it of other bytes.
    pub fn try_into_buffer(self) -> std::result::Result<Buffer, Self> {
        // The only piece: nobody can read these bytes, or make another piece of them.
        if self.0.is_sole() { Ok(Buffer::of_piece(self.0)) } else { Err(self) }
    }

    /// Its key in `domain`, which registers it on first use: for sources, as a destination would be written while others read it. A buffer that was bound there before it was frozen
    /// looks nothing up; others take no lock in the first domain.
    #[allow(dead_code, reason = "for operations with shared sources")]
    pub(crate) fn bind(&self, domain: &dyn Domain) -> Result<u32> {
        self.0.key(domain)
    }

    /// Whether peers may have its pages too. A device is not given it.
    pub(crate) fn is_of_peers_too(&self) -> bool {
        self.0.slab().is_some_and(|slab| slab.mapping().is_of_peers_too())
    }

    /// The first byte. Nobody writes it.
    #[allow(dead_code, reason = "for operations with shared sources")]
    pub(crate) fn address(&self) -> *const u8 {
        self.0.address()
    }
}

impl Clone for SharedBuffer {
    fn clone(&self) -> Self {
        Self(self.0.share())
    }
}

impl Deref for SharedBuffer {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in a live mapping, or is empty, and belongs to shared buffers alone, none of which writes: it was made
        // of a `Buffer`, which had it alone, and becomes one again only when it is the last piece.
        unsafe { std::slice::from_raw_parts(self.0.address(), self.0.length()) }
    }
}

impl AsRef<[u8]> for SharedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Buffer> for SharedBuffer {
    fn from(buffer: Buffer) -> Self {
        buffer.freeze()
    }
}

impl From<SharedBuffer> for Bytes {
    /// Without a copy.
    fn from(buffer: SharedBuffer) -> Self {
        Self::from_owner(buffer)
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer").field("length", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_becomes_a_buffer_again() {
        let mut buffer = Buffer::allocate(100).expect("memory");
        buffer.fill(7);
        let shared = buffer.freeze();
        let slice = shared.slice(10..20);
        let clone = shared.clone();
        let shared = shared.try_into_buffer().expect_err("two others are left");
        drop((shared, clone));
        let mut buffer = slice.try_into_buffer().expect("the last");
        assert_eq!(&*buffer, [7; 10]);
        buffer.fill(8);
    }

    #[test]
    fn no_bytes_can_be_shared_too() {
        let shared = Buffer::default().freeze();
        assert!(shared.clone().is_empty() && shared.slice(..).is_empty());
        assert!(shared.try_into_buffer().is_ok());
        assert!(Buffer::default().into_bytes().is_empty());
    }
}
