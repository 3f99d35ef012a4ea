//! What is posted under the engine's lock: frames, and one-sided operations.

use std::io::IoSlice;
use std::task::Poll;

use super::core::{Core, FINISH, FRAME, Garbage, LinkKey, find};
use super::counting::count;
use super::link::{CONTROL_SENDS, Finish};
use super::link_grants::request_token;
use super::operations::{OperationKey, Posted, kind_of};
use crate::memory::Transfer;
use crate::protocol::{CONTROL_PAYLOAD, FrameKind, GrantId, HEADER, OFFER, RECORD, Record, cost};
use crate::telemetry::Count;
use crate::transport::{ChannelKey, Operation, Queue, Request, Source};
use crate::{Buffer, Error, ErrorKind, Pool, RemoteBuffer, Result, failpoint};

/// An operation to be posted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) operation: Operation,
    /// A probe has none.
    pub(super) memory: Option<Transfer>,
    /// Whose handle it uses.
    pub(super) grant: Option<GrantId>,
    /// Of pages that the peer shares: in which of its segments they are.
    pub(super) segment: Option<u16>,
    /// Whether earlier reads and atomics are to end first.
    pub(super) fence: bool,
}

/// An operation that was not begun.
pub(super) enum NotStarted {
    /// There is no room for it now.
    Later(Wanted),
    Refused(Error, Option<Transfer>),
}

impl Wanted {
    fn is_read(&self) -> bool {
        matches!(self.operation, Operation::CompareSwap { .. } | Operation::FetchAdd { .. } | Operation::Read { .. })
    }

    fn notifies(&self) -> bool {
        matches!(self.operation, Operation::WriteNotify { .. })
    }

    fn refused(self, error: Error) -> NotStarted {
        NotStarted::Refused(error, self.memory)
    }
}

