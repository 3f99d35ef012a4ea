//! A pair of rings of bytes, one each way.
//!
//! Each side has pages that it alone writes: the bytes it sends, how many it has sent, how many it has received, and whether it
//! dozes. Counts are of all bytes since the beginning; a byte's place is its count within the capacity. What the peer's pages say is
//! checked before it is used, and copied before it is looked at.

use std::fmt;

/// A word that a side writes for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// How many bytes it has sent.
    Sent,
    /// How many bytes of the other's it has received.
    Received,
    /// Whether the other is to ring: how often it has dozed, and below that, for what.
    Doze,
}

/// What the other is to ring for, in [`Word::Doze`].
const FOR_BYTES: u64 = 1;
const FOR_ROOM: u64 = 2;
const DOZES: u32 = 2;

/// Pages that the peer writes.
pub(super) trait TheirPages {
    /// Bytes that the ring has room for, a power of two.
    fn capacity(&self) -> usize;
    /// The word as it is now; what was written before it is seen from then on.
    fn word(&self, word: Word) -> u64;
    /// Copies bytes of the ring from `at` on, which do not go past its end.
    fn copy_out(&self, at: usize, bytes: &mut [u8]);
}

/// Pages that we write, and nobody else.
pub(super) trait OurPages {
    /// Bytes that the ring has room for, a power of two.
    fn capacity(&self) -> usize;
    /// Sets the word; who sees that sees what was written before.
    fn set(&self, word: Word, value: u64);
    /// Copies bytes to the ring from `at` on, which do not go past its end.
    fn copy_in(&self, at: usize, bytes: &[u8]);
    /// A fence that is in one order with all others.
    fn fence();
}

/// What the peer has written makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nonsense {
    what: &'static str,
    count: u64,
    capacity: usize,
}

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, count, capacity } = self;
        write!(f, "its memory says that {what} {count} bytes, of a ring of {capacity}")
    }
}

/// Our end of both rings.
pub(super) struct Rings<O, T> {
    ours: O,
    theirs: T,
    sent: u64,
    /// How many of these the peer is known to have received.
    taken: u64,
    received: u64,
    /// How often we have dozed, and for what we doze.
    dozes: u64,
    dozing_for: u64,
    /// For which of the peer's dozes we have rung.
    rung: u64,
    /// What the peer may be dozing for and was not yet looked at: bytes that we have sent, room that we have made.
    news: u64,
}

impl<O: OurPages, T: TheirPages> Rings<O, T> {
    pub(super) fn new(ours: O, theirs: T) -> Self {
        Self { ours, theirs, sent: 0, taken: 0, received: 0, dozes: 0, dozing_for: 0, rung: 0, news: 0 }
    }

    /// Whether there is something to receive.
    #[inline]
    pub(super) fn has_bytes(&self) -> bool {
        self.theirs.word(Word::Sent) != self.received
    }

