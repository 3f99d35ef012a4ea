//! One connection inside its engine: credits, slots and the messages that wait.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use super::link_grants::LinkGrants;
use crate::memory::{Domain, Transfer};
use crate::protocol::{CONTROL_PAYLOAD, CONTROL_RECEIVES, Credits, Frame, FrameKind, GrantId, HEADER, Handshake};
use crate::transport::{Capabilities, ChannelKey};
use crate::{Buffer, Config, Error, ErrorKind, Failed, Result};

/// Requests of each send queue that only control frames use, so that a full queue cannot block them.
pub(super) const CONTROL_SENDS: usize = 4;

/// Why a connection ended; set once, seen by everyone who holds it.
pub(super) type Ending = Arc<OnceLock<Error>>;

/// The state of one connection. It knows no transport: what it wants posted it answers.
pub(super) struct Link {
    /// `None` when the channel has been closed.
    pub(super) channel: Option<ChannelKey>,
    pub(super) ending: Ending,
    /// Tells the peer that the connection has ended; called once, on the service thread.
    pub(super) hang_up: Option<Box<dyn FnOnce() + Send>>,
    pub(super) grants: LinkGrants,
    credits: Credits,
    /// Receives posted and messages in hand, against which the peer's credits count.
    ours: Handshake,
    max_message: usize,
    /// Idle slots for frames that do not fit inline: twice what is outstanding between two signals.
    slots: Vec<Buffer>,
    inbox: VecDeque<(Buffer, usize)>,
    inline: usize,
    /// Requests posted since the last one that asked for a completion, and how many there may be.
    unsignaled: usize,
    signal_every: usize,
    credit_due: bool,
    pub(super) finish: Finish,
    peer_finished: bool,
    pub(super) receivers: Vec<Waker>,
    pub(super) senders: Vec<Waker>,
}

/// How far our end of the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Open,
    /// The last frame is posted.
    Sent,
    /// The peer's device has it, and all before it.
    Done,
}

/// What came of a frame.
pub(super) enum Arrival {
    /// The peer has let go of these grants; the receive can be posted again.
    Agreed(Buffer, Vec<GrantId>),
    /// A control frame: its receive can be posted again.
    Recycle(Buffer),
    /// A message waits.
    Message,
}

/// A message's frame, ready to be posted.
pub(super) enum Outgoing {
    /// The bytes are in the scratch buffer.
    Inline,
    Slot(Transfer),
}

impl Link {
    pub(super) fn new(config: &Config, ours: Handshake, ending: Ending) -> Self {
        Self {
            channel: None,
            ending,
            hang_up: None,
            grants: LinkGrants::default(),
            credits: Credits::new(0, ours.credits),
            ours,
            max_message: 0,
            slots: Vec::new(),
            inbox: VecDeque::with_capacity(ours.credits as usize),
            inline: 0,
            unsignaled: 0,
            signal_every: (config.send_depth / 8).clamp(2, 16) as usize,
            credit_due: false,
            finish: Finish::Open,
            peer_finished: false,
            receivers: Vec::new(),
            senders: Vec::new(),
        }
    }

    /// The memory of all receives, to be posted before the peer can send.
    pub(super) fn receives(&self) -> Result<Vec<Buffer>> {
        let count = self.ours.credits + CONTROL_RECEIVES;
        Buffer::allocate_many(count as usize, slot_length(self.ours.max_message as usize))
    }

    /// The peer has introduced itself: messages can be sent.
    pub(super) fn open(&mut self, theirs: &Handshake, capabilities: Capabilities) -> Result<()> {
        self.credits = Credits::new(theirs.credits, self.ours.credits);
        self.inline = capabilities.inline;
        self.signal_every = self.signal_every.min(capabilities.sends / 4).max(1);
        // No longer than our own receives: a peer cannot make us pin more than we were told to.
        self.max_message = theirs.max_message.min(self.ours.max_message) as usize;
        if slot_length(self.max_message) > self.inline {
            self.slots = Buffer::allocate_many(2 * self.signal_every, slot_length(self.max_message))?;
        }
        Ok(())
    }

    /// Why nothing can be sent any more, if so.
    pub(super) fn send_failure(&self, operation: &'static str) -> Option<Error> {
        match self.ending.get() {
            Some(error) => Some(error.again(operation)),
            None if self.finish != Finish::Open => Some(Error::new(ErrorKind::Closed, operation)),
            None => None,
        }
    }

    pub(super) fn max_message(&self) -> usize {
        self.max_message
    }

