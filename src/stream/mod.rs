//! Streams of bytes over a channel.

mod chunk;
mod reader;
mod writer;

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use self::reader::Reader;
use self::writer::Writer;
use crate::Channel;
use crate::memory::Epoch;

/// How long what was written is still sent after the stream was dropped.
const LINGER: Duration = Duration::from_secs(2);

/// A stream of bytes both ways over a channel, for everything that speaks tokio's [`AsyncRead`] and [`AsyncWrite`]:
/// hyper, tonic, `tokio::io::copy`. Both ends make one of the same channel, which then carries nothing else.
///
/// ```no_run
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use zcmi::Stream;
///
/// # async fn example(near: zcmi::Connection, far: zcmi::Connection) -> std::io::Result<()> {
/// let mut client = Stream::new(near.channel(1)?);
/// let mut server = Stream::new(far.channel(1)?);
/// client.write_all(b"GET /").await?;
/// client.shutdown().await?; // the server reads to the end, and can still answer
/// let mut request = String::new();
/// server.read_to_string(&mut request).await?;
/// server.write_all(b"200 OK").await?;
/// server.flush().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Writing
///
/// What is written is collected in registered memory, up to 128 KiB, and sent when that is full, by `flush`, when the
/// stream is read from, by `shutdown`, or 5 ms later. Up to four such pieces are on their way; then writing waits. They
/// go on though nobody waits for them.
///
/// `flush` resolves when all is on its way. `shutdown` resolves when the device or the peer's library has it, and the
/// peer reads to the end of the stream; reading goes on.
///
/// # Dropping
///
/// What was written is still sent in the background, for up to 2 s, and the peer reads it and then the end. What it
/// writes from then on is an error ([`BrokenPipe`](io::ErrorKind::BrokenPipe)). A program that is about to end calls
/// `shutdown` first.
///
/// If the connection is lost or closed before the peer has shut down, reading is an error and not the end of the
/// stream: nothing is cut off unnoticed. A future that reads or writes can be dropped and loses nothing.
pub struct Stream {
    reader: Reader,
    writer: Arc<Writer>,
    epoch: Epoch,
}

impl Stream {
    /// A stream over `channel`.
    pub fn new(channel: Channel) -> Self {
        Self { reader: Reader::new(channel.clone()), writer: Writer::new(channel), epoch: Epoch::current() }
    }

    /// Its channel. What is sent or received there by other means breaks the stream.
    pub fn channel(&self) -> &Channel {
        self.writer.channel()
    }

    /// Bytes that can be read at once.
    pub(crate) fn available(&self) -> &[u8] {
        self.reader.available()
    }

    /// Polls the writer; if that waits, looks whether the peer has stopped reading.
    fn write_with<R>(
        &mut self,
        context: &mut Context<'_>,
        mut poll: impl FnMut(&Arc<Writer>, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        match poll(&self.writer, context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                self.reader.look(context);
                if !self.reader.peer_has_stopped() {
                    return Poll::Pending;
                }
                self.writer.stop();
                poll(&self.writer, context)
            }
        }
    }
}

impl AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let filled = this.reader.poll_fill(context);
        if this.reader.peer_has_stopped() {
            this.writer.stop();
        }
        match filled {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(this.reader.available())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => {
                // Whoever waits for an answer has asked.
                this.writer.nudge();
                Poll::Pending
            }
        }
    }

    fn consume(self: Pin<&mut Self>, length: usize) {
        self.get_mut().reader.consume(length);
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let available = std::task::ready!(self.as_mut().poll_fill_buf(context))?;
        let length = available.len().min(into.remaining());
        into.put_slice(&available[..length]);
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write_with(context, |writer, context| writer.poll_write(context, slices)).map_err(Into::into)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write_with(context, Writer::poll_flush).map_err(Into::into)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write_with(context, Writer::poll_shutdown).map_err(Into::into)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // In a forked child it is the parent's.
        if self.epoch.is_current() {
            let writer = Arc::clone(&self.writer);
            let stops = !self.reader.is_at_end();
            let last = Last(Arc::clone(&writer));
            let background = writer.background().clone();
            background.run(
                async move {
                    let _last = last;
                    writer.finish(stops).await;
                },
                LINGER,
            );
        }
    }
}

/// Whatever comes of it, nothing stays in flight.
struct Last(Arc<Writer>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("channel", self.channel()).finish_non_exhaustive()
    }
}
