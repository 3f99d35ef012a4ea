//! One channel of a connection: its windows, and the messages that wait to be received.

use std::collections::VecDeque;
use std::task::Waker;

use crate::memory::Held;
use crate::protocol::{HANDED, OFFER, ReceiveWindow, SendWindow, cost};
use crate::{Buffer, RemoteBuffer};

/// The state of a channel. It lives as long as its connection.
pub(super) struct Conversation {
    pub(super) id: u32,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    entries: VecDeque<Entry>,
    next_serial: u64,
    /// We have said that we will send no more here.
    pub(super) has_ended: bool,
    pub(super) peer_ended: bool,
    /// Messages went with the connection: what was behind them, or comes later, does not count.
    pub(super) has_lost: bool,
    /// Nobody will receive here any more.
    pub(super) is_declining: bool,
    /// Whether the peer is to be told of window, and was not yet.
    pub(super) is_window_queued: bool,
    /// Bytes of long messages that are fetched ahead, and how many may be.
    ahead: u64,
    most_ahead: u64,
    pub(super) receivers: Vec<Waker>,
}

struct Entry {
    serial: u64,
    cost: u64,
    /// Bytes that were fetched before anybody asked.
    ahead: u64,
    state: State,
}

enum State {
    Message(Stored),
    /// To be fetched.
    Offer(RemoteBuffer),
    /// On its way into memory of ours, or of a receiver who gave some.
    Fetching {
        handle: RemoteBuffer,
        claim: Claim,
    },
    /// A receiver is about to fetch it.
    Claimed(RemoteBuffer),
    /// It is in the memory that a receiver gave, who has not looked yet. Until then the peer keeps it.
    Delivered {
        handle: RemoteBuffer,
        held: Held,
    },
    /// It could not be fetched, and the connection has ended; the memory is its receiver's.
    Failed(Option<Held>),
}

/// What became of a fetch that ended well.
pub(super) enum Fetched {
    /// The message is here; the peer can let it go.
    Here,
    /// Its receiver has it soon.
    Delivered,
    /// Its receiver has gone; here is the memory.
    Unwanted(Held),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Into a buffer, for whoever receives next.
    Nobodys,
    Claimed,
    /// The receiver has gone: it is fetched again for the next.
    Abandoned,
}

/// The bytes of a message that has arrived.
#[derive(Debug)]
pub(super) enum Stored {
    Buffer(Buffer),
    /// The pool had no room.
    Heap(Box<[u8]>),
    /// So short that it is copied as fast as a buffer is taken from the pool.
    Tiny(u8, [u8; TINY]),
}

/// Bytes of a message that is kept where it is.
const TINY: usize = 64;

/// What a receiver can do.
pub(super) enum Next {
    /// Take this message.
    Message(Stored),
    /// Fetch this one into a buffer.
    Fetch {
        serial: u64,
        length: u64,
        is_first: bool,
    },
    /// Nothing more will come.
    Ended,
    Wait,
}

/// What a receiver with memory of its own can do.
pub(super) enum NextInto {
    /// Copy this message.
    Message(Stored),
    /// Fetch this one; it is claimed.
    Fetch {
        serial: u64,
        length: u64,
    },
    /// It is longer than the memory, and stays.
    TooLong(u64),
    Ended,
    Wait,
}

impl Conversation {
    pub(super) fn new(id: u32, ours: u32, theirs: u32, most_ahead: u64) -> Self {
        Self {
            id,
            send: SendWindow::new(theirs),
            receive: ReceiveWindow::new(ours),
            entries: VecDeque::new(),
            next_serial: 0,
            has_ended: false,
            peer_ended: false,
            has_lost: false,
            is_declining: false,
            is_window_queued: false,
            ahead: 0,
            most_ahead,
            receivers: Vec::new(),
        }
    }

