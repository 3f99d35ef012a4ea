//! What is done with completions: requests that have ended, and what has come in.

use super::core::{Core, FINISH, FRAME, Garbage, LinkKey, NOTIFY, PROBE, find};
use super::fetches::is_fetch;
use super::link::Finish;
use super::link_grants::{GrantToken, parse_request};
use super::operations::{Completed, Operations};
use crate::memory::{Held, Transfer};
use crate::transport::{Completion, ENDED_BY_DEVICE as FLUSHED, Failure, OTHER_END, Queue};
use crate::{Error, ErrorKind, Result};

impl<Q: Queue> Core<Q> {
    /// A completion of a link that is gone.
    pub(super) fn unclaimed(&mut self, completion: &mut Completion) {
        match completion.memory.take() {
            Some(memory) if completion.is_receive => self.recycle(memory),
            // It is lost, and another takes its place.
            None if completion.is_receive => {
                if let Err(error) = self.post_missing() {
                    self.fail_all(&error);
                }
            }
            memory => self.garbage.extend(memory.map(|memory| Garbage::Memory(memory.into_held()))),
        }
    }

    /// Handles a completion of a link, also of one whose channel is closed.
    pub(super) fn dispatch_to(&mut self, key: LinkKey, completion: &mut Completion) {
        if completion.is_receive {
            return self.received(key, completion);
        }
        let memory = completion.memory.take();
        let token = completion.token;
        let Some(link) = find(&mut self.links, key) else {
            return self.garbage.extend(memory.map(|memory| Garbage::Memory(memory.into_held())));
        };
        let failure = completion.result.as_ref().err();
        let first = failure.map(|_| name_of(&mut self.operations, token));
        if failure.is_none() {
            link.liveness.answered();
        }
        let request = parse_request(token);
        if matches!(token, FRAME | FINISH) || request.is_some() {
            link.outstanding = link.outstanding.saturating_sub(1);
            if token == FINISH && failure.is_none() {
                link.finish = Finish::Done;
            }
            if let Some(buffer) = memory.and_then(Transfer::into_buffer) {
                self.keep_frame(buffer);
            }
            if let (Some(serial), None) = (request, failure) {
                self.request_delivered(key, serial);
            }
        } else if token == NOTIFY {
            // Whoever wrote has his memory already.
        } else if token == PROBE {
            if failure.is_none() {
                link.liveness.probed();
            }
        } else if is_fetch(token) {
            self.fetch_ended(key, token, memory, failure.is_none());
        } else if let Some(token) = GrantToken::parse(token) {
            self.window_completed(key, token, failure.is_none());
        } else {
            let result = match failure {
                None => Ok(()),
                Some(Failure::Broken(error)) => Err(error.again("operation")),
                Some(Failure::Flushed) => Err(match link.ending.get() {
                    Some(error) => error.again("operation"),
                    None => {
                        Error::new(ErrorKind::ConnectionBroken, "operation").with_detail(FLUSHED).with_hint(OTHER_END)
                    }
                }),
            };
            self.operation_ended(key, token, memory, result);
        }
        match std::mem::replace(&mut completion.result, Ok(0)) {
            Ok(_) => self.touch(key),
            // Who posted it has been told by itself, or knows it by its name.
            Err(Failure::Broken(error)) => self.fail(key, error.after(first.unwrap_or("connection"))),
            Err(Failure::Flushed) => self.was_flushed(key),
        }
    }

    /// Something came back flushed. Unless that is of our own doing, the device has broken the channel; a request that says more
    /// comes first.
    fn was_flushed(&mut self, key: LinkKey) {
        let is_news = self.link(key).is_some_and(|link| link.ending.get().is_none());
        if is_news && !self.flushed.contains(&key) {
            self.flushed.push(key);
        }
    }

    fn operation_ended(&mut self, key: LinkKey, token: u64, memory: Option<Transfer>, result: Result<()>) {
        let (completed, ended) = self.operations.complete(token, memory, result);
        match completed {
            Completed::Waited(waker) => {
                self.waiting -= 1;
                self.woken.push(waker);
            }
            Completed::Unwanted(memory) => self.garbage.push(Garbage::Memory(memory)),
            Completed::Unwatched => {}
        }
        if let (Some(ended), Some(link)) = (ended, find(&mut self.links, key)) {
            link.fetches.outstanding -= usize::from(ended.is_read);
            link.fetches.bytes -= ended.bytes;
            if let Some(pages) = &mut link.pages {
                pages.served -= 1;
            }
            if let Some(grant) = ended.grant {
                link.grants.held.end(grant);
            }
        }
    }

    /// A receive has ended: what came in is handled, and the receive posted again.
    pub(super) fn received(&mut self, key: LinkKey, completion: &mut Completion) {
        match std::mem::replace(&mut completion.result, Ok(0)) {
            Ok(bytes) => {
                self.arrive(key, completion, bytes as usize);
            }
            Err(Failure::Broken(error)) => self.fail(key, error),
            Err(Failure::Flushed) => self.was_flushed(key),
        }
        if let Some(memory) = completion.memory.take() {
            self.recycle(memory);
        }
    }

    fn arrive(&mut self, key: LinkKey, completion: &Completion, bytes: usize) {
        let Some(link) = find(&mut self.links, key) else { return };
        if link.is_violated {
            return;
        }
        link.liveness.heard();
        let mut arrived = std::mem::take(&mut self.arrived);
        let Completion { token, immediate, memory, .. } = completion;
        let handled = match (immediate, memory) {
            (Some(value), _) => link.notified(*value),
            (None, None) => link.arrive(self.queue.lent(*token, bytes), &mut arrived),
            (None, Some(memory)) => match memory.buffer().and_then(|buffer| buffer.get(..bytes)) {
                Some(received) => link.arrive(received, &mut arrived),
                None => Err("more bytes than the receive has"),
            },
        };
        // Of a frame that is wrong somewhere, what is before that counts.
        for index in arrived.channels.drain(..) {
            self.wake_receivers(key, index);
        }
        if immediate.is_some() || self.link(key).is_some_and(|link| link.peer_finished()) {
            self.wake_watchers(key);
        }
        for (id, declined) in arrived.taken.drain(..) {
            self.grant_taken(key, id, declined);
        }
        self.garbage.extend(arrived.unwanted.drain(..).map(|buffer| Garbage::Memory(Held::Buffer(buffer))));
        self.garbage.extend(arrived.told.drain(..).map(Garbage::Told));
        if !arrived.agreed.is_empty() {
            self.grants_agreed(key, &arrived.agreed);
            arrived.agreed.clear();
        }
        if std::mem::take(&mut arrived.is_asked) {
            // What is staged with a handle that is asked for goes now, while it is good.
            self.flush();
        }
        self.arrived = arrived;
        match handled {
            Ok(()) => self.touch(key),
            Err(reason) => {
                if let Some(link) = self.link(key) {
                    link.is_violated = true;
                }
                self.fail(key, Error::new(ErrorKind::Protocol, "receive").with_detail(reason));
            }
        }
    }
}

/// What the request of `token` is to those who use the connection.
fn name_of(operations: &mut Operations, token: u64) -> &'static str {
    if matches!(token, FRAME | FINISH) || parse_request(token).is_some() {
        return "send";
    }
    match token {
        NOTIFY => "write and notify",
        PROBE => "heartbeat",
        _ if is_fetch(token) => "receive",
        _ => match GrantToken::parse(token) {
            Some(token) if token.is_invalidation => "revoke",
            Some(_) => "grant",
            None => operations.name(token).unwrap_or("operation"),
        },
    }
}
