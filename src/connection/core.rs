//! What an engine's lock protects: one queue, its links and operations, and how completions reach them.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::arrived::Arrived;
use super::conversation::Conversation;
use super::later_span::Told;
use super::link::{Finish, Link};
use super::link_grants::Answer;
use super::operations::Operations;
use super::receives::Receives;
use crate::clock::Clock;
use crate::memory::{Domain, GrantState, Held, Registration, Revocation};
use crate::protocol::GrantId;
use crate::transport::{ChannelKey, Completion, ENDED_BY_DEVICE as FLUSHED, OTHER_END, Queue};
use crate::{Buffer, Error, ErrorKind, Result};

/// Token of frames; operations and requests for windows have tokens of their own, which never are this.
pub(super) const FRAME: u64 = u64::MAX;
/// Token of the frame with the last record.
pub(super) const FINISH: u64 = u64::MAX - 1;
/// Token of a probe.
pub(super) const PROBE: u64 = u64::MAX - 2;
/// Token of a notification of a write that the peer's device has no part in.
pub(super) const NOTIFY: u64 = u64::MAX - 3;
/// Buffers for frames that are kept for the next ones.
const MOST_SPARE: usize = 64;

/// Names a link. Unlike a channel key, it is never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkKey {
    index: u32,
    serial: u64,
}

pub(super) struct Core<Q> {
    pub(super) queue: Q,
    pub(super) domain: Arc<dyn Domain>,
    pub(super) clock: Clock,
    pub(super) links: Vec<Option<(u64, Link)>>,
    /// Links by channel.
    channels: Vec<Option<LinkKey>>,
    next_serial: u64,
    pub(super) operations: Operations,
    completions: Vec<Completion>,
    /// Wakers to call when the lock is free.
    pub(super) woken: Vec<Waker>,
    /// Wakers that are registered somewhere below.
    pub(super) waiting: usize,
    /// Whether an event will come with the next completion.
    pub(super) armed: bool,
    /// Links that failed and whose channels are still to be closed.
    pub(super) broken: Vec<LinkKey>,
    pub(super) receives: Receives,
    pub(super) arrived: Arrived,
    /// Links of which something came back flushed, in this poll.
    pub(super) flushed: Vec<LinkKey>,
    /// Links for which something came in this poll.
    touched: Vec<LinkKey>,
    /// Links whose frames wait for those before them.
    pub(super) corked: Vec<LinkKey>,
    /// Idle buffers for frames.
    pub(super) spare: Vec<Buffer>,
    /// Bytes of a frame's buffer.
    pub(super) frame_size: usize,
    /// What to drop when the lock is free.
    pub(super) garbage: Vec<Garbage>,
    /// Grants that have ended, to be told so when the lock is free and their regions are dropped.
    pub(super) ended: Vec<EndedGrant>,
    /// Regions of grants to be deregistered when the lock is free; it may block.
    pub(super) to_deregister: Vec<ToDeregister>,
    /// Whether somebody has polled since the service thread last looked.
    pub(super) was_polled: bool,
    /// Whether the last poll had some.
    pub(super) had_completions: bool,
    /// When peers were last looked after.
    pub(super) watched_at: Option<Instant>,
    /// The time as of the last look at the connections, every 25 ms: what is posted is stamped with it, and no clock read.
    pub(super) stamp: Instant,
    /// Messages that were received without a poll since the last.
    pub(super) received_now: u32,
    pub(super) is_dispatching: bool,
    must_poll_again: bool,
}

/// A grant whose memory can no longer be reached, or is set aside.
pub(super) struct EndedGrant {
    pub(super) region: Option<Arc<dyn Registration>>,
    pub(super) state: Arc<GrantState>,
    pub(super) result: Result<Revocation>,
}

impl EndedGrant {
    /// Tells those who wait. Only now: whoever learns it may at once want the memory for itself alone.
    pub(super) fn tell(self) {
        drop(self.region);
        self.state.end(self.result).into_iter().for_each(Waker::wake);
    }
}

/// A grant that is a region, on its way out.
pub(super) struct ToDeregister {
    pub(super) link: LinkKey,
    pub(super) id: GrantId,
    pub(super) region: Arc<dyn Registration>,
    pub(super) state: Arc<GrantState>,
    pub(super) how: Revocation,
}

