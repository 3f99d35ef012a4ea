//! Rings whose other end is a fuzzer's, which writes all that a peer may write, at any moment: also while it is looked at.

use std::cell::RefCell;
use std::rc::Rc;

use super::pages::{Ours, Theirs};
use super::ring::{OurPages, Rings, TheirPages, Word};
use crate::fuzzing::Input;

const CAPACITY: usize = 4096;
/// Bytes that are put or taken at once, at most.
const MOST: usize = 2 * CAPACITY;

/// The peer: what it may write, and what it has written.
struct Peer<'a> {
    input: Input<'a>,
    pages: Ours,
    bytes: Box<[u8; CAPACITY]>,
    sent: u64,
    received: u64,
    /// What it was told, which it may also read wrong.
    heard: u64,
    filling: u8,
}

/// The peer's pages as we see them: before each look the peer may write.
struct Meddled<'a> {
    theirs: Theirs,
    peer: Rc<RefCell<Peer<'a>>>,
}

impl Peer<'_> {
    /// Does something, or nothing.
    fn meddle(&mut self) {
        let choice = self.input.below(12);
        let (word, value) = match choice {
            0 => (Word::Sent, self.sent.wrapping_add(self.input.short().into())),
            1 => (Word::Sent, self.input.long()),
            2 => (Word::Received, self.received.wrapping_add(self.input.short().into())),
            3 => (Word::Received, self.input.long()),
            4 => (Word::Doze, self.input.long()),
            5 => (Word::Doze, self.input.byte().into()),
            6 => return self.write(),
            // As a good one would.
            7 => {
                self.write();
                (Word::Sent, self.heard.wrapping_add(u64::from(self.input.short()) % CAPACITY as u64))
            }
            _ => return,
        };
        self.say(word, value);
    }

    fn say(&mut self, word: Word, value: u64) {
        match word {
            Word::Sent => self.sent = value,
            Word::Received => self.received = value,
            Word::Doze => {}
        }
        self.pages.set(word, value);
    }

    /// Writes over a part of its ring.
    fn write(&mut self) {
        let at = usize::from(self.input.short()) % CAPACITY;
        let length = (usize::from(self.input.short()) % CAPACITY).min(CAPACITY - at);
        self.filling = self.filling.wrapping_add(1);
        self.bytes[at..at + length].fill(self.filling);
        self.pages.copy_in(at, &self.bytes[at..at + length]);
    }
}

impl TheirPages for Meddled<'_> {
    fn capacity(&self) -> usize {
        self.theirs.capacity()
    }

    fn word(&self, word: Word) -> u64 {
        self.peer.borrow_mut().meddle();
        let (seen, peer) = (self.theirs.word(word), self.peer.borrow());
        match word {
            Word::Sent => assert_eq!(seen, peer.sent),
            Word::Received => assert_eq!(seen, peer.received),
            Word::Doze => {}
        }
        seen
    }

    fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        self.peer.borrow_mut().meddle();
        assert!(at + bytes.len() <= CAPACITY, "{} bytes at {at} leave the ring", bytes.len());
        self.theirs.copy_out(at, bytes);
        assert!(self.peer.borrow().bytes[at..at + bytes.len()] == *bytes, "not what is there");
    }
}

/// Our pages as the peer sees them.
struct Seen {
    theirs: Theirs,
    /// What we have put, and how many bytes of it.
    put: Box<[u8; CAPACITY]>,
    sent: u64,
    shown: u64,
}

impl Seen {
    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.put[(self.sent % CAPACITY as u64) as usize] = *byte;
            self.sent = self.sent.wrapping_add(1);
        }
    }

    fn check(&self, received: u64) {
        assert_eq!(self.theirs.word(Word::Sent), self.shown, "not what was shown");
        assert_eq!(self.theirs.word(Word::Received), received, "not what was received");
        let mut bytes = [0; CAPACITY];
        self.theirs.copy_out(0, &mut bytes);
        assert!(bytes == *self.put, "not what was put");
    }
}

/// Lets a peer scribble over all that it may write while we do anything.
pub(crate) fn ring(bytes: &[u8]) {
    let (ours, seen) = Ours::new(CAPACITY).expect("memory");
    let (pages, file) = Ours::new(CAPACITY).expect("memory");
    let theirs = Theirs::new(&file).expect("a good one");
    let empty = || Box::new([0; CAPACITY]);
    let mut seen = Seen { theirs: Theirs::new(&seen).expect("a good one"), put: empty(), sent: 0, shown: 0 };
    let peer = Peer { input: Input::new(bytes), pages, bytes: empty(), sent: 0, received: 0, heard: 0, filling: 0 };
    let peer = Rc::new(RefCell::new(peer));
    let mut rings = Rings::new(ours, Meddled { theirs, peer: Rc::clone(&peer) });
    let (mut received, mut dozes, mut bells, mut filling) = (0u64, 0u64, 0u64, 0u8);
    let mut is_dozing = false;
    loop {
        if peer.borrow().input.is_empty() {
            return;
        }
        peer.borrow_mut().meddle();
        let (what, length) = {
            let mut peer = peer.borrow_mut();
            (peer.input.below(8), usize::from(peer.input.short()) % MOST)
        };
        match what {
            0 | 1 => {
                let mut bytes = vec![0xee; length];
                if let Ok(count) = rings.receive(&mut bytes) {
                    assert!(count <= length.min(CAPACITY) && bytes[count..].iter().all(|&byte| byte == 0xee));
                    received = received.wrapping_add(count as u64);
                } else {
                    assert!(bytes.iter().all(|&byte| byte == 0xee), "it takes of what makes no sense");
                }
                peer.borrow_mut().heard = received;
            }
            2 | 3 => {
                filling = filling.wrapping_add(1);
                let bytes = vec![filling; length];
                if let Ok(count) = rings.put(&bytes) {
                    assert!(count <= length.min(CAPACITY), "more than there is room for");
                    seen.put(&bytes[..count]);
                }
            }
            4 => {
                rings.publish();
                seen.shown = seen.sent;
            }
            5 => {
                if rings.must_ring() {
                    assert!(!rings.has_news() && !rings.must_ring(), "it is rung for again, for nothing");
                }
            }
            6 => {
                let (for_bytes, for_room) = (length & 1 != 0, length & 2 != 0);
                rings.doze(for_bytes, for_room);
                dozes += u64::from(!is_dozing && (for_bytes || for_room));
                is_dozing = for_bytes || for_room;
            }
            _ if length < MOST / 2 => {
                rings.rouse();
                is_dozing = false;
            }
            _ => {
                let count = length % 3;
                bells += count as u64;
                assert_eq!(rings.was_rung(count).is_ok(), bells <= dozes);
            }
        }
        seen.check(received);
    }
}
