//! Connections being set up: request, answer, confirmation, on the socket of the carrier.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use super::hello::{HELLO, Hello, Kind};
use super::link::FramedLink;
use super::queue::FramedQueue;
use super::readiness::{read, writable};
use super::socket::Socket;
use super::{Carrier, Framed, device, device_name, failed};
use crate::protocol::Refusal;
use crate::transport::{ChannelKey, ChannelSizes, Device, SetUp};
use crate::{Error, ErrorKind, Result, failpoint};

/// Reads and atomic operations that a connection has outstanding at most, each way.
pub(super) const READS: u16 = 32;

/// The connecting end.
pub(crate) struct Outgoing<C: Carrier>(End<C>);

/// The accepting end, with what the peer said.
pub(crate) struct Incoming<C: Carrier>(End<C>, Vec<u8>);

struct End<C: Carrier> {
    operation: &'static str,
    socket: Arc<Socket>,
    peer: String,
    /// Reads that may be outstanding towards the peer.
    reads: u16,
    /// What the peer is to be given, and what it has given.
    ours: Option<OwnedFd>,
    theirs: Option<C::Gift>,
}

impl<C: Carrier> Outgoing<C> {
    pub(super) async fn connect(peer: C::Address, deadline: Instant) -> Result<Self> {
        let operation = "connect";
        let told = |error: Error| error.within(operation).with_peer(&peer).with_device(device_name::<C>());
        let late =
            || Error::new(ErrorKind::TimedOut, operation).with_detail("nothing answered the connect request in time");
        let socket = Socket::new(C::connect(&peer, deadline).await.map_err(told)?).map_err(told)?;
        if !writable(&*socket, deadline, operation).await.map_err(told)? {
            return Err(told(late()));
        }
        let outcome = rustix::net::sockopt::socket_error(&*socket).and_then(|outcome| outcome);
        outcome.map_err(|errno| told(failed(operation, errno)))?;
        C::admit(socket.descriptor()).map_err(told)?;
        Ok(Self(End { operation, socket, peer: peer.to_string(), reads: READS, ours: None, theirs: None }))
    }
}

impl<C: Carrier> Outgoing<C> {
    /// What the listener answers to who asks which ways lead to it.
    pub(super) async fn ask(self, deadline: Instant) -> Result<Vec<u8>> {
        self.0.say(Kind::Ask, &[])?;
        match self.0.hear(deadline, "the listener did not say in time which ways lead to it").await? {
            (Hello { kind: Kind::Offer, .. }, data, _) => Ok(data),
            (Hello { kind: Kind::Refuse, .. }, data, _) => Err(self.0.refused(&data)),
            (hello, ..) => Err(self.0.unexpected(hello.kind)),
        }
    }
}

impl<C: Carrier> Incoming<C> {
    pub(super) fn new(socket: Arc<Socket>, peer: String, reads: u16, data: Vec<u8>, gift: C::Gift) -> Self {
        let (reads, theirs) = (reads.min(READS), Some(gift));
        Self(End { operation: "accept", socket, peer, reads, ours: None, theirs }, data)
    }
}

impl<C: Carrier> End<C> {
    fn failed(&self, error: Error) -> Error {
        error.within(self.operation).with_peer(&self.peer).with_device(device_name::<C>())
    }

