//! What both sides tell each other while they connect; small enough for rdma_cm's private data.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"zcmi";
const VERSION: u8 = 1;

/// Version 1, little endian, 36 bytes of the 56 that a connect request can carry; the rest is kept for
/// session resumption, rails and authentication.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    flags: U16,
    nonce: U64,
    max_message: U32,
    credits: U32,
    reserved: U32,
    domain: U64,
}

const HELLO: u8 = 1;
const REFUSAL: u8 = 2;

/// One side's introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// Random; both sides' make the session id.
    pub(crate) nonce: u64,
    /// Longest message that this side receives, in bytes.
    pub(crate) max_message: u32,
    /// Messages that the other side may send before it gets credits back.
    pub(crate) credits: u32,
    /// What handles granted to all of this side's domain are stamped with.
    pub(crate) domain: u64,
}

/// Why a listener refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request was not ours, or of another version.
    Incompatible,
    /// The listener has no resources for another connection.
    Busy,
    /// The application closed the listener or dropped the request.
    Declined,
    /// A reason this version does not name.
    Other(u8),
}

impl Handshake {
    pub(crate) fn to_bytes(self) -> [u8; size_of::<Wire>()] {
        wire(HELLO, self.nonce, self.max_message, self.credits, self.domain)
    }

    /// Reads an introduction; bytes behind it are padding. An error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let wire = parse(bytes)?;
        if wire.kind != HELLO {
            return Err("not an introduction".to_owned());
        }
        let (max_message, credits) = (wire.max_message.get(), wire.credits.get());
        if credits == 0 || max_message == 0 {
            return Err("it can receive nothing".to_owned());
        }
        Ok(Self { nonce: wire.nonce.get(), max_message, credits, domain: wire.domain.get() })
    }

    /// The id that both sides give to the connection they make of their introductions.
    pub(crate) fn session(connector: &Self, listener: &Self) -> u64 {
        connector.nonce ^ listener.nonce.rotate_left(32)
    }
}

impl Refusal {
    pub(crate) fn to_bytes(self) -> [u8; size_of::<Wire>()] {
        let code = match self {
            Self::Incompatible => 1,
            Self::Busy => 2,
            Self::Declined => 3,
            Self::Other(code) => code,
        };
        wire(REFUSAL, code.into(), 0, 0, 0)
    }

    /// The reason, if the bytes are a refusal of ours.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let wire = parse(bytes).ok().filter(|wire| wire.kind == REFUSAL)?;
        Some(match wire.nonce.get() as u8 {
            1 => Self::Incompatible,
            2 => Self::Busy,
            3 => Self::Declined,
            code => Self::Other(code),
        })
    }

    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Incompatible => "it speaks another protocol or version",
            Self::Busy => "it has no resources for another connection",
            Self::Declined => "the application there declined",
            Self::Other(_) => "for a reason this version does not know",
        }
    }
}

fn wire(kind: u8, nonce: u64, max_message: u32, credits: u32, domain: u64) -> [u8; size_of::<Wire>()] {
    zerocopy::transmute!(Wire {
        magic: MAGIC,
        version: VERSION,
        kind,
        flags: U16::ZERO,
        nonce: nonce.into(),
        max_message: max_message.into(),
        credits: credits.into(),
        reserved: U32::ZERO,
        domain: domain.into(),
    })
}

fn parse(bytes: &[u8]) -> Result<&Wire, String> {
    let (wire, _padding) =
        Wire::ref_from_prefix(bytes).map_err(|_| format!("{} bytes of private data", bytes.len()))?;
    if wire.magic != MAGIC {
        return Err("the private data is not zcmi's".to_owned());
    }
    if wire.version != VERSION {
        return Err(format!("protocol version {}, not {VERSION}", wire.version));
    }
    Ok(wire)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_fixed_and_fits() {
        let bytes = Handshake { nonce: 1, max_message: 2, credits: 3, domain: 4 }.to_bytes();
        let expected = [
            122, 99, 109, 105, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0,
            0, 0, 0,
        ];
        assert_eq!(bytes, expected);
        assert!(bytes.len() <= 56);
    }

    #[test]
    fn padding_is_ignored_and_faults_are_named() {
        let hello = Handshake { nonce: 7, max_message: 8, credits: 9, domain: 10 };
        let mut bytes = hello.to_bytes().to_vec();
        bytes.resize(56, 0);
        assert_eq!(Handshake::parse(&bytes), Ok(hello));
        bytes[4] = 2;
        assert!(Handshake::parse(&bytes).expect_err("another version").contains("version 2"));
        bytes[0] = 0;
        assert!(Handshake::parse(&bytes).expect_err("another protocol").contains("not zcmi's"));
        assert!(Handshake::parse(&[]).is_err());
        let nothing = Handshake { credits: 0, ..hello };
        assert!(Handshake::parse(&nothing.to_bytes()).is_err());
    }

    #[test]
    fn a_refusal_is_no_introduction() {
        for refusal in [Refusal::Incompatible, Refusal::Busy, Refusal::Declined, Refusal::Other(99)] {
            assert_eq!(Refusal::parse(&refusal.to_bytes()), Some(refusal));
            assert!(Handshake::parse(&refusal.to_bytes()).is_err());
        }
        assert_eq!(Refusal::parse(&Handshake { nonce: 1, max_message: 1, credits: 1, domain: 1 }.to_bytes()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Handshake::parse(&bytes);
            let _ = Refusal::parse(&bytes);
        }
    }
}
