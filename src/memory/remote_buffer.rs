//! Handles: small values that name a range of a peer's memory and travel in messages.

use std::fmt;
use std::ops::{BitOr, Bound, RangeBounds};

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, ErrorKind, Result};

/// What a grant allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access(u8);

impl Access {
    /// Reading.
    pub const READ: Self = Self(1);
    /// Writing.
    pub const WRITE: Self = Self(2);
    /// Reading and writing.
    pub const READ_WRITE: Self = Self(3);

    /// Whether all of `other` is allowed.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Access {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.contains(Self::READ), self.contains(Self::WRITE)) {
            (true, true) => "read-write",
            (true, false) => "read",
            (false, true) => "write",
            (false, false) => "nothing",
        })
    }
}

/// A handle: names memory that a peer has granted to this connection, and carries the right to use it.
///
/// It is a plain value: copy it, [`slice`](Self::slice) it, put it in a message ([`to_bytes`](Self::to_bytes) or
/// serde). It holds nothing alive: the owner can revoke it at any time. Whoever sees its bytes and has a
/// queue pair in the same protection domain can use it, so it goes to its peer and nowhere else;
/// `Display` and `Debug` leave the key out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct RemoteBuffer {
    address: u64,
    length: u64,
    key: u32,
    access: Access,
    session: u64,
    generation: u64,
}

/// The wire layout, version 1: 40 bytes, little endian.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Wire {
    version: u8,
    access: u8,
    reserved: U16,
    key: U32,
    session: U64,
    generation: U64,
    address: U64,
    length: U64,
}

const VERSION: u8 = 1;

impl RemoteBuffer {
    /// Bytes of the wire layout.
    pub const WIRE_LENGTH: usize = size_of::<Wire>();

    pub(super) fn new(address: u64, length: u64, key: u32, access: Access, session: u64, generation: u64) -> Self {
        Self { address, length, key, access, session, generation }
    }

    /// Bytes that the handle covers.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What it allows.
    pub fn access(&self) -> Access {
        self.access
    }

    /// A handle for a part of it.
    ///
    /// # Errors
    /// [`OutOfBounds`](ErrorKind::OutOfBounds) if the range is not within this handle.
    pub fn slice(&self, range: impl RangeBounds<u64>) -> Result<Self> {
        let start = match range.start_bound() {
            Bound::Included(&start) => Some(start),
            Bound::Excluded(&start) => start.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.checked_add(1),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => Some(self.length),
        };
        match (start, end) {
            (Some(start), Some(end)) if start <= end && end <= self.length => {
                Ok(Self { address: self.address + start, length: end - start, ..*self })
            }
            _ => {
                let detail =
                    format!("{:?}..{:?} of a handle of {} bytes", range.start_bound(), range.end_bound(), self.length);
                Err(Error::new(ErrorKind::OutOfBounds, "slice").with_detail(detail))
            }
        }
    }

    /// The handle as 40 bytes, for a message.
    pub fn to_bytes(&self) -> [u8; Self::WIRE_LENGTH] {
        let wire = Wire {
            version: VERSION,
            access: self.access.0,
            reserved: U16::ZERO,
            key: self.key.into(),
            session: self.session.into(),
            generation: self.generation.into(),
            address: self.address.into(),
            length: self.length.into(),
        };
        zerocopy::transmute!(wire)
    }

