//! Messages that are written and read without a poll.

use std::io::{IoSlice, Read, Write};

use rustix::net::RecvFlags;

use super::*;
use crate::transport::framed::Interest;
use crate::transport::framed::tests::{HEADER, message};

#[test]
fn a_message_is_written_at_once_unless_something_waits_before_it_or_there_is_no_room() {
    let mut rig = Rig::<ShmCarrier>::new();
    let channel = rig.channel();
    assert!(rig.queue().takes_now(channel, 5) && !rig.queue().takes_now(channel, (64 << 10) + 1));
    rig.queue().send_now(channel, b"he", &[IoSlice::new(b"ll"), IoSlice::new(b"o")]);
    let mut heard = vec![0; message(0, b"hello").len()];
    rig.peer().read_exact(&mut heard).expect("it is there, though nobody has flushed");
    assert_eq!(heard, message(0, b"hello"));
    assert!(rig.settle().is_empty(), "nothing completes");
    // More than the ring has room for waits.
    rig.post_sends(1, 300 << 10);
    assert!(!rig.queue().takes_now(channel, 5));
    for length in [200 << 10, (100 << 10) + HEADER] {
        rig.peer().read_exact(&mut vec![0; length]).expect("reads");
        assert!(length < 200 << 10 || !rig.queue().takes_now(channel, 5), "there is room, and something waits");
        rig.settle();
    }
    assert!(rig.queue().takes_now(channel, 5));
    // A ring that is full, of which all is told.
    while rig.queue().takes_now(channel, 60_000) {
        rig.queue().send_now(channel, &[0; 60_000], &[]);
    }
    assert!(rig.queue().takes_now(channel, 5), "a short one still fits");
}

#[test]
fn a_message_is_received_without_a_poll_when_it_is_next_and_whole() {
    let mut rig = Rig::<ShmCarrier>::new();
    let channel = rig.channel();
    let long: Vec<u8> = (0..64 << 10).map(|at| (at % 253) as u8).collect();
    for body in [&b""[..], b"short", &long[..112], &long[..113], &long] {
        let whole = message(0, body);
        let (first, second) = whole.split_at(whole.len() / 2);
        rig.peer().write_all(first).expect("writes");
        assert_eq!(rig.queue().receive_now(channel), None, "half of it is here");
        rig.peer().write_all(second).expect("writes");
        let (token, length) = rig.queue().receive_now(channel).expect("all of it is here");
        assert_eq!(rig.queue().lent(token, length), body);
        assert_eq!(rig.queue().receive_now(channel), None, "there was one");
    }
    // One that says more, and what is no message, are left to a poll.
    rig.post_sends(1, 8);
    rig.peer().write_all(&message(1, b"x")).expect("writes");
    assert_eq!(rig.queue().receive_now(channel), None);
    assert_eq!(rig.ends().len(), 2);
    rig.peer().write_all(&Header { acknowledged: 1, frame: Frame::Probe }.to_bytes()).expect("writes");
    assert_eq!(rig.queue().receive_now(channel), None);
    // What a poll has begun with goes on by polls.
    let whole = message(1, b"whole");
    rig.peer().write_all(&whole[..3]).expect("writes");
    rig.settle();
    rig.peer().write_all(&whole[3..]).expect("writes");
    assert_eq!(rig.queue().receive_now(channel), None);
    assert_eq!(rig.ends().len(), 1);
}

#[test]
fn nonsense_is_not_received_without_a_poll_but_told_by_one() {
    let mut rig = Rig::<ShmCarrier>::new();
    let channel = rig.channel();
    rig.peer().write_all(&message(0, b"x")).expect("writes");
    rig.peer().carrier.scribble(Word::Sent, u64::MAX);
    assert_eq!(rig.queue().receive_now(channel), None);
    let done = rig.ends();
    assert!(
        done.iter()
            .any(|done| matches!(&done.result, Err(Failure::Broken(error)) if error.kind() == ErrorKind::Protocol))
    );
}

#[test]
fn who_waits_for_room_is_rung_for_without_a_poll() {
    let mut rig = Rig::<ShmCarrier>::new();
    let channel = rig.channel();
    let body = vec![0; 60_000];
    for _ in 0..4 {
        rig.peer().write_all(&message(0, &body)).expect("writes");
    }
    rig.peer().carrier.doze(Interest { reading: false, writing: true });
    let rung = |rig: &mut Rig<ShmCarrier>| {
        rustix::net::recv(&rig.peer().socket, &mut [0; 8][..], RecvFlags::DONTWAIT | RecvFlags::PEEK).is_ok()
    };
    // Not for each, which would cost a look at the peer's pages every time.
    assert!(rig.queue().receive_now(channel).is_some() && !rung(&mut rig));
    assert!(rig.queue().receive_now(channel).is_some() && rung(&mut rig));
}
