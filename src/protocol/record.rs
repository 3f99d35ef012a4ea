//! Records: what a data frame consists of. Many fit one frame.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{GrantId, MOST_GRANTS, Scope};

/// Bytes in front of every record's payload.
pub(crate) const RECORD: usize = size_of::<Header>();
/// Bytes of an offer's payload: a handle.
pub(crate) const OFFER: usize = crate::RemoteBuffer::WIRE_LENGTH;
/// Bytes that each taken grant has in a record.
pub(crate) const TAKEN: usize = size_of::<WireGrant>();
/// Bytes of the payload that tells of a segment.
pub(crate) const SEGMENT: usize = 16;
/// Bytes of the payload that names pages which are handed over.
pub(crate) const HANDED: usize = size_of::<WireHanded>();
/// Bytes that each buffer which is given back has in a record.
pub(crate) const RETURNED: usize = size_of::<U32>();

/// Version 1, little endian.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    kind: u8,
    flags: u8,
    reserved: U16,
    channel: U32,
    argument: U32,
    length: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireGrant {
    slot: U32,
    generation: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireHanded {
    segment: U32,
    token: U32,
    start: U64,
    length: U64,
}

/// A message that is handed over as the pages in which it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    /// Which of its sender's segments they are in; of no meaning where they are the receiver's own.
    pub(crate) segment: u32,
    /// What their owner calls them.
    pub(crate) token: u32,
    /// Where they begin in the segment, or in what was handed over before.
    pub(crate) start: u64,
    pub(crate) length: u64,
}

impl Handed {
    pub(crate) fn to_bytes(self) -> [u8; HANDED] {
        let Self { segment, token, start, length } = self;
        let wire =
            WireHanded { segment: segment.into(), token: token.into(), start: start.into(), length: length.into() };
        zerocopy::transmute!(wire)
    }

    pub(crate) fn parse(bytes: [u8; HANDED]) -> Self {
        let wire: WireHanded = zerocopy::transmute!(bytes);
        Self {
            segment: wire.segment.get(),
            token: wire.token.get(),
            start: wire.start.get(),
            length: wire.length.get(),
        }
    }
}

/// Where a segment begins in the memory of its owner, whose handles name it so, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentPlace {
    pub(crate) base: u64,
    pub(crate) length: u64,
}

impl SegmentPlace {
    pub(crate) fn to_bytes(self) -> [u8; SEGMENT] {
        zerocopy::transmute!([U64::from(self.base), U64::from(self.length)])
    }

    pub(crate) fn parse(bytes: [u8; SEGMENT]) -> Self {
        let [base, length]: [U64; 2] = zerocopy::transmute!(bytes);
        Self { base: base.get(), length: length.get() }
    }
}

/// What a list of buffers that are given back says.
pub(crate) fn returned_tokens(list: &[u8]) -> impl Iterator<Item = u32> {
    list.chunks_exact(RETURNED).filter_map(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)))
}

