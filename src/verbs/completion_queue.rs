//! Completion queues.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::{Completion, CompletionChannel, Context, Error, Result};

/// Entries taken by one `ibv_poll_cq`.
pub(crate) const POLL_BATCH: usize = 16;

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// A completion queue (`ibv_create_cq(3)`).
///
/// ```
/// use zcmi::verbs::{CompletionBatch, CompletionQueue, Device};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let queue = CompletionQueue::create(&device.open()?, 100)?;
/// let mut batch = CompletionBatch::new();
/// for completion in queue.poll(&mut batch)? {
///     println!("{}: {}", completion.wr_id(), completion.status());
/// }
/// assert!(queue.capacity() >= 100);
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
pub struct CompletionQueue {
    raw: NonNull<ffi::ibv_cq>,
    key: u64,
    capacity: AtomicU32,
    /// Whether an owning queue gives out the `wr_id`s of what completes here.
    is_owned: AtomicBool,
    creator: Creator,
    channel: Arc<CompletionChannel>,
    owns_channel: bool,
}

// SAFETY: libibverbs locks a completion queue internally; poll, arm, resize and acknowledge are thread-safe.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

impl CompletionQueue {
    /// Creates a queue of at least `capacity` entries, with a channel of its own.
    ///
    /// # Errors
    /// `EINVAL` if the device cannot make it that large, `EMFILE` if the process may open no more files.
    pub fn create(context: &Arc<Context>, capacity: u32) -> Result<Arc<Self>> {
        let channel = CompletionChannel::create(context)?;
        Ok(Arc::new(Self::create_raw(channel, true, capacity)?))
    }