/// What must not be dropped under the lock: it can mean to deregister, or run somebody's code.
pub(super) enum Garbage {
    Answer(#[expect(dead_code, reason = "dropping it is what counts")] Answer),
    Detached(#[expect(dead_code, reason = "dropping it is what counts")] Box<dyn Send>),
    /// What a subscriber is told.
    Told(#[expect(dead_code, reason = "dropping it is what counts")] Told),
    Memory(#[expect(dead_code, reason = "dropping it is what counts")] Held),
}

impl<Q: Queue> Core<Q> {
    pub(super) fn new(queue: Q, domain: Arc<dyn Domain>, clock: Clock, frame_size: usize) -> Self {
        Self {
            receives: Receives::new(queue.receive_room()),
            queue,
            domain,
            stamp: clock.now(),
            clock,
            links: Vec::new(),
            channels: Vec::new(),
            next_serial: 0,
            operations: Operations::default(),
            completions: Vec::with_capacity(64),
            woken: Vec::with_capacity(16),
            waiting: 0,
            armed: false,
            broken: Vec::new(),
            arrived: Arrived::default(),
            flushed: Vec::new(),
            touched: Vec::with_capacity(16),
            corked: Vec::with_capacity(16),
            spare: Vec::with_capacity(MOST_SPARE),
            frame_size,
            garbage: Vec::new(),
            ended: Vec::new(),
            to_deregister: Vec::new(),
            was_polled: false,
            had_completions: false,
            watched_at: None,
            received_now: 0,
            is_dispatching: false,
            must_poll_again: false,
        }
    }

    pub(super) fn insert(&mut self, mut link: Link, channel: ChannelKey, share: u32) -> LinkKey {
        (link.channel, link.share) = (Some(channel), share);
        let index = self.links.iter().position(Option::is_none).unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        let serial = self.next_serial;
        self.next_serial += 1;
        self.links[index] = Some((serial, link));
        let channel = channel.0 as usize;
        self.channels.resize(self.channels.len().max(channel + 1), None);
        let key = LinkKey { index: index as u32, serial };
        self.channels[channel] = Some(key);
        key
    }

    pub(super) fn link(&mut self, key: LinkKey) -> Option<&mut Link> {
        match self.links.get_mut(key.index as usize) {
            Some(Some((serial, link))) if *serial == key.serial => Some(link),
            _ => None,
        }
    }

    /// All links there are.
    pub(super) fn keys(&self) -> Vec<LinkKey> {
        (0..self.links.len()).filter_map(|index| self.key_at(index)).collect()
    }

    /// The link in this place of the table.
    pub(super) fn key_at(&self, index: usize) -> Option<LinkKey> {
        self.links[index].as_ref().map(|(serial, _)| LinkKey { index: index as u32, serial: *serial })
    }

    /// Forgets a link whose channel is closed.
    pub(super) fn remove(&mut self, key: LinkKey) -> Option<Link> {
        self.link(key)?;
        // Who waits finds that it is gone.
        self.wake_all_receivers(key);
        self.wake_senders(key);
        let link = self.links[key.index as usize].take().map(|(_, link)| link)?;
        self.receives.give_up(link.share);
        if self.links.iter().all(Option::is_none) {
            self.garbage.extend(self.spare.drain(..).map(|buffer| Garbage::Memory(Held::Buffer(buffer))));
        }
        Some(link)
    }

    /// Whether there is something to be done when the lock is free.
    pub(super) fn leaves_something(&self) -> bool {
        let is_quiet = self.woken.is_empty()
            && self.garbage.is_empty()
            && self.ended.is_empty()
            && self.broken.is_empty()
            && self.to_deregister.is_empty();
        !is_quiet
    }

    /// Handles the completions that are there; answers whether there may be more at once.
    pub(super) fn progress(&mut self) -> Result<bool> {
        self.was_polled = true;
        if self.is_dispatching {
            // Called from below itself: what is newer must not overtake the batch in hand.
            self.must_poll_again = true;
            return Ok(false);
        }
        self.is_dispatching = true;
        let mut completions = std::mem::take(&mut self.completions);
        let polled = self.queue.poll(&mut completions);
        let had_completions = !completions.is_empty();
        // Where they are: they are large.
        for completion in &mut completions {
            let key = self.channels.get(completion.channel.0 as usize).copied().flatten();
            match key.filter(|key| self.link(*key).is_some()) {
                Some(key) => self.dispatch_to(key, completion),
                None => self.unclaimed(completion),
            }
        }
        completions.clear();
        self.completions = completions;
        self.end_batch();
        let must_poll_again = std::mem::take(&mut self.must_poll_again);
        self.had_completions = had_completions || must_poll_again;
        self.received_now = 0;
        polled.map(|polled| polled | must_poll_again)
    }

    /// What follows from a batch of completions.
    pub(super) fn end_batch(&mut self) {
        // After the batch, so that a request whose error says more comes first.
        while let Some(key) = self.flushed.pop() {
            let error = Error::new(ErrorKind::ConnectionBroken, "connection");
            self.fail(key, error.with_detail(FLUSHED).with_hint(OTHER_END));
        }
        while let Some(key) = self.touched.pop() {
            self.pump(key);
        }
        self.is_dispatching = false;
    }

    /// Handles the completions that are there, once, whatever the poll answers: what it broke is told to those it concerns.
    pub(super) fn look(&mut self) {
        let _ = self.progress();
    }

    /// Keeps the buffer of a frame that has ended.
    pub(super) fn keep_frame(&mut self, buffer: Buffer) {
        if self.spare.len() < MOST_SPARE && buffer.len() == self.frame_size {
            self.spare.push(buffer);
        } else {
            self.garbage.push(Garbage::Memory(Held::Buffer(buffer)));
        }
    }

    /// Something has come for a link: what waited for it goes on when the batch in hand is over.
    pub(super) fn touch(&mut self, key: LinkKey) {
        if self.touched.last() != Some(&key) {
            self.touched.push(key);
        }
    }

    /// Goes on with what waits for room, credits or completions on a link.
    pub(super) fn pump(&mut self, key: LinkKey) {
        let Some(link) = find(&mut self.links, key) else { return };
        if link.is_open() && link.ending.get().is_none() {
            if link.is_finish_wanted && link.finish == Finish::Open {
                self.finish(key);
            }
            self.grow(key);
            self.post_frames(key, false);
            self.send_credits(key);
            if self.link(key).is_some_and(|link| link.grants.is_waiting()) {
                self.send_revocations(key);
                self.resume_closing(key);
            }
        }
        self.wake_senders(key);
    }

    /// Ends a connection: everyone who waits on it is told `error`, unless it had ended before. Its channel is
    /// closed soon after, on the service thread.
    pub(super) fn fail(&mut self, key: LinkKey, error: Error) {
        let Some(link) = find(&mut self.links, key) else { return };
        let error = match error.kind() {
            // These invite to try again, which is of no use any more.
            ErrorKind::MemoryLimit | ErrorKind::PoolExhausted | ErrorKind::ResourceExhausted => {
                let was = error.kind().to_string();
                error.into_kind(ErrorKind::ConnectionBroken).with_cause(&was)
            }
            _ => error,
        };
        if link.ending.set(error).is_err() {
            return;
        }
        if let Some(channel) = link.channel {
            self.queue.fail(channel);
        }
        link.conversations.iter_mut().for_each(Conversation::cut_off);
        self.broken.push(key);
        self.wake_all_receivers(key);
        self.wake_senders(key);
    }

    /// Breaks every link: the queue itself is of no use any more.
    pub(super) fn fail_all(&mut self, error: &Error) {
        for index in 0..self.links.len() {
            if let Some((serial, _)) = self.links[index] {
                self.fail(LinkKey { index: index as u32, serial }, error.again("connection"));
            }
        }
    }

    /// Takes the channel out of its link: completions that still come for its number are not the link's.
    pub(super) fn take_channel(&mut self, key: LinkKey) -> Option<ChannelKey> {
        let channel = self.link(key)?.channel.take()?;
        self.channels[channel.0 as usize] = None;
        Some(channel)
    }
}

/// The link of `key`, borrowing only the table, so that the queue can be used beside it.
pub(super) fn find(links: &mut [Option<(u64, Link)>], key: LinkKey) -> Option<&mut Link> {
    match links.get_mut(key.index as usize) {
        Some(Some((serial, link))) if *serial == key.serial => Some(link),
        _ => None,
    }
}
