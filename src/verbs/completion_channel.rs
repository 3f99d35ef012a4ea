//! Completion channels: a descriptor that becomes readable when an armed queue has a completion.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::limits::explain_descriptors;
use super::{Context, Error, Result};

/// A completion channel (`ibv_create_comp_channel(3)`), never blocking. One can serve many queues.
///
/// ```
/// use zcmi::verbs::{CompletionChannel, CompletionQueue, Device};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let context = device.open()?;
/// let channel = CompletionChannel::create(&context)?;
/// let queue = CompletionQueue::create_on(&channel, 16)?;
/// queue.request_notification()?;
/// // Nothing has been posted, so nothing has completed.
/// assert_eq!(channel.next_event()?, None);
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
pub struct CompletionChannel {
    raw: NonNull<ffi::ibv_comp_channel>,
    creator: Creator,
    context: Arc<Context>,
}

// SAFETY: reading events and creating queues on a channel are thread-safe.
unsafe impl Send for CompletionChannel {}
// SAFETY: as above.
unsafe impl Sync for CompletionChannel {}

impl CompletionChannel {
    /// Creates a channel.
    ///
    /// # Errors
    /// `EMFILE` if the process may open no more files; the detail names the limit.
    pub fn create(context: &Arc<Context>) -> Result<Arc<Self>> {
        // SAFETY: the context is open.
        let raw = unsafe { ffi::ibv_create_comp_channel(context.raw()) };
        let raw = NonNull::new(raw).ok_or_else(|| explain_descriptors(Error::last("ibv_create_comp_channel")))?;
        let channel = Self { raw, creator: Creator::here(), context: Arc::clone(context) };
        rustix::io::ioctl_fionbio(channel.as_fd(), true)
            .map_err(|errno| Error::returned("ioctl", errno.raw_os_error()))?;
        Ok(Arc::new(channel))
    }

    /// The device it belongs to.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Takes and acknowledges the next event; answers the [`key`](super::CompletionQueue::key) of its queue, or `None` if
    /// there is none yet.
    ///
    /// # Errors
    /// `EIO` if the device is gone.
    pub fn next_event(&self) -> Result<Option<u64>> {
        let mut queue = std::ptr::null_mut();
        let mut key = std::ptr::null_mut();
        // SAFETY: the channel exists and both out-pointers are writable for the call.
        let answer = unsafe { ffi::ibv_get_cq_event(self.raw(), &mut queue, &mut key) };
        if answer == 0 {
            // SAFETY: a queue is not destroyed while an event of it is read but not acknowledged: this one.
            unsafe { ffi::ibv_ack_cq_events(queue, 1) };
            return Ok(Some(key as u64));
        }
        let error = Error::last("ibv_get_cq_event");
        if error.io().kind() == std::io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
    }

    pub(super) fn raw(&self) -> *mut ffi::ibv_comp_channel {
        self.raw.as_ptr()
    }
}

impl AsFd for CompletionChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel exists, so its structure may be read.
        let fd = unsafe { (*self.raw()).fd };
        // SAFETY: the descriptor is open as long as the channel, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl fmt::Debug for CompletionChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionChannel").field("fd", &self.as_fd()).finish()
    }
}

impl Drop for CompletionChannel {
    fn drop(&mut self) {
        if self.creator.may_destroy("completion channel") {
            // SAFETY: queues hold an `Arc` of their channel, so none is left on it.
            fork::destroyed("ibv_destroy_comp_channel", unsafe { ffi::ibv_destroy_comp_channel(self.raw()) });
        }
    }
}
