//! Waiting for asynchronous events.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::fork::Creator;
use super::{AsyncEvent, Context, Error, Result};

impl Context {
    /// The device's asynchronous events, to be waited for. What happens from the opening of the device on is kept until
    /// somebody reads it; each event goes to one reader.
    pub fn async_events(self: &Arc<Self>) -> AsyncEvents {
        AsyncEvents { registered: None, failed: false, creator: Creator::here(), context: Arc::clone(self) }
    }
}

/// The asynchronous events of a device, read singly ([`next_event`](Self::next_event)), waited for by a thread
/// ([`wait`](Self::wait)) or by a task ([`next`](Self::next), and as a [`Stream`]).
///
/// ```
/// use std::time::Duration;
/// use zcmi::verbs::{AsyncEventKind, Device};
///
/// # fn main() -> zcmi::verbs::Result<()> {
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let mut events = device.open()?.async_events();
/// while let Some(event) = events.wait(Duration::from_millis(1))? {
///     println!("{}: {event}", device.name());
///     if event.kind == AsyncEventKind::DeviceFatal {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct AsyncEvents {
    /// A duplicate of the context's descriptor: a runtime registers each only once.
    registered: Option<AsyncFd<OwnedFd>>,
    /// Whether the stream has ended.
    failed: bool,
    creator: Creator,
    context: Arc<Context>,
}

impl AsyncEvents {
    /// The device.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The next event, or `None` if there is none yet.
    ///
    /// # Errors
    /// As [`Context::next_async_event`].
    pub fn next_event(&self) -> Result<Option<AsyncEvent>> {
        self.context.next_async_event()
    }

    /// The next event, for which the thread waits up to `timeout`; then `None`. With `Duration::MAX` it waits as long as
    /// it takes.
    ///
    /// # Errors
    /// As [`Context::next_async_event`].
    pub fn wait(&self, timeout: Duration) -> Result<Option<AsyncEvent>> {
        let begun = Instant::now();
        loop {
            if let Some(event) = self.next_event()? {
                return Ok(Some(event));
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            // A wait of more seconds than poll can count is cut short, and repeated.
            let left = Timespec::try_from(left.min(Duration::from_secs(3600)))
                .map_err(|_| Error::returned("poll", libc::EINVAL))?;
            match poll(&mut [PollFd::new(&*self.context, PollFlags::IN)], Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::returned("poll", errno.raw_os_error())),
            }
        }
    }

    /// The next event, however long it takes. Cancel-safe: an event that was not answered is not lost.
    ///
    /// # Errors
    /// As [`Context::next_async_event`], and outside of a tokio runtime with I/O enabled.
    pub async fn next(&mut self) -> Result<AsyncEvent> {
        std::future::poll_fn(|task| self.poll_event(task)).await
    }

    /// [`next`](Self::next) for hand-written futures.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn poll_event(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<AsyncEvent>> {
        let mut was_renewed = false;
        loop {
            if let Some(event) = self.next_event()? {
                return Poll::Ready(Ok(event));
            }
            match ready!(self.registered()?.poll_read_ready(task)) {
                // Readiness is edge-triggered: it is cleared, and then the events are read once more before waiting.
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => {
                    // The runtime that it was registered with is gone; there may be another one.
                    self.registered = None;
                    if std::mem::replace(&mut was_renewed, true) {
                        return Poll::Ready(Err(no_runtime(&error.to_string())));
                    }
                }
            }
        }
    }

    #[allow(deprecated, reason = "its unsafe successor asks that the descriptor never changes, which OwnedFd's cannot")]
    fn registered(&mut self) -> Result<&AsyncFd<OwnedFd>> {
        if self.registered.is_none() {
            let descriptor = self.as_fd().try_clone_to_owned();
            let descriptor =
                descriptor.map_err(|error| Error::returned("fcntl", error.raw_os_error().unwrap_or(libc::EMFILE)))?;
            tokio::runtime::Handle::try_current().map_err(|error| no_runtime(&error.to_string()))?;
            // tokio has no other way to tell that a runtime is without I/O than to panic.
            let register = std::panic::AssertUnwindSafe(|| AsyncFd::with_interest(descriptor, Interest::READABLE));
            let registered = std::panic::catch_unwind(register).map_err(|_| no_runtime("it is without"))?;
            self.registered = Some(registered.map_err(|error| no_runtime(&error.to_string()))?);
        }
        self.registered.as_ref().ok_or_else(|| no_runtime("there is none"))
    }
}

fn no_runtime(why: &str) -> Error {
    Error::returned("epoll_ctl", libc::EOPNOTSUPP)
        .with_detail(format!("waiting for events takes a tokio runtime with I/O enabled: {why}"))
}

impl Stream for AsyncEvents {
    type Item = Result<AsyncEvent>;

    /// The next event. The stream ends after an error; after the removal of the device nothing comes any more.
    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let event = ready!(self.poll_event(task));
        self.failed = event.is_err();
        Poll::Ready(Some(event))
    }
}

impl AsFd for AsyncEvents {
    /// The descriptor that becomes readable with an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.context.as_fd()
    }
}

impl fmt::Debug for AsyncEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncEvents").field("device", &self.context.name()).finish_non_exhaustive()
    }
}

impl Drop for AsyncEvents {
    fn drop(&mut self) {
        if self.registered.is_some() && !self.creator.may_destroy("registration for events") {
            // The runtime's epoll instance is shared with the parent, whose registration it is.
            std::mem::forget(self.registered.take());
        }
    }
}
