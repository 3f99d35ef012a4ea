//! What an engine's lock protects: one queue, its links and operations, and how completions reach them.

use std::sync::Arc;
use std::task::Waker;

use super::link::{Arrival, Finish, Link};
use super::link_grants::{Answer, GrantToken, parse_request};
use super::operations::{Completed, Operations};
use crate::memory::{Domain, GrantState, Held, Registration, Revocation, Transfer};
use crate::protocol::GrantId;
use crate::transport::{ChannelKey, Completion, Failure, Queue};
use crate::{Buffer, Error, ErrorKind, Result};

/// Token of messages; operations and requests for windows have tokens of their own, which never are this.
pub(super) const MESSAGE: u64 = u64::MAX;
/// Token of a finish frame.
pub(super) const FINISH: u64 = u64::MAX - 1;

/// Names a link. Unlike a channel key, it is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkKey {
    index: u32,
    serial: u64,
}

pub(super) struct Core<Q> {
    pub(super) queue: Q,
    pub(super) domain: Arc<dyn Domain>,
    pub(super) links: Vec<Option<(u64, Link)>>,
    /// Links by channel.
    channels: Vec<Option<LinkKey>>,
    next_serial: u64,
    pub(super) operations: Operations,
    completions: Vec<Completion>,
    pub(super) scratch: Vec<u8>,
    /// Wakers to call when the lock is free.
    pub(super) woken: Vec<Waker>,
    /// Wakers that are registered somewhere below.
    pub(super) waiting: usize,
    /// Whether an event will come with the next completion.
    pub(super) armed: bool,
    /// Links that failed and whose channels are still to be closed.
    pub(super) broken: Vec<LinkKey>,
    /// Links whose receives came back flushed, in this poll.
    flushed: Vec<LinkKey>,
    /// What to drop when the lock is free.
    pub(super) garbage: Vec<Garbage>,
    /// Grants that have ended, to be told so when the lock is free and their regions are dropped.
    pub(super) ended: Vec<EndedGrant>,
    /// Regions of grants to be deregistered when the lock is free; it may block.
    pub(super) to_deregister: Vec<ToDeregister>,
    /// Whether somebody has polled since the service thread last looked.
    pub(super) was_polled: bool,
    is_dispatching: bool,
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
    Memory(#[expect(dead_code, reason = "dropping it is what counts")] Held),
}

impl<Q: Queue> Core<Q> {
    pub(super) fn new(queue: Q, domain: Arc<dyn Domain>) -> Self {
        Self {
            queue,
            domain,
            links: Vec::new(),
            channels: Vec::new(),
            next_serial: 0,
            operations: Operations::default(),
            completions: Vec::with_capacity(64),
            scratch: Vec::with_capacity(1024),
            woken: Vec::with_capacity(16),
            waiting: 0,
            armed: false,
            broken: Vec::new(),
            flushed: Vec::new(),
            garbage: Vec::new(),
            ended: Vec::new(),
            to_deregister: Vec::new(),
            was_polled: false,
            is_dispatching: false,
            must_poll_again: false,
        }
    }

    pub(super) fn insert(&mut self, mut link: Link, channel: ChannelKey) -> LinkKey {
        link.channel = Some(channel);
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
        self.wake_receivers(key);
        self.wake_senders(key);
        self.links[key.index as usize].take().map(|(_, link)| link)
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
        for completion in completions.drain(..) {
            if let Some(key) = self.channels.get(completion.channel.0 as usize).copied().flatten() {
                self.dispatch_to(key, completion);
            }
        }
        self.completions = completions;
        // After the batch, so that a request whose error says more comes first.
        while let Some(key) = self.flushed.pop() {
            let detail = "the device has ended it, as it does after a refused access";
            self.fail(key, Error::new(ErrorKind::ConnectionBroken, "connection").with_detail(detail));
        }
        self.is_dispatching = false;
        polled.map(|polled| polled | std::mem::take(&mut self.must_poll_again))
    }

    /// Handles the completions that are there, once, whatever the poll answers: what it broke is told to those it concerns.
    pub(super) fn look(&mut self) {
        let _ = self.progress();
    }

