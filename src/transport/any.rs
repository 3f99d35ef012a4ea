//! The transport of a build: whichever transports it has, told apart by a match.

use std::fmt;
use std::io::IoSlice;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::shm::{Shm, ShmAddress};
#[cfg(all(any(test, feature = "internals"), not(loom)))]
use super::sim::{Sim, SimAddress};
use super::tcp::Tcp;
#[cfg(feature = "verbs")]
use super::verbs::Verbs;
use super::{
    Capabilities, ChannelKey, ChannelSizes, Completion, Courier, Device, Kind, Link, Listen, NotBound, Opening, Queue,
    Refused, Request, SetUp, Transport, WindowKey,
};
use crate::memory::{Domain, Transfer};
use crate::protocol::Offer;
use crate::service::Service;
use crate::{Error, ErrorKind, Result};

/// All transports of this build.
#[derive(Debug)]
pub(crate) struct Any;

/// Where a peer listens.
#[derive(Clone, Debug)]
pub(crate) enum AnyAddress {
    #[cfg(all(any(test, feature = "internals"), not(loom)))]
    Sim(SimAddress),
    Shm(ShmAddress),
    Tcp(SocketAddr),
    #[cfg(feature = "verbs")]
    Verbs(SocketAddr),
}

/// Declares an enum of what the transports call `$associated`.
macro_rules! each {
    ($(#[$about:meta])* $name:ident, $associated:ident) => {
        $(#[$about])*
        #[allow(clippy::large_enum_variant, reason = "there are few, and they are moved hardly ever")]
        pub(crate) enum $name {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Sim(<Sim as Transport>::$associated),
            Shm(<Shm as Transport>::$associated),
            Tcp(<Tcp as Transport>::$associated),
            #[cfg(feature = "verbs")]
            Verbs(<Verbs as Transport>::$associated),
        }
    };
}

each!(
    /// A queue of some transport.
    AnyQueue, Queue
);
each!(
    /// The control side of a connection of some transport.
    AnyLink, Link
);
each!(
    /// A connecting end of some transport.
    AnyOutgoing, Outgoing
);
each!(
    /// An accepting end of some transport.
    AnyIncoming, Incoming
);
each!(
    /// A listener of some transport.
    AnyListener, Listener
);

/// Does the same with whichever it is.
macro_rules! with {
    ($type:ident, $value:expr, $inner:ident => $act:expr) => {
        match $value {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            $type::Sim($inner) => $act,
            $type::Shm($inner) => $act,
            $type::Tcp($inner) => $act,
            #[cfg(feature = "verbs")]
            $type::Verbs($inner) => $act,
        }
    };
}

impl AnyAddress {
    /// Which transport leads there.
    pub(crate) fn transport(&self) -> Kind {
        match self {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Self::Sim(_) => Kind::Sim,
            Self::Shm(_) => Kind::Shm,
            Self::Tcp(_) => Kind::Tcp,
            #[cfg(feature = "verbs")]
            Self::Verbs(_) => Kind::Verbs,
        }
    }

    /// As a program writes it.
    pub(crate) fn uri(&self) -> String {
        match self {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Self::Sim(address) => format!("sim://{address}"),
            Self::Shm(address) => format!("shm://{address}"),
            Self::Tcp(address) => format!("tcp://{address}"),
            #[cfg(feature = "verbs")]
            Self::Verbs(address) => format!("rdma://{address}"),
        }
    }

    /// The address of the host's network that it is, if it is one.
    pub(crate) fn socket_address(&self) -> SocketAddr {
        match self {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Self::Sim(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
            Self::Shm(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
            Self::Tcp(address) => *address,
            #[cfg(feature = "verbs")]
            Self::Verbs(address) => *address,
        }
    }
}

impl fmt::Display for AnyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with!(AnyAddress, self, address => address.fmt(f))
    }
}

impl Transport for Any {
    type Address = AnyAddress;
    type Queue = AnyQueue;
    type Link = AnyLink;
    type Outgoing = AnyOutgoing;
    type Incoming = AnyIncoming;
    type Listener = AnyListener;

    fn open(device: &Device, completions: u32) -> Result<(Arc<dyn Domain>, AnyQueue)> {
        match device.transport {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Kind::Sim => Sim::open(device, completions).map(|(domain, queue)| (domain, AnyQueue::Sim(queue))),
            Kind::Shm => Shm::open(device, completions).map(|(domain, queue)| (domain, AnyQueue::Shm(queue))),
            Kind::Tcp => Tcp::open(device, completions).map(|(domain, queue)| (domain, AnyQueue::Tcp(queue))),
            #[cfg(feature = "verbs")]
            Kind::Verbs => Verbs::open(device, completions).map(|(domain, queue)| (domain, AnyQueue::Verbs(queue))),
        }
    }

    fn service(device: &Device) -> Result<Arc<Service>> {
        match device.transport {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Kind::Sim => Sim::service(device),
            Kind::Shm => Shm::service(device),
            Kind::Tcp => Tcp::service(device),
            #[cfg(feature = "verbs")]
            Kind::Verbs => Verbs::service(device),
        }
    }

    async fn resolve(peer: AnyAddress, deadline: Instant) -> Result<AnyOutgoing> {
        match peer {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            AnyAddress::Sim(peer) => Sim::resolve(peer, deadline).await.map(AnyOutgoing::Sim),
            AnyAddress::Shm(peer) => Shm::resolve(peer, deadline).await.map(AnyOutgoing::Shm),
            AnyAddress::Tcp(peer) => Tcp::resolve(peer, deadline).await.map(AnyOutgoing::Tcp),
            #[cfg(feature = "verbs")]
            AnyAddress::Verbs(peer) => Verbs::resolve(peer, deadline).await.map(AnyOutgoing::Verbs),
        }
    }

    fn listen(address: AnyAddress, backlog: u16) -> Result<AnyListener> {
        match address {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            AnyAddress::Sim(address) => Sim::listen(address, backlog).map(AnyListener::Sim),
            AnyAddress::Shm(address) => Shm::listen(address, backlog).map(AnyListener::Shm),
            AnyAddress::Tcp(address) => {
                let listener = Tcp::listen(address, backlog)?;
                // Nothing else leads here.
                listener.offer(Offer::default().to_bytes());
                Ok(AnyListener::Tcp(listener))
            }
            #[cfg(feature = "verbs")]
            AnyAddress::Verbs(address) => Verbs::listen(address, backlog).map(AnyListener::Verbs),
        }
    }
}

impl Queue for AnyQueue {
    #[inline]
    fn stage(&mut self, channel: ChannelKey, request: Request<'_>) -> std::result::Result<(), Refused> {
        with!(AnyQueue, self, queue => queue.stage(channel, request))
    }

    #[inline]
    fn flush(&mut self) -> Result<()> {
        with!(AnyQueue, self, queue => queue.flush())
    }

    #[inline]
    fn takes_now(&mut self, channel: ChannelKey, length: usize) -> bool {
        with!(AnyQueue, self, queue => queue.takes_now(channel, length))
    }

    #[inline]
    fn send_now(&mut self, channel: ChannelKey, head: &[u8], pieces: &[IoSlice<'_>]) {
        with!(AnyQueue, self, queue => queue.send_now(channel, head, pieces));
    }

    #[inline]
    fn receive_now(&mut self, channel: ChannelKey) -> Option<(u64, usize)> {
        with!(AnyQueue, self, queue => queue.receive_now(channel))
    }

    #[inline]
    fn lent(&self, token: u64, length: usize) -> &[u8] {
        with!(AnyQueue, self, queue => queue.lent(token, length))
    }

    #[inline]
    fn room(&self, channel: ChannelKey) -> usize {
        with!(AnyQueue, self, queue => queue.room(channel))
    }

    #[inline]
    fn post_receive(&mut self, token: u64, memory: Transfer) -> std::result::Result<(), Refused> {
        with!(AnyQueue, self, queue => queue.post_receive(token, memory))
    }

    fn receive_room(&self) -> usize {
        with!(AnyQueue, self, queue => queue.receive_room())
    }

    fn tend(&mut self, now: Instant) {
        with!(AnyQueue, self, queue => queue.tend(now));
    }

    #[inline]
    fn poll(&mut self, done: &mut Vec<Completion>) -> Result<bool> {
        with!(AnyQueue, self, queue => queue.poll(done))
    }

    fn request_notification(&mut self) -> Result<()> {
        with!(AnyQueue, self, queue => queue.request_notification())
    }

    fn drain_events(&mut self) -> Result<()> {
        with!(AnyQueue, self, queue => queue.drain_events())
    }

    fn event_descriptor(&self) -> Result<Option<OwnedFd>> {
        with!(AnyQueue, self, queue => queue.event_descriptor())
    }

    fn call_on_event(&mut self, on_event: Box<dyn FnMut() + Send>) {
        with!(AnyQueue, self, queue => queue.call_on_event(on_event));
    }

    fn idle_descriptor(&self) -> Result<Option<OwnedFd>> {
        with!(AnyQueue, self, queue => queue.idle_descriptor())
    }

    fn watch_idle(&mut self) -> Result<()> {
        with!(AnyQueue, self, queue => queue.watch_idle())
    }

    fn drain_idle(&mut self) -> Result<()> {
        with!(AnyQueue, self, queue => queue.drain_idle())
    }

    fn give_up_after(&mut self, patience: std::time::Duration) {
        with!(AnyQueue, self, queue => queue.give_up_after(patience));
    }

    fn host_answers(&self, channel: ChannelKey) -> Option<bool> {
        with!(AnyQueue, self, queue => queue.host_answers(channel))
    }

    fn has_left(&self, channel: ChannelKey) -> bool {
        with!(AnyQueue, self, queue => queue.has_left(channel))
    }

    fn capabilities(&self, channel: ChannelKey) -> Capabilities {
        with!(AnyQueue, self, queue => queue.capabilities(channel))
    }

    fn courier(&mut self, channel: ChannelKey) -> Option<Arc<dyn Courier>> {
        with!(AnyQueue, self, queue => queue.courier(channel))
    }

    fn bind(
        &mut self,
        channel: ChannelKey,
        token: u64,
        opening: Opening,
    ) -> std::result::Result<(WindowKey, u32), NotBound> {
        with!(AnyQueue, self, queue => queue.bind(channel, token, opening))
    }

    fn invalidate(
        &mut self,
        channel: ChannelKey,
        token: u64,
        window: WindowKey,
    ) -> std::result::Result<(), Option<Error>> {
        with!(AnyQueue, self, queue => queue.invalidate(channel, token, window))
    }

    fn fail(&mut self, channel: ChannelKey) {
        with!(AnyQueue, self, queue => queue.fail(channel));
    }

    fn close(&mut self, channel: ChannelKey) -> Option<Box<dyn FnOnce() -> Vec<Completion> + Send>> {
        with!(AnyQueue, self, queue => queue.close(channel))
    }
}

/// Implements setting up for an end, whichever way it goes.
macro_rules! set_up {
    ($type:ident) => {
        impl SetUp<Any> for $type {
            fn device(&self) -> Device {
                with!($type, self, end => end.device())
            }

            fn peer(&self) -> &str {
                with!($type, self, end => end.peer())
            }

            fn gid(&self) -> Option<Ipv6Addr> {
                with!($type, self, end => end.gid())
            }

            fn open_channel(&mut self, queue: &mut AnyQueue, sizes: ChannelSizes) -> Result<ChannelKey> {
                #[allow(unreachable_patterns, reason = "there may be one transport only")]
                match (self, queue) {
                    (Self::Shm(end), AnyQueue::Shm(queue)) => end.open_channel(queue, sizes),
                    (Self::Tcp(end), AnyQueue::Tcp(queue)) => end.open_channel(queue, sizes),
                    #[cfg(feature = "verbs")]
                    (Self::Verbs(end), AnyQueue::Verbs(queue)) => end.open_channel(queue, sizes),
                    #[cfg(all(any(test, feature = "internals"), not(loom)))]
                    (Self::Sim(end), AnyQueue::Sim(queue)) => end.open_channel(queue, sizes),
                    _ => Err(of_another()),
                }
            }

            async fn negotiate(&mut self, ours: &[u8], deadline: Instant) -> Result<Vec<u8>> {
                with!($type, self, end => end.negotiate(ours, deadline).await)
            }

            fn activate(&mut self, queue: &mut AnyQueue, channel: ChannelKey) -> Result<()> {
                #[allow(unreachable_patterns, reason = "there may be one transport only")]
                match (self, queue) {
                    (Self::Shm(end), AnyQueue::Shm(queue)) => end.activate(queue, channel),
                    (Self::Tcp(end), AnyQueue::Tcp(queue)) => end.activate(queue, channel),
                    #[cfg(feature = "verbs")]
                    (Self::Verbs(end), AnyQueue::Verbs(queue)) => end.activate(queue, channel),
                    #[cfg(all(any(test, feature = "internals"), not(loom)))]
                    (Self::Sim(end), AnyQueue::Sim(queue)) => end.activate(queue, channel),
                    _ => Err(of_another()),
                }
            }

            async fn finish(self, ours: &[u8], deadline: Instant) -> Result<AnyLink> {
                match self {
                    #[cfg(all(any(test, feature = "internals"), not(loom)))]
                    Self::Sim(end) => end.finish(ours, deadline).await.map(AnyLink::Sim),
                    Self::Shm(end) => end.finish(ours, deadline).await.map(AnyLink::Shm),
                    Self::Tcp(end) => end.finish(ours, deadline).await.map(AnyLink::Tcp),
                    #[cfg(feature = "verbs")]
                    Self::Verbs(end) => end.finish(ours, deadline).await.map(AnyLink::Verbs),
                }
            }

            fn refuse(self, reason: &[u8]) {
                with!($type, self, end => end.refuse(reason));
            }
        }
    };
}

set_up!(AnyOutgoing);
set_up!(AnyIncoming);

/// An engine's queue is of the transport of its device, so this is not seen.
fn of_another() -> Error {
    Error::new(ErrorKind::Other, "set up").with_detail("the queue is of another transport")
}

impl Listen<Any> for AnyListener {
    fn local_address(&self) -> AnyAddress {
        match self {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Self::Sim(listener) => AnyAddress::Sim(listener.local_address()),
            Self::Shm(listener) => AnyAddress::Shm(listener.local_address()),
            Self::Tcp(listener) => AnyAddress::Tcp(listener.local_address()),
            #[cfg(feature = "verbs")]
            Self::Verbs(listener) => AnyAddress::Verbs(listener.local_address()),
        }
    }

    async fn next(&self) -> Result<AnyIncoming> {
        match self {
            #[cfg(all(any(test, feature = "internals"), not(loom)))]
            Self::Sim(listener) => listener.next().await.map(AnyIncoming::Sim),
            Self::Shm(listener) => listener.next().await.map(AnyIncoming::Shm),
            Self::Tcp(listener) => listener.next().await.map(AnyIncoming::Tcp),
            #[cfg(feature = "verbs")]
            Self::Verbs(listener) => listener.next().await.map(AnyIncoming::Verbs),
        }
    }
}

impl Link for AnyLink {
    fn on_lost(&self, lost: impl FnOnce(Error) + Send + 'static) {
        with!(AnyLink, self, link => link.on_lost(lost));
    }

    fn disconnect(&self) {
        with!(AnyLink, self, link => link.disconnect());
    }
}
