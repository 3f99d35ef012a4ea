//! Receiving, under the engine's lock: messages that are here, and long ones that are fetched.

use std::task::Poll;

use super::conversation::{Fetched, Next, NextInto, Stored};
use super::core::{Core, Garbage, LinkKey, find};
use super::fetches::Fetch;
use super::later_span::{LaterSpan, What};
use super::link::CONTROL_SENDS;
use crate::memory::{Held, Transfer};
use crate::transport::{Operation, Queue, Request, Source};
use crate::{Access, Error, ErrorKind, Result, failpoint};

/// What a receiver does next.
pub(super) enum Step {
    Message(Stored),
    /// A long message is to be fetched into memory of its length; whether it is the next one.
    Fetch {
        serial: u64,
        length: u64,
        is_first: bool,
    },
}

/// A fetch that was not begun.
pub(super) enum NotFetched {
    /// There is no room for it now.
    Later(Transfer),
    /// The message is somebody else's, or gone.
    Gone(Option<Held>),
}

impl<Q: Queue> Core<Q> {
    /// The next message of a channel, if it is here.
    pub(super) fn receive(&mut self, key: LinkKey, channel: usize, ahead: bool) -> Poll<Result<Step>> {
        let Some(link) = find(&mut self.links, key) else { return closed() };
        let Some(conversation) = link.conversations.get_mut(channel) else { return closed() };
        let mut next = conversation.next(ahead);
        if matches!(next, Next::Wait) && conversation.is_empty() {
            match self.receive_now(key, channel) {
                (_, Some(stored)) => {
                    self.passed(key, channel);
                    return Poll::Ready(Ok(Step::Message(stored)));
                }
                (false, None) => {}
                (true, None) => {
                    let conversation = find(&mut self.links, key).and_then(|link| link.conversations.get_mut(channel));
                    let Some(conversation) = conversation else { return closed() };
                    next = conversation.next(ahead);
                }
            }
        }
        let Some(link) = find(&mut self.links, key) else { return closed() };
        match next {
            Next::Message(stored) => {
                self.was_taken(key, channel);
                Poll::Ready(Ok(Step::Message(stored)))
            }
            Next::Fetch { serial, length, is_first } if link.ending.get().is_none() => {
                Poll::Ready(Ok(Step::Fetch { serial, length, is_first }))
            }
            Next::Ended => Poll::Ready(Err(Error::new(ErrorKind::PeerClosed, "receive"))),
            Next::Fetch { .. } | Next::Wait => self.no_more(key, channel),
        }
    }

    /// The next message of a channel for a receiver with memory for `room` bytes; one that is to be fetched is claimed.
    pub(super) fn receive_into(&mut self, key: LinkKey, channel: usize, room: usize) -> Poll<Result<Step>> {
        let Some(link) = find(&mut self.links, key) else { return closed() };
        let Some(conversation) = link.conversations.get_mut(channel) else { return closed() };
        match conversation.next_into(room as u64) {
            NextInto::Message(stored) => {
                self.was_taken(key, channel);
                Poll::Ready(Ok(Step::Message(stored)))
            }
            NextInto::Fetch { serial, length } => Poll::Ready(Ok(Step::Fetch { serial, length, is_first: true })),
            NextInto::TooLong(length) => {
                let detail = format!("the next message has {length} bytes, the memory {room}; it is still there");
                Poll::Ready(Err(Error::new(ErrorKind::TooLong, "receive").with_detail(detail)))
            }
            NextInto::Ended => Poll::Ready(Err(Error::new(ErrorKind::PeerClosed, "receive"))),
            NextInto::Wait => self.no_more(key, channel),
        }
    }

    /// Why nothing will come, if so.
    fn no_more(&mut self, key: LinkKey, channel: usize) -> Poll<Result<Step>> {
        let Some(link) = find(&mut self.links, key) else { return closed() };
        let Some(conversation) = link.conversations.get(channel) else { return closed() };
        let (is_empty, has_lost) = (conversation.is_empty(), conversation.has_lost);
        let failure = match link.ending.get() {
            Some(error) if has_lost && error.kind() == ErrorKind::PeerClosed => {
                let detail = "the peer closed before all that it had offered was fetched";
                Some(Error::new(ErrorKind::ConnectionBroken, "receive").with_detail(detail))
            }
            Some(_) => link.receive_failure(has_lost),
            None => link.receive_failure(has_lost).filter(|_| is_empty),
        };
        failure.map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    }