    /// A message came in; an error says how the peer violates the protocol.
    pub(super) fn arrive(&mut self, payload: &[u8]) -> Result<(), &'static str> {
        self.open_to(cost(payload.len()))?;
        if self.has_lost {
            return Ok(());
        }
        if self.is_declining {
            self.receive.release(cost(payload.len()));
            return Ok(());
        }
        self.push(cost(payload.len()), State::Message(Stored::of(payload)));
        Ok(())
    }

    /// A message of `length` bytes came in and is received at once, before which none waits; answers whether that may be.
    #[inline]
    pub(super) fn pass(&mut self, length: usize) -> bool {
        let is_plain = self.entries.is_empty() && !self.has_lost && !self.is_declining && !self.peer_ended;
        is_plain && self.receive.pass(cost(length))
    }

    /// A message was handed over in the pages that it lies in; answers it if nobody wants it.
    pub(super) fn handed(&mut self, buffer: Buffer) -> Result<Option<Buffer>, &'static str> {
        self.open_to(cost(HANDED))?;
        if self.has_lost {
            return Ok(Some(buffer));
        }
        if self.is_declining {
            self.receive.release(cost(HANDED));
            return Ok(Some(buffer));
        }
        self.push(cost(HANDED), State::Message(Stored::Buffer(buffer)));
        Ok(None)
    }

    /// A long message was offered; answers whether it is wanted.
    pub(super) fn offered(&mut self, handle: RemoteBuffer) -> Result<bool, &'static str> {
        self.open_to(cost(OFFER))?;
        if self.is_declining {
            self.receive.release(cost(OFFER));
            return Ok(false);
        }
        self.push(cost(OFFER), State::Offer(handle));
        Ok(true)
    }

    fn open_to(&mut self, cost: u64) -> Result<(), &'static str> {
        if self.peer_ended {
            return Err("a message on a channel that it has ended");
        }
        self.receive.arrive(cost)
    }

    fn push(&mut self, cost: u64, state: State) {
        self.entries.push_back(Entry { serial: self.next_serial, cost, ahead: 0, state });
        self.next_serial += 1;
    }

    /// The peer will send no more here.
    pub(super) fn end(&mut self) -> Result<(), &'static str> {
        if std::mem::replace(&mut self.peer_ended, true) { Err("a channel that it ends twice") } else { Ok(()) }
    }

    /// Whether no message waits here, or is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether all has been received that was sent here.
    fn is_over(&self) -> bool {
        self.peer_ended && self.entries.is_empty() && !self.has_lost
    }

    /// What a receiver does next. Long messages behind the first are fetched `ahead`, as far as may be.
    pub(super) fn next(&mut self, ahead: bool) -> Next {
        let mut is_first = true;
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            match &entry.state {
                State::Message(_) if is_first => return Next::Message(self.take(index)),
                State::Offer(handle) if is_first || ahead && self.ahead + handle.len() <= self.most_ahead => {
                    return Next::Fetch { serial: entry.serial, length: handle.len(), is_first };
                }
                State::Offer(_) => return Next::Wait,
                State::Message(_) | State::Fetching { claim: Claim::Nobodys | Claim::Abandoned, .. } => {
                    is_first = false;
                }
                // Another receiver's.
                State::Fetching { claim: Claim::Claimed, .. }
                | State::Claimed(_)
                | State::Delivered { .. }
                | State::Failed(_) => {}
            }
        }
        if self.is_over() { Next::Ended } else { Next::Wait }
    }

    /// What a receiver with memory for `room` bytes does next.
    pub(super) fn next_into(&mut self, room: u64) -> NextInto {
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            let serial = entry.serial;
            match &entry.state {
                State::Message(stored) if stored.len() as u64 > room => return NextInto::TooLong(stored.len() as u64),
                State::Message(_) => return NextInto::Message(self.take(index)),
                State::Offer(handle) if handle.len() > room => return NextInto::TooLong(handle.len()),
                State::Offer(handle) => {
                    let length = handle.len();
                    entry.state = State::Claimed(*handle);
                    return NextInto::Fetch { serial, length };
                }
                // It was begun for a receiver who takes what it gets.
                State::Fetching { claim: Claim::Nobodys | Claim::Abandoned, .. } => return NextInto::Wait,
                State::Fetching { claim: Claim::Claimed, .. }
                | State::Claimed(_)
                | State::Delivered { .. }
                | State::Failed(_) => {}
            }
        }
        if self.is_over() { NextInto::Ended } else { NextInto::Wait }
    }

    fn take(&mut self, index: usize) -> Stored {
        // Mostly the first, behind which nothing has to be moved.
        let entry = if index == 0 { self.entries.pop_front() } else { self.entries.remove(index) };
        let Some(Entry { cost, ahead, state: State::Message(stored), .. }) = entry else {
            unreachable!("only messages are taken")
        };
        self.receive.release(cost);
        self.ahead -= ahead;
        stored
    }

    /// The handle of a message that is to be fetched now; `None` if somebody else does, or it is gone.
    pub(super) fn to_fetch(&self, serial: u64, is_claimed: bool) -> Option<RemoteBuffer> {
        match (&self.entry(serial)?.state, is_claimed) {
            (State::Offer(handle), false) | (State::Claimed(handle), true) => Some(*handle),
            _ => None,
        }
    }

    /// The fetch is posted.
    pub(super) fn fetching(&mut self, serial: u64, is_claimed: bool) {
        let Some(entry) = self.entry_mut(serial) else { return };
        if let State::Offer(handle) | State::Claimed(handle) = entry.state {
            let claim = if is_claimed { Claim::Claimed } else { Claim::Nobodys };
            entry.state = State::Fetching { handle, claim };
            entry.ahead = if is_claimed { 0 } else { handle.len() };
            self.ahead += entry.ahead;
        }
    }

    /// The fetch has ended well.
    pub(super) fn fetched(&mut self, serial: u64, held: Held) -> Fetched {
        let Some(entry) = self.entry_mut(serial) else { return Fetched::Unwanted(held) };
        let State::Fetching { handle, claim } = entry.state else { return Fetched::Unwanted(held) };
        match (claim, held) {
            (Claim::Nobodys, Held::Buffer(buffer)) => {
                entry.state = State::Message(Stored::Buffer(buffer));
                Fetched::Here
            }
            (Claim::Claimed, held) => {
                entry.state = State::Delivered { handle, held };
                Fetched::Delivered
            }
            (Claim::Abandoned | Claim::Nobodys, held) => {
                entry.state = State::Offer(handle);
                Fetched::Unwanted(held)
            }
        }
    }

    /// The fetch has failed, and with it the connection. Answers the memory, if nobody waits for it.
    pub(super) fn fetch_failed(&mut self, serial: u64, held: Option<Held>) -> Option<Held> {
        match self.entry_mut(serial) {
            Some(entry) if matches!(entry.state, State::Fetching { claim: Claim::Claimed, .. }) => {
                entry.state = State::Failed(held);
                None
            }
            _ => held,
        }
    }

    /// How the fetch of a claimed message has ended, once, and its memory. The peer can let go of what was fetched.
    pub(super) fn delivered(&mut self, serial: u64) -> Option<(Option<RemoteBuffer>, Option<Held>)> {
        let has_ended = |entry: &Entry| matches!(entry.state, State::Delivered { .. } | State::Failed(_));
        let index = self.entries.iter().position(|entry| entry.serial == serial && has_ended(entry))?;
        let entry = self.entries.remove(index)?;
        self.receive.release(entry.cost);
        match entry.state {
            State::Delivered { handle, held } => Some((Some(handle), Some(held))),
            State::Failed(held) => Some((None, held)),
            _ => None,
        }
    }

    /// Whether a claimed message is still to come.
    pub(super) fn is_coming(&self, serial: u64) -> bool {
        self.entry(serial).is_some()
    }

    /// The receiver who claimed a message has gone: it is the next one's. What it was put into is answered, if it is there.
    pub(super) fn abandon(&mut self, serial: u64) -> Option<Held> {
        let entry = self.entry_mut(serial)?;
        match &mut entry.state {
            State::Claimed(handle) => entry.state = State::Offer(*handle),
            State::Fetching { claim, .. } => *claim = Claim::Abandoned,
            State::Delivered { handle, .. } => {
                let offer = State::Offer(*handle);
                if let State::Delivered { held, .. } = std::mem::replace(&mut entry.state, offer) {
                    return Some(held);
                }
            }
            State::Failed(held) => return held.take(),
            State::Message(_) | State::Offer(_) => {}
        }
        None
    }

    /// The connection has ended: what can no longer be fetched is gone, and all behind it. What receivers wait for stays
    /// until they have their memory back.
    pub(super) fn cut_off(&mut self) {
        let has_lost = &mut self.has_lost;
        self.entries.retain(|entry| match entry.state {
            State::Message(_) => !*has_lost,
            State::Delivered { .. } | State::Failed(_) => true,
            State::Fetching { claim: Claim::Claimed, .. } => {
                *has_lost = true;
                true
            }
            State::Claimed(_) | State::Fetching { .. } | State::Offer(_) => {
                *has_lost = true;
                false
            }
        });
    }

    /// Nobody will receive here any more: answers the offers that are to be declined, and what was waiting.
    pub(super) fn decline(&mut self) -> (Vec<RemoteBuffer>, Vec<Stored>) {
        self.is_declining = true;
        let (mut offers, mut messages, mut kept) = (Vec::new(), Vec::new(), VecDeque::new());
        for entry in self.entries.drain(..) {
            match entry.state {
                State::Message(stored) => {
                    self.receive.release(entry.cost);
                    self.ahead -= entry.ahead;
                    messages.push(stored);
                }
                State::Offer(handle) => {
                    self.receive.release(entry.cost);
                    offers.push(handle);
                }
                _ => kept.push_back(entry),
            }
        }
        self.entries = kept;
        (offers, messages)
    }

    /// Whether the peer should be told of window now.
    pub(super) fn is_window_due(&self) -> bool {
        self.receive.is_due() && !self.peer_ended
    }

    pub(super) fn give_back(&mut self) -> u32 {
        self.is_window_queued = false;
        self.receive.give_back()
    }

    /// Messages that wait, or are on their way.
    pub(super) fn messages(&self) -> usize {
        self.entries.len()
    }

    /// What the entries count for and hold, and what the counters say of that, for tests.
    #[cfg(all(any(test, feature = "internals"), not(loom)))]
    pub(super) fn counts(&self) -> ([u64; 2], [u64; 2]) {
        let (mut cost, mut ahead) = (0, 0);
        for entry in &self.entries {
            cost += entry.cost;
            ahead += entry.ahead;
        }
        ([cost, ahead], [self.receive.occupied(), self.ahead])
    }

    fn entry(&self, serial: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.serial == serial)
    }

    fn entry_mut(&mut self, serial: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.serial == serial)
    }
}

