//! What a connection has to say: the frame that is being filled, and control records that go with the next.

use std::collections::VecDeque;

use crate::Buffer;
use crate::protocol::{GrantId, HEADER, RECORD, RETURNED, Record, TAKEN, taken_bytes};

/// Grants that one record says were taken, at most.
const MOST_TAKEN: usize = 16;

/// Buffers that one record gives back, at most.
const MOST_RETURNED: usize = 32;

/// Frames and records of one connection that are not posted yet.
#[derive(Default)]
pub(super) struct Outbox {
    open: Option<OpenFrame>,
    /// Offers of the peer that we are done with, and whether they were declined.
    taken: VecDeque<(GrantId, bool)>,
    /// Channels, by index, whose windows the peer is to be told of.
    pub(super) windows: Vec<u32>,
    /// Messages that asked to be acknowledged.
    pub(super) acknowledge: u32,
    /// Notifications that were looked at, and whether the peer should be told so now.
    pub(super) notified: u32,
    pub(super) is_notified_due: bool,
    /// Buffers in the peer's pages that are gone, and segments of ours, of which the peer has each until this is written.
    pub(super) returned: VecDeque<u32>,
    pub(super) forgotten: VecDeque<u32>,
    pub(super) ping: Option<u32>,
    pub(super) pong: Option<u32>,
}

/// A frame that is being filled.
pub(super) struct OpenFrame {
    pub(super) buffer: Buffer,
    /// Bytes so far, with the header.
    pub(super) length: usize,
    /// Whether it ends with the end of our side of the conversation.
    pub(super) is_last: bool,
}

impl Outbox {
    /// Whether a frame is open.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Bytes of records in the open frame.
    pub(super) fn unsent(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.length - HEADER)
    }

    /// Whether anything waits to be posted.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && !self.has_control()
    }

    fn has_control(&self) -> bool {
        !self.taken.is_empty()
            || !self.windows.is_empty()
            || self.acknowledge > 0
            || self.is_notified_due
            || !self.returned.is_empty()
            || !self.forgotten.is_empty()
            || self.ping.is_some()
            || self.pong.is_some()
    }

    /// Whether a record of `length` bytes fits the open frame, of which the peer takes up to `most` bytes.
    pub(super) fn fits(&self, length: usize, most: usize) -> bool {
        self.open.as_ref().is_none_or(|open| open.length + length <= most)
    }

    /// Opens a frame in `buffer`.
    pub(super) fn begin(&mut self, buffer: Buffer) {
        self.open = Some(OpenFrame { buffer, length: HEADER, is_last: false });
    }

    /// Appends a record whose payload is the bytes of `pieces`, `length` in all. The frame is open, and has the room.
    pub(super) fn append<'a>(&mut self, record: Record<'_>, length: usize, pieces: impl Iterator<Item = &'a [u8]>) {
        let Some(open) = &mut self.open else { return };
        let to = &mut open.buffer[open.length..];
        record.write_header(length, to);
        let mut at = RECORD;
        for piece in pieces {
            to[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        open.length += at;
        open.is_last |= matches!(record, Record::End { channel: None });
    }

    /// The peer's offer is done with.
    pub(super) fn take(&mut self, grant: GrantId, declined: bool) {
        self.taken.push_back((grant, declined));
    }

    /// Offers that wait to be given back, for tests.
    #[cfg(all(any(test, feature = "internals"), not(loom)))]
    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Takes the open frame.
    pub(super) fn close(&mut self) -> Option<OpenFrame> {
        self.open.take()
    }

    /// Appends control records to the open frame, as many as fit `most` bytes. `window` answers what a channel gives back.
    pub(super) fn stuff(&mut self, most: usize, mut window: impl FnMut(u32) -> Option<(u32, u32)>) {
        let Some(mut open) = self.open.take() else { return };
        let mut put = |record: Record<'_>| {
            let fits = open.length + record.length() <= most;
            if fits {
                open.length += record.write(&mut open.buffer[open.length..]);
            }
            fits
        };
        while let Some(&(_, declined)) = self.taken.front() {
            let mut bytes = [0; MOST_TAKEN * TAKEN];
            let alike = self.taken.iter().take(MOST_TAKEN).take_while(|(_, other)| *other == declined);
            let count = alike
                .zip(bytes.chunks_exact_mut(TAKEN))
                .map(|((id, _), to)| to.copy_from_slice(&taken_bytes(*id)))
                .count();
            if !put(Record::Taken { declined, grants: &bytes[..count * TAKEN] }) {
                break;
            }
            self.taken.drain(..count);
        }
        while !self.returned.is_empty() {
            let mut bytes = [0; MOST_RETURNED * RETURNED];
            let tokens = self.returned.iter().zip(bytes.chunks_exact_mut(RETURNED));
            let count = tokens.map(|(token, to)| to.copy_from_slice(&token.to_le_bytes())).count();
            if !put(Record::Returned { tokens: &bytes[..count * RETURNED] }) {
                break;
            }
            self.returned.drain(..count);
        }
        while self.forgotten.front().is_some_and(|&segment| put(Record::Forget { segment })) {
            self.forgotten.pop_front();
        }
        if self.acknowledge > 0 && put(Record::Acknowledge { messages: self.acknowledge }) {
            self.acknowledge = 0;
        }
        if self.notified > 0 && put(Record::Notified { notifications: self.notified }) {
            (self.notified, self.is_notified_due) = (0, false);
        }
        if self.ping.is_some_and(|serial| put(Record::Ping { serial })) {
            self.ping = None;
        }
        if self.pong.is_some_and(|serial| put(Record::Pong { serial })) {
            self.pong = None;
        }
        // What a channel gives back is asked for only if it can be said.
        while let Some(&index) = self.windows.last().filter(|_| open.length + RECORD <= most) {
            if let Some((channel, bytes)) = window(index) {
                open.length += Record::Window { channel, bytes }.write(&mut open.buffer[open.length..]);
            }
            self.windows.pop();
        }
        self.open = Some(open);
    }
}