    /// The application has taken a message: the peer may send more, and others may be next.
    fn was_taken(&mut self, key: LinkKey, channel: usize) {
        let Some(link) = find(&mut self.links, key) else { return };
        link.window_changed(channel);
        if !link.outbox.is_empty() {
            self.post_frames(key, false);
        }
    }

    /// A message was received as it came.
    fn passed(&mut self, key: LinkKey, channel: usize) {
        self.was_taken(key, channel);
        if self.link(key).is_some_and(|link| link.credit_due) {
            self.pump(key);
        }
    }

    /// Begins to fetch a long message.
    pub(super) fn fetch(
        &mut self,
        key: LinkKey,
        channel: usize,
        serial: u64,
        is_claimed: bool,
        memory: Transfer,
    ) -> std::result::Result<(), NotFetched> {
        let handle = find(&mut self.links, key)
            .filter(|link| link.ending.get().is_none())
            .and_then(|link| link.conversations.get(channel)?.to_fetch(serial, is_claimed));
        let (Some(handle), Some(link)) = (handle, find(&mut self.links, key)) else { return Err(gone(memory)) };
        let Some(queue_channel) = link.channel else { return Err(gone(memory)) };
        if !link.fetches.has_room() || self.queue.room(queue_channel) <= CONTROL_SENDS {
            return Err(NotFetched::Later(memory));
        }
        let grant = handle.grant();
        let sessions = (link.session, link.session);
        let checked = handle.check("receive", Access::READ, sessions, handle.len() as usize);
        let (address, remote_key) = match checked {
            Ok(checked) if link.grants.held.begin(grant) => checked,
            _ => {
                let detail = "a message that was offered is taken back";
                self.fail(key, Error::new(ErrorKind::Protocol, "receive").with_detail(detail));
                return Err(gone(memory));
            }
        };
        let id = link.conversations.get(channel).map_or(0, |conversation| conversation.id);
        let token = link.fetches.begin(Fetch { channel, serial, grant, bytes: handle.len(), at: self.stamp });
        let signaled = link.signal(true);
        let operation = Operation::Read { address, key: remote_key };
        let request = Request { token, operation, source: Source::Owned(memory), signaled, fence: false };
        match self.queue.stage(queue_channel, request) {
            Ok(()) => {
                if let Some(link) = find(&mut self.links, key) {
                    let what = What::Fetch { channel: id, grant, length: handle.len() };
                    let (span, told) = LaterSpan::begin(link.identity.as_ref(), what);
                    link.fetches.posted(token, span);
                    self.garbage.extend(told.map(Garbage::Told));
                }
                if let Some(conversation) = self.conversation(key, channel) {
                    conversation.fetching(serial, is_claimed);
                }
                self.flush();
                failpoint::reach("fetch.posted");
                Ok(())
            }
            Err(refused) => {
                if let Some(link) = self.link(key) {
                    link.fetches.end(token);
                    link.grants.held.end(grant);
                }
                match (refused.error, refused.memory) {
                    (None, Some(memory)) => Err(NotFetched::Later(memory)),
                    (error, memory) => {
                        let error = error.unwrap_or_else(|| Error::new(ErrorKind::ResourceExhausted, "receive"));
                        self.fail(key, error);
                        Err(NotFetched::Gone(memory.map(Transfer::into_held)))
                    }
                }
            }
        }
    }

