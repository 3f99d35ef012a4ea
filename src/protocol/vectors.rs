//! The vectors of `docs/protocol.md` are what this library sends and takes.

use super::{Frame, FrameKind, GrantId, HEADER, Handshake, Held, Refusal, Revoking, Scope};
use crate::{Access, RemoteBuffer};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The bytes below the line `title`.
fn vector(title: &str) -> Vec<u8> {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != title);
    lines.next().unwrap_or_else(|| panic!("no vector {title}"));
    let digits: String = lines.next().expect("its bytes").split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn introductions_are_as_documented() {
    let ours = Handshake { nonce: 1, max_message: 2, credits: 3, domain: 4 };
    let bytes = vector("introduction nonce=1 longest=2 credits=3 domain=4");
    assert_eq!(ours.to_bytes()[..], bytes);
    assert_eq!(Handshake::parse(&bytes), Ok(ours));
    let bytes = vector("refusal busy");
    assert_eq!(Refusal::Busy.to_bytes()[..], bytes);
    assert_eq!(Refusal::parse(&bytes), Some(Refusal::Busy));
}

#[test]
fn frames_are_as_documented() {
    let frame = Frame { kind: FrameKind::Message, credits: 258, length: 3 };
    let bytes = vector("frame message credits=258 payload=616263");
    assert_eq!((&frame.to_bytes()[..], &b"abc"[..]), bytes.split_at(HEADER));
    assert_eq!(Frame::parse(&bytes), Ok(frame));
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
