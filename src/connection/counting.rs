//! What a link counts of itself, besides what is counted where it happens.

use super::core::{Core, LinkKey, find};
use super::link::Link;
use crate::telemetry::{Count, OperationKind, Tally};
use crate::transport::Queue;

impl Link {
    /// A message is here.
    #[inline]
    pub(super) fn count_received(&mut self, bytes: u64) {
        self.tally.add(Count::MessagesReceived, 1);
        self.tally.add(Count::BytesReceived, bytes);
    }

    /// A long message was fetched.
    pub(super) fn count_fetched(&mut self, bytes: u64) {
        self.count_received(bytes);
        self.tally.add(Count::LongReceived, 1);
    }

    /// A message is on its way.
    #[inline]
    pub(super) fn count_sent(&mut self, bytes: u64) {
        self.tally.add(Count::MessagesSent, 1);
        self.tally.add(Count::BytesSent, bytes);
    }

    /// A message is in the open frame.
    #[inline]
    pub(super) fn count_framed(&mut self, bytes: u64) {
        self.count_sent(bytes);
        self.tally.message_in_frame();
    }
}

impl<Q: Queue> Core<Q> {
    /// A sender is about to sleep: counts for want of what.
    pub(super) fn count_wait(&mut self, key: LinkKey, channel: usize, cost: u64) {
        let Some(link) = find(&mut self.links, key) else { return };
        let is_open = link.conversations.get(channel).is_none_or(|conversation| conversation.send.allows(cost));
        let cause = match (is_open, link.credits.available()) {
            (false, _) => Count::WindowWaits,
            (true, false) => Count::CreditWaits,
            (true, true) => Count::QueueWaits,
        };
        link.tally.add(cause, 1);
    }
}

/// Counts an operation that has begun.
pub(super) fn count(tally: &mut Tally, kind: OperationKind, bytes: u64) {
    match kind {
        OperationKind::CompareSwap | OperationKind::FetchAdd => tally.add(Count::Atomics, 1),
        OperationKind::Read => {
            tally.add(Count::Reads, 1);
            tally.add(Count::BytesRead, bytes);
        }
        OperationKind::Write => {
            tally.add(Count::Writes, 1);
            tally.add(Count::BytesWritten, bytes);
        }
        OperationKind::WriteNotify => {
            tally.add(Count::WritesNotified, 1);
            tally.add(Count::BytesWritten, bytes);
        }
        OperationKind::Fetch | OperationKind::Flush | OperationKind::Offer => {}
    }
}
