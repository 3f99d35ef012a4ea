//! Waiting for a socket, on any executor: the service thread watches it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::failed;
use super::socket::Socket;
use crate::memory::Epoch;
use crate::service::{Service, TimerId, WatchId};
use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::{Error, ErrorKind, Result};

/// What a waiting future is told.
#[derive(Default)]
struct Told {
    is_ready: bool,
    waker: Option<Waker>,
}

/// Ends the watch with the future that waits.
struct Watching {
    service: Arc<Service>,
    watch: WatchId,
    timer: TimerId,
    epoch: Epoch,
}

impl Drop for Watching {
    fn drop(&mut self) {
        // In a forked child its lock may be held for ever.
        if !self.epoch.is_current() {
            return;
        }
        self.service.unwatch(self.watch);
        self.service.cancel(self.timer);
    }
}

/// Waits until `socket` can be read, or written; answers whether that was before `deadline`.
async fn ready(socket: impl AsFd, what: EventFlags, deadline: Instant, operation: &'static str) -> Result<bool> {
    // The service waits for what can be read, and this can when the socket is ready.
    let events = epoll::create(CreateFlags::CLOEXEC).map_err(|errno| failed(operation, errno))?;
    let added = epoll::add(&events, socket.as_fd(), EventData::new_u64(0), what | EventFlags::ONESHOT);
    added.map_err(|errno| failed(operation, errno))?;
    let told = Arc::<Mutex<Told>>::default();
    let wake = |told: &Mutex<Told>| {
        let mut told = lock(told);
        told.is_ready = true;
        told.waker.take()
    };
    let watched = Arc::clone(&told);
    let service = Service::of_process()?;
    let watch = service.watch(events, move || {
        wake(&watched).into_iter().for_each(Waker::wake);
        false
    });
    let late = Arc::downgrade(&told);
    let timer = service.run_at(deadline, move || {
        let waker = late.upgrade().and_then(|told| lock(&told).waker.take());
        waker.into_iter().for_each(Waker::wake);
    });
    let _watching = Watching { service, watch, timer, epoch: Epoch::current() };
    std::future::poll_fn(|context| {
        let mut told = lock(&told);
        if told.is_ready {
            return Poll::Ready(Ok(true));
        }
        if Instant::now() >= deadline {
            return Poll::Ready(Ok(false));
        }
        told.waker = Some(context.waker().clone());
        Poll::Pending
    })
    .await
}

/// Waits until it can be written, which also ends a connection attempt.
pub(super) async fn writable(socket: impl AsFd, deadline: Instant, operation: &'static str) -> Result<bool> {
    ready(socket, EventFlags::OUT, deadline, operation).await
}

/// Waits until `when`.
pub(crate) async fn pause(when: Instant) -> Result<()> {
    let service = Service::of_process()?;
    std::future::poll_fn(|context| {
        if Instant::now() >= when {
            return Poll::Ready(());
        }
        service.wake_at(when, context.waker().clone());
        Poll::Pending
    })
    .await;
    Ok(())
}

/// Fills `bytes` from the stream, and `gifts` with what is given along; `late` says what it means if that is not done by `deadline`.
pub(super) async fn read(
    socket: &Socket,
    bytes: &mut [u8],
    gifts: &mut Vec<OwnedFd>,
    deadline: Instant,
    operation: &'static str,
    late: &str,
) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match socket.hear(&mut bytes[done..], gifts) {
            Ok(0) => return Err(super::socket::ended().within(operation)),
            Ok(read) => done += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                if !ready(socket, EventFlags::IN, deadline, operation).await? {
                    return Err(Error::new(ErrorKind::TimedOut, operation).with_detail(late));
                }
            }
            Err(rustix::io::Errno::TOOMANYREFS) => return Err(too_many_gifts(operation)),
            Err(errno) => return Err(super::socket::broken(errno).within(operation)),
        }
    }
    Ok(())
}

/// A peer has given more than it may.
fn too_many_gifts(operation: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, operation).with_detail("more descriptors than an introduction has")
}
