//! One connection inside its engine: credits, frames, and what comes in.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Instant;

use super::arrived::Arrived;
use super::conversation::Conversation;
use super::fetches::Fetches;
use super::link_grants::LinkGrants;
use super::liveness::Liveness;
use super::outbox::Outbox;
use super::pages::Pages;
use super::seats::Seat;
use super::spans::Identity;
use crate::protocol::{Credits, Frame, FrameKind, GrantId, HEADER, Handshake, RECORD, Record, Scope, taken_grants};
use crate::telemetry::Tally;
use crate::transport::{Capabilities, ChannelKey};
use crate::{Access, Config, Error, ErrorKind, RemoteBuffer, failpoint};

/// Requests of each send queue that only control frames use, so that a full queue cannot block them.
pub(super) const CONTROL_SENDS: usize = 4;
/// Notifications that a side keeps until the application looks at them.
pub(super) const NOTIFICATIONS: u32 = 256;
/// Frames on their way before small messages are gathered in one.
const CORK: usize = 4;
/// From so many on each asks for a completion: sooner than they are gathered, so that who sends and waits in turn never
/// comes to that.
const ASK: usize = 2;

/// Why a connection ended; set once, seen by everyone who holds it.
pub(super) type Ending = Arc<OnceLock<Error>>;

/// The state of one connection. It knows no transport: what it wants posted it answers.
pub(super) struct Link {
    pub(super) begun_at: Instant,
    pub(super) tally: Tally,
    /// Known when the two have introduced themselves.
    pub(super) identity: Option<Arc<Identity>>,
    /// `None` when the channel has been closed.
    pub(super) channel: Option<ChannelKey>,
    /// Receives that are posted for its peer's frames.
    pub(super) share: u32,
    /// Whether those for credit frames are among them.
    pub(super) hears_credits: bool,
    /// Receives that its peer gets at most, for other frames.
    most_receives: u32,
    pub(super) ending: Ending,
    /// Tells the peer that the connection has ended; called once, on the service thread.
    pub(super) hang_up: Option<Box<dyn FnOnce() + Send>>,
    pub(super) grants: LinkGrants,
    pub(super) liveness: Liveness,
    /// Its place among the worker's connections.
    pub(super) seat: Option<Seat>,
    pub(super) credits: Credits,
    ours: Handshake,
    /// What the peer said of itself; `None` before.
    theirs: Option<Handshake>,
    pub(super) session: u64,
    /// Channels of messages, by index; the first is there from the start.
    pub(super) conversations: Vec<Conversation>,
    by_id: HashMap<u32, usize>,
    /// Nobody will receive any more.
    pub(super) declines: bool,
    most_channels: usize,
    most_ahead: u64,
    coalesces: bool,
    pub(super) outbox: Outbox,
    pub(super) fetches: Fetches,
    pub(super) pages: Option<Box<Pages>>,
    pub(super) inline: usize,
    /// Frames posted and not known to have ended.
    pub(super) outstanding: usize,
    /// Requests posted since the last one that asked for a completion, and how many there may be.
    unsignaled: usize,
    signal_every: usize,
    pub(super) credit_due: bool,
    /// The peer has sent something since it got receives: what looks after an idle connection needs no more of them.
    pub(super) is_in_use: bool,
    pub(super) finish: Finish,
    /// The last record is to be queued as soon as there is room.
    pub(super) is_finish_wanted: bool,
    pub(super) peer_finished: bool,
    /// The peer has violated the protocol: nothing more that it says counts.
    pub(super) is_violated: bool,
    /// Messages that were sent and are to be acknowledged, and those that are.
    pub(super) wanted: u64,
    pub(super) acknowledged: u64,
    /// Notifications that we may send, and those that have come.
    pub(super) notify_room: u32,
    pub(super) notifications: VecDeque<u32>,
    /// Who waits for one.
    pub(super) watchers: Vec<Waker>,
    /// What is sent and what its sender no longer waits for, until the peer has it.
    pub(super) detached: Vec<(GrantId, Box<dyn Send>)>,
    pub(super) senders: Vec<Waker>,
}

/// How far our end of the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Open,
    /// The last record waits to be posted.
    Queued,
    /// It is posted.
    Sent,
    /// The peer's device has it, and all before it.
    Done,
}

