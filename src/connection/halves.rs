//! The halves of a connection: who sends and who receives, each with an owner of its own.

use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use super::{Connection, Message, Operation};
use crate::{Buffer, Destination, Exposable, Failed, RemoteBuffer, Result, Source};

impl Connection {
    /// Parts the connection in what sends and what receives. Each half can be cloned and go to another task; the connection
    /// ends when both are gone, and every other clone of it.
    ///
    /// ```no_run
    /// # async fn example(connection: zcmi::Connection) -> zcmi::Result<()> {
    /// let (sender, receiver) = connection.split();
    /// let echo = tokio::spawn(async move {
    ///     while let Ok(message) = receiver.recv().await {
    ///         println!("{} bytes", message.len());
    ///     }
    /// });
    /// sender.send(b"hello").await?;
    /// drop(sender); // The peer's `recv` answers `PeerClosed` after this message.
    /// # let _ = echo.await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(self) -> (SendHalf, ReceiveHalf) {
        (SendHalf(Arc::new(Sends(self.clone()))), ReceiveHalf(Arc::new(Receives(self))))
    }
}

/// What sends on a connection; made by [`Connection::split`].
///
/// When the last clone is dropped, our side of the conversation is finished in the background, as by
/// [`Connection::finish`]: the peer receives [`PeerClosed`](crate::ErrorKind::PeerClosed) after the last message of each channel.
#[derive(Clone)]
pub struct SendHalf(Arc<Sends>);

/// What receives on a connection; made by [`Connection::split`].
///
/// When the last clone is dropped, nothing is received any more, on any channel: what waits is dropped, the peer's
/// long messages answer it [`PeerClosed`](crate::ErrorKind::PeerClosed), short ones are sent for nothing, and so are notifications.
#[derive(Clone)]
pub struct ReceiveHalf(Arc<Receives>);

struct Sends(Connection);
struct Receives(Connection);

impl SendHalf {
    /// As [`Connection::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, payload: &[u8]) -> Result<()> {
        self.connection().send(payload).await
    }

    /// As [`Connection::send_vectored`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> Result<()> {
        self.connection().send_vectored(pieces).await
    }

    /// As [`Connection::send_owned`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_owned<M: Exposable>(&self, source: M) -> std::result::Result<M, Failed<M>> {
        self.connection().send_owned(source).await
    }

    /// As [`Connection::hand_over`].
    ///
    /// # Errors
    /// As there.
    pub async fn hand_over(&self, buffer: Buffer) -> std::result::Result<(), Failed<Buffer>> {
        self.connection().hand_over(buffer).await
    }

    /// As [`Connection::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, payload: &[u8]) -> Result<()> {
        self.connection().try_send(payload)
    }

    /// As [`Connection::send_timeout`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_timeout(&self, payload: &[u8], patience: Duration) -> Result<()> {
        self.connection().send_timeout(payload, patience).await
    }

    /// As [`Connection::send_acknowledged`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_acknowledged(&self, payload: &[u8]) -> Result<()> {
        self.connection().send_acknowledged(payload).await
    }

    /// As [`Connection::write_notify`].
    pub fn write_notify<S: Source>(&self, source: S, remote: &RemoteBuffer, value: u32) -> Operation<S> {
        self.connection().write_notify(source, remote, value)
    }

    /// As [`Connection::flush`].
    ///
    /// # Errors
    /// As there.
    pub async fn flush(&self) -> Result<()> {
        self.connection().flush().await
    }

    /// As [`Connection::finish`].
    ///
    /// # Errors
    /// As there.
    pub async fn finish(&self) -> Result<()> {
        self.connection().finish().await
    }

    /// The connection, for all that is neither sending nor receiving. A clone of it keeps the connection, and not this half.
    pub fn connection(&self) -> &Connection {
        &self.0.0
    }
}

impl ReceiveHalf {
    /// As [`Connection::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&self) -> Result<Message> {
        self.connection().recv().await
    }

    /// As [`Connection::recv_timeout`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_timeout(&self, patience: Duration) -> Result<Message> {
        self.connection().recv_timeout(patience).await
    }

    /// As [`Connection::try_recv`].
    ///
    /// # Errors
    /// As there.
    pub fn try_recv(&self) -> Result<Option<Message>> {
        self.connection().try_recv()
    }

    /// As [`Connection::recv_into`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_into<D: Destination>(&self, destination: D) -> std::result::Result<(D, usize), Failed<D>> {
        self.connection().recv_into(destination).await
    }

    /// As [`Connection::notified`].
    ///
    /// # Errors
    /// As there.
    pub async fn notified(&self) -> Result<u32> {
        self.connection().notified().await
    }

    /// As [`Connection::try_notified`].
    ///
    /// # Errors
    /// As there.
    pub fn try_notified(&self) -> Result<Option<u32>> {
        self.connection().try_notified()
    }

    /// The connection, for all that is neither sending nor receiving. A clone of it keeps the connection, and not this half.
    pub fn connection(&self) -> &Connection {
        &self.0.0
    }
}

impl Drop for Sends {
    fn drop(&mut self) {
        let inner = &self.0.0;
        if inner.engine.is_ours() {
            inner.engine.with(|core| core.finish_soon(inner.key));
        }
    }
}

impl Drop for Receives {
    fn drop(&mut self) {
        let inner = &self.0.0;
        if inner.engine.is_ours() {
            inner.engine.with(|core| core.decline_all(inner.key));
        }
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendHalf").field(self.connection()).finish()
    }
}

impl fmt::Debug for ReceiveHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReceiveHalf").field(self.connection()).finish()
    }
}
