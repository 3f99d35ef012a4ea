//! Every order of what both ends do: no byte is lost or read before it is there, and nobody sleeps for ever.

use super::*;
use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Notify};
use loom::thread;

const CAPACITY: usize = 2;

/// What one side writes. Loads of its bytes are relaxed: one that is not ordered behind the store may see what was there before.
struct Side {
    sent: AtomicU64,
    received: AtomicU64,
    doze: AtomicU64,
    bytes: [AtomicU8; CAPACITY],
}

impl Side {
    fn new() -> Arc<Self> {
        let word = || AtomicU64::new(0);
        let bytes = std::array::from_fn(|_| AtomicU8::new(0));
        Arc::new(Self { sent: word(), received: word(), doze: word(), bytes })
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        match word {
            Word::Sent => &self.sent,
            Word::Received => &self.received,
            Word::Doze => &self.doze,
        }
    }
}

#[derive(Clone)]
struct Pages(Arc<Side>);

impl OurPages for Pages {
    fn capacity(&self) -> usize {
        CAPACITY
    }

    fn set(&self, word: Word, value: u64) {
        self.0.word(word).store(value, Ordering::Release);
    }

    fn copy_in(&self, at: usize, bytes: &[u8]) {
        for (offset, byte) in bytes.iter().enumerate() {
            self.0.bytes[at + offset].store(*byte, Ordering::Relaxed);
        }
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

impl TheirPages for Pages {
    fn capacity(&self) -> usize {
        CAPACITY
    }

    fn word(&self, word: Word) -> u64 {
        self.0.word(word).load(Ordering::Acquire)
    }

    fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        for (offset, byte) in bytes.iter_mut().enumerate() {
            *byte = self.0.bytes[at + offset].load(Ordering::Relaxed);
        }
    }
}

fn model(bytes: &'static [u8]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let (one, other) = (Side::new(), Side::new());
        // Who waits for one that nobody rings any more is in a deadlock, which loom reports.
        let bells = Arc::new((Notify::new(), Notify::new()));
        let mut sender = Rings::new(Pages(Arc::clone(&one)), Pages(Arc::clone(&other)));
        let mut receiver = Rings::new(Pages(other), Pages(one));
        let rung = Arc::clone(&bells);
        let sending = thread::spawn(move || {
            let (receivers, ours) = (&rung.0, &rung.1);
            let mut left = bytes;
            while !left.is_empty() {
                let taken = sender.put(left).expect("sense");
                left = &left[taken..];
                if taken > 0 {
                    sender.publish();
                    if sender.must_ring() {
                        receivers.notify();
                    }
                } else if !sender.doze(false, true) {
                    ours.wait();
                    sender.rouse();
                }
            }
        });
        let (ours, senders) = (&bells.0, &bells.1);
        let (mut all, mut some) = (Vec::new(), [0; CAPACITY]);
        while all.len() < bytes.len() {
            let count = receiver.receive(&mut some).expect("sense");
            all.extend_from_slice(&some[..count]);
            if count > 0 {
                if receiver.must_ring() {
                    senders.notify();
                }
            } else if !receiver.doze(true, false) {
                ours.wait();
                receiver.rouse();
            }
        }
        assert_eq!(all, bytes);
        sending.join().expect("no panic");
    });
}

#[test]
fn loom_who_waits_for_bytes_gets_them_all_and_is_woken() {
    model(b"ab");
}

#[test]
fn loom_who_waits_for_room_gets_it_and_is_woken() {
    model(b"abcd");
}
