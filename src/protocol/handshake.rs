//! What both sides tell each other while they connect; small enough for rdma_cm's private data.

use super::frame::LEAST_FRAME;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"zcmi";
const VERSION: u8 = 1;

/// Version 1, little endian, 36 bytes of the 56 that a connect request can carry. The application's private data
/// follow.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    /// What this side can do besides; both must, and unknown bits are ignored. For session resumption, rails and
    /// authentication too.
    features: u8,
    private_length: u8,
    nonce: U64,
    longest: U32,
    credits: U16,
    frame: U16,
    window: U32,
    domain: U64,
}

/// Bytes of an introduction without private data.
pub(crate) const INTRODUCTION: usize = size_of::<Wire>();

/// Bytes of the application's data that fit a connect request behind the introduction.
pub(crate) const REQUEST_PRIVATE: usize = 56 - INTRODUCTION;
/// The same for a listener's reply.
pub(crate) const REPLY_PRIVATE: usize = 150;
/// Bytes of the text that fits a refusal.
const REASON: usize = 148 - INTRODUCTION;

const HELLO: u8 = 1;
const REFUSAL: u8 = 2;

/// Feature: this side answers pings.
pub(crate) const HEARTBEAT: u8 = 1;
/// Feature: this side shares pages with peers that do too.
pub(crate) const SHARES_PAGES: u8 = 2;

/// One side's introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// What this side can do, as bits.
    pub(crate) features: u8,
    /// Random; both sides' make the session id.
    pub(crate) nonce: u64,
    /// Longest message that this side receives, in bytes.
    pub(crate) longest: u32,
    /// Frames that the other side may send before it gets credits back.
    pub(crate) credits: u16,
    /// Longest frame that this side receives, in bytes.
    pub(crate) frame: u16,
    /// Bytes that the other side may have sent on a channel which the application here has not received.
    pub(crate) window: u32,
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
    Other(u64),
    /// The listener serves its own user only.
    Stranger,
}

impl Handshake {
    /// The introduction, with the application's `private` data behind it, of which there may be 255 bytes.
    pub(crate) fn to_bytes(self, private: &[u8]) -> Vec<u8> {
        let private = &private[..private.len().min(u8::MAX.into())];
        let wire = Wire {
            features: self.features,
            private_length: private.len() as u8,
            nonce: self.nonce.into(),
            longest: self.longest.into(),
            credits: self.credits.into(),
            frame: self.frame.into(),
            window: self.window.into(),
            domain: self.domain.into(),
            ..Wire::of(HELLO)
        };
        [wire.as_bytes(), private].concat()
    }

    /// Reads an introduction and the private data; bytes behind them are padding. An error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), String> {
        let (wire, rest) = parse(bytes)?;
        if wire.kind != HELLO {
            return Err("not an introduction".to_owned());
        }
        let this = Self {
            features: wire.features,
            nonce: wire.nonce.get(),
            longest: wire.longest.get(),
            credits: wire.credits.get(),
            frame: wire.frame.get(),
            window: wire.window.get(),
            domain: wire.domain.get(),
        };
        if this.longest == 0 || this.credits == 0 || this.window == 0 || usize::from(this.frame) < LEAST_FRAME {
            return Err("it can receive nothing".to_owned());
        }
        let private = rest.get(..wire.private_length.into()).ok_or("its private data are cut off")?;
        Ok((this, private))
    }

    /// The id that both sides give to the connection they make of their introductions.
    pub(crate) fn session(connector: &Self, listener: &Self) -> u64 {
        connector.nonce ^ listener.nonce.rotate_left(32)
    }
}

impl Refusal {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        self.with_reason("")
    }

    /// The refusal, and what the application says of it, as far as that fits.
    pub(crate) fn with_reason(self, reason: &str) -> Vec<u8> {
        let reason = &reason[..reason.floor_char_boundary(REASON)];
        let code: u64 = match self {
            Self::Incompatible => 1,
            Self::Busy => 2,
            Self::Declined => 3,
            Self::Other(code) => code,
            Self::Stranger => 4,
        };
        let private_length = reason.len() as u8;
        let wire = Wire { private_length, nonce: code.into(), ..Wire::of(REFUSAL) };
        [wire.as_bytes(), reason.as_bytes()].concat()
    }

    /// What the refusal says, if the bytes are one of ours.
    pub(crate) fn explain(bytes: &[u8]) -> Option<String> {
        let (refusal, reason) = Self::parse(bytes)?;
        let explanation = refusal.explanation();
        Some(if reason.is_empty() { explanation.to_owned() } else { format!("{explanation}: {reason}") })
    }

    /// The refusal, if the bytes are one of ours, and the application's text. What cannot be shown in a line is replaced.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, String)> {
        let (wire, rest) = parse(bytes).ok().filter(|(wire, _)| wire.kind == REFUSAL)?;
        let refusal = match wire.nonce.get() {
            1 => Self::Incompatible,
            2 => Self::Busy,
            3 => Self::Declined,
            4 => Self::Stranger,
            code => Self::Other(code),
        };
        let text = String::from_utf8_lossy(rest.get(..wire.private_length.into()).unwrap_or(rest));
        let shown = |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
        Some((refusal, text.chars().map(shown).collect()))
    }

    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Incompatible => "it speaks another protocol or version",
            Self::Busy => "it has no resources for another connection",
            Self::Declined => "the application there declined",
            Self::Other(_) => "for a reason this version does not know",
            Self::Stranger => "it serves processes of its own user only",
        }
    }
}

