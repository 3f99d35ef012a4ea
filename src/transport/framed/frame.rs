//! What is on the stream of an established connection: frames with a header of fixed layout.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const VERSION: u8 = 1;

/// Bytes of a header.
pub(in crate::transport) const HEADER: usize = size_of::<Wire>();
/// Bytes of the header of a [`Frame::Message`].
pub(in crate::transport) const SHORT_HEADER: usize = std::mem::offset_of!(Wire, address);
/// Bytes that a message has at most.
pub(in crate::transport) const MOST_MESSAGE: usize = 64 << 10;

const MESSAGE: u8 = 11;

/// Little endian. What a kind does not use is 0 and not looked at.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Wire {
    version: u8,
    kind: u8,
    reserved: [u8; 2],
    /// Bytes behind the header, or, of a read, that it asks for.
    length: U32,
    /// Requests of the other side that are done, from the first of the connection on.
    acknowledged: U64,
    address: U64,
    key: U32,
    value: U32,
    one: U64,
    other: U64,
}

/// The beginning of every header, and all of a message's.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Short {
    version: u8,
    kind: u8,
    reserved: [u8; 2],
    length: U32,
    acknowledged: U64,
}

/// A header, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) struct Header {
    pub(in crate::transport) acknowledged: u64,
    pub(in crate::transport) frame: Frame,
}

/// What a frame is. Requests are counted as they come; those that ask for something are answered in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Frame {
    Acknowledge,
    CompareSwap {
        address: u64,
        key: u32,
        compare: u64,
        swap: u64,
    },
    /// With bytes: of the oldest read that is not answered, as it goes on.
    Data {
        length: u32,
    },
    FetchAdd {
        address: u64,
        key: u32,
        add: u64,
    },
    /// With bytes. No request: it needs no receive and is not acknowledged. Its header is [short](SHORT_HEADER).
    Message {
        length: u32,
    },
    Probe,
    Read {
        address: u64,
        key: u32,
        length: u32,
    },
    /// The request of this number is refused; the sender has ended the connection.
    Refuse {
        request: u64,
        reason: Reason,
    },
    /// With bytes.
    Send {
        length: u32,
    },
    /// The old value, for the oldest atomic operation that is not answered.
    Word {
        old: u64,
    },
    /// With bytes.
    Write {
        address: u64,
        key: u32,
        length: u32,
    },
    /// With bytes.
    WriteNotify {
        address: u64,
        key: u32,
        length: u32,
        value: u32,
    },
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Reason {
    Access,
    /// No receive was posted for it in time.
    NotReady,
    /// This version does not know it.
    Other(u32),
    /// Longer than the receive.
    TooLong,
}

impl Reason {
    const fn code(self) -> u32 {
        match self {
            Self::Access => 1,
            Self::NotReady => 2,
            Self::TooLong => 3,
            Self::Other(code) => code,
        }
    }

    fn parse(code: u32) -> Self {
        let known = [Self::Access, Self::NotReady, Self::TooLong];
        known.into_iter().find(|known| known.code() == code).unwrap_or(Self::Other(code))
    }
}

impl Header {
    pub(in crate::transport) fn to_bytes(self) -> [u8; HEADER] {
        let mut wire = Wire::new_zeroed();
        (wire.version, wire.acknowledged) = (VERSION, self.acknowledged.into());
        let mut at = |kind: u8, address: u64, key: u32, length: u32| {
            wire.kind = kind;
            (wire.address, wire.key, wire.length) = (address.into(), key.into(), length.into());
        };
        match self.frame {
            Frame::Acknowledge => at(0, 0, 0, 0),
            Frame::Send { length } => at(1, 0, 0, length),
            Frame::Write { address, key, length } => at(2, address, key, length),
            Frame::WriteNotify { address, key, length, value } => {
                at(3, address, key, length);
                wire.value = value.into();
            }
            Frame::Read { address, key, length } => at(4, address, key, length),
            Frame::FetchAdd { address, key, add } => {
                at(5, address, key, 0);
                wire.one = add.into();
            }
            Frame::CompareSwap { address, key, compare, swap } => {
                at(6, address, key, 0);
                (wire.one, wire.other) = (compare.into(), swap.into());
            }
            Frame::Message { length } => at(MESSAGE, 0, 0, length),
            Frame::Probe => at(7, 0, 0, 0),
            Frame::Data { length } => at(8, 0, 0, length),
            Frame::Word { old } => {
                at(9, 0, 0, 0);
                wire.one = old.into();
            }
            Frame::Refuse { request, reason } => {
                at(10, 0, 0, 0);
                (wire.one, wire.value) = (request.into(), reason.code().into());
            }
        }
        zerocopy::transmute!(wire)
    }

    /// Bytes of the header that begins with `bytes`, as far as they tell.
    #[inline]
    pub(in crate::transport) fn length(bytes: &[u8]) -> usize {
        if matches!(bytes, [VERSION, MESSAGE, ..]) { SHORT_HEADER } else { HEADER }
    }