impl Stored {
    pub(super) fn of(payload: &[u8]) -> Self {
        if payload.len() <= TINY {
            let mut bytes = [0; TINY];
            bytes[..payload.len()].copy_from_slice(payload);
            return Self::Tiny(payload.len() as u8, bytes);
        }
        match crate::Pool::with_global(|pool| pool.allocate(payload.len())) {
            Ok(mut buffer) => {
                buffer.copy_from_slice(payload);
                Self::Buffer(buffer)
            }
            Err(error) => {
                tracing::debug!(%error, "a message is kept outside of the pool");
                Self::Heap(payload.into())
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes().len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Buffer(buffer) => buffer,
            Self::Heap(bytes) => bytes,
            Self::Tiny(length, bytes) => &bytes[..usize::from(*length)],
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Access;
    use crate::protocol::{GrantId, Scope};

    #[test]
    fn what_is_behind_a_lost_message_is_not_received_and_no_end_either() {
        let grant = GrantId { scope: Scope::Connection, slot: 0, generation: 0 };
        let offer = RemoteBuffer::new(4096, 8, 1, Access::READ, 7, grant);
        let mut conversation = Conversation::new(0, 1000, 1000, 0);
        assert_eq!(conversation.arrive(b"before"), Ok(()));
        assert_eq!(conversation.offered(offer), Ok(true));
        assert_eq!(conversation.arrive(b"behind"), Ok(()));
        conversation.cut_off();
        // In the same poll as the end of the connection.
        assert_eq!((conversation.arrive(b"later"), conversation.end()), (Ok(()), Ok(())));
        assert!(matches!(conversation.next(true), Next::Message(stored) if stored.len() == 6));
        assert!(matches!(conversation.next(true), Next::Wait));
        assert!(matches!(conversation.next_into(100), NextInto::Wait));
        // Where nothing was lost, what comes with the end of the connection is received.
        let mut whole = Conversation::new(0, 1000, 1000, 0);
        whole.cut_off();
        assert_eq!((whole.arrive(b"later"), whole.end()), (Ok(()), Ok(())));
        assert!(matches!(whole.next(true), Next::Message(_)) && matches!(whole.next(true), Next::Ended));
    }
}