/// Flag of a message: its sender wants to know that it has arrived.
const ACKNOWLEDGE: u8 = 1;
/// Flag of an end: of all channels, and not of one.
const OF_CONNECTION: u8 = 1;
/// Flag of what was taken: the message is not wanted.
const DECLINED: u8 = 1;
/// Flag of pages that are handed over: their owner gets them back.
const BACK: u8 = 1;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// So many more messages that asked for it have arrived.
    Acknowledge { messages: u32 },
    /// Nothing more will be sent on this channel; on none without one.
    End { channel: Option<u32> },
    /// The sender has given up the segment of this number.
    Forget { segment: u32 },
    /// A message in pages of its sender, or, if it goes back, of its receiver.
    Hand { channel: u32, back: bool, place: &'a [u8; HANDED] },
    /// A whole message.
    Message { channel: u32, acknowledge: bool, payload: &'a [u8] },
    /// So many notifications were looked at.
    Notified { notifications: u32 },
    /// A long message, to be read through the handle.
    Offer { channel: u32, handle: &'a [u8; OFFER] },
    /// Asks whether the other library runs.
    Ping { serial: u32 },
    /// It does.
    Pong { serial: u32 },
    /// Buffers in the other side's pages that are gone here.
    Returned { tokens: &'a [u8] },
    /// The descriptor of pages of the sender's has been given: its next segment.
    Segment { place: &'a [u8; SEGMENT] },
    /// Offers whose bytes have been read, or are not wanted.
    Taken { declined: bool, grants: &'a [u8] },
    /// So many bytes of a channel were received by the application.
    Window { channel: u32, bytes: u32 },
}

impl<'a> Record<'a> {
    /// Bytes that it takes in a frame.
    pub(crate) fn length(&self) -> usize {
        RECORD + self.payload().len()
    }

    fn payload(&self) -> &'a [u8] {
        match self {
            Self::Message { payload, .. } => payload,
            Self::Offer { handle, .. } => *handle,
            Self::Taken { grants, .. } => grants,
            Self::Hand { place, .. } => *place,
            Self::Returned { tokens } => tokens,
            Self::Segment { place } => *place,
            _ => &[],
        }
    }

    /// Writes its header, for a payload of `length` bytes that the caller writes behind it.
    ///
    /// # Panics
    /// If `to` has not [`RECORD`] bytes.
    pub(crate) fn write_header(&self, length: usize, to: &mut [u8]) {
        let flag = |wanted: bool, flag: u8| if wanted { flag } else { 0 };
        let (kind, flags, channel, argument) = match *self {
            Self::Message { channel, acknowledge, .. } => (1, flag(acknowledge, ACKNOWLEDGE), channel, 0),
            Self::Offer { channel, .. } => (2, 0, channel, 0),
            Self::Taken { declined, .. } => (3, flag(declined, DECLINED), 0, 0),
            Self::Window { channel, bytes } => (4, 0, channel, bytes),
            Self::Acknowledge { messages } => (5, 0, 0, messages),
            Self::End { channel: Some(channel) } => (6, 0, channel, 0),
            Self::End { channel: None } => (6, OF_CONNECTION, 0, 0),
            Self::Ping { serial } => (7, 0, 0, serial),
            Self::Pong { serial } => (8, 0, 0, serial),
            Self::Notified { notifications } => (9, 0, 0, notifications),
            Self::Segment { .. } => (10, 0, 0, 0),
            Self::Hand { channel, back, .. } => (11, flag(back, BACK), channel, 0),
            Self::Returned { .. } => (12, 0, 0, 0),
            Self::Forget { segment } => (13, 0, 0, segment),
        };
        let header = Header {
            kind,
            flags,
            reserved: U16::ZERO,
            channel: channel.into(),
            argument: argument.into(),
            length: (length as u32).into(),
        };
        to[..RECORD].copy_from_slice(header.as_bytes());
    }

    /// Writes it to the start of `to`; answers its length.
    ///
    /// # Panics
    /// If `to` is too short.
    pub(crate) fn write(&self, to: &mut [u8]) -> usize {
        let payload = self.payload();
        self.write_header(payload.len(), to);
        to[RECORD..RECORD + payload.len()].copy_from_slice(payload);
        self.length()
    }

    /// Takes the first record off `bytes`; an error says what is wrong with it.
    pub(crate) fn take(bytes: &mut &'a [u8]) -> Result<Self, &'static str> {
        let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| "a record shorter than its header")?;
        let (length, channel, argument) = (header.length.get(), header.channel.get(), header.argument.get());
        let (payload, rest) = rest.split_at_checked(length as usize).ok_or("a record that leaves its frame")?;
        *bytes = rest;
        if !matches!(header.kind, 1..=13) {
            return Err("a record of unknown kind");
        }
        let known_flags = u8::from(matches!(header.kind, 1 | 3 | 6 | 11));
        if header.flags & !known_flags != 0 || header.reserved != U16::ZERO {
            return Err("a record with unknown flags");
        }
        let flag = header.flags != 0;
        if !matches!(header.kind, 1..=3 | 10..=12) && length != 0 {
            return Err("a record with a payload that it must not have");
        }
        let has_channel = matches!(header.kind, 1 | 2 | 4 | 11) || header.kind == 6 && !flag;
        let has_argument = matches!(header.kind, 4 | 5 | 7..=9 | 13);
        if !has_channel && channel != 0 || !has_argument && argument != 0 {
            return Err("a record with a channel or an argument that it must not have");
        }
        let more = |argument: u32| if argument > 0 { Ok(argument) } else { Err("a record that gives nothing back") };
        Ok(match header.kind {
            1 => Self::Message { channel, acknowledge: flag, payload },
            2 => Self::Offer { channel, handle: payload.try_into().map_err(|_| "an offer without a handle")? },
            3 if length == 0 || !(length as usize).is_multiple_of(TAKEN) => return Err("a broken list of grants"),
            3 => Self::Taken { declined: flag, grants: payload },
            4 => Self::Window { channel, bytes: more(argument)? },
            5 => Self::Acknowledge { messages: more(argument)? },
            6 => Self::End { channel: (!flag).then_some(channel) },
            7 => Self::Ping { serial: argument },
            8 => Self::Pong { serial: argument },
            9 => Self::Notified { notifications: more(argument)? },
            10 => Self::Segment { place: payload.try_into().map_err(|_| "a segment without its place")? },
            11 => Self::Hand {
                channel,
                back: flag,
                place: payload.try_into().map_err(|_| "a message handed over without its place")?,
            },
            12 if length == 0 || !(length as usize).is_multiple_of(RETURNED) => return Err("a broken list of buffers"),
            12 => Self::Returned { tokens: payload },
            13 => Self::Forget { segment: argument },
            _ => return Err("a record of unknown kind"),
        })
    }
}

/// A taken grant as it is in a record.
pub(crate) fn taken_bytes(id: GrantId) -> [u8; TAKEN] {
    zerocopy::transmute!(WireGrant { slot: id.slot.into(), generation: id.generation.into() })
}

/// The grants of a record that says what was taken; an error says what is wrong with it.
pub(crate) fn taken_grants(bytes: &[u8]) -> Result<impl Iterator<Item = GrantId> + '_, &'static str> {
    let grants = <[WireGrant]>::ref_from_bytes(bytes).map_err(|_| "a broken list of grants")?;
    if grants.iter().any(|grant| grant.slot.get() >= MOST_GRANTS) {
        return Err("a grant beyond the most that there may be");
    }
    Ok(grants.iter().map(|grant| GrantId {
        scope: Scope::Connection,
        slot: grant.slot.get(),
        generation: grant.generation.get(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HANDLE: [u8; OFFER] = [7; OFFER];

    fn all() -> Vec<Record<'static>> {
        vec![
            Record::Message { channel: 1, acknowledge: false, payload: b"abc" },
            Record::Message { channel: u32::MAX, acknowledge: true, payload: b"" },
            Record::Offer { channel: 2, handle: &HANDLE },
            Record::Taken { declined: false, grants: &[1; TAKEN] },
            Record::Taken { declined: true, grants: &[0; 3 * TAKEN] },
            Record::Window { channel: 3, bytes: 4 },
            Record::Acknowledge { messages: 5 },
            Record::End { channel: Some(6) },
            Record::End { channel: None },
            Record::Ping { serial: 7 },
            Record::Pong { serial: 0 },
            Record::Notified { notifications: 8 },
            Record::Segment { place: &[9; SEGMENT] },
            Record::Hand { channel: 10, back: false, place: &[11; HANDED] },
            Record::Hand { channel: 10, back: true, place: &[12; HANDED] },
            Record::Returned { tokens: &[13; 2 * RETURNED] },
            Record::Forget { segment: 0 },
        ]
    }

    #[test]
    fn records_follow_each_other_in_a_frame() {
        let mut frame = vec![0; 1000];
        let mut length = 0;
        for record in all() {
            length += record.write(&mut frame[length..]);
        }
        let mut rest = &frame[..length];
        for record in all() {
            assert_eq!(Record::take(&mut rest), Ok(record));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut valid = [0; RECORD + 3];
        Record::Message { channel: 1, acknowledge: false, payload: b"abc" }.write(&mut valid);
        let with = |at: usize, byte: u8| {
            let mut bytes = valid;
            bytes[at] = byte;
            bytes
        };
        let mut broken = [0; RECORD + 7];
        Record::Taken { declined: false, grants: &[0; 7] }.write(&mut broken);
        for (bytes, reason) in [
            (&valid[..RECORD - 1], "shorter than its header"),
            (&valid[..RECORD + 2], "leaves its frame"),
            (&with(0, 14), "unknown kind"),
            (&with(0, 10), "a channel or an argument"),
            (&with(0, 11), "without its place"),
            (&with(0, 13), "must not have"),
            (&with(0, 0), "unknown kind"),
            (&with(1, 2), "unknown flags"),
            (&with(2, 1), "unknown flags"),
            (&with(0, 2), "without a handle"),
            (&with(0, 3), "a channel or an argument"),
            (&broken, "broken list"),
            (&with(0, 5), "must not have"),
            (&with(8, 1), "a channel or an argument"),
        ] {
            let error = Record::take(&mut &bytes[..]).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        }
        let mut nothing = [0; RECORD];
        Record::Window { channel: 1, bytes: 0 }.write(&mut nothing);
        assert!(Record::take(&mut &nothing[..]).expect_err("nothing").contains("nothing back"));
        assert!(taken_grants(&[0xff; TAKEN]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while let Ok(record) = Record::take(&mut rest) {
                let mut again = vec![0; record.length()];
                record.write(&mut again);
                prop_assert_eq!(Record::take(&mut &again[..]), Ok(record));
                if rest.is_empty() {
                    break;
                }
            }
        }
    }
}
