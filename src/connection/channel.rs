//! Channels: conversations that share a connection and do not hold each other up.

use std::fmt;
use std::io::IoSlice;
use std::time::Duration;

use super::{Connection, Message};
use crate::{Buffer, Destination, Exposable, Failed, Result};

/// One of the conversations of a connection. Messages of a channel arrive in the order in which they were sent; what
/// waits on one channel does not hold up another.
///
/// Both peers name it by the same number; [`Connection::channel`] gives a handle, which can be cloned. What
/// [`Connection::send`] sends goes on channel 0.
#[derive(Clone)]
pub struct Channel {
    connection: Connection,
    index: usize,
    id: u32,
}

impl Channel {
    pub(super) fn new(connection: Connection, index: usize, id: u32) -> Self {
        Self { connection, index, id }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The connection it belongs to.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends a message of any length up to [`Connection::max_message_size`]. Resolves when `payload` may be reused: a short one is in
    /// a frame then, a long one (see [`Connection::max_short_message_size`]) is copied first, and taken by the peer's application
    /// when this resolves. Through shared memory a long one of up to 64 KiB goes as a short one does, if there is room for it at once.
    ///
    /// Waits while the peer has no room. Dropping the future before it resolves sends nothing, or, of a long message that
    /// was offered already, lets it be received all the same.
    ///
    /// # Errors
    /// [`TooLong`](crate::ErrorKind::TooLong), [`PoolExhausted`](crate::ErrorKind::PoolExhausted), [`Closed`](crate::ErrorKind::Closed) after
    /// [`finish`](Self::finish), [`PeerClosed`](crate::ErrorKind::PeerClosed) if the peer no longer receives, and whatever ended the connection. A
    /// message that was sent may be lost if the connection breaks.
    pub async fn send(&self, payload: &[u8]) -> Result<()> {
        self.connection.0.send(self.index, &[IoSlice::new(payload)]).await
    }

    /// Sends the bytes of `pieces`, in order, as one message; as [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> Result<()> {
        self.connection.0.send(self.index, pieces).await
    }

    /// Sends memory without a copy, if it does not fit a frame: the peer reads it where it is. Resolves, with the memory, when it
    /// may be reused. Through shared memory up to 64 KiB are copied instead, if there is room for them at once.
    ///
    /// [`Bytes`](bytes::Bytes) and [`SharedMemory`](crate::SharedMemory) go through the registration cache: sent again, exactly the same bytes are not registered
    /// again. Where the device has no memory windows, the peer can read them until the cache gives them up.
    ///
    /// Dropping the future before the message was offered sends nothing; after that it is received all the same, and
    /// the memory is freed then.
    ///
    /// # Errors
    /// As [`send`](Self::send). Every error gives the memory back, unless the device has not let go of it.
    pub async fn send_owned<M: Exposable>(&self, source: M) -> std::result::Result<M, Failed<M>> {
        self.connection.0.send_owned(self.index, source).await
    }

    /// Sends a buffer, and gives it away. Where both ends [share pages](Connection::shares_pages) and the buffer is of the connection's
    /// [pool](Connection::pool), the message that the peer receives is the pages in which it lies: that copies nothing, makes no system call and costs the
    /// same whatever the length, and it resolves when the message is on its way. The buffer goes back to its pool when the peer has dropped all of
    /// it, or ends; or the peer hands it, or a part of it, back, in the same way. The pool's limit is what bounds how much can be in peers' hands.
    ///
    /// Everywhere else, and of other memory, it is sent as by [`send_owned`](Self::send_owned), and resolves as that does: buffers that were received from
    /// another peer, that are a part of one of which other parts are still here, or of which 16,384 are with the peer already.
    ///
    /// A message that is received into memory of the receiver's, by [`recv_into`](Self::recv_into), is copied there. To a channel's window each counts
    /// for 88 bytes.
    ///
    /// # Errors
    /// As [`send_owned`](Self::send_owned).
    pub async fn hand_over(&self, buffer: Buffer) -> std::result::Result<(), Failed<Buffer>> {
        self.connection.0.hand_over(self.index, buffer).await
    }

    /// Sends a message that fits a frame, if that can be done without waiting.
    ///
    /// # Errors
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if the peer has no room now; [`TooLong`](crate::ErrorKind::TooLong) beyond
    /// [`Connection::max_short_message_size`]; and as [`send`](Self::send).
    pub fn try_send(&self, payload: &[u8]) -> Result<()> {
        self.connection.0.try_send(self.index, &[IoSlice::new(payload)])
    }

    /// As [`send`](Self::send), within `patience`.
    ///
    /// # Errors
    /// [`TimedOut`](crate::ErrorKind::TimedOut): the message was not sent, or is a long one that may still be received; and as [`send`](Self::send).
    pub async fn send_timeout(&self, payload: &[u8], patience: Duration) -> Result<()> {
        self.connection.0.send_timeout(self.index, &[IoSlice::new(payload)], patience).await
    }

    /// As [`send`](Self::send), and resolves when the peer's library has the message. That its application
    /// receives it is not said.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_acknowledged(&self, payload: &[u8]) -> Result<()> {
        self.connection.0.send_acknowledged(self.index, &[IoSlice::new(payload)]).await
    }

    /// The next message. A long one is fetched into a buffer of the process' pool, without a copy. Dropping the future loses
    /// none.
    ///
    /// # Errors
    /// [`PeerClosed`](crate::ErrorKind::PeerClosed) when the peer has finished and all its messages have been received; whatever
    /// else ended the connection, likewise after the messages that came before; [`PoolExhausted`](crate::ErrorKind::PoolExhausted): the
    /// message is still there.
    pub async fn recv(&self) -> Result<Message> {
        self.connection.0.receive(self.index).await
    }

    /// As [`recv`](Self::recv), within `patience`.
    ///
    /// # Errors
    /// [`TimedOut`](crate::ErrorKind::TimedOut): none has been lost; and as [`recv`](Self::recv).
    pub async fn recv_timeout(&self, patience: Duration) -> Result<Message> {
        self.connection.0.receive_timeout(self.index, patience).await
    }

    /// The next message, if it is here.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Message>> {
        self.connection.0.try_receive(self.index)
    }

    /// Receives the next message into the beginning of `destination`; answers how many bytes it has. A long one is put there by the device,
    /// without a copy. Dropping the future loses no message, and what is behind the message in `destination` stays as it is.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); [`TooLong`](crate::ErrorKind::TooLong) if the message does not fit: it is still there. Every error gives the
    /// destination back, unless the device has not let go of it.
    pub async fn recv_into<D: Destination>(&self, destination: D) -> std::result::Result<(D, usize), Failed<D>> {
        self.connection.0.receive_into(self.index, destination).await
    }

    /// Says that nothing more will be sent on this channel: the peer's `recv` there answers
    /// [`PeerClosed`](crate::ErrorKind::PeerClosed) after the last message. Receiving goes on, and so do other channels.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed) if that was said before, and whatever ended the connection.
    pub async fn finish(&self) -> Result<()> {
        self.connection.0.end_channel(self.index).await
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("id", &self.id).field("connection", &self.connection).finish()
    }
}
