//! Completion queues.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::{Completion, CompletionChannel, Context, Error, Result};

/// Entries taken by one `ibv_poll_cq`.
const POLL_BATCH: usize = 16;

/// A completion queue with a channel of its own (`ibv_create_cq(3)`).
pub struct CompletionQueue {
    raw: NonNull<ffi::ibv_cq>,
    capacity: u32,
    creator: Creator,
    channel: Arc<CompletionChannel>,
    context: Arc<Context>,
}

// SAFETY: libibverbs locks a completion queue internally; poll, arm and acknowledge are thread-safe.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

impl CompletionQueue {
    /// Creates a queue of at least `capacity` entries.
    ///
    /// # Errors
    /// `EINVAL` if the device cannot make it that large.
    pub fn create(context: &Arc<Context>, capacity: u32) -> Result<Arc<Self>> {
        let channel = CompletionChannel::create(context)?;
        let entries = i32::try_from(capacity).map_err(|_| Error::returned("ibv_create_cq", libc::EINVAL))?;
        // SAFETY: context and channel exist, and the queue keeps both alive.
        let raw = unsafe { ffi::ibv_create_cq(context.raw(), entries, std::ptr::null_mut(), channel.raw(), 0) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("ibv_create_cq"))?;
        // SAFETY: the queue was just created, so its structure may be read.
        let capacity = unsafe { (*raw.as_ptr()).cqe } as u32;
        Ok(Arc::new(Self { raw, capacity, creator: Creator::here(), channel, context: Arc::clone(context) }))
    }

    /// Entries it holds; more outstanding requests than that can overrun it.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The device it belongs to.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Takes up to 16 completions into `batch`; answers how many. Makes no system call.
    ///
    /// # Errors
    /// Fails if the queue has been overrun or its device is gone.
    #[inline]
    pub fn poll(&self, batch: &mut CompletionBatch) -> Result<usize> {
        batch.length = 0;
        // SAFETY: the queue exists and the array has room for POLL_BATCH entries.
        let count = unsafe { ffi::ibv_poll_cq(self.raw(), POLL_BATCH as i32, batch.entries.as_mut_ptr()) };
        let Ok(count) = usize::try_from(count) else { return Err(Error::returned("ibv_poll_cq", libc::EIO)) };
        batch.length = count.min(POLL_BATCH);
        Ok(batch.length)
    }

    /// Asks for one event on the channel with the next completion (`ibv_req_notify_cq(3)`). Completions
    /// that came before make none: poll once more after arming, then wait.
    pub fn request_notification(&self) -> Result<()> {
        // SAFETY: the queue exists.
        Error::check("ibv_req_notify_cq", unsafe { ffi::ibv_req_notify_cq(self.raw(), 0) })
    }

    /// Reads and acknowledges all events that wait on the channel; answers how many.
    pub fn drain_events(&self) -> Result<u32> {
        let mut count = 0;
        let drained = loop {
            match self.channel.take_event() {
                Ok(Some(_)) => count += 1,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if count > 0 {
            // SAFETY: the channel serves this queue alone, so all `count` events are its own.
            unsafe { ffi::ibv_ack_cq_events(self.raw(), count) };
        }
        drained.map(|()| count)
    }

    pub(super) fn raw(&self) -> *mut ffi::ibv_cq {
        self.raw.as_ptr()
    }
}

/// Room for the completions of one poll, reused from poll to poll.
pub struct CompletionBatch {
    // Zeroed once: providers leave some fields of an entry unwritten, and those must still be integers.
    entries: [ffi::ibv_wc; POLL_BATCH],
    length: usize,
}

impl CompletionBatch {
    /// An empty batch.
    pub fn new() -> Self {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let empty: ffi::ibv_wc = unsafe { std::mem::zeroed() };
        Self { entries: [empty; POLL_BATCH], length: 0 }
    }

    /// The completion at `index` of the last poll.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Completion> {
        self.entries[..self.length].get(index).map(Completion::from_raw)
    }

    /// The completions of the last poll.
    pub fn iter(&self) -> impl Iterator<Item = Completion> + '_ {
        self.entries[..self.length].iter().map(Completion::from_raw)
    }
}

impl Default for CompletionBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CompletionBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl AsFd for CompletionQueue {
    /// Readable when an armed queue has a completion.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        if self.creator.may_destroy("completion queue") {
            // Unacknowledged events would block the destructor.
            if let Err(error) = self.drain_events() {
                tracing::warn!(%error, "draining a completion channel");
            }
            // SAFETY: queue pairs hold an `Arc` of this queue, so none is left on it.
            fork::destroyed("ibv_destroy_cq", unsafe { ffi::ibv_destroy_cq(self.raw()) });
        }
    }
}