    /// Handles a completion of a link, also of one whose channel is closed.
    pub(super) fn dispatch_to(&mut self, key: LinkKey, completion: Completion) {
        let Some(link) = find(&mut self.links, key) else { return };
        let failure = completion.result.as_ref().err();
        if completion.is_receive {
            match (completion.result, completion.memory) {
                (Ok(bytes), Some(memory)) => {
                    if let Some(buffer) = memory.into_buffer() {
                        self.arrive(key, buffer, bytes as usize);
                    }
                }
                (Err(Failure::Broken(error)), _) => self.fail(key, error),
                // Of our own doing, unless the link has not ended yet.
                (Err(Failure::Flushed), _) => {
                    if link.ending.get().is_none() && !self.flushed.contains(&key) {
                        self.flushed.push(key);
                    }
                }
                (Ok(_), None) => {}
            }
            return;
        }
        let request = parse_request(completion.token);
        if completion.token == MESSAGE || completion.token == FINISH || request.is_some() {
            if let Some(slot) = completion.memory.and_then(Transfer::into_buffer) {
                link.reclaim(slot);
            }
            if completion.token == FINISH && failure.is_none() {
                link.finish = Finish::Done;
            }
            if let (Some(serial), None) = (request, failure) {
                self.request_delivered(key, serial);
            }
        } else if let Some(token) = GrantToken::parse(completion.token) {
            self.window_completed(key, token, failure.is_none());
        } else {
            let result = match failure {
                None => Ok(()),
                Some(Failure::Broken(error)) => Err(error.again("operation")),
                Some(Failure::Flushed) => Err(match link.ending.get() {
                    Some(error) => error.again("operation"),
                    None => Error::new(ErrorKind::ConnectionBroken, "operation"),
                }),
            };
            let (completed, grant) = self.operations.complete(completion.token, completion.memory, result);
            match completed {
                Completed::Waited(waker) => {
                    self.waiting -= 1;
                    self.woken.push(waker);
                }
                Completed::Unwanted(memory) => self.garbage.push(Garbage::Memory(memory)),
                Completed::Unwatched => {}
            }
            if let (Some(grant), Some(link)) = (grant, find(&mut self.links, key)) {
                link.grants.held.end(grant);
                if link.grants.held.is_due() {
                    self.send_revocations(key);
                }
            }
        }
        match completion.result {
            Ok(_) => self.resume(key),
            Err(Failure::Broken(error)) => self.fail(key, error),
            Err(Failure::Flushed) => self.fail(key, Error::new(ErrorKind::ConnectionBroken, "connection")),
        }
    }

    /// There is room in the send queue: what waited for it goes on.
    fn resume(&mut self, key: LinkKey) {
        if self.link(key).is_some_and(|link| link.credit_due()) {
            self.send_credits(key);
        }
        if self.link(key).is_some_and(|link| link.grants.is_waiting()) {
            self.send_revocations(key);
            self.resume_closing(key);
        }
        self.wake_senders(key);
    }

    fn arrive(&mut self, key: LinkKey, buffer: Buffer, bytes: usize) {
        let Some(link) = self.link(key) else { return };
        match link.arrive(buffer, bytes) {
            Ok(Arrival::Message) => self.wake_receivers(key),
            Ok(Arrival::Recycle(buffer)) => {
                self.post_receive(key, buffer);
                self.wake_receivers(key);
                // What is staged with a handle that is asked for goes now, while it is good.
                self.flush();
                self.send_revocations(key);
            }
            Ok(Arrival::Agreed(buffer, ids)) => {
                self.post_receive(key, buffer);
                self.grants_agreed(key, &ids);
                self.send_revocations(key);
            }
            Err(reason) => self.fail(key, Error::new(ErrorKind::Protocol, "receive").with_detail(reason)),
        }
        // Every frame can carry credits.
        self.wake_senders(key);
    }

    /// Ends a connection: everyone who waits on it is told `error`, unless it had ended before. Its channel is
    /// closed soon after, on the service thread.
    pub(super) fn fail(&mut self, key: LinkKey, error: Error) {
        let Some(link) = self.link(key) else { return };
        if link.ending.set(error).is_err() {
            return;
        }
        if let Some(channel) = link.channel {
            self.queue.fail(channel);
        }
        self.broken.push(key);
        self.wake_receivers(key);
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

    /// Takes back the receive of a message that the application is done with.
    pub(super) fn give_back(&mut self, key: LinkKey, buffer: Buffer) {
        if self.link(key).is_none_or(|link| link.ending.get().is_some()) {
            return self.garbage.push(Garbage::Memory(Held::Buffer(buffer)));
        }
        self.post_receive(key, buffer);
        if self.link(key).is_some_and(Link::release) {
            self.send_credits(key);
        }
    }

    pub(super) fn post_receive(&mut self, key: LinkKey, buffer: Buffer) {
        let Some(channel) = self.link(key).and_then(|link| link.channel) else { return };
        let length = buffer.len();
        let posted = match Transfer::new(buffer, 0..length, &*self.domain) {
            Ok(memory) => self.queue.post_receive(channel, MESSAGE, memory).map_err(|refused| refused.error),
            Err(failed) => Err(Some(failed.error)),
        };
        if let Err(error) = posted {
            // Without its receive the peer's credit would never come back.
            let error = error.unwrap_or_else(|| Error::new(ErrorKind::ResourceExhausted, "post receive"));
            self.fail(key, error);
        }
    }
}

/// The link of `key`, borrowing only the table, so that the queue can be used beside it.
pub(super) fn find(links: &mut [Option<(u64, Link)>], key: LinkKey) -> Option<&mut Link> {
    match links.get_mut(key.index as usize) {
        Some(Some((serial, link))) if *serial == key.serial => Some(link),
        _ => None,
    }
}
