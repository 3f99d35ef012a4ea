//! Segments that come and go.

use std::collections::VecDeque;

use super::{Pages, pair};
use crate::memory::MOST_SEGMENTS as NUMBERS;
use crate::protocol::{Handed, Record};
use crate::transport::MOST_SEGMENTS;
use crate::{Buffer, Pool};

/// A buffer in a segment of its own.
fn buffer(value: u8) -> Buffer {
    let mut buffer = Pool::builder().shareable(true).build().expect("a pool").allocate(100).expect("memory");
    buffer.fill(value);
    buffer
}

/// Gives the segment of a buffer, and tells of it; answers its number.
fn introduce(ours: &mut Pages, theirs: &mut Pages, buffer: &Buffer, forgotten: &VecDeque<u32>) -> Option<u32> {
    let (slab, _) = buffer.shareable().expect("shareable");
    assert_eq!(ours.lent.number(slab), None);
    let (number, place) = ours.lent.introduce(slab, forgotten)?;
    assert_eq!(ours.lent.number(slab), Some(number));
    theirs.handle(Record::Segment { place: &place.to_bytes() }, &mut Vec::new()).expect("as it has to be");
    Some(number)
}

/// Tells of one that is gone.
fn say(theirs: &mut Pages, forgotten: &mut VecDeque<u32>) {
    let segment = forgotten.pop_front().expect("one is gone");
    theirs.handle(Record::Forget { segment }, &mut Vec::new()).expect("it is there");
}

#[test]
fn what_is_gone_counts_until_the_peer_is_told() {
    let (mut ours, mut theirs, _) = pair();
    let mut forgotten = VecDeque::new();
    let mut buffers: Vec<_> = (0..MOST_SEGMENTS).map(|_| buffer(0)).collect();
    for buffer in &buffers {
        assert!(introduce(&mut ours, &mut theirs, buffer, &forgotten).is_some());
    }
    let next = buffer(1);
    assert!(introduce(&mut ours, &mut theirs, &next, &forgotten).is_none());
    buffers.truncate(MOST_SEGMENTS - 2);
    ours.lent.forget_gone(&mut forgotten);
    assert_eq!(forgotten.len(), 2);
    assert!(introduce(&mut ours, &mut theirs, &next, &forgotten).is_none(), "the peer has all of them");
    say(&mut theirs, &mut forgotten);
    assert!(introduce(&mut ours, &mut theirs, &next, &forgotten).is_some());
    assert!(introduce(&mut ours, &mut theirs, &buffer(2), &forgotten).is_none());
}

#[test]
fn both_ends_call_a_segment_the_same_when_the_numbers_begin_again() {
    let (mut ours, mut theirs, _) = pair();
    let mut forgotten = VecDeque::new();
    let stays: Vec<_> = (0..3).map(buffer).collect();
    // The second stays under the first number, and one that is gone keeps its own until the peer is told.
    for (number, buffer) in stays.iter().enumerate() {
        assert_eq!(introduce(&mut ours, &mut theirs, buffer, &forgotten), Some(number as u32));
    }
    let [first, _, _] = <[Buffer; 3]>::try_from(stays).expect("three");
    ours.lent.forget_gone(&mut forgotten);
    assert_eq!(forgotten.len(), 2);
    say(&mut theirs, &mut forgotten);
    let (free, kept) = (3 - forgotten[0], forgotten[0]);
    for pages in [&mut ours, &mut theirs] {
        pages.lent.numbers.skip_to_last(2);
        pages.borrowed.numbers.skip_to_last(2);
    }
    for (value, expected) in [NUMBERS - 2, NUMBERS - 1, free, 3, 4].into_iter().enumerate() {
        let (value, buffer) = (value as u8 + 10, buffer(value as u8 + 10));
        let segment = introduce(&mut ours, &mut theirs, &buffer, &forgotten).expect("there is room");
        assert!(segment == expected && segment != kept);
        let (_, start) = buffer.shareable().expect("shareable");
        let place = Handed { segment, token: 0, start: start as u64, length: 100 }.to_bytes();
        let hand = Record::Hand { channel: 0, back: false, place: &place };
        let arrived = theirs.handle(hand, &mut Vec::new()).expect("as it has to be").expect("a message");
        assert!(arrived.buffer.iter().all(|byte| *byte == value), "it lies in another");
    }
    drop(first);
}

#[test]
fn nothing_is_left_of_those_that_are_gone() {
    let (mut ours, mut theirs, _) = pair();
    let mut forgotten = VecDeque::new();
    for _ in 0..20 {
        let buffer = buffer(0);
        introduce(&mut ours, &mut theirs, &buffer, &forgotten).expect("there is room");
        drop(buffer);
        ours.lent.forget_gone(&mut forgotten);
        say(&mut theirs, &mut forgotten);
        assert_eq!((ours.lent.segments(), theirs.borrowed.segments()), (0, 0));
    }
}
