//! Handles: small values that name a range of a peer's memory and travel in messages.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Access;
use crate::protocol::{GrantId, MOST_GRANTS, Scope};
use crate::{Error, ErrorKind, Result};

/// A handle: names memory that a peer has granted, and carries the right to use it.
///
/// It is a plain value: copy it, [`slice`](Self::slice) it, put it in a message ([`to_bytes`](Self::to_bytes) or
/// serde). It holds nothing alive: the owner can revoke it at any time, after which operations with it answer
/// [`Revoked`](ErrorKind::Revoked). It is good on the connection that it was granted for, and, if it was granted to the
/// owner's domain, on every connection to that. It carries a key, so it goes to its peer and nowhere else; `Display` and
/// `Debug` leave the key out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct RemoteBuffer {
    address: u64,
    length: u64,
    key: u32,
    access: Access,
    /// The connection's id, or the domain's.
    session: u64,
    grant: GrantId,
    /// In which segment of the owner's it lies, if the peer of the connection was given that.
    segment: Option<u16>,
}

/// The wire layout, version 1: 40 bytes, little endian.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Wire {
    version: u8,
    access: u8,
    flags: U16,
    key: U32,
    session: U64,
    slot: U32,
    generation: U32,
    address: U64,
    length: U64,
}

const VERSION: u8 = 1;
/// Flag of a handle that is for the whole domain.
const OF_DOMAIN: u16 = 1;
/// The other bits: 0, or one more than the number of the segment in which it lies.
const SEGMENT: u32 = 1;
/// Numbers of segments that a handle can have.
pub(crate) const MOST_SEGMENTS: u32 = (1 << 15) - 1;

impl RemoteBuffer {
    /// Bytes of the wire layout.
    pub const WIRE_LENGTH: usize = size_of::<Wire>();

    pub(crate) fn new(address: u64, length: u64, key: u32, access: Access, session: u64, grant: GrantId) -> Self {
        Self { address, length, key, access, session, grant, segment: None }
    }

    /// The same in a segment that the peer has; one with a greater number than a handle can have is left out.
    pub(crate) fn in_segment(self, number: u32) -> Self {
        Self { segment: (number < MOST_SEGMENTS).then_some(number as u16), ..self }
    }

    /// In which segment of its owner's it lies.
    pub(crate) fn segment(&self) -> Option<u16> {
        self.segment
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

    /// Two handles: for the bytes before `middle`, and for those from there on.
    ///
    /// # Errors
    /// [`OutOfBounds`](ErrorKind::OutOfBounds) if `middle` lies behind the end.
    pub fn split_at(&self, middle: u64) -> Result<(Self, Self)> {
        Ok((self.slice(..middle)?, self.slice(middle..)?))
    }

    /// A handle for the value of type `T` at `offset`, in the byte order of the owner's processor.
    ///
    /// ```
    /// # fn example(counters: zcmi::RemoteBuffer) -> zcmi::Result<()> {
    /// let third = counters.at::<u64>(16)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OutOfBounds`](ErrorKind::OutOfBounds) if it is not within this handle, [`Misaligned`](ErrorKind::Misaligned) if it
    /// would not be aligned in the owner's memory as `T` is here.
    pub fn at<T: FromBytes + IntoBytes>(&self, offset: u64) -> Result<RemoteValue<T>> {
        let end = offset.checked_add(size_of::<T>() as u64);
        let end =
            end.ok_or_else(|| Error::new(ErrorKind::OutOfBounds, "at").with_detail(format!("offset {offset}")))?;
        let handle = self.slice(offset..end).map_err(|error| error.within("at"))?;
        if !handle.address.is_multiple_of(align_of::<T>() as u64) {
            let detail = format!("offset {offset} for a type that is aligned to {} bytes", align_of::<T>());
            return Err(Error::new(ErrorKind::Misaligned, "at").with_detail(detail));
        }
        Ok(RemoteValue { handle, value: PhantomData })
    }

    /// The handle as 40 bytes, for a message.
    pub fn to_bytes(&self) -> [u8; Self::WIRE_LENGTH] {
        let wire = Wire {
            version: VERSION,
            access: self.access.to_byte(),
            flags: self.flags().into(),
            key: self.key.into(),
            session: self.session.into(),
            slot: self.grant.slot.into(),
            generation: self.grant.generation.into(),
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
        let access = Access::from_byte(wire.access).ok_or_else(|| invalid("unknown rights"))?;
        let (scope, segment) = match (wire.flags.get() & OF_DOMAIN, wire.flags.get() >> SEGMENT) {
            (0, 0) => (Scope::Connection, None),
            (0, number) => (Scope::Connection, Some(number - 1)),
            (_, 0) => (Scope::Domain, None),
            _ => return Err(invalid("a handle of a domain that lies in a segment")),
        };
        if wire.slot.get() >= MOST_GRANTS {
            return Err(invalid("a grant beyond the most that there may be"));
        }
        if wire.address.get().checked_add(wire.length.get()).is_none() {
            return Err(invalid("the range wraps around"));
        }
        Ok(Self {
            address: wire.address.get(),
            length: wire.length.get(),
            key: wire.key.get(),
            access,
            session: wire.session.get(),
            grant: GrantId { scope, slot: wire.slot.get(), generation: wire.generation.get() },
            segment,
        })
    }

    fn flags(&self) -> u16 {
        let of_domain = if self.grant.scope == Scope::Domain { OF_DOMAIN } else { 0 };
        of_domain | self.segment.map_or(0, |number| (number + 1) << SEGMENT)
    }

    /// The grant that it comes from.
    /// The connection's id, or the domain's.
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    pub(crate) fn grant(&self) -> GrantId {
        self.grant
    }

    /// Checks what can be checked before the wire, and answers address and key of `length` bytes at its start. `session` is
    /// the connection's, `domain` the peer's.
    pub(crate) fn check(
        &self,
        operation: &'static str,
        needed: Access,
        (session, domain): (u64, u64),
        length: usize,
    ) -> Result<(u64, u32)> {
        let expected = match self.grant.scope {
            Scope::Connection => session,
            Scope::Domain => domain,
        };
        if self.session != expected {
            return Err(Error::new(ErrorKind::Foreign, operation));
        }
        if !self.access.contains(needed) {
            let detail = format!("it allows {}, not {needed}", self.access);
            return Err(Error::new(ErrorKind::AccessDenied, operation).with_detail(detail));
        }
        if length as u64 <= self.length {
            return Ok((self.address, self.key));
        }
        let detail = format!("{length} bytes of a handle of {} bytes", self.length);
        Err(Error::new(ErrorKind::OutOfBounds, operation).with_detail(detail))
    }
}

/// A handle for one value of type `T`; made by [`RemoteBuffer::at`].
pub struct RemoteValue<T> {
    handle: RemoteBuffer,
    value: PhantomData<fn() -> T>,
}

impl<T> RemoteValue<T> {
    /// The handle of its bytes.
    pub fn remote_buffer(&self) -> &RemoteBuffer {
        &self.handle
    }
}

impl<T> Clone for RemoteValue<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RemoteValue<T> {}

impl<T> fmt::Debug for RemoteValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteValue<{}>({})", std::any::type_name::<T>(), self.handle)
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
        RemoteBuffer::new(0x1000, length, 0xdead_beef, Access::READ, 7, grant(9, 1))
    }

