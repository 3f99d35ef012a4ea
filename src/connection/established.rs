//! Established connections.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::core::LinkKey;
use super::engine::Engine;
use super::link::{Ending, Finish};
use super::{Active, Message};
use crate::transport::{Capabilities, Transport};
use crate::{Error, ErrorKind, Result};

/// How long `close` waits until all that was sent has arrived.
const CLOSE: Duration = Duration::from_secs(10);
/// How long a dropped connection is looked after until all that was sent has arrived.
const LINGER: Duration = Duration::from_secs(2);

/// A connection to a peer: messages both ways, and access to the memory that the peer has granted.
///
/// It can be cloned and used from many tasks; requests are carried out in the order in which they are
/// posted. When the last clone is dropped, and every [`Message`] and [`Operation`](crate::Operation) of it, what was sent is still delivered in
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
    pub(super) session: u64,
    /// What handles that the peer has granted to all of its domain are stamped with.
    pub(super) peers_domain: u64,
    pub(super) peer: String,
    pub(super) capabilities: Capabilities,
}

impl Connection {
    /// Sends a message. Resolves when `payload` may be reused: it has been copied and posted.
    ///
    /// Waits while the peer has no room for another message or the send queue is full. Dropping the future before
    /// it resolves sends nothing.
    ///
    /// # Errors
    /// [`TooLong`](ErrorKind::TooLong) beyond [`max_message_size`](Self::max_message_size), and whatever ended the
    /// connection. A message that was sent may be lost if the connection breaks.
    pub async fn send(&self, payload: &[u8]) -> Result<()> {
        let inner = &self.0;
        let mut waiting = Waiting::new(inner);
        let sent = std::future::poll_fn(|context| {
            inner.engine.drive(context, |core, waker| {
                let sent = core.send(inner.key, payload);
                if let (Poll::Pending, Some(waker)) = (&sent, waker) {
                    core.wait_to_send(inner.key, waiting.with(waker));
                }
                sent
            })
        });
        sent.await.map_err(|error| inner.refine(error))
    }

    /// The next message. Dropping the future loses none.
    ///
    /// # Errors
    /// [`PeerClosed`](ErrorKind::PeerClosed) when the peer has closed and all its messages have been received;
    /// whatever else ended the connection, likewise after the messages that came before.
    pub async fn recv(&self) -> Result<Message> {
        let inner = &self.0;
        let mut waiting = Waiting::new(inner);
        let received = std::future::poll_fn(|context| {
            inner.engine.drive(context, |core, waker| {
                let Some(link) = core.link(inner.key) else {
                    return Poll::Ready(Err(Error::new(ErrorKind::Closed, "receive")));
                };
                match (link.receive(), waker) {
                    (Some(received), _) => Poll::Ready(received),
                    (None, Some(waker)) => {
                        core.wait_to_receive(inner.key, waiting.with(waker));
                        Poll::Pending
                    }
                    (None, None) => Poll::Pending,
                }
            })
        });
        let (buffer, length) = received.await.map_err(|error| inner.refine(error))?;
        Ok(Message::new(Arc::clone(inner), buffer, length))
    }

    /// Closes the connection for all clones, after all that was sent has reached the peer's device; waits 10 s for that.
    ///
    /// # Errors
    /// Whatever broke the connection before, and [`TimedOut`](ErrorKind::TimedOut): what was sent may then be lost. That the
    /// peer has closed first is no error: what it has not received then, it did not want.
    pub async fn close(&self) -> Result<()> {
        let inner = &self.0;
        let deadline = Instant::now() + CLOSE;
        let mut waiting = Waiting::new(inner);
        let mut timer_is_set = false;
        std::future::poll_fn(|context| {
            if !std::mem::replace(&mut timer_is_set, true) {
                let waker = context.waker().clone();
                inner.engine.service.run_at(deadline, move || waker.wake());
            }
            inner.engine.drive(context, |core, waker| match core.finish(inner.key) {
                Finish::Done => Poll::Ready(()),
                Finish::Open | Finish::Sent if Instant::now() >= deadline => Poll::Ready(()),
                Finish::Open | Finish::Sent => {
                    if let Some(waker) = waker {
                        core.wait_to_send(inner.key, waiting.with(waker));
                    }
                    Poll::Pending
                }
            })
        })
        .await;
        let has_arrived =
            inner.engine.with(|core| core.link(inner.key).is_some_and(|link| link.finish == Finish::Done));
        let result = match inner.ending.get() {
            _ if has_arrived => Ok(()),
            Some(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::PeerClosed) => Ok(()),
            Some(error) => Err(inner.refine(error.again("close"))),
            None => {
                let detail = "the peer's device has not taken all that was sent";
                Err(inner.refine(Error::new(ErrorKind::TimedOut, "close").with_detail(detail)))
            }
        };
        inner.engine.with(|core| core.fail(inner.key, Error::new(ErrorKind::Closed, "connection")));
        result
    }

    /// Longest message, in bytes, that can be sent.
    pub fn max_message_size(&self) -> usize {
        self.0.engine.with(|core| core.link(self.0.key).map_or(0, |link| link.max_message()))
    }

    /// The peer's address.
    pub fn peer(&self) -> &str {
        &self.0.peer
    }

    /// The local RDMA device.
    pub fn device(&self) -> &str {
        &self.0.engine.device
    }

    /// The transport: `verbs`.
    pub fn transport(&self) -> &'static str {
        "verbs"
    }
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
    pub(super) fn new(
        engine: Arc<Engine<T>>,
        key: LinkKey,
        ending: Arc<OnceLock<Error>>,
        control: Arc<T::Link>,
        (session, peers_domain): (u64, u64),
        peer: String,
        capabilities: Capabilities,
    ) -> Self {
        Self { engine, key, ending, control: Some(control), session, peers_domain, peer, capabilities }
    }

    /// Adds who and where to an error.
    pub(super) fn refine(&self, error: Error) -> Error {
        error.with_peer(&self.peer).with_device(&self.engine.device)
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
            engine.linger(self.key, control, Instant::now() + LINGER);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer()).field("device", &self.device()).finish_non_exhaustive()
    }
}
