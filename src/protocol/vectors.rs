//! The vectors of `docs/protocol.md` are what this library sends and takes.

use super::{
    Frame, FrameKind, GrantId, HEADER, Handed, Handshake, Held, Offer, Record, Refusal, Revoking, Scope, SegmentPlace,
    returned_tokens, taken_bytes,
};
use crate::{Access, RemoteBuffer};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The bytes below the line `title`.
pub(crate) fn vector(title: &str) -> Vec<u8> {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != title);
    lines.next().unwrap_or_else(|| panic!("no vector {title}"));
    let digits: String = lines.next().expect("its bytes").split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn introductions_are_as_documented() {
    let ours = Handshake { features: 1, nonce: 1, longest: 2, credits: 3, frame: 4096, window: 5, domain: 6 };
    let bytes = vector("introduction features=1 nonce=1 longest=2 credits=3 frame=4096 window=5 domain=6 private=0708");
    assert_eq!(ours.to_bytes(&[7, 8]), bytes);
    assert_eq!(Handshake::parse(&bytes), Ok((ours, &[7, 8][..])));
    let bytes = vector("refusal busy");
    assert_eq!(Refusal::Busy.to_bytes()[..], bytes);
    assert_eq!(Refusal::parse(&bytes), Some((Refusal::Busy, String::new())));
    let bytes = vector("refusal declined reason=\"full\"");
    assert_eq!(Refusal::Declined.with_reason("full"), bytes);
    assert_eq!(Refusal::parse(&bytes), Some((Refusal::Declined, "full".to_owned())));
}

#[test]
fn offers_are_as_documented() {
    let boot = std::array::from_fn(|at| at as u8);
    let offer = Offer { boot, shm: Some("store".to_owned()), verbs: Some(7471) };
    let bytes = vector("offer boot=000102030405060708090a0b0c0d0e0f verbs=7471 shm=store");
    assert_eq!(offer.to_bytes(), bytes);
    assert_eq!(Offer::parse(&bytes), Ok(offer));
}

#[test]
fn frames_are_as_documented() {
    let credit = Frame { kind: FrameKind::Credit, credits: 258, length: 0 };
    let bytes = vector("frame credit credits=258");
    assert_eq!(credit.to_bytes()[..], bytes);
    assert_eq!(Frame::parse(&bytes), Ok(credit));

    let records = [
        Record::Message { channel: 7, acknowledge: true, payload: b"abc" },
        Record::Window { channel: 7, bytes: 258 },
        Record::End { channel: None },
    ];
    let bytes =
        vector("frame data credits=2 message channel=7 acknowledge payload=616263, window channel=7 bytes=258, end");
    let mut built = vec![0; bytes.len()];
    let mut length = HEADER;
    for record in records {
        length += record.write(&mut built[length..]);
    }
    let frame = Frame { kind: FrameKind::Data, credits: 2, length: (length - HEADER) as u32 };
    built[..HEADER].copy_from_slice(&frame.to_bytes());
    assert_eq!(built, bytes);
    assert_eq!(Frame::parse(&bytes), Ok(frame));
    let mut rest = &bytes[HEADER..];
    for record in records {
        assert_eq!(Record::take(&mut rest), Ok(record));
    }
}

#[test]
fn what_was_taken_is_as_documented() {
    let bytes = vector("taken slot=3 generation=7");
    let grants = taken_bytes(GrantId { scope: Scope::Connection, slot: 3, generation: 7 });
    let record = Record::Taken { declined: false, grants: &grants };
    let mut built = vec![0; record.length()];
    record.write(&mut built);
    assert_eq!(built, bytes);
    assert_eq!(Record::take(&mut &bytes[..]), Ok(record));
}

#[test]
fn shared_pages_are_as_documented() {
    let place = SegmentPlace { base: 4096, length: 8192 };
    assert_eq!(SegmentPlace::parse(place.to_bytes()), place);
    let handed = Handed { segment: 1, token: 2, start: 3, length: 4 };
    assert_eq!(Handed::parse(handed.to_bytes()), handed);
    let tokens = 258u32.to_le_bytes();
    for (title, record) in [
        ("segment base=4096 length=8192", Record::Segment { place: &place.to_bytes() }),
        (
            "hand channel=7 segment=1 token=2 start=3 length=4",
            Record::Hand { channel: 7, back: false, place: &handed.to_bytes() },
        ),
        ("returned token=258", Record::Returned { tokens: &tokens }),
    ] {
        let bytes = vector(title);
        let mut built = vec![0; record.length()];
        record.write(&mut built);
        assert_eq!(built, bytes, "{title}");
        assert_eq!(Record::take(&mut &bytes[..]), Ok(record));
    }
    assert_eq!(returned_tokens(&tokens).collect::<Vec<_>>(), [258]);
}

#[test]
fn handles_are_as_documented() {
    let grant = GrantId { scope: Scope::Connection, slot: 7, generation: 8 };
    let handle = RemoteBuffer::new(258, 3, 1029, Access::READ_WRITE, 6, grant);
    let title = "handle read-write key=1029 session=6 slot=7 generation=8 address=258 length=3";
    assert_eq!(handle.to_bytes()[..], vector(title));
    assert_eq!(RemoteBuffer::from_bytes(&vector(title)).expect("a handle"), handle);
}

#[test]
fn revocations_are_as_documented() {
    let (mut owner, mut holder) = (Revoking::default(), Held::default());
    owner.want(GrantId { scope: Scope::Connection, slot: 3, generation: 7 });
    let (_, request) = owner.request(1000).expect("due");
    assert_eq!(request, vector("revoke serial=0 slot=3 generation=7"));
    holder.asked(&request).expect("well-formed");
    assert_eq!(holder.answer().expect("nothing uses it"), vector("revoked serial=0"));
}
