//! The life of blocks, in any order: a byte is in one hand at a time, and comes home once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::Pages;
use super::pair;
use crate::protocol::{Handed, Record};
use crate::{Buffer, Pool};

/// One thing that happens, to what the numbers choose.
#[derive(Clone, Debug)]
enum Step {
    /// An end takes a buffer of its pool.
    Allocate {
        end: usize,
        length: usize,
    },
    /// An end hands over one that it has, if it can be.
    Hand {
        end: usize,
        which: usize,
    },
    /// An end splits one.
    Split {
        end: usize,
        which: usize,
        at: usize,
    },
    Drop {
        end: usize,
        which: usize,
    },
    /// What an end has dropped is told.
    Return {
        end: usize,
    },
    /// An end gives idle memory up.
    Trim {
        end: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..7, 0..2usize, 0..20usize, 1..6_000usize).prop_map(|(kind, end, which, number)| match kind {
        0 => Step::Allocate { end, length: number },
        1 | 2 => Step::Hand { end, which },
        3 => Step::Split { end, which, at: number },
        4 => Step::Drop { end, which },
        5 => Step::Return { end },
        _ => Step::Trim { end },
    });
    proptest::collection::vec(step, 0..100)
}

/// An end, and the buffers in its hands with the value that each of their bytes has.
struct Side {
    pages: Pages,
    pool: Pool,
    hands: Vec<(Buffer, u8)>,
}

struct World {
    sides: [Side; 2],
    next: u8,
}

impl World {
    fn new() -> Self {
        let (one, other, _) = pair();
        let side = |pages| {
            let pool = Pool::builder().shareable(true).limit(8 << 20).build().expect("a pool");
            Side { pages, pool, hands: Vec::new() }
        };
        Self { sides: [side(one), side(other)], next: 0 }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Allocate { end, length } => {
                self.next = self.next.wrapping_add(1);
                let (side, value) = (&mut self.sides[end], self.next);
                if let Ok(mut buffer) = side.pool.allocate(length) {
                    buffer.fill(value);
                    side.hands.push((buffer, value));
                }
            }
            Step::Split { end, which, at } => {
                let hands = &mut self.sides[end].hands;
                if !hands.is_empty() {
                    let (buffer, value) = hands.swap_remove(which % hands.len());
                    let at = at % (buffer.len() + 1);
                    let (first, rest) = buffer.split_at(at);
                    hands.extend([(first, value), (rest, value)]);
                }
            }
            Step::Drop { end, which } => {
                let hands = &mut self.sides[end].hands;
                if !hands.is_empty() {
                    drop(hands.swap_remove(which % hands.len()));
                }
            }
            Step::Hand { end, which } => self.hand(end, which),
            Step::Return { end } => self.give_back(end),
            Step::Trim { end } => {
                self.sides[end].pool.trim();
                let mut gone = VecDeque::new();
                self.sides[end].pages.lent.forget_gone(&mut gone);
                for segment in gone {
                    self.arrive(1 - end, Record::Forget { segment });
                }
            }
        }
        for (buffer, value) in self.sides.iter().flat_map(|side| &side.hands) {
            assert!(buffer.iter().all(|byte| byte == value), "somebody else has written there");
        }
    }

    fn hand(&mut self, end: usize, which: usize) {
        let Side { pages, hands, .. } = &mut self.sides[end];
        if hands.is_empty() {
            return;
        }
        let (buffer, value) = hands.swap_remove(which % hands.len());
        let length = buffer.len() as u64;
        if buffer.is_empty() {
            return;
        }
        if let Some((slab, start)) = buffer.shareable() {
            let known = pages.lent.number(slab).map(|number| (number, None));
            let introduced = known.or_else(|| {
                let (number, place) = pages.lent.introduce(slab, &VecDeque::new())?;
                Some((number, Some(place)))
            });
            let (segment, unsaid) = introduced.expect("there are few");
            let token = pages.lent.next_token().expect("there is room");
            pages.lent.handed_over(buffer);
            if let Some(place) = unsaid {
                self.arrive(1 - end, Record::Segment { place: &place.to_bytes() });
            }
            let place = Handed { segment, token, start: start as u64, length }.to_bytes();
            self.receive(1 - end, Record::Hand { channel: 0, back: false, place: &place }, value);
        } else {
            match buffer.vacate(&pages.borrowed.returns) {
                Ok((block, start)) => {
                    let token = block.token().expect("it is a peer's");
                    pages.borrowed.returns.keep(block);
                    let place = Handed { segment: 0, token, start: start as u64, length }.to_bytes();
                    self.receive(1 - end, Record::Hand { channel: 0, back: true, place: &place }, value);
                }
                Err(buffer) => self.sides[end].hands.push((buffer, value)),
            }
        }
    }

    fn receive(&mut self, end: usize, record: Record<'_>, value: u8) {
        let side = &mut self.sides[end];
        let arrived = side.pages.handle(record, &mut Vec::new()).expect("as it has to be").expect("a message");
        side.hands.push((arrived.buffer, value));
    }

    fn arrive(&mut self, end: usize, record: Record<'_>) {
        self.sides[end].pages.handle(record, &mut Vec::new()).expect("as it has to be");
    }

    fn give_back(&mut self, end: usize) {
        let mut tokens = Vec::new();
        self.sides[end].pages.borrowed.returns.take(|token| tokens.extend(token.to_le_bytes()));
        if !tokens.is_empty() {
            self.arrive(1 - end, Record::Returned { tokens: &tokens });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_byte_is_in_one_hand_and_every_block_comes_home(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        for end in 0..2 {
            world.sides[end].hands.clear();
        }
        for end in 0..2 {
            world.give_back(end);
        }
        for side in &world.sides {
            prop_assert_eq!(side.pool.statistics().in_use_bytes, 0);
        }
    }

    #[test]
    fn what_a_peer_holds_when_it_ends_comes_home_when_it_is_gone(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        let World { sides: [one, other], .. } = world;
        // The one ends with all that it has; the other has let go of what it was lent.
        let (pool, theirs) = (other.pool.clone(), other.hands);
        drop((one.pages, one.hands));
        let kept: usize = theirs.iter().map(|(buffer, _)| buffer.len()).sum();
        prop_assert!(kept == 0 || theirs.iter().all(|(buffer, value)| buffer.iter().all(|byte| byte == value)));
        drop((theirs, other.pages));
        // A child that another test has just forked holds the pipe for as long as it lives.
        let begun = Instant::now();
        while pool.statistics().in_use_bytes > 0 && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        prop_assert_eq!(pool.statistics().in_use_bytes, 0);
    }
}
