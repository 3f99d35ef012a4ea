//! The header of every frame.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header.
pub(crate) const HEADER: usize = size_of::<Header>();

/// Bytes that every side must receive in one frame: all that is no message fits.
pub(crate) const LEAST_FRAME: usize = 512;

/// Version 1, little endian.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    kind: u8,
    flags: u8,
    credits: U16,
    length: U32,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Returns credits and nothing else; costs none.
    Credit,
    /// Records; costs a credit, as all that follow.
    Data,
    /// The owner of grants asks the holder to let go of them.
    Revoke,
    /// The holder has let go.
    Revoked,
}

/// A parsed header. The payload follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    /// Credits given back with this frame.
    pub(crate) credits: u16,
    /// Bytes of payload.
    pub(crate) length: u32,
}

impl Frame {
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let kind = match self.kind {
            FrameKind::Data => 1,
            FrameKind::Credit => 2,
            FrameKind::Revoke => 4,
            FrameKind::Revoked => 5,
        };
        zerocopy::transmute!(Header { kind, flags: 0, credits: self.credits.into(), length: self.length.into() })
    }

    /// Reads the header of a frame of which `bytes` have arrived; an error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let (header, payload) = Header::ref_from_prefix(bytes).map_err(|_| "a frame shorter than its header")?;
        let kind = match header.kind {
            1 => FrameKind::Data,
            2 => FrameKind::Credit,
            4 => FrameKind::Revoke,
            5 => FrameKind::Revoked,
            _ => return Err("a frame of unknown kind"),
        };
        if header.flags != 0 {
            return Err("a frame with unknown flags");
        }
        let length = header.length.get();
        if length as usize != payload.len() {
            return Err("a frame whose length is not what arrived");
        }
        // One without credits would cost the peer nothing and us a receive each time.
        if kind == FrameKind::Credit && (length != 0 || header.credits == U16::ZERO) {
            return Err("a credit frame with a payload, or without credits");
        }
        if kind == FrameKind::Data && length == 0 {
            return Err("a data frame without records");
        }
        Ok(Self { kind, credits: header.credits.get(), length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_fixed() {
        let frame = Frame { kind: FrameKind::Data, credits: 0x0102, length: 3 };
        assert_eq!(frame.to_bytes(), [1, 0, 2, 1, 3, 0, 0, 0]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bytes, reason) in [
            (&[1, 0, 0, 0, 0, 0, 0][..], "shorter"),
            (&[9, 0, 0, 0, 0, 0, 0, 0], "unknown kind"),
            (&[1, 1, 0, 0, 0, 0, 0, 0], "unknown flags"),
            (&[1, 0, 0, 0, 1, 0, 0, 0], "not what arrived"),
            (&[2, 0, 1, 0, 1, 0, 0, 0, 7], "credit frame"),
            (&[2, 0, 0, 0, 0, 0, 0, 0], "without credits"),
            (&[1, 0, 1, 0, 0, 0, 0, 0], "without records"),
            (&[3, 0, 0, 0, 0, 0, 0, 0], "unknown kind"),
        ] {
            let error = Frame::parse(bytes).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_to_bytes_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Ok(frame) = Frame::parse(&bytes) {
                prop_assert_eq!(&frame.to_bytes()[..], &bytes[..HEADER]);
            }
        }
    }
}