    /// Says something short, which fits the empty buffer of the socket.
    fn say(&self, kind: Kind, data: &[u8]) -> Result<()> {
        let bytes = kind.say(READS, data);
        let gift = self.ours.as_ref().filter(|_| kind.is_introduction());
        match self.socket.say(&bytes, gift.map(AsFd::as_fd)) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(self.failed(Error::new(ErrorKind::ConnectionBroken, self.operation))),
            Err(errno) => Err(self.failed(failed(self.operation, errno))),
        }
    }

    /// Hears what the peer says; `late` is what it means that it does not.
    async fn hear(&self, deadline: Instant, late: &str) -> Result<(Hello, Vec<u8>, Vec<OwnedFd>)> {
        let told = |error: Error| self.failed(error);
        let (mut head, mut gifts) = ([0; HELLO], Vec::new());
        read(&self.socket, &mut head, &mut gifts, deadline, self.operation, late).await.map_err(told)?;
        let hello = Hello::parse(head).map_err(|reason| self.wrong(reason))?;
        let mut data = vec![0; hello.length];
        read(&self.socket, &mut data, &mut gifts, deadline, self.operation, late).await.map_err(told)?;
        Ok((hello, data, gifts))
    }

    /// The peer has said what it may not.
    fn wrong(&self, reason: String) -> Error {
        self.failed(Error::new(ErrorKind::Protocol, self.operation).with_detail(reason))
    }

    fn refused(&self, reason: &[u8]) -> Error {
        let refusal = Refusal::explain(reason).unwrap_or_else(|| "rejected without a reason".to_owned());
        self.failed(Error::new(ErrorKind::Rejected, self.operation).with_detail(refusal))
    }

    fn unexpected(&self, kind: Kind) -> Error {
        self.wrong(format!("it says {kind:?} out of turn"))
    }

    fn open_channel(&mut self, queue: &mut FramedQueue<C>, sizes: ChannelSizes) -> Result<ChannelKey> {
        let (carrier, ours) = C::new(&self.socket).map_err(|error| self.failed(error))?;
        self.ours = ours;
        queue.create(Arc::clone(&self.socket), carrier, sizes).map_err(|error| self.failed(error))
    }

    fn activate(&mut self, queue: &mut FramedQueue<C>, channel: ChannelKey) -> Result<()> {
        let theirs = self.theirs.take().ok_or_else(|| self.wrong("it has given nothing".to_owned()))?;
        queue.activate(channel, theirs, self.reads.into()).map_err(|error| self.failed(error))
    }

    /// The stream is the channel's from here on.
    fn into_link(self) -> FramedLink {
        self.socket.open();
        FramedLink::new(self.socket, self.peer, device_name::<C>())
    }
}

impl<C: Carrier> SetUp<Framed<C>> for Outgoing<C> {
    fn device(&self) -> Device {
        device::<C>()
    }

    fn peer(&self) -> &str {
        &self.0.peer
    }

    fn open_channel(&mut self, queue: &mut FramedQueue<C>, sizes: ChannelSizes) -> Result<ChannelKey> {
        self.0.open_channel(queue, sizes)
    }

    async fn negotiate(&mut self, ours: &[u8], deadline: Instant) -> Result<Vec<u8>> {
        let said = self.0.say(Kind::Request, ours);
        failpoint::reach("connect.asked");
        let heard = self.0.hear(deadline, "nothing answered the connect request in time").await;
        // Who refuses before it has heard anything may have closed by now: what it has said is here.
        let heard = match (said, heard) {
            (Err(error), Err(_)) => return Err(error),
            (_, heard) => heard?,
        };
        match heard {
            (Hello { kind: Kind::Accept, reads, .. }, data, gifts) => {
                self.0.reads = reads.min(READS);
                self.0.theirs = Some(C::unwrap(gifts).map_err(|reason| self.0.wrong(reason))?);
                Ok(data)
            }
            (Hello { kind: Kind::Refuse, .. }, data, _) => Err(self.0.refused(&data)),
            (hello, ..) => Err(self.0.unexpected(hello.kind)),
        }
    }

    fn activate(&mut self, queue: &mut FramedQueue<C>, channel: ChannelKey) -> Result<()> {
        self.0.activate(queue, channel)
    }

    async fn finish(self, _ours: &[u8], _deadline: Instant) -> Result<FramedLink> {
        self.0.say(Kind::Confirm, &[])?;
        failpoint::reach("connect.confirmed");
        Ok(self.0.into_link())
    }

    fn refuse(self, _reason: &[u8]) {}
}

impl<C: Carrier> SetUp<Framed<C>> for Incoming<C> {
    fn device(&self) -> Device {
        device::<C>()
    }

    fn peer(&self) -> &str {
        &self.0.peer
    }

    fn open_channel(&mut self, queue: &mut FramedQueue<C>, sizes: ChannelSizes) -> Result<ChannelKey> {
        self.0.open_channel(queue, sizes)
    }

    async fn negotiate(&mut self, _ours: &[u8], _deadline: Instant) -> Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.1))
    }

    fn activate(&mut self, queue: &mut FramedQueue<C>, channel: ChannelKey) -> Result<()> {
        self.0.activate(queue, channel)
    }

    async fn finish(self, ours: &[u8], deadline: Instant) -> Result<FramedLink> {
        self.0.say(Kind::Accept, ours)?;
        failpoint::reach("accept.answered");
        match self.0.hear(deadline, "the peer did not confirm the connection in time").await? {
            (Hello { kind: Kind::Confirm, .. }, ..) => Ok(self.0.into_link()),
            (hello, ..) => Err(self.0.unexpected(hello.kind)),
        }
    }

    fn refuse(self, reason: &[u8]) {
        if let Err(error) = self.0.say(Kind::Refuse, reason) {
            tracing::debug!(%error, "a connect request could not be refused");
        }
    }
}
