//! A pair of rings of bytes, one each way.
//!
//! Each side has pages that it alone writes: the bytes it sends, how many it has sent, how many it has received, and whether it
//! dozes. Counts are of all bytes since the beginning; a byte's place is its count within the capacity. What the peer's pages say is
//! checked before it is used, and copied before it is looked at.

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use std::fmt;

use crate::failpoint;

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

/// What the peer has written, or how it has rung, makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Nonsense {
    Bells { bells: u64, dozes: u64 },
    Count { what: &'static str, count: u64, capacity: usize },
}

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bells { bells, dozes } => write!(f, "it has rung {bells} times, for {dozes} dozes"),
            Self::Count { what, count, capacity } => {
                write!(f, "its memory says that {what} {count} bytes, of a ring of {capacity}")
            }
        }
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
    /// How often the peer has rung.
    bells: u64,
    /// For which of the peer's dozes we have rung.
    rung: u64,
    /// What the peer may be dozing for and was not yet looked at: bytes that we have sent, room that we have made.
    news: u64,
}

impl<O: OurPages, T: TheirPages> Rings<O, T> {
    pub(super) fn new(ours: O, theirs: T) -> Self {
        Self { ours, theirs, sent: 0, taken: 0, received: 0, dozes: 0, dozing_for: 0, bells: 0, rung: 0, news: 0 }
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
        let count = self.there()?.min(bytes.len());
        if count > 0 {
            self.copy_out(self.received, &mut bytes[..count]);
            self.skip(count);
        }
        Ok(count)
    }

    /// Copies what has come, from `offset` on, and leaves it there; answers how much that is.
    #[inline]
    pub(super) fn peek(&self, offset: usize, bytes: &mut [u8]) -> Result<usize, Nonsense> {
        let count = self.there()?.saturating_sub(offset).min(bytes.len());
        if count > 0 {
            self.copy_out(self.received.wrapping_add(offset as u64), &mut bytes[..count]);
        }
        Ok(count)
    }

    /// Makes room of so many bytes that have come.
    pub(super) fn skip(&mut self, count: usize) {
        failpoint::reach("ring.taken");
        self.received = self.received.wrapping_add(count as u64);
        self.ours.set(Word::Received, self.received);
        failpoint::reach("ring.freed");
        self.news |= FOR_ROOM;
    }

    /// How many bytes have come.
    fn there(&self) -> Result<usize, Nonsense> {
        checked(self.theirs.word(Word::Sent).wrapping_sub(self.received), self.theirs.capacity(), "there are")
    }

    /// Copies bytes that are there, from that `count` on.
    fn copy_out(&self, count: u64, bytes: &mut [u8]) {
        let capacity = self.theirs.capacity();
        let at = place(count, capacity);
        let before_end = bytes.len().min(capacity - at);
        let (first, second) = bytes.split_at_mut(before_end);
        self.theirs.copy_out(at, first);
        if !second.is_empty() {
            self.theirs.copy_out(0, second);
        }
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
        failpoint::reach("ring.filled");
        self.ours.set(Word::Sent, self.sent);
        failpoint::reach("ring.shown");
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

    /// The peer could not be rung for, and is to be once more.
    pub(super) fn was_not_rung(&mut self) {
        self.rung = self.rung.wrapping_sub(1);
        self.news = FOR_BYTES | FOR_ROOM;
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

    /// The peer need not ring any more.
    pub(super) fn rouse(&mut self) {
        if self.dozing_for != 0 {
            self.dozing_for = 0;
            self.say_doze();
        }
    }

    /// The peer has rung `bells` times: not more often than we have dozed, all in all, however late.
    pub(super) fn was_rung(&mut self, bells: usize) -> Result<(), Nonsense> {
        self.bells = self.bells.saturating_add(bells as u64);
        let (bells, dozes) = (self.bells, self.dozes);
        if bells > dozes { Err(Nonsense::Bells { bells, dozes }) } else { Ok(()) }
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
    within.ok_or(Nonsense::Count { what, count, capacity })
}