    /// Creates a queue whose events come on `channel`, which other queues may use too.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_on(channel: &Arc<CompletionChannel>, capacity: u32) -> Result<Arc<Self>> {
        Ok(Arc::new(Self::create_raw(Arc::clone(channel), false, capacity)?))
    }

    fn create_raw(channel: Arc<CompletionChannel>, owns_channel: bool, capacity: u32) -> Result<Self> {
        let entries = entries("ibv_create_cq", capacity)?;
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        // SAFETY: context and channel exist, and the queue keeps both alive; the key is a number to libibverbs.
        let raw = unsafe { ffi::ibv_create_cq(channel.context().raw(), entries, key as *mut _, channel.raw(), 0) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let error = Error::last("ibv_create_cq");
            let most = channel.context().attributes().map_or(0, |attributes| attributes.max_completions);
            if error.errno() != Some(libc::EINVAL) || capacity <= most {
                return error;
            }
            error.with_detail(format!("{capacity} entries; the device makes at most {most}"))
        })?;
        let queue = Self {
            raw,
            key,
            capacity: AtomicU32::new(0),
            is_owned: AtomicBool::new(false),
            creator: Creator::here(),
            channel,
            owns_channel,
        };
        queue.read_capacity();
        Ok(queue)
    }

    /// A number that no other queue of this process ever has; [events](CompletionChannel::next_event) carry it, and
    /// [asynchronous ones](super::AsyncEventObject::CompletionQueue) too.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Entries it holds; more outstanding requests than that can overrun it.
    pub fn capacity(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// The device it belongs to.
    pub fn context(&self) -> &Arc<Context> {
        self.channel.context()
    }

    /// The channel that its events come on.
    pub fn channel(&self) -> &Arc<CompletionChannel> {
        &self.channel
    }

    /// Makes room for at least `capacity` entries (`ibv_resize_cq(3)`).
    ///
    /// # Errors
    /// `EINVAL` if more entries wait or the device cannot make it that large, `EOPNOTSUPP` or another errno where
    /// the device cannot resize. The queue is then as before. One that an [`OwningQueue`](super::OwningQueue) counts on can only
    /// grow: `EINVAL`.
    pub fn resize(&self, capacity: u32) -> Result<()> {
        let entries = entries("ibv_resize_cq", capacity)?;
        if self.is_owned.load(Ordering::Relaxed) && capacity < self.capacity() {
            return Err(Error::invalid("ibv_resize_cq", "an OwningQueue counts on the entries that there are"));
        }
        // SAFETY: the queue exists.
        Error::check("ibv_resize_cq", unsafe { ffi::ibv_resize_cq(self.raw(), entries) })?;
        self.read_capacity();
        Ok(())
    }

    /// Takes up to 16 completions into `batch`, and lends them. Makes no system call.
    ///
    /// # Errors
    /// Fails if the queue has been overrun or its device is gone. rxe tells an overrun by a device event only, loses what did
    /// not fit, and goes on.
    #[inline]
    pub fn poll<'a>(&self, batch: &'a mut CompletionBatch) -> Result<Completions<'a>> {
        // SAFETY: the queue exists and the array has room for POLL_BATCH entries.
        let count = unsafe { ffi::ibv_poll_cq(self.raw(), POLL_BATCH as i32, batch.entries.as_mut_ptr()) };
        let Ok(count) = usize::try_from(count) else { return Err(Error::returned("ibv_poll_cq", libc::EIO)) };
        Ok(Completions { entries: batch.entries[..count.min(POLL_BATCH)].iter() })
    }

    /// Asks for one event on the channel with the next completion (`ibv_req_notify_cq(3)`). Completions
    /// that came before make none: poll once more after arming, then wait.
    pub fn request_notification(&self) -> Result<()> {
        // SAFETY: the queue exists.
        Error::check("ibv_req_notify_cq", unsafe { ffi::ibv_req_notify_cq(self.raw(), 0) })
    }

    /// The same for the next completion that is an error or a receive whose sender asked for
    /// [`SOLICITED`](super::SendFlags::SOLICITED). rxe makes none for an error.
    pub fn request_solicited_notification(&self) -> Result<()> {
        // SAFETY: the queue exists.
        Error::check("ibv_req_notify_cq", unsafe { ffi::ibv_req_notify_cq(self.raw(), 1) })
    }

    /// Reads and acknowledges all events that wait on the queue's own channel; answers how many.
    ///
    /// # Errors
    /// `EINVAL` if the channel serves other queues too, whose events would be lost:
    /// use [`CompletionChannel::next_event`].
    pub fn drain_events(&self) -> Result<u32> {
        if !self.owns_channel {
            return Err(Error::invalid("ibv_get_cq_event", "the channel serves other queues too"));
        }
        let mut count = 0;
        while self.channel.next_event()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Makes it the queue of one [`OwningQueue`](super::OwningQueue) for good: another one would take the `wr_id`s of the first,
    /// which may still come, for its own.
    pub(super) fn claim(&self) -> Result<()> {
        if self.is_owned.swap(true, Ordering::Relaxed) {
            return Err(Error::invalid(
                "ibv_create_cq",
                "the completion queue serves or has served another OwningQueue",
            ));
        }
        Ok(())
    }

    fn read_capacity(&self) {
        // SAFETY: the queue exists, so its structure may be read.
        let entries = unsafe { (*self.raw()).cqe };
        self.capacity.store(u32::try_from(entries).unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn raw(&self) -> *mut ffi::ibv_cq {
        self.raw.as_ptr()
    }
}

/// The number of entries as C wants it.
fn entries(call: &'static str, capacity: u32) -> Result<i32> {
    i32::try_from(capacity).map_err(|_| Error::invalid(call, format!("{capacity} entries are too many")))
}

/// Room for the completions of one poll, reused from poll to poll.
pub struct CompletionBatch {
    // Zeroed once: providers leave some fields of an entry unwritten, and those must still be integers.
    entries: [ffi::ibv_wc; POLL_BATCH],
}

impl CompletionBatch {
    /// Room for 16 completions.
    pub fn new() -> Self {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let empty: ffi::ibv_wc = unsafe { std::mem::zeroed() };
        Self { entries: [empty; POLL_BATCH] }
    }
}

impl Default for CompletionBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CompletionBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompletionBatch")
    }
}

/// The completions of one poll, in order.
#[derive(Clone)]
pub struct Completions<'a> {
    entries: std::slice::Iter<'a, ffi::ibv_wc>,
}

impl Completions<'_> {
    /// Whether more may wait: a poll takes no more than this.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() == POLL_BATCH
    }
}

impl<'a> Iterator for Completions<'a> {
    type Item = Completion<'a>;

    #[inline]
    fn next(&mut self) -> Option<Completion<'a>> {
        self.entries.next().map(Completion::new)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for Completions<'_> {}

impl fmt::Debug for Completions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
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
        f.debug_struct("CompletionQueue").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        if self.creator.may_destroy("completion queue") {
            // It blocks on events that were read and not acknowledged: there are none.
            // SAFETY: queue pairs hold an `Arc` of this queue, so none is left on it.
            fork::destroyed("ibv_destroy_cq", unsafe { ffi::ibv_destroy_cq(self.raw()) });
        }
    }
}
