//! Memory in an operation.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::ops::Range;

use super::{Buffer, Domain};

/// A buffer in an operation, and the part of it that the operation uses.
#[derive(Debug)]
pub(crate) struct Transfer {
    buffer: Buffer,
    address: u64,
    length: u32,
    local_key: u32,
}

impl Transfer {
    /// Prepares `range` of `buffer` for the device of `domain`.
    pub(crate) fn new(
        mut buffer: Buffer,
        range: Range<usize>,
        domain: &dyn Domain,
    ) -> std::result::Result<Self, crate::Failed<Buffer>> {
        let operation = "prepare";
        let length = match u32::try_from(range.len()) {
            Ok(length) if range.start <= range.end && range.end <= buffer.len() => length,
            _ => {
                let detail = format!("bytes {range:?} of a buffer of {}", buffer.len());
                let error = crate::Error::new(crate::ErrorKind::OutOfBounds, operation).with_detail(detail);
                return Err(crate::Failed { error, buffer });
            }
        };
        match buffer.bind(domain) {
            Ok(local_key) => {
                let address = buffer.address() as u64 + range.start as u64;
                Ok(Self { buffer, address, length, local_key })
            }
            Err(error) => Err(crate::Failed { error, buffer }),
        }
    }

    pub(crate) fn into_buffer(self) -> Buffer {
        self.buffer
    }
}

#[cfg(feature = "verbs")]
// SAFETY: the segment was checked to lie in the buffer, whose slab keeps it mapped and registered; the buffer
// is owned here, so nobody else can touch it, wherever the value moves.
unsafe impl crate::verbs::InFlight for Transfer {
    fn segment(&self) -> crate::verbs::Segment {
        crate::verbs::Segment { address: self.address, length: self.length, local_key: self.local_key }
    }
}
