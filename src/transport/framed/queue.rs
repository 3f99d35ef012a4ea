//! The connections of one worker, behind the seam.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::access::Accesses;
use super::attention::Attention;
use super::carrier::Carrier;
use super::channel::{Channel, Outcome, Standing, Trouble};
use super::closing;
use super::domain::SoftwareDomain;
use super::events::Events;
use super::frame::{MOST_MESSAGE, Reason, SHORT_HEADER};
use super::input::SCRATCH;
use super::socket::Socket;
use crate::memory::Transfer;
use crate::transport::{
    Capabilities, ChannelKey, ChannelSizes, Completion, Courier, Failure, NotBound, Opening, Queue, Refused, Request,
    WindowKey,
};
use crate::{Error, ErrorKind, Result};

/// Requests of the peer that are done before it is told, though more come in.
const MOST_UNTOLD: u64 = 16;
/// Receives for which there is room from the start.
const RECEIVES: usize = 256;
/// Which part of the completions is for receives.
const RECEIVES_SHARE: usize = 2;
/// Token of a message that was received without a poll.
const NOW: u64 = u64::MAX;
/// Names no channel.
pub(super) const NONE: ChannelKey = ChannelKey(u32::MAX);

/// What all channels of a queue share.
pub(super) struct Shared {
    pub(super) accesses: Accesses,
    pub(super) receives: VecDeque<(u64, Transfer)>,
    /// Receives that were posted and have not ended.
    outstanding: usize,
    pub(super) ready: Vec<Completion>,
    pub(super) scratch: Vec<u8>,
    /// The messages that have come without a receive, until the next poll.
    pub(super) lent: Vec<u8>,
    /// The last that was received without a poll, with its header.
    pub(super) now: Vec<u8>,
}

impl Shared {
    /// A message has come for which no receive is needed.
    pub(super) fn message_came(&mut self, channel: ChannelKey, message: &[u8]) {
        let (token, result) = (self.lent.len() as u64, Ok(message.len() as u32));
        self.lent.extend_from_slice(message);
        self.ready.push(Completion { token, channel, is_receive: true, result, immediate: None, memory: None });
    }

    pub(super) fn receive_ended(&mut self, completion: Completion) {
        self.outstanding -= 1;
        self.ready.push(completion);
    }
}

/// The connections of a worker.
pub(crate) struct FramedQueue<C: Carrier> {
    domain: Arc<SoftwareDomain>,
    pub(super) shared: Shared,
    pub(super) channels: Vec<Option<Box<Channel<C>>>>,
    /// Places of those whose stream is theirs, and of those whose is not yet.
    pub(super) attention: Attention,
    unopened: Vec<u32>,
    /// To be written to with the next flush.
    staged: Vec<u32>,
    /// Whose peer is to be told what is done.
    pub(super) due: Vec<u32>,
    pub(super) stalled: Vec<u32>,
    most_receives: usize,
    pub(super) idle_since: Option<Instant>,
    /// How long peers may do nothing of what they are asked, if it matters, and when that was looked after.
    pub(super) patience: Option<Duration>,
    pub(super) tended_at: Option<Instant>,
    pub(super) events: Events,
    /// Whether the next poll need not ask the kernel: what is there makes an event.
    may_skip: bool,
}

impl<C: Carrier> FramedQueue<C> {
    pub(super) fn open(domain: Arc<SoftwareDomain>, completions: usize) -> Result<Self> {
        let events = Events::open::<C>()?;
        let shared = Shared {
            accesses: Accesses::new(Arc::clone(&domain)),
            receives: VecDeque::with_capacity(RECEIVES.min(completions)),
            outstanding: 0,
            ready: Vec::with_capacity(64),
            scratch: vec![0; SCRATCH],
            lent: Vec::new(),
            now: vec![0; if C::IS_FREE_TO_LOOK { SHORT_HEADER + MOST_MESSAGE } else { 0 }],
        };
        Ok(Self {
            domain,
            shared,
            channels: Vec::new(),
            attention: Attention::new(),
            unopened: Vec::with_capacity(16),
            staged: Vec::with_capacity(16),
            due: Vec::with_capacity(16),
            stalled: Vec::with_capacity(16),
            most_receives: completions / RECEIVES_SHARE,
            idle_since: None,
            patience: None,
            tended_at: None,
            events,
            may_skip: false,
        })
    }

    pub(super) fn create(&mut self, socket: Arc<Socket>, carrier: C, sizes: ChannelSizes) -> Result<ChannelKey> {
        let place = self.channels.iter().position(Option::is_none).unwrap_or(self.channels.len());
        let key = ChannelKey(place as u32);
        self.channels.resize_with(self.channels.len().max(place + 1), || None);
        self.channels[place] = Some(Box::new(Channel::new(key, socket, carrier, sizes)));
        Ok(key)
    }