    /// Reads a handle from a message.
    ///
    /// # Errors
    /// [`Protocol`](ErrorKind::Protocol) if the bytes are no handle of version 1.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let invalid = |detail: &str| Error::new(ErrorKind::Protocol, "parse handle").with_detail(detail);
        let wire = Wire::read_from_bytes(bytes).map_err(|_| invalid("a handle has 40 bytes"))?;
        if wire.version != VERSION {
            return Err(invalid("a handle of another version"));
        }
        if wire.access > Access::READ_WRITE.0 || wire.reserved.get() != 0 {
            return Err(invalid("unknown rights or flags"));
        }
        if wire.address.get().checked_add(wire.length.get()).is_none() {
            return Err(invalid("the range wraps around"));
        }
        Ok(Self {
            address: wire.address.get(),
            length: wire.length.get(),
            key: wire.key.get(),
            access: Access(wire.access),
            session: wire.session.get(),
            generation: wire.generation.get(),
        })
    }

    /// Checks what can be checked before the wire, and answers address and key of `length` bytes at `offset`.
    pub(crate) fn check(
        &self,
        operation: &'static str,
        needed: Access,
        session: u64,
        offset: u64,
        length: usize,
    ) -> Result<(u64, u32)> {
        if self.session != session {
            return Err(Error::new(ErrorKind::Foreign, operation));
        }
        if !self.access.contains(needed) {
            let detail = format!("it allows {}, not {needed}", self.access);
            return Err(Error::new(ErrorKind::AccessDenied, operation).with_detail(detail));
        }
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.length => Ok((self.address + offset, self.key)),
            _ => {
                let detail = format!("{length} bytes at {offset} of a handle of {} bytes", self.length);
                Err(Error::new(ErrorKind::OutOfBounds, operation).with_detail(detail))
            }
        }
    }
}

impl From<RemoteBuffer> for Vec<u8> {
    fn from(handle: RemoteBuffer) -> Self {
        handle.to_bytes().to_vec()
    }
}

impl TryFrom<Vec<u8>> for RemoteBuffer {
    type Error = Error;
    fn try_from(bytes: Vec<u8>) -> Result<Self> {
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for RemoteBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote buffer of {} bytes ({})", self.length, self.access)
    }
}

impl fmt::Debug for RemoteBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteBuffer")
            .field("length", &self.length)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn handle(length: u64) -> RemoteBuffer {
        RemoteBuffer::new(0x1000, length, 0xdead_beef, Access::READ, 7, 9)
    }

    #[test]
    fn the_wire_layout_is_fixed() {
        let bytes = RemoteBuffer::new(0x0102, 3, 0x0405, Access::READ_WRITE, 6, 7).to_bytes();
        let expected = [
            1, 3, 0, 0, 5, 4, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0,
            0, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn serde_round_trips_in_two_formats() {
        let handle = handle(5);
        let bytes = bincode::serde::encode_to_vec(handle, bincode::config::standard()).expect("encodes");
        let (back, _): (RemoteBuffer, _) =
            bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).expect("decodes");
        assert_eq!(back, handle);
        let text = serde_json::to_string(&handle).expect("encodes");
        assert_eq!(serde_json::from_str::<RemoteBuffer>(&text).expect("decodes"), handle);
    }

    #[test]
    fn neither_display_nor_debug_shows_the_key() {
        for text in [handle(5).to_string(), format!("{:?}", handle(5))] {
            assert!(!text.contains("dead") && !text.contains("3735928559"), "{text}");
        }
    }

    #[test]
    fn checks_come_before_the_wire() {
        let handle = handle(100);
        let kind = |needed, session, offset, length| {
            handle.check("read", needed, session, offset, length).map_err(|error| error.kind())
        };
        assert_eq!(kind(Access::READ, 7, 10, 90), Ok((0x100a, 0xdead_beef)));
        assert_eq!(kind(Access::READ, 8, 0, 1), Err(ErrorKind::Foreign));
        assert_eq!(kind(Access::WRITE, 7, 0, 1), Err(ErrorKind::AccessDenied));
        assert_eq!(kind(Access::READ, 7, 11, 90), Err(ErrorKind::OutOfBounds));
        assert_eq!(kind(Access::READ, 7, u64::MAX, 1), Err(ErrorKind::OutOfBounds));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(handle) = RemoteBuffer::from_bytes(&bytes) {
                prop_assert_eq!(&handle.to_bytes()[..], &bytes[..]);
            }
        }

        #[test]
        fn a_slice_never_leaves_its_handle(length in 0u64..1000, start in any::<u64>(), end in any::<u64>()) {
            let handle = handle(length);
            match handle.slice(start..end) {
                Ok(part) => {
                    prop_assert!(start <= end && end <= length);
                    prop_assert_eq!((part.address, part.length), (handle.address + start, end - start));
                }
                Err(error) => {
                    prop_assert!(start > end || end > length);
                    prop_assert_eq!(error.kind(), ErrorKind::OutOfBounds);
                }
            }
        }
    }
}
