//! The header of each message of a stream.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header.
pub(super) const HEADER: usize = size_of::<Header>();

/// The sender writes no more: what comes behind this message is the end of the stream.
const END: u8 = 1;
/// The sender reads no more.
const STOP: u8 = 2;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    sequence: U32,
    flags: u8,
    reserved: [u8; 3],
}

/// What a header says. The bytes of the stream follow it, if there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Messages of the stream before this one, modulo 2^32.
    pub(super) sequence: u32,
    pub(super) is_end: bool,
    pub(super) stops: bool,
}

impl Chunk {
    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let flags = u8::from(self.is_end) * END + u8::from(self.stops) * STOP;
        zerocopy::transmute!(Header { sequence: self.sequence.into(), flags, reserved: [0; 3] })
    }

    /// Reads the header of a message; an error says what is wrong with it.
    pub(super) fn parse(message: &[u8]) -> Result<Self, &'static str> {
        let (header, payload) = Header::ref_from_prefix(message).map_err(|_| "a message too short for a stream")?;
        if header.flags & !(END | STOP) != 0 || header.reserved != [0; 3] {
            return Err("a message of a stream with unknown flags");
        }
        let (is_end, stops) = (header.flags & END != 0, header.flags & STOP != 0);
        if payload.is_empty() != (is_end || stops) {
            return Err("a message of a stream with neither bytes nor flags, or with both");
        }
        Ok(Self { sequence: header.sequence.get(), is_end, stops })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::protocol::vectors::vector;

    #[test]
    fn streams_are_as_documented() {
        let first = Chunk { sequence: 0, is_end: false, stops: false };
        assert_eq!([&first.to_bytes()[..], b"abc"].concat(), vector("stream sequence=0 bytes=616263"));
        let last = Chunk { sequence: 1, is_end: true, stops: true };
        assert_eq!(last.to_bytes()[..], vector("stream sequence=1 end stop"));
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_is_refused() {
        for (is_end, stops, payload) in
            [(false, false, &b"x"[..]), (true, false, b""), (false, true, b""), (true, true, b"")]
        {
            let chunk = Chunk { sequence: 0x0102_0304, is_end, stops };
            let message = [&chunk.to_bytes(), payload].concat();
            assert_eq!(message[..4], [4, 3, 2, 1]);
            assert_eq!(Chunk::parse(&message), Ok(chunk));
        }
        for hostile in [
            &[][..],
            &[0; 7],
            &[0; 8],
            &[0, 0, 0, 0, 1, 0, 0, 0, 9],
            &[0, 0, 0, 0, 4, 0, 0, 0],
            &[0, 0, 0, 0, 1, 0, 0, 1],
        ] {
            assert!(Chunk::parse(hostile).is_err(), "{hostile:?}");
        }
    }
}
