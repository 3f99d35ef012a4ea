//! What is on the stream before the connection is established: who asks, and what is answered.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"zcmt";
const VERSION: u8 = 1;

/// Bytes before the data.
pub(in crate::transport) const HELLO: usize = size_of::<Wire>();
/// Data that one may have: somewhat more than any transport's.
pub(in crate::transport) const MOST_DATA: usize = 512;

/// Little endian.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    /// Bytes that follow.
    length: U16,
    /// Reads and atomic operations that may be outstanding towards the sender.
    reads: U16,
    reserved: [u8; 6],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) struct Hello {
    pub(in crate::transport) kind: Kind,
    pub(in crate::transport) length: usize,
    pub(in crate::transport) reads: u16,
}

/// In the order in which they are said; a refusal takes the place of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Kind {
    Request,
    Accept,
    Confirm,
    Refuse,
    /// Which ways lead here?
    Ask,
    /// These do.
    Offer,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Request, Self::Accept, Self::Confirm, Self::Refuse, Self::Ask, Self::Offer];

    /// Whether who says it introduces itself, and gives the peer what it is to have.
    pub(in crate::transport) fn is_introduction(self) -> bool {
        matches!(self, Self::Request | Self::Accept)
    }

    /// The bytes to say it with; more `data` than a peer reads are cut off.
    pub(in crate::transport) fn say(self, reads: u16, data: &[u8]) -> Vec<u8> {
        let data = &data[..data.len().min(MOST_DATA)];
        let kind = Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default() as u8;
        let (length, reads) = ((data.len() as u16).into(), reads.into());
        let wire = Wire { magic: MAGIC, version: VERSION, kind, length, reads, reserved: [0; 6] };
        [wire.as_bytes(), data].concat()
    }
}

impl Hello {
    /// # Errors
    /// What is wrong with it.
    pub(in crate::transport) fn parse(bytes: [u8; HELLO]) -> Result<Self, String> {
        let wire: Wire = zerocopy::transmute!(bytes);
        if wire.magic != MAGIC {
            return Err("what is there does not speak zcmi".to_owned());
        }
        if wire.version != VERSION {
            return Err(format!("version {} of zcmi's introductions, not {VERSION}", wire.version));
        }
        let kind = Kind::ALL.get(usize::from(wire.kind)).copied().ok_or("an unknown kind of introduction")?;
        let length = usize::from(wire.length.get());
        if length > MOST_DATA {
            return Err(format!("{length} bytes of private data, more than {MOST_DATA}"));
        }
        if wire.reads.get() == 0 && matches!(kind, Kind::Request | Kind::Accept) {
            return Err("it allows no reads to be outstanding".to_owned());
        }
        Ok(Self { kind, length, reads: wire.reads.get() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(bytes: &[u8]) -> [u8; HELLO] {
        *bytes.first_chunk().expect("a whole head")
    }

    #[test]
    fn what_is_said_is_heard() {
        for kind in Kind::ALL {
            let said = kind.say(32, b"data");
            assert_eq!(Hello::parse(head(&said)), Ok(Hello { kind, length: 4, reads: 32 }));
            assert_eq!(&said[HELLO..], b"data");
        }
        assert_eq!(Kind::Refuse.say(1, &[7; 1000]).len(), HELLO + MOST_DATA);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = head(&Kind::Request.say(32, b""));
        for (at, byte, word) in [(0, b'h', "does not speak"), (4, 9, "version 9"), (5, 6, "kind"), (7, 255, "private")]
        {
            let mut wrong = said;
            wrong[at] = byte;
            let reason = Hello::parse(wrong).expect_err("it is wrong");
            assert!(reason.contains(word), "{reason}");
        }
        let none = Hello::parse(head(&Kind::Accept.say(0, b""))).expect_err("no reads");
        assert!(none.contains("no reads"), "{none}");
        assert!(Hello::parse(head(&Kind::Confirm.say(0, b""))).is_ok());
    }
}