    fn grant(slot: u32, generation: u32) -> GrantId {
        GrantId { scope: Scope::Connection, slot, generation }
    }

    #[test]
    fn the_wire_layout_is_fixed() {
        let bytes = RemoteBuffer::new(0x0102, 3, 0x0405, Access::READ_WRITE, 6, grant(7, 8)).to_bytes();
        let expected = [
            1, 3, 0, 0, 5, 4, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0,
            0, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_handle_names_its_segment_and_keeps_it_when_it_is_cut() {
        for number in [0, 1, MOST_SEGMENTS - 1] {
            let handle = handle(100).in_segment(number).slice(10..20).expect("inside");
            let back = RemoteBuffer::from_bytes(&handle.to_bytes()).expect("a handle");
            assert_eq!((back, back.segment()), (handle, Some(number as u16)));
        }
        assert_eq!(handle(100).segment(), None);
        assert_eq!(handle(100).in_segment(MOST_SEGMENTS).segment(), None, "it cannot be named");
        let mut of_both = handle(100).in_segment(3).to_bytes();
        of_both[2] |= OF_DOMAIN as u8;
        let error = RemoteBuffer::from_bytes(&of_both).expect_err("of a domain, in a segment");
        assert_eq!(error.kind(), ErrorKind::Protocol);
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
        let kind =
            |needed, session, length| handle.check("read", needed, (session, 99), length).map_err(|error| error.kind());
        assert_eq!(kind(Access::READ, 7, 100), Ok((0x1000, 0xdead_beef)));
        assert_eq!(kind(Access::READ, 8, 1), Err(ErrorKind::Foreign));
        assert_eq!(kind(Access::READ, 99, 1), Err(ErrorKind::Foreign), "it is not the domain's");
        assert_eq!(kind(Access::WRITE, 7, 1), Err(ErrorKind::AccessDenied));
        assert_eq!(kind(Access::READ, 7, 101), Err(ErrorKind::OutOfBounds));
        let of_domain = RemoteBuffer { grant: GrantId { scope: Scope::Domain, ..grant(9, 1) }, ..handle };
        assert_eq!(
            of_domain.check("read", Access::READ, (99, 7), 1).map_err(|error| error.kind()),
            Ok((0x1000, 0xdead_beef))
        );
        assert!(of_domain.check("read", Access::READ, (7, 99), 1).is_err());
        assert_eq!(RemoteBuffer::from_bytes(&of_domain.to_bytes()).expect("a handle"), of_domain);
    }

    #[test]
    fn a_value_lies_within_its_handle_and_is_aligned() {
        let handle = handle(100);
        let value = handle.at::<u64>(88).expect("inside");
        assert_eq!((value.handle.address, value.handle.length), (0x1058, 8));
        assert_eq!(handle.at::<u64>(96).expect_err("straddles").kind(), ErrorKind::OutOfBounds);
        assert_eq!(handle.at::<u64>(u64::MAX).expect_err("wraps").kind(), ErrorKind::OutOfBounds);
        assert_eq!(handle.at::<u64>(4).expect_err("between words").kind(), ErrorKind::Misaligned);
        assert!(handle.at::<[u8; 8]>(3).is_ok());
        let (first, second) = handle.split_at(60).expect("inside");
        assert_eq!((first.len(), second.len(), second.address), (60, 40, 0x103c));
        assert!(handle.split_at(101).is_err());
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
