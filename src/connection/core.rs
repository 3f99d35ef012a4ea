//! What an engine's lock protects: one queue, its links and operations, and how completions reach them.

use std::sync::Arc;
use std::task::{Poll, Waker};

use super::link::{Arrival, CONTROL_SENDS, Finish, Link, Outgoing};
use super::operations::{Completed, OperationKey, Operations};
use crate::memory::{Domain, Transfer};
use crate::protocol::FrameKind;
use crate::transport::{ChannelKey, Completion, Failure, Operation, Queue, Request, Source};
use crate::{Buffer, Error, ErrorKind, Result};

/// Token of messages; operations have tokens of their own, which never are this.
const MESSAGE: u64 = u64::MAX;
/// Token of a finish frame.
const FINISH: u64 = u64::MAX - 1;

/// Names a link. Unlike a channel key, it is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkKey {
    index: u32,
    serial: u64,
}

pub(super) struct Core<Q> {
    pub(super) queue: Q,
    domain: Arc<dyn Domain>,
    links: Vec<Option<(u64, Link)>>,
    /// Links by channel.
    channels: Vec<Option<LinkKey>>,
    next_serial: u64,
    pub(super) operations: Operations,
    completions: Vec<Completion>,
    scratch: Vec<u8>,
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
    /// Memory to drop when the lock is free: it can mean to deregister.
    pub(super) garbage: Vec<Buffer>,
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

    /// Forgets a link whose channel is closed.
    pub(super) fn remove(&mut self, key: LinkKey) -> Option<Link> {
        self.link(key)?;
        let (_, link) = self.links[key.index as usize].take()?;
        self.waiting -= link.receivers.len() + link.senders.len();
        Some(link)
    }

    /// Handles the completions that are there; answers whether there may be more at once.
    pub(super) fn progress(&mut self) -> Result<bool> {
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
        polled
    }

