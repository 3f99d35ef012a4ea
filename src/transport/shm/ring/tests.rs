//! The rings against a queue, and against peers that say anything.

use super::super::pages::{Ours, Theirs};
use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const CAPACITY: usize = 4096;

type End = Rings<Ours, Theirs>;

/// Both ends of a pair of rings.
fn pair() -> (End, End) {
    let (one, ones) = Ours::new(CAPACITY).expect("memory");
    let (other, others) = Ours::new(CAPACITY).expect("memory");
    (Rings::new(one, theirs(&others)), Rings::new(other, theirs(&ones)))
}

fn theirs(file: &std::os::fd::OwnedFd) -> Theirs {
    Theirs::new(file).expect("a good one")
}

/// A peer that says what the test has it say.
fn scribbler() -> (End, Ours) {
    let (ours, _) = Ours::new(CAPACITY).expect("memory");
    let (peer, file) = Ours::new(CAPACITY).expect("memory");
    (Rings::new(ours, theirs(&file)), peer)
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    Receive(usize),
    /// Looks at bytes from somewhere on, and takes some off.
    Peek(usize, usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = (any::<u8>(), 0..2 * CAPACITY)
        .prop_map(|(first, length)| (0..length).map(|at| first.wrapping_add((at % 251) as u8)).collect());
    let peek = (0..CAPACITY, 0..CAPACITY, 0..CAPACITY).prop_map(|(from, most, taken)| Step::Peek(from, most, taken));
    let step = prop_oneof![bytes.prop_map(Step::Send), (0..2 * CAPACITY).prop_map(Step::Receive), peek];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn what_is_sent_is_received_in_order_and_never_more_than_fits(steps in steps(), is_swapped in any::<bool>()) {
        let (mut sender, mut receiver) = pair();
        if is_swapped {
            std::mem::swap(&mut sender, &mut receiver);
        }
        let mut model = VecDeque::new();
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    let taken = sender.put(&bytes).expect("sense");
                    prop_assert_eq!(taken, bytes.len().min(CAPACITY - model.len()));
                    model.extend(&bytes[..taken]);
                    prop_assert!(receiver.has_bytes() || taken == model.len() , "what was shown before is still there");
                    sender.publish();
                }
                Step::Peek(from, most, taken) => {
                    let mut bytes = vec![0xee; most];
                    let count = receiver.peek(from, &mut bytes).expect("sense");
                    prop_assert_eq!(count, most.min(model.len().saturating_sub(from)));
                    let expected: Vec<u8> = model.iter().copied().skip(from).take(count).collect();
                    prop_assert_eq!(&bytes[..count], &expected[..]);
                    prop_assert!(bytes[count..].iter().all(|&byte| byte == 0xee));
                    let taken = taken.min(model.len());
                    receiver.skip(taken);
                    model.drain(..taken);
                }
                Step::Receive(most) => {
                    let mut bytes = vec![0xee; most];
                    let count = receiver.receive(&mut bytes).expect("sense");
                    prop_assert_eq!(count, most.min(model.len()));
                    let expected: Vec<u8> = model.drain(..count).collect();
                    prop_assert_eq!(&bytes[..count], &expected[..]);
                    prop_assert!(bytes[count..].iter().all(|&byte| byte == 0xee));
                }
            }
            prop_assert_eq!(receiver.has_bytes(), !model.is_empty());
        }
    }

    #[test]
    fn whatever_a_peer_says_is_within_bounds_or_nonsense(
        words in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 1..20),
        small in any::<bool>(),
    ) {
        let (mut ours, peer) = scribbler();
        for (sent, received, doze) in words {
            let narrow = |count: u64| if small { count % (2 * CAPACITY as u64) } else { count };
            peer.set(Word::Sent, narrow(sent));
            peer.set(Word::Received, narrow(received));
            peer.set(Word::Doze, doze);
            let there = narrow(sent).wrapping_sub(ours.received);
            let read = ours.receive(&mut [0; 3 * CAPACITY]);
            prop_assert_eq!(read.is_ok(), there <= CAPACITY as u64);
            if let Ok(read) = read {
                prop_assert_eq!(read as u64, there);
            }
            if let Ok(taken) = ours.put(&[1; 100]) {
                prop_assert!(taken <= 100);
            }
            ours.publish();
            ours.must_ring();
            ours.doze(true, true);
            ours.rouse();
        }
    }
}

#[test]
fn a_ring_that_is_full_takes_nothing_until_something_was_received() {
    let (mut sender, mut receiver) = pair();
    assert_eq!(sender.put(&[1; CAPACITY + 1]), Ok(CAPACITY));
    assert_eq!(sender.put(&[2]), Ok(0));
    assert!(!receiver.has_bytes(), "nothing was shown");
    sender.publish();
    assert_eq!(receiver.receive(&mut [0; 10]), Ok(10));
    assert_eq!(sender.put(&[2; 20]), Ok(10));
}

#[test]
fn counts_that_no_peer_can_have_are_told() {
    let (mut ours, peer) = scribbler();
    peer.set(Word::Sent, CAPACITY as u64 + 1);
    let told = ours.receive(&mut [0; 8]).expect_err("nonsense").to_string();
    assert!(told.contains("4097 bytes, of a ring of 4096"), "{told}");
    assert!(ours.has_bytes(), "who looks is told");
    let (mut ours, peer) = scribbler();
    assert_eq!(ours.put(&[0; 8]), Ok(8));
    peer.set(Word::Received, 9);
    assert!(ours.doze(false, true), "who looks is told");
    assert!(ours.put(&[0; CAPACITY]).is_err());
}

#[test]
fn who_dozes_is_rung_for_once_and_for_what_it_dozes_for() {
    let (mut one, mut other) = pair();
    let say = |end: &mut End| {
        end.put(b"x").expect("sense");
        end.publish();
        end.must_ring()
    };
    assert!(!say(&mut one), "it is awake");
    assert!(other.doze(true, false), "it was there before");
    assert_eq!(other.receive(&mut [0; 8]), Ok(1));
    assert!(!other.doze(true, false));
    assert!(say(&mut one));
    assert!(!say(&mut one), "once is enough");
    other.rouse();
    assert!(!say(&mut one), "it is awake again");
    assert!(other.doze(true, false));
    assert!(say(&mut one), "it dozes again");
    // For room: only receiving makes any.
    let (mut one, mut other) = pair();
    assert_eq!(one.put(&[0; CAPACITY]), Ok(CAPACITY));
    one.publish();
    assert!(!one.doze(false, true));
    assert!(!say(&mut other), "it does not wait for bytes");
    assert_eq!(other.receive(&mut [0; 1]), Ok(1));
    assert!(other.has_news() && other.must_ring() && !other.must_ring());
    assert!(one.doze(false, true), "there is room");
}
