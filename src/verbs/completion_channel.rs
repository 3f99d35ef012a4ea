//! Completion channels: a descriptor that becomes readable when an armed queue has a completion.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::{Context, Error, Result};

/// A completion channel (`ibv_create_comp_channel(3)`), never blocking.
pub struct CompletionChannel {
    raw: NonNull<ffi::ibv_comp_channel>,
    creator: Creator,
    _context: Arc<Context>,
}

// SAFETY: reading events and creating queues on a channel are thread-safe.
unsafe impl Send for CompletionChannel {}
// SAFETY: as above.
unsafe impl Sync for CompletionChannel {}

impl CompletionChannel {
    /// Creates a channel.
    pub fn create(context: &Arc<Context>) -> Result<Arc<Self>> {
        // SAFETY: the context is open.
        let raw = unsafe { ffi::ibv_create_comp_channel(context.raw()) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("ibv_create_comp_channel"))?;
        let channel = Self { raw, creator: Creator::here(), _context: Arc::clone(context) };
        rustix::io::ioctl_fionbio(channel.as_fd(), true)
            .map_err(|errno| Error::returned("ioctl", errno.raw_os_error()))?;
        Ok(Arc::new(channel))
    }

    /// Takes one event; `None` if there is none. The caller acknowledges it on its queue.
    pub(super) fn take_event(&self) -> Result<Option<*mut ffi::ibv_cq>> {
        let mut queue = std::ptr::null_mut();
        let mut context = std::ptr::null_mut();
        // SAFETY: the channel exists and both out-pointers are writable for the call.
        let answer = unsafe { ffi::ibv_get_cq_event(self.raw(), &mut queue, &mut context) };
        if answer == 0 {
            return Ok(Some(queue));
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