    /// The peer is known. What is posted is written when the stream is the channel's.
    pub(super) fn activate(&mut self, key: ChannelKey, gift: C::Gift, reads: usize) -> Result<()> {
        let channel = self.channel_mut(key).filter(|channel| channel.standing == Standing::Made);
        let channel = channel.ok_or_else(|| Error::new(ErrorKind::Closed, "set up"))?;
        channel.carrier.attach(gift);
        (channel.standing, channel.reads) = (Standing::Active, reads);
        self.unopened.push(key.0);
        Ok(())
    }

    pub(super) fn channel(&self, key: ChannelKey) -> Option<&Channel<C>> {
        self.channels.get(key.0 as usize)?.as_deref()
    }

    pub(super) fn channel_mut(&mut self, key: ChannelKey) -> Option<&mut Channel<C>> {
        self.channels.get_mut(key.0 as usize)?.as_deref_mut()
    }

    /// Takes up channels whose set-up has ended.
    #[cold]
    fn take_up(&mut self) {
        let mut places = std::mem::take(&mut self.unopened);
        places.retain(|&place| match self.channel(ChannelKey(place)) {
            Some(channel) if channel.standing == Standing::Active => {
                let is_open = channel.socket.is_open();
                if is_open {
                    self.attention.live.push(place);
                    if C::IS_FREE_TO_LOOK {
                        self.wake_up(place);
                    }
                    self.turn(place, |channel, shared| channel.write(&shared.accesses).map(|()| false));
                }
                !is_open
            }
            _ => false,
        });
        self.unopened.append(&mut places);
    }

    /// Does `act` with a channel, and what follows from it: answers are written, what happened is told.
    pub(super) fn turn(&mut self, place: u32, act: impl FnOnce(&mut Channel<C>, &mut Shared) -> Outcome<bool>) -> bool {
        let Some(mut channel) = self.channels.get_mut(place as usize).and_then(Option::take) else { return false };
        let is_working = channel.standing == Standing::Active && channel.socket.is_open();
        let happened = is_working && {
            let acted = act(&mut channel, &mut self.shared);
            let happened = acted.as_ref().is_ok_and(|happened| *happened);
            let followed = acted.and_then(|_| self.follow_up(&mut channel));
            if let Err(trouble) = followed {
                self.suffer(&mut channel, trouble);
                true
            } else {
                happened
            }
        };
        let is_to_wake = self.events.watch(&mut channel);
        self.channels[place as usize] = Some(channel);
        if is_to_wake {
            self.wake_up(place);
        }
        happened
    }

    /// Writes what came of what was read.
    fn follow_up(&mut self, channel: &mut Channel<C>) -> Outcome {
        let place = channel.key.0;
        if channel.stalled.is_some() && !std::mem::replace(&mut channel.is_listed_stalled, true) {
            self.stalled.push(place);
        }
        if channel.output.untold() >= MOST_UNTOLD {
            channel.output.acknowledge();
        }
        // What waited for an answer may go now too.
        let has_any = channel.output.has_any() || channel.next_request().is_some();
        if has_any && !channel.output.is_blocked && !channel.output.is_cut {
            channel.write(&self.shared.accesses)?;
        }
        if channel.output.untold() > 0 && !std::mem::replace(&mut channel.is_listed_due, true) {
            self.due.push(place);
        }
        Ok(())
    }

    /// What has gone wrong on a channel is told, and the peer.
    fn suffer(&mut self, channel: &mut Channel<C>, trouble: Trouble) {
        channel.is_readable = false;
        channel.give_up_message();
        let error = match trouble {
            Trouble::Lost(error) => return channel.socket.lost(error),
            Trouble::Protocol(detail) => Error::new(ErrorKind::Protocol, "receive").with_detail(detail),
            Trouble::Refused(reason) => {
                channel.output.refuse(reason);
                // If that fails too, the peer learns it by the end of the stream.
                let _ = channel.write(&self.shared.accesses);
                let detail = match reason {
                    Reason::Access => "it was ended here, after an access of the peer that was refused",
                    _ => "it was ended here, after a message of the peer that no receive was there for",
                };
                Error::new(ErrorKind::ConnectionBroken, "connection").with_detail(detail)
            }
        };
        if std::mem::replace(&mut channel.has_broken, true) {
            // What else goes wrong then follows from that.
            return;
        }
        let result = Err(Failure::Broken(error));
        let channel = channel.key;
        self.shared.ready.push(Completion {
            token: 0,
            channel,
            is_receive: true,
            result,
            immediate: None,
            memory: None,
        });
    }

