//! Established connections.

use std::fmt;
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::Ipv6Addr;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::core::LinkKey;
use super::deadline::within;
use super::engine::Engine;
use super::link::Ending;
use super::spans::{self, Identity, Trace};
use super::{Active, Channel, Message};
use crate::service::Service;
use crate::transport::{Capabilities, Transport};
use crate::{Buffer, Destination, Error, ErrorKind, Exposable, Failed, Pool, Result, failpoint};

/// How long `close` waits until all that was sent has arrived.
const CLOSE: Duration = Duration::from_secs(10);
/// How long a dropped connection is looked after until all that was sent has arrived.
const LINGER: Duration = Duration::from_secs(2);

/// A connection to a peer: messages both ways, and access to the memory that the peer has granted.
///
/// It can be cloned and used from many tasks; requests are carried out in the order in which they are
/// posted. When the last clone is dropped, and every [`Channel`] and [`Operation`](crate::Operation) of it, what was sent is still delivered in
/// the background (for up to 2 s) before the peer is told. A program that is about to end must
/// [`close`](Self::close), which waits for that: nothing runs in the background after `main`.
#[derive(Clone)]
pub struct Connection(pub(super) Arc<Inner<Active>>);

pub(super) struct Inner<T: Transport> {
    pub(super) engine: Arc<Engine<T>>,
    pub(super) key: LinkKey,
    pub(super) ending: Ending,
    // Some until dropped.
    control: Option<Arc<T::Link>>,
    pub(super) facts: Facts,
    passed_over: OnceLock<Vec<String>>,
}

