//! The socket of a connection, shared by who sets it up, its channel and its link.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{Shutdown, SocketAddrAny, SocketFlags, SocketType};

use super::failed;
use crate::service::Service;
use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::{Error, ErrorKind, Result};

/// A host that has vanished while nothing is said is noticed after half a minute, whatever the heartbeat is.
const KEEPALIVE: (u64, u64, u32) = (10, 5, 4);

pub(super) struct Socket {
    descriptor: OwnedFd,
    pub(super) service: Arc<Service>,
    /// Whether both ends are set up, so that what is on the stream is frames.
    is_open: AtomicBool,
    /// Whether the channel has something left to write before the stream may be shut.
    pub(super) has_last_words: AtomicBool,
    loss: Mutex<Loss>,
}

type Observer = Box<dyn FnOnce(Error) + Send>;

/// How the connection was lost, and who wants to know.
#[derive(Default)]
struct Loss {
    observer: Option<Observer>,
    error: Option<Error>,
}

impl Socket {
    pub(super) fn new(descriptor: OwnedFd, operation: &'static str) -> Result<Arc<Self>> {
        let set = || {
            sockopt::set_tcp_nodelay(&descriptor, true)?;
            sockopt::set_socket_keepalive(&descriptor, true)?;
            let (idle, interval, count) = KEEPALIVE;
            sockopt::set_tcp_keepidle(&descriptor, std::time::Duration::from_secs(idle))?;
            sockopt::set_tcp_keepintvl(&descriptor, std::time::Duration::from_secs(interval))?;
            sockopt::set_tcp_keepcnt(&descriptor, count)
        };
        set().map_err(|errno| failed(operation, errno))?;
        Ok(Arc::new(Self {
            descriptor,
            service: Service::of_process()?,
            is_open: AtomicBool::new(false),
            has_last_words: AtomicBool::new(false),
            loss: Mutex::default(),
        }))
    }

    /// A socket that does not block, for peers such as `peer`.
    pub(super) fn create(peer: &SocketAddr) -> rustix::io::Result<OwnedFd> {
        let family = SocketAddrAny::from(*peer).address_family();
        rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    pub(super) fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    /// What is lost is told to the observer, on the service thread.
    pub(super) fn lost(&self, error: Error) {
        let mut loss = lock(&self.loss);
        match loss.observer.take() {
            Some(observer) => self.service.run_job(move || observer(error)),
            None => drop(loss.error.get_or_insert(error)),
        }
    }

    pub(super) fn observe(&self, observer: Observer) {
        let mut loss = lock(&self.loss);
        match loss.error.take() {
            Some(error) => self.service.run_job(move || observer(error)),
            None => loss.observer = Some(observer),
        }
    }

    /// Nobody wants to know any more; what the observer holds goes.
    pub(super) fn forget_observer(&self) {
        let observer = lock(&self.loss).observer.take();
        drop(observer);
    }

    /// Ends the stream: what was written is delivered.
    pub(super) fn shut(&self) {
        // One that has ended already answers ENOTCONN.
        let _ = rustix::net::shutdown(self, Shutdown::Both);
    }

    pub(super) fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        rustix::net::send(self, bytes, rustix::net::SendFlags::NOSIGNAL)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What the end of a stream means.
pub(super) fn ended() -> Error {
    Error::new(ErrorKind::PeerClosed, "connection")
}

/// What a failure of the stream means.
pub(super) fn broken(errno: Errno) -> Error {
    match errno {
        // A peer that goes without having read all resets the stream.
        Errno::CONNRESET | Errno::PIPE => ended(),
        Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => {
            Error::new(ErrorKind::Unreachable, "connection").with_source(std::io::Error::from(errno))
        }
        errno => Error::new(ErrorKind::ConnectionBroken, "connection").with_source(std::io::Error::from(errno)),
    }
}