    /// That of a message.
    #[inline]
    pub(in crate::transport) fn message(acknowledged: u64, length: u32) -> [u8; SHORT_HEADER] {
        zerocopy::transmute!(Short {
            version: VERSION,
            kind: MESSAGE,
            reserved: [0; 2],
            length: length.into(),
            acknowledged: acknowledged.into(),
        })
    }

    /// Takes apart a whole message: what it acknowledges, its bytes and what is behind it. `None` if it is no message, too long, or not
    /// all here.
    #[inline]
    pub(in crate::transport) fn split_message(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
        let (header, rest) = bytes.split_first_chunk()?;
        let (acknowledged, length) = Self::parse_message(header)?;
        let (message, rest) = rest.split_at_checked(length)?;
        Some((acknowledged, message, rest))
    }

    /// What a message acknowledges, and its length. `None` if it is no message, or too long.
    #[inline]
    pub(in crate::transport) fn parse_message(header: &[u8; SHORT_HEADER]) -> Option<(u64, usize)> {
        let header: Short = zerocopy::transmute!(*header);
        let length = header.length.get() as usize;
        let is_message = (header.version, header.kind) == (VERSION, MESSAGE) && length <= MOST_MESSAGE;
        is_message.then_some((header.acknowledged.get(), length))
    }

    /// # Errors
    /// What is wrong with it.
    pub(in crate::transport) fn parse(bytes: [u8; HEADER]) -> Result<Self, String> {
        let wire: Wire = zerocopy::transmute!(bytes);
        if wire.version != VERSION {
            return Err(format!("a frame of version {}, not {VERSION}", wire.version));
        }
        let (address, key, length) = (wire.address.get(), wire.key.get(), wire.length.get());
        let (one, value) = (wire.one.get(), wire.value.get());
        let frame = match wire.kind {
            0 => Frame::Acknowledge,
            1 => Frame::Send { length },
            2 => Frame::Write { address, key, length },
            3 => Frame::WriteNotify { address, key, length, value },
            4 => Frame::Read { address, key, length },
            5 => Frame::FetchAdd { address, key, add: one },
            6 => Frame::CompareSwap { address, key, compare: one, swap: wire.other.get() },
            7 => Frame::Probe,
            8 => Frame::Data { length },
            9 => Frame::Word { old: one },
            MESSAGE => Frame::Message { length },
            10 => Frame::Refuse { request: one, reason: Reason::parse(value) },
            kind => return Err(format!("a frame of unknown kind {kind}")),
        };
        Ok(Self { acknowledged: wire.acknowledged.get(), frame })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_frame_comes_back_as_it_was() {
        let (address, key, length) = (u64::MAX - 1, 7, u32::MAX);
        for frame in [
            Frame::Acknowledge,
            Frame::CompareSwap { address, key, compare: 1 << 40, swap: 9 },
            Frame::Data { length },
            Frame::FetchAdd { address, key, add: 3 },
            Frame::Message { length },
            Frame::Probe,
            Frame::Read { address, key, length },
            Frame::Refuse { request: 5, reason: Reason::Access },
            Frame::Refuse { request: 5, reason: Reason::NotReady },
            Frame::Refuse { request: 5, reason: Reason::TooLong },
            Frame::Refuse { request: 5, reason: Reason::Other(99) },
            Frame::Send { length },
            Frame::Word { old: 11 },
            Frame::Write { address, key, length },
            Frame::WriteNotify { address, key, length, value: 4 },
        ] {
            let header = Header { acknowledged: 1 << 50, frame };
            assert_eq!(Header::parse(header.to_bytes()), Ok(header));
        }
    }

    proptest! {
        #[test]
        fn no_header_is_read_as_what_would_be_written_otherwise(bytes in any::<[u8; HEADER]>(), kind in 0u8..12) {
            let mut bytes = bytes;
            (bytes[0], bytes[1]) = (VERSION, kind);
            if let Ok(header) = Header::parse(bytes) {
                prop_assert_eq!(Header::parse(header.to_bytes()), Ok(header));
            }
        }
    }

    #[test]
    fn the_short_header_of_a_message_is_the_beginning_of_its_long_one() {
        let short = Header::message(1 << 50, 7);
        let long = Header { acknowledged: 1 << 50, frame: Frame::Message { length: 7 } }.to_bytes();
        assert_eq!((&short[..], Header::length(&short)), (&long[..SHORT_HEADER], SHORT_HEADER));
        assert_eq!(Header::length(&Header { acknowledged: 0, frame: Frame::Probe }.to_bytes()), HEADER);
    }

    #[test]
    fn other_versions_and_kinds_are_refused_by_name() {
        let mut bytes = Header { acknowledged: 0, frame: Frame::Probe }.to_bytes();
        bytes[1] = 200;
        assert!(Header::parse(bytes).is_err_and(|reason| reason.contains("unknown kind 200")));
        bytes[0] = 9;
        assert!(Header::parse(bytes).is_err_and(|reason| reason.contains("version 9")));
    }
}