impl Connection {
    /// Who does what its engine has to do in the background, and by whose clock.
    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.0.engine.service
    }

    /// The channel of this number, which is made if there is none. Channel 0 is what the connection's own methods use.
    ///
    /// # Errors
    /// [`ResourceExhausted`](ErrorKind::ResourceExhausted) beyond [`Config::max_channels`](crate::Config::max_channels), and
    /// whatever ended the connection.
    pub fn channel(&self, id: u32) -> Result<Channel> {
        let made = self.0.engine.with(|core| {
            let link = core.link(self.0.key).ok_or_else(|| Error::new(ErrorKind::Closed, "open channel"))?;
            let too_many = |reason| Error::new(ErrorKind::ResourceExhausted, "open channel").with_detail(reason);
            link.channel_index(id).map_err(too_many)
        });
        let index = made.map_err(|error| self.0.refine(error))?;
        Ok(Channel::new(self.clone(), index, id))
    }

    /// Sends a message on channel 0; as [`Channel::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, payload: &[u8]) -> Result<()> {
        self.0.send(0, &[IoSlice::new(payload)]).await
    }

    /// Sends one message gathered of `pieces` on channel 0; as [`Channel::send_vectored`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> Result<()> {
        self.0.send(0, pieces).await
    }

    /// Sends memory without a copy on channel 0; as [`Channel::send_owned`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_owned<M: Exposable>(&self, source: M) -> std::result::Result<M, Failed<M>> {
        self.0.send_owned(0, source).await
    }

    /// Sends a short message on channel 0 without waiting; as [`Channel::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, payload: &[u8]) -> Result<()> {
        self.0.try_send(0, &[IoSlice::new(payload)])
    }

    /// Sends a message on channel 0 within `patience`; as [`Channel::send_timeout`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_timeout(&self, payload: &[u8], patience: Duration) -> Result<()> {
        self.0.send_timeout(0, &[IoSlice::new(payload)], patience).await
    }

    /// Sends a message on channel 0 and waits until the peer's library has it; as [`Channel::send_acknowledged`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_acknowledged(&self, payload: &[u8]) -> Result<()> {
        self.0.send_acknowledged(0, &[IoSlice::new(payload)]).await
    }

    /// The next message of channel 0; as [`Channel::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&self) -> Result<Message> {
        self.0.receive(0).await
    }

    /// The next message of channel 0 within `patience`; as [`Channel::recv_timeout`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_timeout(&self, patience: Duration) -> Result<Message> {
        self.0.receive_timeout(0, patience).await
    }

    /// The next message of channel 0, if it is here; as [`Channel::try_recv`].
    ///
    /// # Errors
    /// As there.
    pub fn try_recv(&self) -> Result<Option<Message>> {
        self.0.try_receive(0)
    }

    /// Hands a buffer over on channel 0; as [`Channel::hand_over`].
    ///
    /// # Errors
    /// As there.
    pub async fn hand_over(&self, buffer: Buffer) -> std::result::Result<(), Failed<Buffer>> {
        self.0.hand_over(0, buffer).await
    }

    /// Whether both ends share pages, as [`ConfigBuilder::share_pages_with_peers`](crate::ConfigBuilder::share_pages_with_peers) has it: buffers of
    /// [`pool`](Self::pool) are handed over without a copy, and accessed directly where they are granted.
    pub fn shares_pages(&self) -> bool {
        self.0.facts.shares_pages
    }

    /// Where buffers come from that this connection carries best: the pool that is shared with the peer, or, where none is, the
    /// [process' pool](Pool::global). So a program that takes its buffers here is the same over every transport.
    pub fn pool(&self) -> Pool {
        match self.0.engine.config.shared_pages.pool().filter(|_| self.0.facts.shares_pages) {
            Some(pool) => pool.clone(),
            None => Pool::with_global(Clone::clone),
        }
    }

    /// Takes a buffer of `length` bytes of this connection's [`pool`](Self::pool), of whatever contents.
    ///
    /// # Errors
    /// As [`Pool::allocate`].
    pub fn allocate(&self, length: usize) -> Result<Buffer> {
        self.pool().allocate(length)
    }

    /// Receives the next message of channel 0 into `destination`; as [`Channel::recv_into`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_into<D: Destination>(&self, destination: D) -> std::result::Result<(D, usize), Failed<D>> {
        self.0.receive_into(0, destination).await
    }

    /// Says that nothing more will be sent on any channel: the peer receives [`PeerClosed`](ErrorKind::PeerClosed) after the last
    /// message of each. Receiving goes on. Resolves when the peer's device has all of it and the peer has taken what was
    /// offered to it; waits 10 s for that.
    ///
    /// # Errors
    /// Whatever broke the connection, and [`TimedOut`](ErrorKind::TimedOut).
    pub async fn finish(&self) -> Result<()> {
        self.0.finish("finish").await
    }

    /// Closes the connection for all clones, after all that was sent has reached the peer's device; waits 10 s for that.
    ///
    /// # Errors
    /// Whatever broke the connection before, and [`TimedOut`](ErrorKind::TimedOut): what was sent may then be lost. That the
    /// peer has closed first is no error: what it has not received then, it did not want.
    pub async fn close(&self) -> Result<()> {
        let trace = spans::close(&self.0.facts.identity, "close");
        let finished = self.0.finish("close").await;
        trace.end_with(&finished);
        failpoint::reach("close.delivered");
        self.0.engine.with(|core| core.fail(self.0.key, Error::new(ErrorKind::Closed, "connection")));
        match finished {
            Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::PeerClosed) => Ok(()),
            finished => finished,
        }
    }

    /// Ends the connection for all clones at once. What was sent may be lost, and the peer sees a broken connection.
    pub fn abort(&self) {
        self.0.engine.with(|core| {
            let detail = "it was aborted";
            core.fail(self.0.key, Error::new(ErrorKind::Closed, "connection").with_detail(detail));
        });
    }

    /// Longest message, in bytes, that can be sent.
    pub fn max_message_size(&self) -> usize {
        usize::try_from(self.0.facts.longest).unwrap_or(usize::MAX)
    }

    /// Longest message, in bytes, that goes at once wherever there is room for it. The receiver fetches longer ones, but for those of up to 64 KiB
    /// that find room at once in shared memory.
    pub fn max_short_message_size(&self) -> usize {
        self.0.facts.eager_limit
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn ending(&self) -> Option<Error> {
        self.0.ending.get().map(|ending| ending.again("connection"))
    }

    /// The peer's address.
    pub fn peer(&self) -> &str {
        &self.0.facts.identity.peer
    }

    /// What the peer said when it connected, to [`Connector::connect_with`](super::Connector::connect_with), or answered, by
    /// [`Answer::AcceptWith`](super::Answer::AcceptWith); empty if it said nothing. Nothing vouches for it.
    pub fn private_data(&self) -> &[u8] {
        &self.0.facts.private_data
    }

    /// Adds to an error what every error of this connection says: peer, device, GID.
    pub(crate) fn refine(&self, error: Error) -> Error {
        self.0.refine(error)
    }

    /// The local RDMA device.
    pub fn device(&self) -> &str {
        &self.0.engine.device
    }

    /// The GID of the local device's port, if it has one; on RoCE v2 it stands for the local address. `zcmi info` has its index.
    pub fn gid(&self) -> Option<Ipv6Addr> {
        self.0.facts.gid
    }

    /// The transport's name: `shm`, `tcp` or `verbs`.
    pub fn transport(&self) -> &'static str {
        self.0.engine.transport.name()
    }

    /// Of a connection that was made to an `auto://` address: the ways to the peer that were passed over, each with the reason.
    pub fn passed_over(&self) -> &[String] {
        self.0.passed_over.get().map_or(&[], Vec::as_slice)
    }
}

