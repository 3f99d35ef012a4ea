//! Connections being set up: request, answer, confirmation, on the stream that then carries frames.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::hello::{HELLO, Hello, Kind};
use super::link::TcpLink;
use super::queue::TcpQueue;
use super::readiness::{read, writable};
use super::socket::Socket;
use super::{DEVICE, Tcp, device, failed};
use crate::protocol::Refusal;
use crate::transport::{ChannelKey, ChannelSizes, Device, SetUp};
use crate::{Error, ErrorKind, Result};

/// Reads and atomic operations that a connection has outstanding at most, each way.
pub(super) const READS: u16 = 32;

/// The connecting end.
pub(crate) struct Outgoing(End);

/// The accepting end, with what the peer said.
pub(crate) struct Incoming(End, Vec<u8>);

struct End {
    operation: &'static str,
    socket: Arc<Socket>,
    peer: String,
    /// Reads that may be outstanding towards the peer.
    reads: u16,
}

impl Outgoing {
    pub(super) async fn connect(peer: SocketAddr, deadline: Instant) -> Result<Self> {
        let operation = "connect";
        let told = |error: Error| error.with_peer(peer).with_device(DEVICE);
        let descriptor = Socket::create(&peer).map_err(|errno| told(failed(operation, errno)))?;
        let socket = Socket::new(descriptor, operation).map_err(told)?;
        match rustix::net::connect(&socket, &peer) {
            Ok(()) => {}
            Err(Errno::INPROGRESS | Errno::INTR) => {
                if !writable(&socket, deadline, operation).await.map_err(told)? {
                    let detail = "nothing answered the connect request in time";
                    return Err(told(Error::new(ErrorKind::TimedOut, operation).with_detail(detail)));
                }
                let outcome = rustix::net::sockopt::socket_error(&socket).and_then(|outcome| outcome);
                outcome.map_err(|errno| told(failed(operation, errno)))?;
            }
            Err(errno) => return Err(told(failed(operation, errno))),
        }
        Ok(Self(End { operation, socket, peer: peer.to_string(), reads: READS }))
    }
}

impl Incoming {
    pub(super) fn new(socket: Arc<Socket>, peer: String, reads: u16, data: Vec<u8>) -> Self {
        Self(End { operation: "accept", socket, peer, reads: reads.min(READS) }, data)
    }
}

impl End {
    fn failed(&self, error: Error) -> Error {
        error.within(self.operation).with_peer(&self.peer).with_device(DEVICE)
    }

    /// Says something short, which fits the empty buffer of the socket.
    fn say(&self, kind: Kind, data: &[u8]) -> Result<()> {
        let bytes = kind.say(READS, data);
        match self.socket.write(&bytes) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(self.failed(Error::new(ErrorKind::ConnectionBroken, self.operation))),
            Err(errno) => Err(self.failed(failed(self.operation, errno))),
        }
    }

    /// Hears what the peer says; `late` is what it means that it does not.
    async fn hear(&self, deadline: Instant, late: &str) -> Result<(Hello, Vec<u8>)> {
        let told = |error: Error| self.failed(error);
        let mut head = [0; HELLO];
        read(&self.socket, &mut head, deadline, self.operation, late).await.map_err(told)?;
        let wrong = |reason: String| told(Error::new(ErrorKind::Protocol, self.operation).with_detail(reason));
        let hello = Hello::parse(head).map_err(wrong)?;
        let mut data = vec![0; hello.length];
        read(&self.socket, &mut data, deadline, self.operation, late).await.map_err(told)?;
        Ok((hello, data))
    }

    fn unexpected(&self, kind: Kind) -> Error {
        let error = Error::new(ErrorKind::Protocol, self.operation);
        self.failed(error.with_detail(format!("it says {kind:?} out of turn")))
    }

    fn open_channel(&self, queue: &mut TcpQueue, sizes: ChannelSizes) -> Result<ChannelKey> {
        queue.create(Arc::clone(&self.socket), sizes).map_err(|error| self.failed(error))
    }

    fn activate(&self, queue: &mut TcpQueue, channel: ChannelKey) -> Result<()> {
        queue.activate(channel, self.reads.into()).map_err(|error| self.failed(error))
    }

    /// The stream is the channel's from here on.
    fn into_link(self) -> TcpLink {
        self.socket.open();
        TcpLink::new(self.socket, self.peer)
    }
}

impl SetUp<Tcp> for Outgoing {
    fn device(&self) -> Device {
        device()
    }

    fn peer(&self) -> &str {
        &self.0.peer
    }

    fn open_channel(&mut self, queue: &mut TcpQueue, sizes: ChannelSizes) -> Result<ChannelKey> {
        self.0.open_channel(queue, sizes)
    }

    async fn negotiate(&mut self, ours: &[u8], deadline: Instant) -> Result<Vec<u8>> {
        self.0.say(Kind::Request, ours)?;
        match self.0.hear(deadline, "nothing answered the connect request in time").await? {
            (Hello { kind: Kind::Accept, reads, .. }, data) => {
                self.0.reads = reads.min(READS);
                Ok(data)
            }
            (Hello { kind: Kind::Refuse, .. }, data) => {
                let refusal = Refusal::explain(&data).unwrap_or_else(|| "rejected without a reason".to_owned());
                Err(self.0.failed(Error::new(ErrorKind::Rejected, self.0.operation).with_detail(refusal)))
            }
            (hello, _) => Err(self.0.unexpected(hello.kind)),
        }
    }

    fn activate(&mut self, queue: &mut TcpQueue, channel: ChannelKey) -> Result<()> {
        self.0.activate(queue, channel)
    }

    async fn finish(self, _ours: &[u8], _deadline: Instant) -> Result<TcpLink> {
        self.0.say(Kind::Confirm, &[])?;
        Ok(self.0.into_link())
    }

    fn refuse(self, _reason: &[u8]) {}
}

impl SetUp<Tcp> for Incoming {
    fn device(&self) -> Device {
        device()
    }

    fn peer(&self) -> &str {
        &self.0.peer
    }

    fn open_channel(&mut self, queue: &mut TcpQueue, sizes: ChannelSizes) -> Result<ChannelKey> {
        self.0.open_channel(queue, sizes)
    }

    async fn negotiate(&mut self, _ours: &[u8], _deadline: Instant) -> Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.1))
    }

    fn activate(&mut self, queue: &mut TcpQueue, channel: ChannelKey) -> Result<()> {
        self.0.activate(queue, channel)
    }

    async fn finish(self, ours: &[u8], deadline: Instant) -> Result<TcpLink> {
        self.0.say(Kind::Accept, ours)?;
        match self.0.hear(deadline, "the peer did not confirm the connection in time").await? {
            (Hello { kind: Kind::Confirm, .. }, _) => Ok(self.0.into_link()),
            (hello, _) => Err(self.0.unexpected(hello.kind)),
        }
    }

    fn refuse(self, reason: &[u8]) {
        if let Err(error) = self.0.say(Kind::Refuse, reason) {
            tracing::debug!(%error, "a connect request could not be refused");
        }
    }
}