impl Link {
    pub(super) fn new(config: &Config, ours: Handshake, ending: Ending, now: Instant) -> Self {
        Self {
            begun_at: now,
            tally: Tally::default(),
            identity: None,
            channel: None,
            share: 0,
            hears_credits: false,
            most_receives: config.receive_depth,
            ending,
            hang_up: None,
            grants: LinkGrants::default(),
            liveness: Liveness::new(config),
            seat: None,
            credits: Credits::new(0, ours.credits.into()),
            ours,
            theirs: None,
            session: 0,
            conversations: Vec::new(),
            by_id: HashMap::new(),
            declines: false,
            most_channels: config.max_channels as usize,
            most_ahead: config.fetch_ahead.into(),
            coalesces: config.coalesce,
            outbox: Outbox::default(),
            fetches: Fetches::default(),
            pages: None,
            inline: 0,
            outstanding: 0,
            unsignaled: 0,
            signal_every: (config.send_depth / 8).clamp(2, 16) as usize,
            credit_due: false,
            is_in_use: false,
            finish: Finish::Open,
            is_finish_wanted: false,
            peer_finished: false,
            is_violated: false,
            wanted: 0,
            acknowledged: 0,
            notify_room: 0,
            notifications: VecDeque::new(),
            watchers: Vec::new(),
            detached: Vec::new(),
            senders: Vec::new(),
        }
    }

    /// The peer has introduced itself: messages can be sent.
    pub(super) fn open(&mut self, theirs: &Handshake, session: u64, capabilities: Capabilities) {
        self.credits = Credits::new(theirs.credits.into(), self.ours.credits.into());
        self.inline = capabilities.inline;
        self.signal_every = self.signal_every.min(capabilities.sends / 4).max(1);
        self.fetches.limit = capabilities.reads;
        self.theirs = Some(*theirs);
        self.session = session;
        self.notify_room = NOTIFICATIONS;
        // Channel 0 is always there.
        self.add_channel(0);
    }

    /// Whether the peer has introduced itself.
    pub(super) fn is_open(&self) -> bool {
        self.theirs.is_some()
    }

    /// What both ends can do.
    pub(super) fn features(&self) -> u8 {
        self.theirs.map_or(0, |theirs| theirs.features & self.ours.features)
    }

    /// Bytes that one of our frames may have.
    pub(super) fn frame_length(&self) -> usize {
        self.theirs.map_or(0, |theirs| theirs.frame.min(self.ours.frame)).into()
    }

    /// Longest message that goes as it is, and not by an offer.
    pub(super) fn eager_limit(&self) -> usize {
        self.frame_length().saturating_sub(HEADER + RECORD)
    }

    /// Longest message that the peer takes.
    pub(super) fn longest(&self) -> u64 {
        self.theirs.map_or(0, |theirs| theirs.longest).into()
    }

