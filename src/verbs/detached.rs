//! A queue pair that was taken out of its owning queue.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{AddressHandle, Completed, QueuePair};

/// A queue pair that was taken out, and the memory that it still has in flight.
pub struct Detached<B> {
    // Some until it has been destroyed.
    queue_pair: Option<QueuePair>,
    flushed: Vec<Completed<B>>,
    /// What its datagrams name.
    addresses: Vec<Arc<AddressHandle>>,
    /// Set when nothing more can complete.
    has_ended: Arc<AtomicBool>,
}

impl<B> Detached<B> {
    pub(super) fn new(
        queue_pair: QueuePair,
        flushed: Vec<Completed<B>>,
        addresses: Vec<Arc<AddressHandle>>,
        has_ended: Arc<AtomicBool>,
    ) -> Self {
        Self { queue_pair: Some(queue_pair), flushed, addresses, has_ended }
    }

    /// Destroys the queue pair, after which the device has let go of the memory, and answers all that was
    /// outstanding, as flushed. If it cannot be destroyed, the memory is set aside for ever and not in the answer.
    pub fn destroy(mut self) -> Vec<Completed<B>> {
        self.release();
        std::mem::take(&mut self.flushed)
    }

    fn release(&mut self) {
        match self.queue_pair.take().map(QueuePair::destroy) {
            None => {}
            Some(Ok(())) => self.has_ended.store(true, Ordering::Release),
            Some(Err(_)) => {
                // It was logged. The device may still use the memory.
                for completed in &mut self.flushed {
                    std::mem::forget(completed.memory.take());
                }
                std::mem::forget(std::mem::take(&mut self.addresses));
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
