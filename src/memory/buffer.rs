//! Buffers: memory that the device can use and that its owner alone can touch.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::exposed::ExposedBuffer;
use super::{Domain, Slab};
use crate::Result;

/// A piece of page-aligned, zeroed memory for sending, receiving, reading and writing without a copy.
///
/// It derefs to `[u8]`. While an operation uses it, the operation owns it; while a peer may access it, it is an
/// [`ExposedBuffer`]. So a `Buffer` in hand is touched by nobody else. It is registered with a device
/// when it is first used there, and stays so.
///
/// ```
/// let mut buffer = zcmi::Buffer::allocate(4096)?;
/// buffer[..5].copy_from_slice(b"hello");
/// assert_eq!(buffer.len(), 4096);
/// # Ok::<(), zcmi::Error>(())
/// ```
pub struct Buffer {
    slab: Arc<Slab>,
    start: usize,
    length: usize,
    /// Domain and key of the last use, so that using it there again looks nothing up.
    key: Option<(u64, u32)>,
}

impl Buffer {
    /// Allocates `length` zeroed bytes in pages of their own.
    ///
    /// # Errors
    /// [`MemoryLimit`](crate::ErrorKind::MemoryLimit) or [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted).
    pub fn allocate(length: usize) -> Result<Self> {
        Ok(Self { slab: Slab::new(length)?, start: 0, length, key: None })
    }

    /// Allocates `count` buffers of `length` bytes in one slab with one registration.
    pub(crate) fn allocate_many(count: usize, length: usize) -> Result<Vec<Self>> {
        // A cache line apart, so that neighbours do not share one.
        let stride = length.max(1).next_multiple_of(64);
        let slab = Slab::new(stride.saturating_mul(count))?;
        let cut = |index| Self { slab: Arc::clone(&slab), start: index * stride, length, key: None };
        Ok((0..count).map(cut).collect())
    }

    /// Lets peers access the buffer through grants. Nobody can have a slice of it from here on.
    pub fn expose(self) -> ExposedBuffer {
        ExposedBuffer::new(self)
    }

    /// Makes the buffer usable in `domain`, which registers it on first use.
    pub(crate) fn bind(&mut self, domain: &dyn Domain) -> Result<u32> {
        match self.key {
            Some((id, key)) if id == domain.id() => Ok(key),
            _ => {
                let key = self.slab.local_key(domain)?;
                self.key = Some((domain.id(), key));
                Ok(key)
            }
        }
    }

    pub(super) fn address(&self) -> *mut u8 {
        self.slab.mapping().base().wrapping_add(self.start)
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in a live mapping and belongs to this buffer alone: slabs are cut into disjoint
        // ranges, and neither an operation nor a grant has it while the buffer is in hand.
        unsafe { std::slice::from_raw_parts(self.address(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` excludes every other slice of it.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.length) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_one_slab_do_not_overlap() {
        let mut buffers = Buffer::allocate_many(5, 100).expect("memory");
        for (value, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.address() as usize % 64, 0);
            buffer.fill(value as u8);
        }
        for (value, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|&byte| byte == value as u8));
        }
    }

    #[test]
    fn an_empty_buffer_is_allowed() {
        assert!(Buffer::allocate(0).expect("memory").is_empty());
    }

    #[test]
    fn more_memory_than_there_is_is_an_error() {
        let error = Buffer::allocate(usize::MAX).expect_err("no machine has that");
        assert_eq!(error.kind(), crate::ErrorKind::MemoryLimit);
    }
}