/// What both ends know of each other when they have connected.
pub(super) struct Facts {
    pub(super) session: u64,
    /// What handles that the peer has granted to all of its domain are stamped with.
    pub(super) peers_domain: u64,
    pub(super) identity: Arc<Identity>,
    /// Of the local port.
    pub(super) gid: Option<Ipv6Addr>,
    pub(super) private_data: Vec<u8>,
    pub(super) capabilities: Capabilities,
    pub(super) eager_limit: usize,
    pub(super) longest: u64,
    pub(super) shares_pages: bool,
}

/// A future's place among those who wait; given up when the future is dropped.
pub(super) struct Waiting<'a, T: Transport> {
    inner: &'a Arc<Inner<T>>,
    waker: Option<Waker>,
}

impl<'a, T: Transport> Waiting<'a, T> {
    pub(super) fn new(inner: &'a Arc<Inner<T>>) -> Self {
        Self { inner, waker: None }
    }

    /// Remembers the waker that is about to be registered.
    pub(super) fn with<'w>(&mut self, waker: &'w Waker) -> &'w Waker {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        waker
    }
}

impl<T: Transport> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take().filter(|_| self.inner.engine.is_ours()) {
            self.inner.engine.with(|core| core.stop_waiting(self.inner.key, &waker));
        }
    }
}

impl<T: Transport> Inner<T> {
    /// What a connection is from its set-up on.
    pub(super) fn new(
        engine: Arc<Engine<T>>,
        key: LinkKey,
        ending: Ending,
        control: Arc<T::Link>,
        facts: Facts,
    ) -> Self {
        let control = Some(control);
        Self { engine, key, ending, control, facts, passed_over: OnceLock::new() }
    }

    /// Remembers which ways were passed over.
    pub(super) fn pass_over(&self, ways: Vec<String>) {
        let _ = self.passed_over.set(ways);
    }

    /// Sends the last record, and waits until all that was sent has arrived.
    async fn finish(self: &Arc<Self>, operation: &'static str) -> Result<()> {
        let mut waiting = Waiting::new(self);
        let delivered = poll_fn(|context| {
            self.engine.drive(context, |core, waker| {
                if core.is_delivered(self.key) {
                    return Poll::Ready(core.link(self.key).is_some_and(|link| link.is_delivered()));
                }
                if let Some(waker) = waker {
                    core.wait_to_send(self.key, waiting.with(waker));
                }
                Poll::Pending
            })
        });
        let delivered = within(&self.engine.service, CLOSE, delivered).await;
        match (delivered, self.ending.get()) {
            (Some(true), _) => Ok(()),
            (_, Some(error)) => Err(self.refine(error.again(operation))),
            _ => {
                let detail = "the peer has not taken all that was sent";
                Err(self.refine(Error::new(ErrorKind::TimedOut, operation).with_detail(detail)))
            }
        }
    }

    /// Says that nothing more will be sent on a channel.
    pub(super) async fn end_channel(self: &Arc<Self>, channel: usize) -> Result<()> {
        let mut waiting = Waiting::new(self);
        let ended = poll_fn(|context| {
            self.engine.drive(context, |core, waker| {
                let ended = core.end_channel(self.key, channel);
                if let (Poll::Pending, Some(waker)) = (&ended, waker) {
                    core.wait_to_send(self.key, waiting.with(waker));
                }
                ended
            })
        });
        ended.await.map_err(|error| self.refine(error.within("finish")))
    }

    /// Adds to an error with whom and through what.
    pub(super) fn refine(&self, error: Error) -> Error {
        error.with_peer(&self.facts.identity.peer).with_device(&self.engine.device).with_gid(self.facts.gid)
    }
}

impl<T: Transport> Drop for Inner<T> {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            if !self.engine.is_ours() {
                // A forked child: the connection is its parent's.
                return std::mem::forget(control);
            }
            let engine = Arc::clone(&self.engine);
            let deadline = engine.now() + LINGER;
            // One that has ended was closed before, or could not be.
            let trace =
                if self.ending.get().is_none() { spans::close(&self.facts.identity, "drop") } else { Trace::none() };
            engine.linger(self.key, control, deadline, trace);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer()).field("device", &self.device()).finish_non_exhaustive()
    }
}