    /// Whether the peer is to be looked after: see [`must_ring`](Self::must_ring).
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.news != 0
    }

    /// Copies out what has come, as much as there is room for; answers how much.
    pub(super) fn receive(&mut self, bytes: &mut [u8]) -> Result<usize, Nonsense> {
        let capacity = self.theirs.capacity();
        let there = self.theirs.word(Word::Sent).wrapping_sub(self.received);
        let there = checked(there, capacity, "there are")?;
        let count = there.min(bytes.len());
        if count == 0 {
            return Ok(0);
        }
        let at = place(self.received, capacity);
        let (first, second) = bytes[..count].split_at_mut(count.min(capacity - at));
        self.theirs.copy_out(at, first);
        if !second.is_empty() {
            self.theirs.copy_out(0, second);
        }
        self.received = self.received.wrapping_add(count as u64);
        self.ours.set(Word::Received, self.received);
        self.news |= FOR_ROOM;
        Ok(count)
    }

    /// Room for bytes to send; looks at the peer's pages if what is known to be free is less than `wanted`.
    pub(super) fn room(&mut self, wanted: usize) -> Result<usize, Nonsense> {
        let capacity = self.ours.capacity();
        let mut used = self.sent.wrapping_sub(self.taken);
        if capacity - used as usize >= wanted {
            return Ok(capacity - used as usize);
        }
        let taken = self.theirs.word(Word::Received);
        used = self.sent.wrapping_sub(taken);
        let free = capacity - checked(used, capacity, "it has not received")?;
        self.taken = taken;
        Ok(free)
    }

    /// Copies bytes in, as many as there is room for; answers how many. They are sent with the next [`publish`](Self::publish).
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<usize, Nonsense> {
        let count = self.room(bytes.len())?.min(bytes.len());
        let capacity = self.ours.capacity();
        let at = place(self.sent, capacity);
        let (first, second) = bytes[..count].split_at(count.min(capacity - at));
        self.ours.copy_in(at, first);
        if !second.is_empty() {
            self.ours.copy_in(0, second);
        }
        self.sent = self.sent.wrapping_add(count as u64);
        Ok(count)
    }

    /// Shows the peer what was put.
    pub(super) fn publish(&mut self) {
        self.ours.set(Word::Sent, self.sent);
        self.news |= FOR_BYTES;
    }

    /// Whether the peer dozes for what we have done since this was asked last; then it is to be rung for, once.
    pub(super) fn must_ring(&mut self) -> bool {
        let news = std::mem::take(&mut self.news);
        if news == 0 {
            return false;
        }
        // The peer sets its word and then looks at ours; we have set ours and look at its word. One of us sees the other.
        O::fence();
        let doze = self.theirs.word(Word::Doze);
        let is_to_ring = doze & news != 0 && doze >> DOZES != self.rung;
        if is_to_ring {
            self.rung = doze >> DOZES;
        }
        is_to_ring
    }

    /// Has the peer ring when there are bytes, or room; answers whether there are already.
    pub(super) fn doze(&mut self, for_bytes: bool, for_room: bool) -> bool {
        let for_what = if for_bytes { FOR_BYTES } else { 0 } | if for_room { FOR_ROOM } else { 0 };
        if for_what != self.dozing_for {
            if self.dozing_for == 0 {
                self.dozes = self.dozes.wrapping_add(1);
            }
            self.dozing_for = for_what;
            self.say_doze();
            O::fence();
        }
        // What makes no sense is told to who looks.
        for_bytes && self.has_bytes() || for_room && self.room(1) != Ok(0)
    }

    /// Whether the peer is to ring.
    pub(super) fn is_dozing(&self) -> bool {
        self.dozing_for != 0
    }

    /// The peer need not ring any more.
    pub(super) fn rouse(&mut self) {
        if self.dozing_for != 0 {
            self.dozing_for = 0;
            self.say_doze();
        }
    }

    /// Says something else than what is so.
    #[cfg(test)]
    pub(super) fn scribble(&self, word: Word, value: u64) {
        self.ours.set(word, value);
    }

    fn say_doze(&self) {
        self.ours.set(Word::Doze, self.dozes << DOZES | self.dozing_for);
    }
}

fn place(count: u64, capacity: usize) -> usize {
    (count & (capacity as u64 - 1)) as usize
}

/// A number of bytes in a ring of `capacity`.
fn checked(count: u64, capacity: usize, what: &'static str) -> Result<usize, Nonsense> {
    let within = usize::try_from(count).ok().filter(|count| *count <= capacity);
    within.ok_or(Nonsense { what, count, capacity })
}

#[cfg(all(test, not(loom)))]
mod tests {
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
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = (any::<u8>(), 0..2 * CAPACITY)
            .prop_map(|(first, length)| (0..length).map(|at| first.wrapping_add((at % 251) as u8)).collect());
        let step = prop_oneof![bytes.prop_map(Step::Send), (0..2 * CAPACITY).prop_map(Step::Receive)];
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
}

/// Every order of what both ends do: no byte is lost or read before it is there, and nobody sleeps for ever.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    const CAPACITY: usize = 2;

    /// What one side writes. The bytes are cells: an access that is not ordered with another one's fails the model.
    struct Side {
        sent: AtomicU64,
        received: AtomicU64,
        doze: AtomicU64,
        bytes: [UnsafeCell<u8>; CAPACITY],
    }

    impl Side {
        fn new() -> Arc<Self> {
            let word = || AtomicU64::new(0);
            let bytes = std::array::from_fn(|_| UnsafeCell::new(0));
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
                // SAFETY: loom fails the model if anybody else accesses it meanwhile.
                self.0.bytes[at + offset].with_mut(|cell| unsafe { *cell = *byte });
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
                // SAFETY: loom fails the model if anybody else accesses it meanwhile.
                *byte = self.0.bytes[at + offset].with(|cell| unsafe { *cell });
            }
        }
    }

    /// A doorbell: who waits for it goes on when it was rung.
    #[derive(Default)]
    struct Bell {
        is_rung: AtomicBool,
        waits: AtomicUsize,
    }

    impl Bell {
        fn ring(&self) {
            self.is_rung.store(true, Ordering::Release);
        }

        fn wait(&self) {
            self.waits.fetch_add(1, Ordering::Relaxed);
            while !self.is_rung.swap(false, Ordering::Acquire) {
                // If nobody rings any more this never ends, which loom reports.
                thread::yield_now();
            }
        }
    }

    fn model(bytes: &'static [u8]) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let (one, other) = (Side::new(), Side::new());
            let bells = Arc::new((Bell::default(), Bell::default()));
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
                            receivers.ring();
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
                        senders.ring();
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
}
