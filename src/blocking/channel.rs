//! Channels, and calls over them.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::Result;
use super::wait::{block_on, wait, wait_owned};
#[cfg(feature = "bincode")]
use crate::Bincode;
use crate::{ApplicationError, Buffer, CallOptions, Codec, Destination, Exposable, Failed, Message};

/// One of a connection's channels; see [`Channel`](crate::Channel).
#[derive(Clone, Debug)]
pub struct Channel {
    inner: crate::Channel,
    timeout: Option<Duration>,
}

impl From<crate::Channel> for Channel {
    fn from(inner: crate::Channel) -> Self {
        Self { inner, timeout: None }
    }
}

impl Channel {
    pub(super) fn new(inner: crate::Channel, timeout: Option<Duration>) -> Self {
        Self { inner, timeout }
    }

    /// The same channel, whose calls wait no longer than `timeout` each. Then they answer
    /// [`TimedOut`](crate::ErrorKind::TimedOut).
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Sends a message. Waits while there is no room for it.
    ///
    /// # Errors
    /// As [`send`](crate::Channel::send).
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        wait(self.timeout, "send", self.inner.send(payload))
    }

    /// As [`send`](Self::send), for no longer than `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`TimedOut`](crate::ErrorKind::TimedOut).
    pub fn send_timeout(&self, payload: &[u8], timeout: Duration) -> Result<()> {
        wait(Some(timeout), "send", self.inner.send(payload))
    }

    /// Sends memory, without a copy if it is long.
    ///
    /// # Errors
    /// As [`send_owned`](crate::Channel::send_owned). After a timeout the memory is given up.
    pub fn send_owned<S: Exposable>(&self, source: S) -> std::result::Result<S, Failed<S>> {
        wait_owned(self.timeout, "send", self.inner.send_owned(source))
    }

    /// Sends a buffer, and gives it away: without a copy and at once where pages are shared.
    ///
    /// # Errors
    /// As [`hand_over`](crate::Channel::hand_over). After a timeout the buffer is given up.
    pub fn hand_over(&self, buffer: Buffer) -> std::result::Result<(), Failed<Buffer>> {
        wait_owned(self.timeout, "send", self.inner.hand_over(buffer))
    }

    /// Sends a message now, or not at all.
    ///
    /// # Errors
    /// As [`try_send`](crate::Channel::try_send).
    pub fn try_send(&self, payload: &[u8]) -> Result<()> {
        self.inner.try_send(payload)
    }

    /// Sends a message and waits until the peer's library has it.
    ///
    /// # Errors
    /// As [`send_acknowledged`](crate::Channel::send_acknowledged).
    pub fn send_acknowledged(&self, payload: &[u8]) -> Result<()> {
        wait(self.timeout, "send", self.inner.send_acknowledged(payload))
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// As [`recv`](crate::Channel::recv).
    pub fn recv(&self) -> Result<Message> {
        wait(self.timeout, "receive", self.inner.recv())
    }

    /// As [`recv`](Self::recv), for no longer than `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`TimedOut`](crate::ErrorKind::TimedOut): no message is lost.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message> {
        wait(Some(timeout), "receive", self.inner.recv())
    }

    /// Waits for the next message and puts it into memory of the program's own.
    ///
    /// # Errors
    /// As [`recv_into`](crate::Channel::recv_into). After a timeout the memory is given up.
    pub fn recv_into<D: Destination>(&self, destination: D) -> std::result::Result<(D, usize), Failed<D>> {
        wait_owned(self.timeout, "receive", self.inner.recv_into(destination))
    }

    /// Sends a value as a message; see [`send_value`](crate::Channel::send_value).
    ///
    /// # Errors
    /// As [`send_value`](crate::Channel::send_value).
    #[cfg(feature = "bincode")]
    pub fn send_value<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        wait(self.timeout, "send", self.inner.send_value(value))
    }

    /// Waits for the next message and answers the value in it; see [`recv_value`](crate::Channel::recv_value).
    ///
    /// # Errors
    /// As [`recv_value`](crate::Channel::recv_value).
    #[cfg(feature = "bincode")]
    pub fn recv_value<T: DeserializeOwned>(&self) -> Result<T> {
        wait(self.timeout, "receive", self.inner.recv_value())
    }

    /// Says that no more will be sent on this channel.
    ///
    /// # Errors
    /// As [`finish`](crate::Channel::finish).
    pub fn finish(&self) -> Result<()> {
        wait(self.timeout, "finish", self.inner.finish())
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The channel whose calls do not block.
    pub fn into_inner(self) -> crate::Channel {
        self.inner
    }

    /// The channel whose calls do not block.
    pub fn inner(&self) -> &crate::Channel {
        &self.inner
    }
}