impl<Q: Queue> Core<Q> {
    /// Puts a message of `length` bytes into a frame, if window, credits and queue allow; else answers pending. Answers how
    /// many messages are to be acknowledged up to this one.
    pub(super) fn send(
        &mut self,
        key: LinkKey,
        channel: usize,
        pieces: &[IoSlice<'_>],
        length: usize,
        acknowledge: bool,
    ) -> Poll<Result<u64>> {
        if let Some(sent) = self.send_now(key, channel, pieces, length, acknowledge) {
            return Poll::Ready(Ok(sent));
        }
        let Some(id) = self.may_send(key, channel, cost(length))? else { return Poll::Pending };
        let record = Record::Message { channel: id, acknowledge, payload: &[] };
        if !self.append(key, record, length, pieces.iter().map(|piece| &**piece))? {
            return Poll::Pending;
        }
        self.sent(key, channel, cost(length));
        let Some(link) = self.link(key) else { return Poll::Ready(Err(Error::new(ErrorKind::Closed, "send"))) };
        link.count_framed(length as u64);
        link.wanted += u64::from(acknowledge);
        let wanted = link.wanted;
        self.post_frames(key, false);
        Poll::Ready(Ok(wanted))
    }

    /// Offers a long message, which the peer reads through `remote`.
    pub(super) fn offer(&mut self, key: LinkKey, channel: usize, remote: &RemoteBuffer) -> Poll<Result<()>> {
        let Some(id) = self.may_send(key, channel, cost(OFFER))? else { return Poll::Pending };
        let handle = remote.to_bytes();
        let record = Record::Offer { channel: id, handle: &handle };
        if !self.append(key, record, OFFER, std::iter::once(&handle[..]))? {
            return Poll::Pending;
        }
        self.sent(key, channel, cost(OFFER));
        let id = remote.grant();
        if let Some(link) = self.link(key) {
            link.count_framed(remote.len());
            link.tally.add(Count::LongSent, 1);
            if let Some(grant) = link.grants.get(id.slot, id.generation) {
                grant.offered = remote.len();
            }
        }
        self.post_frames(key, false);
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will be sent on a channel.
    pub(super) fn end_channel(&mut self, key: LinkKey, channel: usize) -> Poll<Result<()>> {
        match self.may_send(key, channel, 0) {
            Ok(Some(id)) => {
                let record = Record::End { channel: Some(id) };
                if !self.append(key, record, 0, std::iter::empty())? {
                    return Poll::Pending;
                }
                if let Some(conversation) = self.link(key).and_then(|link| link.conversations.get_mut(channel)) {
                    conversation.has_ended = true;
                }
                self.post_frames(key, false);
                Poll::Ready(Ok(()))
            }
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// The id of a channel on which a message of this cost may be sent now; none if it has to wait.
    pub(super) fn may_send(&mut self, key: LinkKey, channel: usize, cost: u64) -> Result<Option<u32>> {
        let link = self.link(key).ok_or_else(|| Error::new(ErrorKind::Closed, "send"))?;
        if let Some(error) = link.send_failure("send") {
            return Err(error);
        }
        let conversation = link.conversations.get(channel).ok_or_else(|| Error::new(ErrorKind::Closed, "send"))?;
        if conversation.has_ended {
            let detail = format!("channel {} was finished", conversation.id);
            return Err(Error::new(ErrorKind::Closed, "send").with_detail(detail));
        }
        Ok((cost == 0 || conversation.send.allows(cost)).then_some(conversation.id))
    }

    pub(super) fn sent(&mut self, key: LinkKey, channel: usize, cost: u64) {
        if let Some(conversation) = self.link(key).and_then(|link| link.conversations.get_mut(channel)) {
            conversation.send.spend(cost);
        }
    }

    /// Appends a record to the open frame; answers whether there was room.
    pub(super) fn append<'a>(
        &mut self,
        key: LinkKey,
        record: Record<'_>,
        length: usize,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Result<bool> {
        if !self.has_room_for(key, length)? {
            return Ok(false);
        }
        if let Some(link) = self.link(key) {
            link.outbox.append(record, length, pieces);
        }
        Ok(true)
    }

    /// Opens a frame with room for a record of `length` bytes, if there is none; answers whether there is one now.
    pub(super) fn has_room_for(&mut self, key: LinkKey, length: usize) -> Result<bool> {
        let fits =
            |core: &mut Self| core.link(key).is_some_and(|link| link.outbox.fits(RECORD + length, link.frame_length()));
        if !fits(self) {
            self.post_frame(key);
            if !fits(self) {
                return Ok(false);
            }
        }
        if self.link(key).is_some_and(|link| !link.outbox.is_open()) {
            let buffer = self.frame_buffer()?;
            if let Some(link) = self.link(key) {
                link.outbox.begin(buffer);
            }
        }
        Ok(true)
    }

    /// A buffer for a frame.
    fn frame_buffer(&mut self) -> Result<Buffer> {
        if let Some(buffer) = self.spare.pop() {
            return Ok(buffer);
        }
        let mut buffer =
            Pool::with_global(|pool| pool.allocate(self.frame_size)).map_err(|error| error.within("send"))?;
        buffer.bind(&*self.domain)?;
        Ok(buffer)
    }

    /// Posts what a link has to say, as far as there is room. Frames wait for those before them, unless it `must` be now.
    pub(super) fn post_frames(&mut self, key: LinkKey, must: bool) {
        loop {
            let Some(link) = find(&mut self.links, key) else { return };
            if link.outbox.is_empty() || link.ending.get().is_some() {
                return;
            }
            if !must && link.is_corked() {
                if !self.corked.contains(&key) {
                    self.corked.push(key);
                }
                return;
            }
            if !self.post_frame(key) {
                return;
            }
        }
    }

    /// Posts the frames that wait for others: somebody is about to wait.
    pub(super) fn uncork(&mut self) {
        while let Some(key) = self.corked.pop() {
            self.post_frames(key, true);
        }
    }

    /// Posts one frame with what there is; answers whether there was room.
    fn post_frame(&mut self, key: LinkKey) -> bool {
        let Some(link) = find(&mut self.links, key) else { return false };
        let Some(channel) = link.channel else { return false };
        let reserve = if link.outbox.is_open() { CONTROL_SENDS } else { 1 };
        if !link.credits.available() || self.queue.room(channel) <= reserve {
            return false;
        }
        if let Err(error) = self.hears_credits(key) {
            self.fail(key, error);
            return false;
        }
        if self.link(key).is_some_and(|link| !link.outbox.is_open()) {
            match self.frame_buffer() {
                Ok(buffer) => {
                    if let Some(link) = self.link(key) {
                        link.outbox.begin(buffer);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no buffer for control records; they are sent later");
                    return false;
                }
            }
        }
        let Some(link) = find(&mut self.links, key) else { return false };
        link.stuff();
        let Some(mut open) = link.outbox.close() else { return false };
        if open.length == HEADER {
            self.keep_frame(open.buffer);
            return false;
        }
        link.tally.frame_sent();
        link.credits.spend();
        open.buffer[..HEADER].copy_from_slice(&link.header(FrameKind::Data, open.length));
        let token = if open.is_last { FINISH } else { FRAME };
        if open.is_last {
            link.finish = Finish::Sent;
        }
        failpoint::reach("frame.made");
        self.post(key, channel, open.buffer, open.length, token);
        failpoint::reach(if open.is_last { "close.said" } else { "frame.posted" });
        true
    }

    /// Posts the frame in the first `length` bytes of `buffer`.
    fn post(&mut self, key: LinkKey, channel: ChannelKey, buffer: Buffer, length: usize, token: u64) {
        if token == FRAME && self.queue.takes_now(channel, length) {
            self.queue.send_now(channel, &buffer[..length], &[]);
            return self.keep_frame(buffer);
        }
        let Some(link) = find(&mut self.links, key) else { return };
        let signaled = link.signal_frame(token != FRAME);
        let request = |source| Request { token, operation: Operation::Send, source, signaled, fence: false };
        let staged = if length <= link.inline {
            let staged = self.queue.stage(channel, request(Source::Inline(&buffer[..length])));
            self.keep_frame(buffer);
            staged.map_err(|refused| refused.error)
        } else {
            match Transfer::new(buffer, 0..length, &*self.domain) {
                Ok(memory) => self.queue.stage(channel, request(Source::Owned(memory))).map_err(|refused| {
                    self.garbage.extend(refused.memory.map(|memory| Garbage::Memory(memory.into_held())));
                    refused.error
                }),
                Err(failed) => Err(Some(failed.error)),
            }
        };
        let posted = match staged {
            Ok(()) => self.queue.flush(),
            Err(error) => Err(error.unwrap_or_else(|| Error::new(ErrorKind::ResourceExhausted, "post"))),
        };
        if let Err(error) = posted {
            // What the device did not take is reported by the next poll, which may say more.
            let _ = self.progress();
            self.fail(key, error);
        }
    }

    /// Posts a control frame of `payload`; answers whether there was room.
    fn post_control(&mut self, key: LinkKey, kind: FrameKind, payload: &[u8], token: u64) -> bool {
        let Some(link) = find(&mut self.links, key) else { return false };
        let Some(channel) = link.channel else { return false };
        let mut buffer = match self.frame_buffer() {
            Ok(buffer) => buffer,
            Err(error) => {
                self.fail(key, error);
                return false;
            }
        };
        let Some(link) = find(&mut self.links, key) else { return false };
        let length = HEADER + payload.len();
        buffer[..HEADER].copy_from_slice(&link.header(kind, length));
        buffer[HEADER..length].copy_from_slice(payload);
        self.post(key, channel, buffer, length, token);
        true
    }

    /// Gives credits back in a frame of their own, if that is due.
    pub(super) fn send_credits(&mut self, key: LinkKey) {
        let Some(link) = find(&mut self.links, key) else { return };
        let has_room = link.channel.is_some_and(|channel| self.queue.room(channel) > 0);
        if link.credit_due && has_room && link.ending.get().is_none() {
            self.post_control(key, FrameKind::Credit, &[], FRAME);
        }
    }

    /// Sends what is due of both sides of revocation, as far as there is room.
    pub(super) fn send_revocations(&mut self, key: LinkKey) {
        while let Some(link) = find(&mut self.links, key)
            && let Some(kind) = link.next_revocation()
        {
            let has_room = link.channel.is_some_and(|channel| self.queue.room(channel) > 1);
            if !has_room || !link.credits.available() {
                return;
            }
            if let Err(error) = self.hears_credits(key) {
                return self.fail(key, error);
            }
            let Some(link) = find(&mut self.links, key) else { return };
            let (payload, token) = match kind {
                FrameKind::Revoke => match link.grants.revoking.request(CONTROL_PAYLOAD) {
                    // When a request has reached the peer's device, its time begins.
                    Some((serial, payload)) => (Some(payload), request_token(serial)),
                    None => (None, FRAME),
                },
                _ => {
                    let answer = link.grants.held.answer();
                    let told = answer.as_ref().and_then(|answer| link.grants.trace_answer(answer));
                    self.garbage.extend(told.map(Garbage::Told));
                    (answer, FRAME)
                }
            };
            let Some(payload) = payload else { return };
            link.credits.spend();
            let is_question = kind == FrameKind::Revoke;
            failpoint::reach(if is_question { "revoke.wanted" } else { "revoke.drained" });
            if !self.post_control(key, kind, &payload, token) {
                return;
            }
            failpoint::reach(if is_question { "revoke.asked" } else { "revoke.answered" });
        }
    }

    /// Says that nothing more will be sent; answers how far that is.
    pub(super) fn finish(&mut self, key: LinkKey) -> Finish {
        let state = |core: &mut Self| core.link(key).filter(|link| link.ending.get().is_none()).map(|link| link.finish);
        if state(self) == Some(Finish::Open) && self.link(key).is_some_and(|link| link.is_open()) {
            match self.append(key, Record::End { channel: None }, 0, std::iter::empty()) {
                Ok(true) => {
                    if let Some(link) = self.link(key) {
                        link.finish = Finish::Queued;
                    }
                }
                Ok(false) => {}
                Err(error) => self.fail(key, error),
            }
        }
        if state(self) == Some(Finish::Queued) {
            self.post_frames(key, true);
        }
        state(self).unwrap_or(Finish::Done)
    }

    /// Says that nothing more will be sent, now or as soon as there is room for it.
    pub(super) fn finish_soon(&mut self, key: LinkKey) {
        if let Some(link) = self.link(key) {
            link.is_finish_wanted = true;
        }
        self.finish(key);
        // Who waits for room has nothing to wait for.
        self.wake_senders(key);
    }

    /// Whether all that was sent has been taken, or never will be.
    pub(super) fn is_delivered(&mut self, key: LinkKey) -> bool {
        self.finish(key);
        self.link(key).is_none_or(|link| link.ending.get().is_some() || link.is_delivered())
    }

    /// Stages or posts an operation; gives it back if there is no room.
    #[expect(clippy::result_large_err, reason = "a box would allocate for each that waits")]
    pub(super) fn start(
        &mut self,
        key: LinkKey,
        wanted: Wanted,
        post_now: bool,
    ) -> std::result::Result<OperationKey, NotStarted> {
        let closed = || Error::new(ErrorKind::Closed, "operation");
        let Some(link) = find(&mut self.links, key) else { return Err(wanted.refused(closed())) };
        if let Some(error) = link.send_failure("operation") {
            return Err(wanted.refused(error));
        }
        let Some(channel) = link.channel else { return Err(wanted.refused(closed())) };
        let (is_read, notifies) = (wanted.is_read(), wanted.notifies());
        let wanted = if notifies || wanted.segment.is_none() {
            wanted
        } else {
            match self.go_direct(key, wanted) {
                Ok(started) => return Ok(started),
                Err(wanted) => wanted,
            }
        };
        let Some(link) = find(&mut self.links, key) else { return Err(wanted.refused(closed())) };
        if self.queue.room(channel) <= CONTROL_SENDS
            || is_read && !link.fetches.has_room()
            || notifies && !link.may_notify()
        {
            return Err(NotStarted::Later(wanted));
        }
        // The peer gives the credit of a notification back, perhaps in a frame of its own.
        if notifies && let Err(error) = self.hears_credits(key) {
            return Err(wanted.refused(error));
        }
        let wanted = if notifies && wanted.segment.is_some() {
            let operation = wanted.operation;
            match self.go_direct(key, wanted) {
                Ok(started) => {
                    if let Err(error) = self.notify(key, operation) {
                        self.fail(key, error);
                    } else if post_now {
                        self.flush();
                    }
                    return Ok(started);
                }
                Err(wanted) => wanted,
            }
        } else {
            wanted
        };
        let Some(link) = find(&mut self.links, key) else { return Err(wanted.refused(closed())) };
        if wanted.grant.is_some_and(|grant| !link.grants.held.begin(grant)) {
            return Err(wanted.refused(Error::new(ErrorKind::Revoked, "operation")));
        }
        if notifies {
            link.spend_notification();
        }
        let signaled = link.signal(true);
        link.fetches.outstanding += usize::from(is_read);
        let Wanted { operation, memory, grant, segment, fence } = wanted;
        let bytes = memory.as_ref().map_or(0, |memory| memory.length() as u64);
        link.fetches.bytes += bytes;
        let (at, kind) = (self.stamp, kind_of(&operation));
        let started = self.operations.insert(Posted { link: key, kind, grant, is_read, bytes, at });
        let source = memory.map_or(Source::Inline(&[]), Source::Owned);
        let request = Request { token: started.token(), operation, source, signaled, fence };
        if let Err(refused) = self.queue.stage(channel, request) {
            self.operations.cancel(started);
            if let Some(link) = self.link(key) {
                link.fetches.outstanding -= usize::from(is_read);
                link.fetches.bytes -= bytes;
                if let Some(grant) = grant {
                    link.grants.held.end(grant);
                }
                if notifies {
                    link.take_back_notification();
                }
            }
            let is_whole = refused.memory.is_some() || operation == Operation::Probe;
            return Err(match refused.error {
                None if is_whole => {
                    NotStarted::Later(Wanted { operation, memory: refused.memory, grant, segment, fence })
                }
                error => {
                    let error = error.unwrap_or_else(|| Error::new(ErrorKind::ResourceExhausted, "post"));
                    NotStarted::Refused(error, refused.memory)
                }
            });
        }
        if let Some(link) = self.link(key) {
            count(&mut link.tally, kind, bytes);
            if let Some(pages) = &mut link.pages {
                pages.served += 1;
            }
        }
        if post_now {
            self.flush();
            failpoint::reach("operation.posted");
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