    /// Handles a completion of a link, also of one whose channel is closed.
    pub(super) fn dispatch_to(&mut self, key: LinkKey, completion: Completion) {
        let Some(link) = find(&mut self.links, key) else { return };
        let failure = completion.result.as_ref().err();
        if completion.is_receive {
            match (completion.result, completion.memory) {
                (Ok(bytes), Some(memory)) => self.arrive(key, memory.into_buffer(), bytes as usize),
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
        if completion.token == MESSAGE || completion.token == FINISH {
            if let Some(memory) = completion.memory {
                link.reclaim(memory.into_buffer());
            }
            if completion.token == FINISH && failure.is_none() {
                link.finish = Finish::Done;
            }
        } else {
            let result = match failure {
                None => Ok(()),
                Some(Failure::Broken(error)) => Err(error.again("operation")),
                Some(Failure::Flushed) => Err(match link.ending.get() {
                    Some(error) => error.again("operation"),
                    None => Error::new(ErrorKind::ConnectionBroken, "operation"),
                }),
            };
            match self.operations.complete(completion.token, completion.memory, result) {
                Completed::Waited(waker) => {
                    self.waiting -= 1;
                    self.woken.push(waker);
                }
                Completed::Unwanted(buffer) => self.garbage.push(buffer),
                Completed::Unwatched => {}
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
        self.wake_senders(key);
    }

    fn arrive(&mut self, key: LinkKey, buffer: Buffer, bytes: usize) {
        let Some(link) = self.link(key) else { return };
        match link.arrive(buffer, bytes) {
            Ok(Arrival::Message) => self.wake_receivers(key),
            Ok(Arrival::Recycle(buffer)) => {
                self.post_receive(key, buffer);
                self.wake_receivers(key);
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

    /// Posts a message if credit, slot and queue allow; else answers pending.
    pub(super) fn send(&mut self, key: LinkKey, payload: &[u8]) -> Poll<Result<()>> {
        let Some(link) = find(&mut self.links, key) else {
            return Poll::Ready(Err(Error::new(ErrorKind::Closed, "send")));
        };
        if let Some(error) = link.send_failure("send") {
            return Poll::Ready(Err(error));
        }
        if payload.len() > link.max_message() {
            let detail = format!("{} bytes; the peer receives up to {}", payload.len(), link.max_message());
            return Poll::Ready(Err(Error::new(ErrorKind::TooLong, "send").with_detail(detail)));
        }
        let Some(channel) = link.channel else { return Poll::Ready(Err(Error::new(ErrorKind::Closed, "send"))) };
        if self.queue.room(channel) <= CONTROL_SENDS {
            return Poll::Pending;
        }
        let outgoing = match link.frame(payload, &*self.domain, &mut self.scratch) {
            Ok(Some(outgoing)) => outgoing,
            Ok(None) => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let signaled = link.signal(false);
        let source = source(outgoing, &self.scratch);
        let request = Request { token: MESSAGE, operation: Operation::Send, source, signaled };
        let posted = post(&mut self.queue, channel, request);
        Poll::Ready(self.settled(key, posted, "send"))
    }

    /// What the device did not take is reported by the next poll, which must not wait for an event that never comes.
    fn settled(&mut self, key: LinkKey, posted: Result<()>, operation: &'static str) -> Result<()> {
        let Err(error) = posted else { return Ok(()) };
        let _ = self.progress();
        let ended = self.link(key).and_then(|link| link.ending.get().map(|ending| ending.again(operation)));
        Err(ended.unwrap_or(error))
    }

    /// Posts a control frame; answers whether there was room.
    fn send_control(&mut self, key: LinkKey, kind: FrameKind, token: u64) -> bool {
        let Some(link) = find(&mut self.links, key) else { return true };
        let Some(channel) = link.channel else { return true };
        if self.queue.room(channel) == 0 {
            return false;
        }
        let posted = match link.control(kind, &*self.domain, &mut self.scratch) {
            Ok(None) => return false,
            Ok(Some(outgoing)) => {
                let signaled = link.signal(token == FINISH);
                let source = source(outgoing, &self.scratch);
                post(&mut self.queue, channel, Request { token, operation: Operation::Send, source, signaled })
            }
            Err(error) => Err(error),
        };
        if let Err(error) = self.settled(key, posted, "connection") {
            self.fail(key, error);
        }
        true
    }

    fn send_credits(&mut self, key: LinkKey) {
        if self.link(key).is_some_and(|link| link.ending.get().is_none() && link.finish == Finish::Open) {
            self.send_control(key, FrameKind::Credit, MESSAGE);
        }
    }

    /// Says that nothing more will be sent; answers how far that is.
    pub(super) fn finish(&mut self, key: LinkKey) -> Finish {
        let state = |core: &mut Self| core.link(key).filter(|link| link.ending.get().is_none()).map(|link| link.finish);
        if state(self) == Some(Finish::Open)
            && self.send_control(key, FrameKind::Finish, FINISH)
            && let Some(link) = self.link(key)
        {
            link.finish = Finish::Sent;
        }
        state(self).unwrap_or(Finish::Done)
    }

    /// Stages or posts a one-sided operation; gives the memory back if there is no room.
    pub(super) fn start(
        &mut self,
        key: LinkKey,
        operation: Operation,
        memory: Transfer,
        post_now: bool,
    ) -> std::result::Result<OperationKey, (Option<Error>, Option<Transfer>)> {
        let Some(link) = find(&mut self.links, key) else {
            return Err((Some(Error::new(ErrorKind::Closed, "operation")), Some(memory)));
        };
        if let Some(error) = link.send_failure("operation") {
            return Err((Some(error), Some(memory)));
        }
        let Some(channel) = link.channel else {
            return Err((Some(Error::new(ErrorKind::Closed, "operation")), Some(memory)));
        };
        if self.queue.room(channel) <= CONTROL_SENDS {
            return Err((None, Some(memory)));
        }
        let signaled = link.signal(true);
        let started = self.operations.insert();
        let request = Request { token: started.token(), operation, source: Source::Owned(memory), signaled };
        if let Err(refused) = self.queue.stage(channel, request) {
            self.operations.cancel(started);
            return Err((refused.error, refused.memory));
        }
        if post_now {
            self.flush();
        }
        Ok(started)
    }

    /// Posts what is staged. What the device does not take is reported at once, to whom it belongs.
    pub(super) fn flush(&mut self) {
        if self.queue.flush().is_err() {
            let _ = self.progress();
        }
    }

    /// Takes back the receive of a message that the application is done with.
    pub(super) fn give_back(&mut self, key: LinkKey, buffer: Buffer) {
        if self.link(key).is_none_or(|link| link.ending.get().is_some()) {
            return self.garbage.push(buffer);
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

    pub(super) fn wait_to_receive(&mut self, key: LinkKey, waker: &Waker) {
        if let Some(link) = find(&mut self.links, key) {
            self.waiting += usize::from(register(&mut link.receivers, waker));
        }
    }

    pub(super) fn wait_to_send(&mut self, key: LinkKey, waker: &Waker) {
        if let Some(link) = find(&mut self.links, key) {
            self.waiting += usize::from(register(&mut link.senders, waker));
        }
    }

    /// Takes back a waker whose future was dropped. It is called once more: another future of the same task may have
    /// shared its place, and takes a new one when it is polled.
    pub(super) fn stop_waiting(&mut self, key: LinkKey, waker: &Waker) {
        let Some(link) = find(&mut self.links, key) else { return };
        for wakers in [&mut link.receivers, &mut link.senders] {
            if let Some(index) = wakers.iter().position(|known| known.will_wake(waker)) {
                self.woken.push(wakers.swap_remove(index));
                self.waiting -= 1;
            }
        }
    }

    fn wake_receivers(&mut self, key: LinkKey) {
        if let Some(link) = find(&mut self.links, key) {
            self.waiting -= link.receivers.len();
            self.woken.append(&mut link.receivers);
        }
    }

    fn wake_senders(&mut self, key: LinkKey) {
        if let Some(link) = find(&mut self.links, key) {
            self.waiting -= link.senders.len();
            self.woken.append(&mut link.senders);
        }
    }
}

/// The link of `key`, borrowing only the table, so that the queue can be used beside it.
fn find(links: &mut [Option<(u64, Link)>], key: LinkKey) -> Option<&mut Link> {
    match links.get_mut(key.index as usize) {
        Some(Some((serial, link))) if *serial == key.serial => Some(link),
        _ => None,
    }
}

fn source(outgoing: Outgoing, scratch: &[u8]) -> Source<'_> {
    match outgoing {
        Outgoing::Inline => Source::Inline(scratch),
        Outgoing::Slot(slot) => Source::Owned(slot),
    }
}

fn post<Q: Queue>(queue: &mut Q, channel: ChannelKey, request: Request<'_>) -> Result<()> {
    match queue.stage(channel, request) {
        Ok(()) => queue.flush(),
        Err(refused) => Err(refused
            .error
            .unwrap_or_else(|| Error::new(ErrorKind::ResourceExhausted, "post").with_detail("queue full"))),
    }
}

/// Adds `waker` unless it is there; answers whether it was added.
fn register(wakers: &mut Vec<Waker>, waker: &Waker) -> bool {
    let is_new = !wakers.iter().any(|known| known.will_wake(waker));
    if is_new {
        wakers.push(waker.clone());
    }
    is_new
}