/// Calls a peer that serves the same channel; see [`Client`](crate::Client). Each thread can have a clone.
#[derive(Clone, Debug)]
pub struct Client {
    inner: crate::Client,
    timeout: Option<Duration>,
}

impl Client {
    /// A client on `channel`, whose bound is that of the calls.
    pub fn new(channel: Channel) -> Self {
        Self { inner: crate::Client::new(channel.inner), timeout: channel.timeout }
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// As [`call`](crate::Client::call).
    #[cfg(feature = "bincode")]
    pub fn call<Q: Serialize + ?Sized, R: DeserializeOwned>(&self, request: &Q) -> Result<R> {
        self.call_with(&Bincode::default(), request, CallOptions::default())
    }

    /// As [`call`](Self::call), and gives up after `timeout`, which the server learns.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`TimedOut`](crate::ErrorKind::TimedOut).
    #[cfg(feature = "bincode")]
    pub fn call_timeout<Q: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        request: &Q,
        timeout: Duration,
    ) -> Result<R> {
        self.call_with(&Bincode::default(), request, CallOptions::default().timeout(timeout))
    }

    /// As [`call`](Self::call), with a codec of one's own and options.
    ///
    /// # Errors
    /// As [`call_with`](crate::Client::call_with).
    pub fn call_with<Q: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        codec: &impl Codec,
        request: &Q,
        options: CallOptions,
    ) -> Result<R> {
        block_on(self.inner.call_with(codec, request, options.or_timeout(self.timeout)))
    }

    /// The client whose calls do not block.
    pub fn inner(&self) -> &crate::Client {
        &self.inner
    }
}

/// Serves a channel on this thread until the client is gone: calls `handler` with each request, one after the other,
/// and sends back what it answers. The channel's bound does not count. See [`serve`](crate::serve()), which handles
/// many at once.
///
/// ```no_run
/// # fn example(channel: zcmi::blocking::Channel) -> zcmi::Result<()> {
/// zcmi::blocking::serve(channel, |number: u64| number.checked_mul(2).ok_or("too large"))
/// # }
/// ```
///
/// # Errors
/// As [`serve`](crate::serve()).
#[cfg(feature = "bincode")]
pub fn serve<Q, R, E>(channel: Channel, handler: impl Fn(Q) -> std::result::Result<R, E>) -> Result<()>
where
    Q: DeserializeOwned,
    R: Serialize,
    E: Into<ApplicationError>,
{
    serve_with(channel, Bincode::default(), handler)
}

/// As [`serve`], with a codec of one's own.
///
/// # Errors
/// As [`serve`](crate::serve()).
pub fn serve_with<Q, R, E>(
    channel: Channel,
    codec: impl Codec,
    handler: impl Fn(Q) -> std::result::Result<R, E>,
) -> Result<()>
where
    Q: DeserializeOwned,
    R: Serialize,
    E: Into<ApplicationError>,
{
    let handler = &handler;
    block_on(crate::serve_with(channel.inner, codec, 1, move |request| async move { handler(request) }))
}
