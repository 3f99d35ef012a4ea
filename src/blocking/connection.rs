//! Connections.

use std::time::Duration;

#[cfg(feature = "bincode")]
use serde::{Serialize, de::DeserializeOwned};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::wait::{block_on, wait, wait_owned};
use super::{Channel, Result};
use crate::{Buffer, Destination, Failed, Message, RemoteBuffer, RemoteValue, Source};

/// A connection to a peer; see [`Connection`](crate::Connection). Clones are handles to the same connection, each with
/// a bound of its own.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: crate::Connection,
    timeout: Option<Duration>,
}

impl From<crate::Connection> for Connection {
    fn from(inner: crate::Connection) -> Self {
        Self { inner, timeout: None }
    }
}

impl Connection {
    /// The same connection, whose calls wait no longer than `timeout` each. Then they answer
    /// [`TimedOut`](crate::ErrorKind::TimedOut).
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Sends a message. Waits while there is no room for it.
    ///
    /// # Errors
    /// As [`send`](crate::Connection::send).
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        wait(self.timeout, "send", self.inner.send(payload))
    }

    /// Sends a buffer, and gives it away: without a copy and at once where pages are shared.
    ///
    /// # Errors
    /// As [`hand_over`](crate::Channel::hand_over). After a timeout the buffer is given up.
    pub fn hand_over(&self, buffer: Buffer) -> std::result::Result<(), Failed<Buffer>> {
        wait_owned(self.timeout, "send", self.inner.hand_over(buffer))
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// As [`recv`](crate::Connection::recv).
    pub fn recv(&self) -> Result<Message> {
        wait(self.timeout, "receive", self.inner.recv())
    }

    /// As [`send`](Self::send), for no longer than `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`TimedOut`](crate::ErrorKind::TimedOut).
    pub fn send_timeout(&self, payload: &[u8], timeout: Duration) -> Result<()> {
        wait(Some(timeout), "send", self.inner.send(payload))
    }

    /// As [`recv`](Self::recv), for no longer than `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`TimedOut`](crate::ErrorKind::TimedOut): no message is lost.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message> {
        wait(Some(timeout), "receive", self.inner.recv())
    }

    /// Sends a value as a message; see [`send_value`](crate::Connection::send_value).
    ///
    /// # Errors
    /// As [`send_value`](crate::Connection::send_value).
    #[cfg(feature = "bincode")]
    pub fn send_value<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        wait(self.timeout, "send", self.inner.send_value(value))
    }

    /// Waits for the next message and answers the value in it; see [`recv_value`](crate::Connection::recv_value).
    ///
    /// # Errors
    /// As [`recv_value`](crate::Connection::recv_value).
    #[cfg(feature = "bincode")]
    pub fn recv_value<T: DeserializeOwned>(&self) -> Result<T> {
        wait(self.timeout, "receive", self.inner.recv_value())
    }

    /// Copies all of `source` to the start of the peer's memory.
    ///
    /// # Errors
    /// As [`write`](crate::Connection::write). After a timeout the operation goes on with its buffer.
    pub fn write<S: Source>(&self, source: S, remote: &RemoteBuffer) -> std::result::Result<S, Failed<S>> {
        wait_owned(self.timeout, "write", self.inner.write(source, remote))
    }

    /// Fills all of `destination` from the start of the peer's memory.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn read<D: Destination>(&self, destination: D, remote: &RemoteBuffer) -> std::result::Result<D, Failed<D>> {
        wait_owned(self.timeout, "read", self.inner.read(destination, remote))
    }

    /// Adds to the peer's number and answers what it was before; see [`fetch_add`](crate::Connection::fetch_add).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn fetch_add(&self, remote: &RemoteValue<u64>, add: u64) -> Result<u64> {
        wait(self.timeout, "fetch_add", async { self.inner.fetch_add(remote, add).await })
    }

    /// Replaces the peer's number if it is `compare`, and answers what it was before; see
    /// [`compare_swap`](crate::Connection::compare_swap).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn compare_swap(&self, remote: &RemoteValue<u64>, compare: u64, swap: u64) -> Result<u64> {
        wait(self.timeout, "compare_swap", async { self.inner.compare_swap(remote, compare, swap).await })
    }

    /// Reads the peer's value.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn read_value<T: FromBytes + IntoBytes>(&self, remote: &RemoteValue<T>) -> Result<T> {
        wait(self.timeout, "read", self.inner.read_value(remote))
    }

    /// Writes the peer's value.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_value<T>(&self, remote: &RemoteValue<T>, value: &T) -> Result<()>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        wait(self.timeout, "write", self.inner.write_value(remote, value))
    }

    /// One of the connection's channels, with the same bound.
    ///
    /// # Errors
    /// As [`channel`](crate::Connection::channel).
    pub fn channel(&self, id: u32) -> Result<Channel> {
        self.inner.channel(id).map(|inner| Channel::new(inner, self.timeout))
    }

    /// Closes the connection for all clones, after all that was sent has arrived.
    ///
    /// # Errors
    /// As [`close`](crate::Connection::close), which has a bound of its own.
    pub fn close(&self) -> Result<()> {
        block_on(self.inner.close())
    }

    /// The connection whose calls do not block.
    pub fn inner(&self) -> &crate::Connection {
        &self.inner
    }
}
