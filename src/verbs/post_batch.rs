//! Requests posted in one call, by the safe tier.

use super::{InFlight, OwningQueue, QueuePairKey, Refused, Result, SendRequest};

/// Requests for one queue pair, posted together by [`post`](Self::post), or when this is dropped. Made by
/// [`OwningQueue::batch`].
#[derive(Debug)]
pub struct PostBatch<'a, B: InFlight> {
    queue: &'a mut OwningQueue<B>,
    key: QueuePairKey,
}

impl<'a, B: InFlight> PostBatch<'a, B> {
    pub(super) fn new(queue: &'a mut OwningQueue<B>, key: QueuePairKey) -> Self {
        Self { queue, key }
    }

    /// Adds a request.
    ///
    /// # Errors
    /// As [`OwningQueue::stage`].
    pub fn push(&mut self, request: SendRequest<'_, B>) -> std::result::Result<(), Refused<B>> {
        self.queue.stage(self.key, request)
    }

    /// Posts them in one call.
    ///
    /// # Errors
    /// As [`OwningQueue::flush`].
    pub fn post(self) -> Result<()> {
        self.queue.flush()
    }
}

impl<B: InFlight> Drop for PostBatch<'_, B> {
    fn drop(&mut self) {
        // What fails is reported by the next poll.
        let _ = self.queue.flush();
    }
}