    /// Something may be ready that came from no socket: who sleeps is to look.
    fn note_ready(&mut self) {
        self.events.note(!self.shared.ready.is_empty());
    }

    /// The completion of what is done at once.
    fn done_at_once(&mut self, channel: ChannelKey, token: u64) {
        let is_failed = self.channel(channel).is_none_or(|channel| channel.standing == Standing::Failed);
        let result = if is_failed { Err(Failure::Flushed) } else { Ok(0) };
        self.shared.ready.push(Completion { token, channel, is_receive: false, result, immediate: None, memory: None });
        self.events.note(!self.shared.ready.is_empty());
    }
}

impl<C: Carrier> Queue for FramedQueue<C> {
    fn stage(&mut self, channel: ChannelKey, request: Request<'_>) -> std::result::Result<(), Refused> {
        let Some(known) = self.channels.get_mut(channel.0 as usize).and_then(Option::as_deref_mut) else {
            let memory = if let crate::transport::Source::Owned(memory) = request.source { Some(memory) } else { None };
            let error = Error::new(ErrorKind::Other, "post").with_detail("the channel was closed");
            return Err(Refused { error: Some(error), memory });
        };
        known.post(request).map_err(|(error, memory)| Refused { error, memory })?;
        if known.standing == Standing::Failed {
            known.flush_pending(&mut self.shared.ready);
            self.events.note(!self.shared.ready.is_empty());
        } else if self.staged.last() != Some(&channel.0) {
            self.staged.push(channel.0);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        while let Some(place) = self.staged.pop() {
            self.turn(place, |channel, shared| {
                if channel.output.is_blocked { Ok(false) } else { channel.write(&shared.accesses).map(|()| false) }
            });
        }
        self.note_ready();
        Ok(())
    }

    #[inline]
    fn takes_now(&mut self, channel: ChannelKey, length: usize) -> bool {
        self.channel_mut(channel).is_some_and(|channel| channel.takes_now(length))
    }

    #[inline]
    fn send_now(&mut self, channel: ChannelKey, head: &[u8], pieces: &[IoSlice<'_>]) {
        if let Some(channel) = self.channel_mut(channel) {
            channel.send_now(head, pieces);
        }
    }

    #[inline]
    fn receive_now(&mut self, channel: ChannelKey) -> Option<(u64, usize)> {
        let known = self.channels.get_mut(channel.0 as usize)?.as_deref_mut()?;
        known.receive_now(&mut self.shared).map(|length| (NOW, length))
    }

    #[inline]
    fn lent(&self, token: u64, length: usize) -> &[u8] {
        match token {
            NOW => self.shared.now.get(SHORT_HEADER..SHORT_HEADER + length),
            at => self.shared.lent.get(at as usize..at as usize + length),
        }
        .unwrap_or_default()
    }

    fn room(&self, channel: ChannelKey) -> usize {
        self.channel(channel).map_or(0, Channel::room)
    }

    fn post_receive(&mut self, token: u64, memory: Transfer) -> std::result::Result<(), Refused> {
        if self.receive_room() == 0 {
            return Err(Refused { error: None, memory: Some(memory) });
        }
        self.shared.outstanding += 1;
        self.shared.receives.push_back((token, memory));
        Ok(())
    }

    fn receive_room(&self) -> usize {
        self.most_receives.saturating_sub(self.shared.outstanding)
    }

    fn tend(&mut self, now: Instant) {
        self.attention.ask_soon();
        self.acknowledge(0);
        self.end_stalls(now);
        self.give_up(now);
        self.give_back_receives(now);
        self.note_ready();
    }

    fn give_up_after(&mut self, patience: Duration) {
        self.patience = Some(patience);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) -> Result<bool> {
        self.events.looked();
        self.shared.lent.clear();
        if !self.unopened.is_empty() {
            self.take_up();
        }
        if std::mem::take(&mut self.may_skip) && !C::IS_FREE_TO_LOOK {
            let happened = !self.shared.ready.is_empty();
            done.append(&mut self.shared.ready);
            return Ok(happened);
        }
        let mut happened = self.look();
        let channels = &mut self.channels;
        self.stalled.retain(|place| {
            channels[*place as usize].as_deref_mut().is_some_and(|channel| {
                channel.is_listed_stalled = channel.stalled.is_some();
                channel.is_listed_stalled
            })
        });
        if !self.due.is_empty() {
            self.acknowledge(C::DRY_POLLS);
        }
        happened |= !self.shared.ready.is_empty();
        done.append(&mut self.shared.ready);
        Ok(happened)
    }

    fn request_notification(&mut self) -> Result<()> {
        self.acknowledge(0);
        self.may_skip = true;
        let is_there = self.doze();
        self.events.arm(is_there || !self.shared.ready.is_empty())
    }

    fn drain_events(&mut self) -> Result<()> {
        self.attention.ask_soon();
        self.events.drain()
    }

    fn event_descriptor(&self) -> Result<Option<OwnedFd>> {
        self.events.descriptor().map(Some)
    }

    fn idle_descriptor(&self) -> Result<Option<OwnedFd>> {
        self.events.idle_descriptor().map(Some)
    }

    fn watch_idle(&mut self) -> Result<()> {
        self.acknowledge(0);
        self.note_ready();
        if self.doze() {
            self.events.kick();
        }
        self.events.arm_idle()
    }

    fn drain_idle(&mut self) -> Result<()> {
        self.attention.ask_soon();
        self.events.drain_idle()
    }

    fn host_answers(&self, channel: ChannelKey) -> Option<bool> {
        let channel = self.channel(channel)?;
        if channel.host_answers.get().is_none() {
            channel.host_answers.set(Some(channel.carrier.host_answers()));
        }
        channel.host_answers.get()
    }

    fn has_left(&self, channel: ChannelKey) -> bool {
        self.channel(channel).is_none_or(Channel::is_written)
    }

    fn capabilities(&self, channel: ChannelKey) -> Capabilities {
        let nothing = Capabilities { inline: 0, sends: 0, longest: 0, segments: 0, reads: 0 };
        self.channel(channel).map_or(nothing, Channel::capabilities)
    }

    fn courier(&mut self, channel: ChannelKey) -> Option<Arc<dyn Courier>> {
        self.channel_mut(channel)?.carrier.courier()
    }

    fn bind(
        &mut self,
        channel: ChannelKey,
        token: u64,
        opening: Opening,
    ) -> std::result::Result<(WindowKey, u32), NotBound> {
        if self.channel(channel).is_none_or(|channel| channel.standing == Standing::Made) {
            let error = Error::new(ErrorKind::Other, "grant").with_detail("the connection was not yet set up");
            return Err(error.into());
        }
        let bound = self.shared.accesses.bind(channel, opening)?;
        self.done_at_once(channel, token);
        Ok(bound)
    }

    fn invalidate(
        &mut self,
        channel: ChannelKey,
        token: u64,
        window: WindowKey,
    ) -> std::result::Result<(), Option<Error>> {
        let unknown = || Some(Error::new(ErrorKind::Other, "revoke").with_detail("its window is not bound"));
        let held = self.shared.accesses.invalidate(window).ok_or_else(unknown)?;
        drop(held);
        self.done_at_once(channel, token);
        Ok(())
    }

    fn fail(&mut self, channel: ChannelKey) {
        let Some(mut known) = self.channels.get_mut(channel.0 as usize).and_then(Option::take) else { return };
        if known.standing != Standing::Made {
            known.is_readable = false;
            known.output.is_blocked = false;
            known.keep_last_words(&self.shared.accesses);
            // What is not taken now is written when the channel is closed.
            let _ = known.write(&self.shared.accesses);
            known.socket.has_last_words.store(known.has_last_words(), Ordering::Release);
        }
        known.standing = Standing::Failed;
        known.flush_pending(&mut self.shared.ready);
        self.events.watch(&mut known);
        self.channels[channel.0 as usize] = Some(known);
        self.events.note(!self.shared.ready.is_empty());
    }

    fn close(&mut self, channel: ChannelKey) -> Option<Box<dyn FnOnce() -> Vec<Completion> + Send>> {
        self.fail(channel);
        let mut known = self.channels.get_mut(channel.0 as usize)?.take()?;
        self.attention.leave(channel.0);
        for places in [&mut self.unopened, &mut self.staged, &mut self.due, &mut self.stalled] {
            places.retain(|place| *place != channel.0);
        }
        if let Some(receive) = known.take_receive() {
            self.shared.receives.push_front(receive);
        }
        let windows = self.shared.accesses.leave(channel);
        let is_of_it = |completion: &mut Completion| completion.channel == channel;
        let mut left: Vec<_> = self.shared.ready.extract_if(.., is_of_it).collect();
        for mut receive in left.extract_if(.., |completion| completion.is_receive && completion.memory.is_some()) {
            receive.channel = NONE;
            self.shared.ready.push(receive);
        }
        self.note_ready();
        let domain = Arc::clone(&self.domain);
        Some(Box::new(move || {
            closing::end(known, Accesses::new(domain));
            drop(windows);
            left
        }))
    }
}
