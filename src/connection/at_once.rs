//! The short way of a message, where the transport copies messages anyway: written by the call that sends it, and read by the one that receives
//! it, without a frame's buffer, a receive or a completion. Whatever does not fit is left to the long way.

use std::io::IoSlice;

use super::conversation::Stored;
use super::core::{Core, LinkKey, find};
use super::link::Link;
use crate::failpoint;
use crate::protocol::{Frame, FrameKind, HEADER, RECORD, Record, cost};
use crate::telemetry::Count;
use crate::transport::{Completion, Queue};

/// Messages that are received without a poll in between, so that all else has its turn.
const MOST_RECEIVED: u32 = 64;

impl<Q: Queue> Core<Q> {
    /// As [`send`](Self::send), of a message of any length, if the transport copies messages and there is nothing to wait for.
    #[inline]
    pub(super) fn send_now(
        &mut self,
        key: LinkKey,
        channel: usize,
        pieces: &[IoSlice<'_>],
        length: usize,
        acknowledge: bool,
    ) -> Option<u64> {
        let link = find(&mut self.links, key)?;
        let queue_channel = link.channel?;
        if !link.is_clear() || link.send_failure("send").is_some() {
            return None;
        }
        let conversation = link.conversations.get_mut(channel)?;
        let cost = cost(length);
        if conversation.has_ended || !conversation.send.allows(cost) {
            return None;
        }
        let bytes = HEADER + RECORD + length;
        if !self.queue.takes_now(queue_channel, bytes) {
            return None;
        }
        conversation.send.spend(cost);
        let record = Record::Message { channel: conversation.id, acknowledge, payload: &[] };
        link.count_sent(length as u64);
        link.tally.add(Count::FramesSent, 1);
        link.credits.spend();
        link.wanted += u64::from(acknowledge);
        let mut head = [0; HEADER + RECORD];
        head[..HEADER].copy_from_slice(&link.header(FrameKind::Data, bytes));
        record.write_header(length, &mut head[HEADER..]);
        failpoint::reach("frame.made");
        self.queue.send_now(queue_channel, &head, pieces);
        failpoint::reach("frame.posted");
        Some(link.wanted)
    }

    /// Takes what comes next on a channel without a poll, if that can be: the message, if it is one of `channel` and nothing else came
    /// with it. Answers whether something has come.
    #[inline]
    pub(super) fn receive_now(&mut self, key: LinkKey, channel: usize) -> (bool, Option<Stored>) {
        let Some(link) = find(&mut self.links, key) else { return (false, None) };
        let Some(queue_channel) = link.channel.filter(|_| !link.is_violated && link.ending.get().is_none()) else {
            return (false, None);
        };
        if self.received_now >= MOST_RECEIVED || self.is_dispatching {
            return (false, None);
        }
        let Some((token, length)) = self.queue.receive_now(queue_channel) else { return (false, None) };
        self.received_now += 1;
        self.was_polled = true;
        if let Some(payload) = link.take_plain(channel, self.queue.lent(token, length)) {
            return (true, Some(Stored::of(payload)));
        }
        self.is_dispatching = true;
        let (result, memory) = (Ok(length as u32), None);
        let mut completion =
            Completion { token, channel: queue_channel, is_receive: true, result, immediate: None, memory };
        self.received(key, &mut completion);
        self.end_batch();
        // Who took pages may have taken a bell off with them, which a poll makes up for.
        self.look();
        (true, None)
    }
}

impl Link {
    /// Whether nothing waits to be said, and a frame may go.
    pub(super) fn is_clear(&self) -> bool {
        self.outbox.is_empty() && self.credits.available() && self.hears_credits && self.outstanding == 0
    }

    /// Takes a frame that is nothing but one message of a channel, which is received at once; answers its bytes. `None` if it is anything
    /// else: then nothing has happened.
    #[inline]
    pub(super) fn take_plain<'r>(&mut self, channel: usize, received: &'r [u8]) -> Option<&'r [u8]> {
        let frame = Frame::parse(received).ok().filter(|frame| frame.kind == FrameKind::Data)?;
        let mut rest = &received[HEADER..];
        let Ok(Record::Message { channel: id, acknowledge: false, payload }) = Record::take(&mut rest) else {
            return None;
        };
        let conversation = self.conversations.get_mut(channel).filter(|conversation| conversation.id == id)?;
        let is_plain = rest.is_empty() && !self.peer_finished && self.credits.can_pass(frame.credits);
        if !is_plain || !conversation.pass(payload.len()) {
            return None;
        }
        self.count_received(payload.len() as u64);
        self.credits.pass(frame.credits);
        self.credit_due |= self.credits.is_due();
        self.is_in_use = true;
        self.liveness.heard();
        failpoint::reach("frame.arrived");
        Some(payload)
    }
}