    /// Builds the frame of a message if a credit and, where needed, a slot are there.
    pub(super) fn frame(
        &mut self,
        payload: &[u8],
        domain: &dyn Domain,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Outgoing>> {
        if !self.credits.available() {
            return Ok(None);
        }
        let outgoing = self.build(FrameKind::Message, payload, domain, scratch)?;
        if outgoing.is_some() {
            self.credits.spend();
        }
        Ok(outgoing)
    }

    /// Builds a control frame; `None` if it needs a slot and there is none.
    pub(super) fn control(
        &mut self,
        kind: FrameKind,
        domain: &dyn Domain,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Outgoing>> {
        let payload = match kind {
            FrameKind::Revoke => {
                let room = if self.slots.is_empty() { self.inline - HEADER } else { self.control_room() };
                let request = self.grants.revoking.request(room);
                self.grants.last_request = request.as_ref().map(|(serial, _)| *serial);
                request.map(|(_, payload)| payload)
            }
            FrameKind::Revoked => self.grants.held.answer(),
            _ => return self.build(kind, &[], domain, scratch),
        };
        match payload {
            Some(payload) => self.build(kind, &payload, domain, scratch),
            None => Ok(None),
        }
    }

    /// Bytes that the payload of a control frame may have on this connection, either way.
    fn control_room(&self) -> usize {
        self.max_message.max(CONTROL_PAYLOAD)
    }

    /// Which frame of revocation is due and can be built now.
    pub(super) fn next_revocation(&self) -> Option<FrameKind> {
        if !self.is_open() || self.finish != Finish::Open || self.ending.get().is_some() {
            return None;
        }
        let fits = |length| HEADER + length <= self.inline || !self.slots.is_empty();
        let grants = &self.grants;
        match (grants.held.is_due(), grants.revoking.is_due()) {
            (true, _) => fits(grants.held.next_length()).then_some(FrameKind::Revoked),
            (false, true) => fits(CONTROL_PAYLOAD).then_some(FrameKind::Revoke),
            (false, false) => None,
        }
    }

    /// Whether the peer has introduced itself.
    pub(super) fn is_open(&self) -> bool {
        self.max_message > 0
    }

    fn build(
        &mut self,
        kind: FrameKind,
        payload: &[u8],
        domain: &dyn Domain,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Outgoing>> {
        let total = HEADER + payload.len();
        if total <= self.inline {
            let header = self.header(kind, payload.len());
            scratch.clear();
            scratch.extend_from_slice(&header);
            scratch.extend_from_slice(payload);
            return Ok(Some(Outgoing::Inline));
        }
        let Some(mut slot) = self.slots.pop() else { return Ok(None) };
        // Registration, the only step that can fail, comes before credits change hands.
        if let Err(error) = slot.bind(domain) {
            self.slots.push(slot);
            return Err(error);
        }
        let header = self.header(kind, payload.len());
        slot[..HEADER].copy_from_slice(&header);
        slot[HEADER..total].copy_from_slice(payload);
        Transfer::new(slot, 0..total, domain).map(|slot| Some(Outgoing::Slot(slot))).map_err(Failed::into)
    }

    fn header(&mut self, kind: FrameKind, length: usize) -> [u8; HEADER] {
        self.credit_due = false;
        Frame { kind, credits: self.credits.give_back(), length: length as u32 }.to_bytes()
    }

    /// Whether the request about to be posted must ask for a completion, so that slots and queue come back.
    pub(super) fn signal(&mut self, wanted: bool) -> bool {
        self.unsignaled += 1;
        let signaled = wanted || self.unsignaled >= self.signal_every;
        if signaled {
            self.unsignaled = 0;
        }
        signaled
    }

    /// A slot came back from the device.
    pub(super) fn reclaim(&mut self, slot: Buffer) {
        self.slots.push(slot);
    }

    /// A frame came in; an error says how the peer violates the protocol.
    pub(super) fn arrive(&mut self, buffer: Buffer, bytes: usize) -> std::result::Result<Arrival, &'static str> {
        let received = buffer.get(..bytes).ok_or("more bytes than the receive has")?;
        let frame = Frame::parse(received)?;
        self.credits.gain(frame.credits)?;
        if self.peer_finished {
            return Err("a frame after the last one");
        }
        match frame.kind {
            // It would cost the peer nothing and us a receive each time.
            FrameKind::Credit if frame.credits == 0 => Err("a credit frame without credits"),
            FrameKind::Credit => Ok(Arrival::Recycle(buffer)),
            FrameKind::Revoke => {
                if received.len() - HEADER > self.control_room() {
                    return Err("a request longer than any frame of this connection");
                }
                self.grants.held.asked(&received[HEADER..])?;
                Ok(Arrival::Recycle(buffer))
            }
            FrameKind::Revoked => {
                let ids = self.grants.agreed(&received[HEADER..])?;
                Ok(Arrival::Agreed(buffer, ids))
            }
            FrameKind::Finish => {
                self.peer_finished = true;
                Ok(Arrival::Recycle(buffer))
            }
            FrameKind::Message => {
                self.credits.arrive()?;
                self.inbox.push_back((buffer, frame.length as usize));
                Ok(Arrival::Message)
            }
        }
    }

    /// The next message, or why there will be none.
    pub(super) fn receive(&mut self) -> Option<Result<(Buffer, usize)>> {
        if let Some(message) = self.inbox.pop_front() {
            return Some(Ok(message));
        }
        if self.peer_finished {
            return Some(Err(Error::new(ErrorKind::PeerClosed, "receive")));
        }
        self.ending.get().map(|error| Err(error.again("receive")))
    }

    /// The receive of a message is posted again: the peer gets its credit back. Answers whether to tell it now.
    pub(super) fn release(&mut self) -> bool {
        self.credits.release();
        self.credit_due |= self.credits.is_due();
        self.credit_due
    }

    /// Whether a credit frame waits for room.
    pub(super) fn credit_due(&self) -> bool {
        self.credit_due
    }

    pub(super) fn peer_finished(&self) -> bool {
        self.peer_finished
    }
}

/// Bytes of a receive or a slot: for the longest message, and for every control frame.
fn slot_length(max_message: usize) -> usize {
    HEADER + max_message.max(CONTROL_PAYLOAD)
}
