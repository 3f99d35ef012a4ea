//! The socket of a connection, shared by who sets it up, its channel and its link.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown,
};

use crate::service::Service;
use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::{Error, ErrorKind, Result};

/// Descriptors that a peer may give along with what it says; more than any does.
const MOST_GIFTS: usize = 4;

pub(crate) struct Socket {
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
    /// Of a connected socket that does not block.
    pub(crate) fn new(descriptor: OwnedFd) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            descriptor,
            service: Service::of_process()?,
            is_open: AtomicBool::new(false),
            has_last_words: AtomicBool::new(false),
            loss: Mutex::default(),
        }))
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
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
    pub(crate) fn shut(&self) {
        // One that has ended already answers ENOTCONN.
        let _ = rustix::net::shutdown(self, Shutdown::Both);
    }

    /// Says something, with a descriptor that the peer is given along; answers how much of it was taken.
    pub(super) fn say(&self, bytes: &[u8], gift: Option<BorrowedFd<'_>>) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let gifts: Vec<_> = gift.into_iter().collect();
        if !gifts.is_empty() {
            along.push(SendAncillaryMessage::ScmRights(&gifts));
        }
        rustix::net::sendmsg(self, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL)
    }

    /// Hears what the peer says, and appends the descriptors that it gives along. Nothing is the end.
    pub(super) fn hear(&self, bytes: &mut [u8], gifts: &mut Vec<OwnedFd>) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_GIFTS))];
        let mut along = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [std::io::IoSliceMut::new(bytes)];
        let heard = rustix::net::recvmsg(self, &mut slices, &mut along, RecvFlags::CMSG_CLOEXEC)?;
        for message in along.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                // One that lingers when it is closed would keep who closes it waiting, for as long as the peer likes.
                gifts.extend(given.inspect(|gift| {
                    let _ = rustix::net::sockopt::set_socket_linger(gift, None);
                }));
            }
        }
        // The kernel has kept back those that there was no room for.
        if gifts.len() > MOST_GIFTS || heard.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Errno::TOOMANYREFS);
        }
        Ok(heard.bytes)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What the end of a stream means.
pub(crate) fn ended() -> Error {
    Error::new(ErrorKind::PeerClosed, "connection")
}

/// What a failure of the stream means.
pub(crate) fn broken(errno: Errno) -> Error {
    match errno {
        // A peer that goes without having read all resets the stream.
        Errno::CONNRESET | Errno::PIPE => ended(),
        Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => {
            Error::new(ErrorKind::Unreachable, "connection").with_source(std::io::Error::from(errno))
        }
        errno => Error::new(ErrorKind::ConnectionBroken, "connection").with_source(std::io::Error::from(errno)),
    }
}