    /// The index of channel `id`, which is made if there is none.
    pub(super) fn channel_index(&mut self, id: u32) -> std::result::Result<usize, &'static str> {
        // Mostly it is the first: no hash of what the peer names.
        if self.conversations.first().is_some_and(|first| first.id == id) {
            return Ok(0);
        }
        match self.by_id.get(&id) {
            Some(&index) => Ok(index),
            None if self.conversations.len() >= self.most_channels => Err("more channels than there may be"),
            None => Ok(self.add_channel(id)),
        }
    }

    fn add_channel(&mut self, id: u32) -> usize {
        let theirs = self.theirs.map_or(0, |theirs| theirs.window);
        let mut conversation = Conversation::new(id, self.ours.window, theirs, self.most_ahead);
        conversation.is_declining = self.declines;
        self.conversations.push(conversation);
        self.outbox.windows.reserve(self.conversations.len());
        self.by_id.insert(id, self.conversations.len() - 1);
        self.conversations.len() - 1
    }

    /// Why nothing can be sent any more, if so.
    pub(super) fn send_failure(&self, operation: &'static str) -> Option<Error> {
        match self.ending.get() {
            Some(error) => Some(error.again(operation)),
            None if self.finish != Finish::Open || self.is_finish_wanted => {
                Some(Error::new(ErrorKind::Closed, operation))
            }
            None => None,
        }
    }

    /// Whether a frame should wait until those before it have ended.
    pub(super) fn is_corked(&self) -> bool {
        self.coalesces && self.outstanding >= CORK
    }

    /// Whether the next frame must ask for a completion.
    pub(super) fn signal_frame(&mut self, wanted: bool) -> bool {
        self.outstanding += 1;
        // Without one, those that are gathered would wait for ever.
        let asks = self.coalesces && self.outstanding >= ASK;
        self.signal(wanted || asks)
    }

    /// Whether the request about to be posted must ask for a completion, so that memory and queue come back.
    pub(super) fn signal(&mut self, wanted: bool) -> bool {
        self.unsignaled += 1;
        let signaled = wanted || self.unsignaled >= self.signal_every;
        if signaled {
            self.unsignaled = 0;
        }
        signaled
    }

    /// The header of a frame of `length` bytes; the credits that are owed go with it.
    pub(super) fn header(&mut self, kind: FrameKind, length: usize) -> [u8; HEADER] {
        self.credit_due = false;
        Frame { kind, credits: self.credits.give_back(), length: (length - HEADER) as u32 }.to_bytes()
    }

    /// Appends control records to the open frame.
    pub(super) fn stuff(&mut self) {
        let (most, conversations) = (self.frame_length(), &mut self.conversations);
        self.outbox.stuff(most, |index| {
            let conversation = conversations.get_mut(index as usize)?;
            Some((conversation.id, conversation.give_back())).filter(|(_, bytes)| *bytes > 0)
        });
    }

    /// The application has received something on a channel: the peer is told when it is worth it.
    pub(super) fn window_changed(&mut self, index: usize) {
        if let Some(conversation) = self.conversations.get_mut(index)
            && conversation.is_window_due()
            && !std::mem::replace(&mut conversation.is_window_queued, true)
        {
            self.outbox.windows.push(index as u32);
        }
    }

    /// Which frame of revocation is due.
    pub(super) fn next_revocation(&self) -> Option<FrameKind> {
        if !self.is_open() || self.ending.get().is_some() {
            return None;
        }
        match (self.grants.held.is_due(), self.grants.revoking.is_due()) {
            (true, _) => Some(FrameKind::Revoked),
            (false, true) => Some(FrameKind::Revoke),
            (false, false) => None,
        }
    }

    /// A frame came in; an error says how the peer violates the protocol. Its receive is free when this answers.
    pub(super) fn arrive(&mut self, received: &[u8], arrived: &mut Arrived) -> std::result::Result<(), &'static str> {
        let frame = Frame::parse(received)?;
        self.credits.gain(frame.credits)?;
        if frame.kind == FrameKind::Credit {
            return Ok(());
        }
        self.occupy()?;
        failpoint::reach("frame.arrived");
        let payload = &received[HEADER..];
        match frame.kind {
            FrameKind::Credit => {}
            FrameKind::Data => {
                let mut rest = payload;
                while !rest.is_empty() {
                    self.handle(Record::take(&mut rest)?, arrived)?;
                }
            }
            FrameKind::Revoke => {
                self.grants.held.asked(payload)?;
                arrived.told.extend(self.grants.trace_question(payload, self.identity.as_ref()));
                arrived.is_asked = true;
            }
            FrameKind::Revoked => arrived.agreed = self.grants.agreed(payload)?,
        }
        Ok(())
    }

    /// Receives that the peer should get more, as it makes use of those it has.
    pub(super) fn growth(&self) -> u32 {
        match self.credit_due && self.is_in_use {
            true => self.credits.granted().min(self.most_receives.saturating_sub(self.credits.granted())),
            false => 0,
        }
    }

    /// A receive was used by what costs a credit, and is free again.
    pub(super) fn occupy(&mut self) -> std::result::Result<(), &'static str> {
        self.credits.arrive()?;
        self.credits.release();
        self.credit_due |= self.credits.is_due();
        Ok(())
    }

    fn handle(&mut self, record: Record<'_>, arrived: &mut Arrived) -> std::result::Result<(), &'static str> {
        let is_message = matches!(record, Record::Message { .. } | Record::Offer { .. } | Record::Hand { .. });
        if self.peer_finished && (is_message || matches!(record, Record::End { .. })) {
            return Err("a message after the last one");
        }
        match record {
            Record::Message { channel, acknowledge, payload } => {
                self.is_in_use = true;
                let index = self.channel_index(channel)?;
                self.conversations[index].arrive(payload)?;
                self.count_received(payload.len() as u64);
                self.outbox.acknowledge += u32::from(acknowledge);
                self.arrived_on(index, arrived);
            }
            Record::Offer { channel, handle } => {
                self.is_in_use = true;
                let index = self.channel_index(channel)?;
                let handle = self.offered(handle)?;
                if self.ending.get().is_some() {
                    // It can no longer be fetched.
                    self.conversations[index].has_lost = true;
                    return Ok(());
                }
                if !self.conversations[index].offered(handle)? {
                    self.done_with(handle.grant(), true);
                }
                self.arrived_on(index, arrived);
            }
            Record::Taken { declined, grants } => {
                for id in taken_grants(grants)? {
                    self.grants.is_offer(id).then_some(()).ok_or("a message taken that was not offered")?;
                    arrived.taken.push((id, declined));
                }
            }
            Record::Window { channel, bytes } => {
                let index = *self.by_id.get(&channel).ok_or("window for an unknown channel")?;
                self.conversations[index].send.gain(bytes)?;
            }
            Record::Acknowledge { messages } => {
                let acknowledged = self.acknowledged + u64::from(messages);
                if acknowledged > self.wanted {
                    return Err("more messages acknowledged than were sent");
                }
                self.acknowledged = acknowledged;
            }
            Record::End { channel: Some(channel) } => {
                let index = self.channel_index(channel)?;
                self.conversations[index].end()?;
                arrived.channels.push(index);
            }
            Record::End { channel: None } => {
                self.peer_finished = true;
                arrived.channels.extend(0..self.conversations.len());
            }
            Record::Ping { serial } => self.outbox.pong = Some(serial),
            // That something came is all that counts.
            Record::Pong { .. } => {}
            Record::Notified { notifications } => match self.notify_room.checked_add(notifications) {
                Some(room) if room <= NOTIFICATIONS => self.notify_room = room,
                _ => return Err("more notifications looked at than were sent"),
            },
            Record::Forget { .. } | Record::Hand { .. } | Record::Returned { .. } | Record::Segment { .. } => {
                self.handle_pages(record, arrived)?;
            }
        }
        Ok(())
    }

    pub(super) fn arrived_on(&mut self, index: usize, arrived: &mut Arrived) {
        if self.conversations[index].is_declining {
            self.window_changed(index);
        }
        if arrived.channels.last() != Some(&index) {
            arrived.channels.push(index);
        }
    }

    /// The handle of an offer, if we could read all of it.
    fn offered(&self, handle: &[u8]) -> std::result::Result<RemoteBuffer, &'static str> {
        let handle = RemoteBuffer::from_bytes(handle).map_err(|_| "an offer with a broken handle")?;
        let is_ours = handle.grant().scope == Scope::Connection && handle.session() == self.session;
        if !is_ours || !handle.access().contains(Access::READ) {
            return Err("an offer with a handle that cannot be read here");
        }
        if handle.is_empty() || handle.len() > self.ours.longest.into() {
            return Err("an offer that is longer than may be, or empty");
        }
        Ok(handle)
    }

    /// The peer can have its offer back.
    pub(super) fn done_with(&mut self, grant: GrantId, declined: bool) {
        self.grants.held.let_go(grant);
        self.outbox.take(grant, declined);
    }

    /// Whether the peer has a receive for a notification, and room to keep it.
    pub(super) fn may_notify(&self) -> bool {
        self.credits.available() && self.notify_room > 0
    }

    /// A notification goes out.
    pub(super) fn spend_notification(&mut self) {
        self.credits.spend();
        self.notify_room -= 1;
    }

    /// It was not posted.
    pub(super) fn take_back_notification(&mut self) {
        // It was spent just now, so it cannot be too many.
        let _ = self.credits.gain(1);
        self.notify_room += 1;
    }

    /// A notification has come; an error says how the peer violates the protocol.
    pub(super) fn notified(&mut self, value: u32) -> std::result::Result<(), &'static str> {
        self.occupy()?;
        if self.notifications.len() as u32 + self.outbox.notified >= NOTIFICATIONS {
            return Err("more notifications than there is room for");
        }
        if self.notifications.capacity() == 0 {
            // All at once, so that later ones allocate nothing.
            self.notifications.reserve(NOTIFICATIONS as usize);
        }
        self.notifications.push_back(value);
        self.is_in_use = true;
        if self.declines {
            self.take_notification();
        }
        Ok(())
    }

    /// The next notification. Its room is the peer's again, who is told so when half of all is, or if it has none left.
    pub(super) fn take_notification(&mut self) -> Option<u32> {
        let value = self.notifications.pop_front()?;
        let outbox = &mut self.outbox;
        outbox.notified += 1;
        let has_none = outbox.notified + self.notifications.len() as u32 == NOTIFICATIONS;
        outbox.is_notified_due |= has_none || outbox.notified * 2 >= NOTIFICATIONS;
        Some(value)
    }

    pub(super) fn peer_finished(&self) -> bool {
        self.peer_finished
    }

    /// Whether everything that we sent has been taken.
    pub(super) fn is_delivered(&self) -> bool {
        self.finish == Finish::Done && self.grants.offers() == 0
    }

    /// Why nothing more will come, if so, to who `has_lost` some of what the peer sent before it finished.
    pub(super) fn receive_failure(&self, has_lost: bool) -> Option<Error> {
        match self.ending.get() {
            _ if self.peer_finished && !has_lost => Some(Error::new(ErrorKind::PeerClosed, "receive")),
            Some(error) => Some(error.again("receive")),
            None if self.declines => {
                Some(Error::new(ErrorKind::Closed, "receive").with_detail("what receives was dropped"))
            }
            None => None,
        }
    }
}