impl Wire {
    fn of(kind: u8) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            kind,
            features: 0,
            private_length: 0,
            nonce: U64::ZERO,
            longest: U32::ZERO,
            credits: U16::ZERO,
            frame: U16::ZERO,
            window: U32::ZERO,
            domain: U64::ZERO,
        }
    }
}

fn parse(bytes: &[u8]) -> Result<(&Wire, &[u8]), String> {
    let (wire, rest) = Wire::ref_from_prefix(bytes).map_err(|_| format!("{} bytes of private data", bytes.len()))?;
    if wire.magic != MAGIC {
        return Err("the private data is not zcmi's".to_owned());
    }
    if wire.version != VERSION {
        return Err(format!("protocol version {}, not {VERSION}", wire.version));
    }
    Ok((wire, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: Handshake =
        Handshake { features: 3, nonce: 7, longest: 8, credits: 9, frame: 1000, window: 11, domain: 12 };

    #[test]
    fn the_layout_is_fixed_and_fits() {
        let hello = Handshake { features: 1, nonce: 1, longest: 2, credits: 3, frame: 0x0405, window: 6, domain: 7 };
        let expected = [
            122, 99, 109, 105, 1, 1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 5, 4, 6, 0, 0, 0, 7, 0, 0, 0, 0,
            0, 0, 0, 8, 9,
        ];
        assert_eq!(hello.to_bytes(&[8, 9]), expected);
        const { assert!(INTRODUCTION < 56) };
    }

    #[test]
    fn padding_is_ignored_and_faults_are_named() {
        let mut bytes = OURS.to_bytes(b"private");
        bytes.resize(56, 0);
        assert_eq!(Handshake::parse(&bytes), Ok((OURS, &b"private"[..])));
        assert!(Handshake::parse(&bytes[..40]).expect_err("four bytes of seven").contains("cut off"));
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            Handshake::parse(&bytes).expect_err("broken")
        };
        assert!(with(0, 0).contains("not zcmi's"));
        assert!(with(4, 2).contains("version 2"));
        assert!(Handshake::parse(&[]).is_err());
        for nothing in [
            Handshake { credits: 0, ..OURS },
            Handshake { longest: 0, ..OURS },
            Handshake { window: 0, ..OURS },
            Handshake { frame: 100, ..OURS },
        ] {
            assert!(Handshake::parse(&nothing.to_bytes(&[])).expect_err("no room").contains("nothing"));
        }
    }

    #[test]
    fn a_refusal_is_no_introduction() {
        for refusal in [
            Refusal::Incompatible,
            Refusal::Busy,
            Refusal::Declined,
            Refusal::Stranger,
            Refusal::Other(99),
            Refusal::Other(257),
        ] {
            assert_eq!(Refusal::parse(&refusal.to_bytes()), Some((refusal, String::new())));
            assert!(Handshake::parse(&refusal.to_bytes()).is_err());
        }
        assert_eq!(Refusal::parse(&OURS.to_bytes(&[])), None);
    }

    #[test]
    fn the_text_of_a_refusal_is_cut_where_it_may_be_and_shown_in_one_line() {
        let bytes = Refusal::Declined.with_reason("not today");
        assert_eq!(Refusal::explain(&bytes).as_deref(), Some("the application there declined: not today"));
        let bytes = Refusal::Declined.with_reason(&"ü".repeat(200));
        assert!(bytes.len() <= 148);
        assert_eq!(Refusal::parse(&bytes), Some((Refusal::Declined, "ü".repeat(REASON / 2))));
        // What a hostile peer may send.
        let bytes = Refusal::Declined.with_reason("a\n\u{1b}[31mb");
        assert_eq!(Refusal::parse(&bytes).map(|(_, reason)| reason).as_deref(), Some("a\u{fffd}\u{fffd}[31mb"));
        let mut bytes = Refusal::Busy.with_reason("cut");
        bytes[INTRODUCTION] = 0xff;
        bytes.pop();
        assert_eq!(Refusal::parse(&bytes), Some((Refusal::Busy, "\u{fffd}u".to_owned())));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Handshake::parse(&bytes);
            let _ = Refusal::parse(&bytes);
        }
    }
}
