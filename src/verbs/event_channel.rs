//! rdma_cm's event channels.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdma_sys as ffi;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::fork::Creator;
use super::limits::explain_descriptors;
use super::{ConnectionEvent, Error, Result};

/// A channel that identifiers report to (`rdma_create_event_channel(3)`), never blocking.
pub struct EventChannel {
    raw: NonNull<ffi::rdma_event_channel>,
    /// Held from reading an event to acknowledging it, and by whoever must not meet that halfway: librdmacm changes
    /// an identifier when its event is read.
    reading: Mutex<()>,
    creator: Creator,
}

// SAFETY: librdmacm locks internally; reading events and creating identifiers are thread-safe.
unsafe impl Send for EventChannel {}
// SAFETY: as above.
unsafe impl Sync for EventChannel {}

impl EventChannel {
    /// Creates a channel.
    ///
    /// # Errors
    /// `ENOSYS` without librdmacm, `ENODEV` or `ENOENT` without the kernel's `rdma_ucm`, `EACCES` if
    /// `/dev/infiniband/rdma_cm` may not be opened, `EMFILE` if no descriptor is left.
    pub fn create() -> Result<Arc<Self>> {
        // SAFETY: takes nothing.
        let raw = unsafe { ffi::rdma_create_event_channel() };
        let raw = NonNull::new(raw).ok_or_else(|| explain_descriptors(Error::last("rdma_create_event_channel")))?;
        let channel = Self { raw, reading: Mutex::new(()), creator: Creator::here() };
        rustix::io::ioctl_fionbio(channel.as_fd(), true)
            .map_err(|errno| Error::returned("ioctl", errno.raw_os_error()))?;
        Ok(Arc::new(channel))
    }

    /// The next event, copied and acknowledged, or `None` if there is none yet.
    ///
    /// # Errors
    /// The kernel's, other than that there is no event.
    pub fn next_event(self: &Arc<Self>) -> Result<Option<ConnectionEvent>> {
        let _quiet = self.lock();
        let Some(pending) = PendingEvent::take(self)? else { return Ok(None) };
        Ok(Some(pending.copy()))
    }

    /// The next event, for which it waits up to `timeout`; then `None`. With `Duration::MAX` it waits as long as it takes.
    ///
    /// # Errors
    /// As [`next_event`](Self::next_event).
    pub fn wait(self: &Arc<Self>, timeout: Duration) -> Result<Option<ConnectionEvent>> {
        let begun = Instant::now();
        loop {
            // Another thread may have taken what `poll` saw.
            if let Some(event) = self.next_event()? {
                return Ok(Some(event));
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            // What does not fit the C structure is waited for in pieces.
            let left = Timespec::try_from(left.min(Duration::from_secs(3600))).ok();
            match poll(&mut [PollFd::new(self.as_ref(), PollFlags::IN)], left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::returned("poll", errno.raw_os_error())),
            }
        }
    }

    /// Keeps everyone from reading events, and so from changing the identifiers of this channel.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks two different channels, always in the same order.
    pub(super) fn lock_both<'a>(one: &'a Arc<Self>, two: &'a Arc<Self>) -> [MutexGuard<'a, ()>; 2] {
        let (first, second) = if Arc::as_ptr(one) < Arc::as_ptr(two) { (one, two) } else { (two, one) };
        [first.lock(), second.lock()]
    }

    pub(super) fn raw(&self) -> *mut ffi::rdma_event_channel {
        self.raw.as_ptr()
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel exists, so its structure may be read.
        let fd = unsafe { (*self.raw()).fd };
        // SAFETY: the descriptor is open as long as the channel, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl fmt::Debug for EventChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventChannel").field("fd", &self.as_fd()).finish()
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        if self.creator.may_destroy("event channel") {
            // SAFETY: identifiers hold an `Arc` of their channel, so none is left on it.
            unsafe { ffi::rdma_destroy_event_channel(self.raw()) }
        }
    }
}

/// An event that librdmacm still owns; acknowledged on drop, until when its identifier cannot be destroyed.
struct PendingEvent<'a> {
    raw: NonNull<ffi::rdma_cm_event>,
    channel: &'a Arc<EventChannel>,
}

impl<'a> PendingEvent<'a> {
    fn take(channel: &'a Arc<EventChannel>) -> Result<Option<Self>> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the channel exists and the out-pointer is writable for the call.
        let answer = unsafe { ffi::rdma_get_cm_event(channel.raw(), &mut raw) };
        match NonNull::new(raw) {
            Some(raw) if answer == 0 => Ok(Some(Self { raw, channel })),
            _ => {
                let error = Error::last("rdma_get_cm_event");
                if error.io().kind() == std::io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
            }
        }
    }

    fn copy(self) -> ConnectionEvent {
        // SAFETY: the event is ours until it is acknowledged, came from this locked channel, and is copied once.
        unsafe { ConnectionEvent::copy(self.raw.as_ptr(), self.channel) }
    }
}

impl Drop for PendingEvent<'_> {
    fn drop(&mut self) {
        // SAFETY: the event is acknowledged once.
        let answer = unsafe { ffi::rdma_ack_cm_event(self.raw.as_ptr()) };
        super::fork::destroyed("rdma_ack_cm_event", answer);
    }
}
