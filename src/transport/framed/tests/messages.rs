//! Messages that need no receive, which any peer may send.

use super::*;
use crate::transport::framed::frame::{MOST_MESSAGE, SHORT_HEADER};

/// A message as it is on the stream.
pub(in crate::transport) fn message(acknowledged: u64, body: &[u8]) -> Vec<u8> {
    [&Header::message(acknowledged, body.len() as u32)[..], body].concat()
}

/// What is lent with a completion.
fn lent<C: TestCarrier>(rig: &Rig<C>, done: &Completion) -> Vec<u8> {
    assert!(done.is_receive && done.memory.is_none() && done.immediate.is_none());
    let length = *done.result.as_ref().expect("it came well");
    rig.queue.lent(done.token, length as usize).to_vec()
}

pub(in crate::transport) fn a_message_that_needs_no_receive_is_lent_as_it_came<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let bodies: Vec<Vec<u8>> =
        [0, 1, 63, 5000, MOST_MESSAGE].iter().map(|&length| (0..length).map(|at| (at % 251) as u8).collect()).collect();
    // Together, and then each in two parts, cut anywhere.
    let all: Vec<u8> = bodies.iter().flat_map(|body| message(0, body)).collect();
    rig.peer.write_all(&all).expect("writes");
    let mut next = 0;
    while next < bodies.len() {
        for done in rig.ends() {
            assert_eq!(lent(&rig, &done), bodies[next]);
            next += 1;
        }
    }
    for cut in [1, 2, 7, SHORT_HEADER, SHORT_HEADER + 1, SHORT_HEADER + 62] {
        let whole = message(0, &bodies[2]);
        rig.peer.write_all(&whole[..cut]).expect("writes");
        assert!(rig.settle().is_empty(), "{cut} bytes of it are here");
        rig.peer.write_all(&whole[cut..]).expect("writes");
        let done = rig.ends();
        assert_eq!((done.len(), lent(&rig, &done[0])), (1, bodies[2].clone()));
    }
    // None of them counted as a request.
    rig.say(Frame::Probe, &[]);
    rig.settle();
    assert_eq!(rig.hear(), Header { acknowledged: 1, frame: Frame::Acknowledge });
}

pub(in crate::transport) fn messages_of_both_kinds_arrive_in_their_order<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    rig.say(Frame::Send { length: 1 }, b"1");
    rig.peer.write_all(&message(0, b"2")).expect("writes");
    rig.say(Frame::Send { length: 1 }, b"3");
    assert!(rig.settle().is_empty(), "the first waits for a receive, and all behind it");
    rig.post_receives(2);
    let mut said = Vec::new();
    while said.len() < 3 {
        for mut done in rig.ends() {
            let buffer = done.memory.take().and_then(Transfer::into_buffer);
            said.push(buffer.map_or_else(|| lent(&rig, &done)[0], |buffer| buffer[0]));
        }
    }
    assert_eq!(said, b"123");
}

pub(in crate::transport) fn a_message_that_is_longer_than_any_ends_the_channel<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    rig.peer.write_all(&Header::message(0, MOST_MESSAGE as u32 + 1)).expect("writes");
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::Protocol));
}

pub(in crate::transport) fn a_message_acknowledges_only_what_was_sent<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    rig.post(7, Operation::Probe, None);
    rig.peer.write_all(&message(1, b"x")).expect("writes");
    let tokens: Vec<_> = rig.ends().iter().map(|done| (done.token, done.is_receive)).collect();
    assert_eq!(tokens, [(7, false), (0, true)]);
    rig.peer.write_all(&message(2, b"y")).expect("writes");
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::Protocol));
}
