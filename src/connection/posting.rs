//! What is posted under the engine's lock: messages, control frames, one-sided operations.

use std::task::Poll;

use super::core::{Core, FINISH, LinkKey, MESSAGE, find};
use super::link::{CONTROL_SENDS, Finish, Outgoing};
use super::link_grants::request_token;
use super::operations::OperationKey;
use crate::memory::Transfer;
use crate::protocol::{FrameKind, GrantId};
use crate::transport::{ChannelKey, Operation, Queue, Request, Source};
use crate::{Error, ErrorKind, Result};

impl<Q: Queue> Core<Q> {
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
    pub(super) fn send_control(&mut self, key: LinkKey, kind: FrameKind, token: u64) -> bool {
        let Some(link) = find(&mut self.links, key) else { return true };
        let Some(channel) = link.channel else { return true };
        if self.queue.room(channel) == 0 {
            return false;
        }
        let posted = match link.control(kind, &*self.domain, &mut self.scratch) {
            Ok(None) => return false,
            Ok(Some(outgoing)) => {
                // When a request has reached the peer's device, its time begins.
                let token = match (kind, link.grants.last_request) {
                    (FrameKind::Revoke, Some(serial)) => request_token(serial),
                    _ => token,
                };
                let signaled = link.signal(token != MESSAGE);
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

    pub(super) fn send_credits(&mut self, key: LinkKey) {
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
        grant: GrantId,
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
        if !link.grants.held.begin(grant) {
            return Err((Some(Error::new(ErrorKind::Revoked, "operation")), Some(memory)));
        }
        let signaled = link.signal(true);
        let started = self.operations.insert(grant);
        let request = Request { token: started.token(), operation, source: Source::Owned(memory), signaled };
        if let Err(refused) = self.queue.stage(channel, request) {
            self.operations.cancel(started);
            if let Some(link) = self.link(key) {
                link.grants.held.end(grant);
            }
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