    /// A fetch has ended.
    pub(super) fn fetch_ended(&mut self, key: LinkKey, token: u64, memory: Option<Transfer>, is_success: bool) {
        let Some(link) = find(&mut self.links, key) else { return };
        let Some((fetch, span)) = link.fetches.end(token) else { return };
        self.garbage.extend(span.end(if is_success { "ok" } else { "failed" }).map(Garbage::Told));
        link.grants.held.end(fetch.grant);
        failpoint::reach("fetch.ended");
        let held = memory.map(Transfer::into_held);
        let Some(conversation) = link.conversations.get_mut(fetch.channel) else { return };
        let unwanted = match held {
            Some(held) if is_success => match conversation.fetched(fetch.serial, held) {
                Fetched::Here => {
                    link.done_with(fetch.grant, false);
                    link.count_fetched(fetch.bytes);
                    None
                }
                Fetched::Delivered => {
                    link.count_fetched(fetch.bytes);
                    None
                }
                Fetched::Unwanted(held) => Some(held),
            },
            held => conversation.fetch_failed(fetch.serial, held),
        };
        self.garbage.extend(unwanted.map(Garbage::Memory));
        self.decline_rest(key, fetch.channel);
        self.wake_receivers(key, fetch.channel);
    }

    /// How the fetch of a claimed message has ended, and its memory.
    pub(super) fn delivered(&mut self, key: LinkKey, channel: usize, serial: u64) -> Poll<(Result<()>, Option<Held>)> {
        let failed = |error: Error| Poll::Ready((Err(error), None));
        let Some(link) = find(&mut self.links, key) else { return failed(Error::new(ErrorKind::Closed, "receive")) };
        let ending = link.ending.get().map(|error| error.again("receive"));
        let ending = || ending.unwrap_or_else(|| Error::new(ErrorKind::ConnectionBroken, "receive"));
        let Some(conversation) = link.conversations.get_mut(channel) else { return failed(ending()) };
        match conversation.delivered(serial) {
            Some((Some(handle), held)) => {
                link.done_with(handle.grant(), false);
                link.window_changed(channel);
                self.post_frames(key, false);
                failpoint::reach("fetch.told");
                Poll::Ready((Ok(()), held))
            }
            Some((None, held)) => Poll::Ready((Err(ending()), held)),
            None if conversation.is_coming(serial) => Poll::Pending,
            None => failed(ending()),
        }
    }

    /// The receiver who claimed a message has gone.
    pub(super) fn abandon_claim(&mut self, key: LinkKey, channel: usize, serial: u64) {
        let held = self.conversation(key, channel).and_then(|conversation| conversation.abandon(serial));
        self.garbage.extend(held.map(Garbage::Memory));
        if self.link(key).is_some_and(|link| link.declines) {
            self.decline(key, channel);
            self.pump(key);
        }
        self.wake_receivers(key, channel);
    }

    /// Nobody will receive on any channel any more: what waits, and what will come, is declined.
    pub(super) fn decline_all(&mut self, key: LinkKey) {
        let Some(link) = find(&mut self.links, key) else { return };
        link.declines = true;
        while link.take_notification().is_some() {}
        for channel in 0..link.conversations.len() {
            self.decline(key, channel);
        }
        self.wake_all_receivers(key);
        self.pump(key);
    }

    /// What waits on a channel is declined. What a receiver is having just now is not, unless he goes.
    fn decline(&mut self, key: LinkKey, channel: usize) {
        let Some(link) = find(&mut self.links, key) else { return };
        let Some(conversation) = link.conversations.get_mut(channel) else { return };
        let (offers, messages) = conversation.decline();
        offers.iter().for_each(|offer| link.done_with(offer.grant(), true));
        link.window_changed(channel);
        for message in messages {
            if let Stored::Buffer(buffer) = message {
                self.garbage.push(Garbage::Memory(Held::Buffer(buffer)));
            }
        }
    }

    /// Declines what a fetch or a receiver has left behind, if nobody receives any more.
    fn decline_rest(&mut self, key: LinkKey, channel: usize) {
        if self.link(key).is_some_and(|link| link.declines) {
            self.decline(key, channel);
            self.touch(key);
        }
    }

    /// Drops memory when the lock is free.
    pub(super) fn discard(&mut self, memory: Held) {
        self.garbage.push(Garbage::Memory(memory));
    }

    fn conversation(&mut self, key: LinkKey, channel: usize) -> Option<&mut super::conversation::Conversation> {
        self.link(key)?.conversations.get_mut(channel)
    }
}

fn closed<R>() -> Poll<Result<R>> {
    Poll::Ready(Err(Error::new(ErrorKind::Closed, "receive")))
}

fn gone(memory: Transfer) -> NotFetched {
    NotFetched::Gone(Some(memory.into_held()))
}
