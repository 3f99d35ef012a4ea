//! A queue pair that was taken out of its owning queue.

use std::fmt;

use super::{Completed, QueuePair};

/// A queue pair that was taken out, and the memory that it still has in flight.
pub struct Detached<B> {
    // Some until it has been destroyed.
    queue_pair: Option<QueuePair>,
    flushed: Vec<Completed<B>>,
}

impl<B> Detached<B> {
    pub(super) fn new(queue_pair: QueuePair, flushed: Vec<Completed<B>>) -> Self {
        Self { queue_pair: Some(queue_pair), flushed }
    }

    /// Destroys the queue pair, after which the device has let go of the memory, and answers all that was
    /// outstanding, as flushed. If it cannot be destroyed, the memory is set aside for ever and not in the answer.
    pub fn destroy(mut self) -> Vec<Completed<B>> {
        self.release();
        std::mem::take(&mut self.flushed)
    }

    fn release(&mut self) {
        if let Some(Err(_)) = self.queue_pair.take().map(QueuePair::destroy) {
            // It was logged. The device may still use the memory.
            for completed in &mut self.flushed {
                std::mem::forget(completed.memory.take());
            }
        }
    }
}

impl<B> Drop for Detached<B> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<B> fmt::Debug for Detached<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("outstanding", &self.flushed.len()).finish_non_exhaustive()
    }
}
