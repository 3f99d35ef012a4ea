//! Streams of bytes.

use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::Channel;
use super::wait::{block_on, block_on_timeout};

/// A stream of bytes over a channel, for everything that speaks [`Read`] and [`Write`]; see [`Stream`](crate::Stream).
/// Its bound is the channel's: a read or a write that takes longer answers [`TimedOut`](io::ErrorKind::TimedOut), and
/// loses nothing.
#[derive(Debug)]
pub struct Stream {
    inner: crate::Stream,
    timeout: Option<Duration>,
}

impl Stream {
    /// A stream over `channel`.
    pub fn new(channel: Channel) -> Self {
        let timeout = channel.timeout();
        Self { inner: crate::Stream::new(channel.into_inner()), timeout }
    }

    /// Says that no more will be written, and waits until all that was is there. Reading goes on.
    ///
    /// # Errors
    /// Those of writing.
    pub fn shutdown(&mut self) -> io::Result<()> {
        wait(self.timeout, poll_fn(|context| Pin::new(&mut self.inner).poll_shutdown(context)))
    }

    /// The stream that does not block.
    pub fn into_inner(self) -> crate::Stream {
        self.inner
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(into);
        wait(self.timeout, poll_fn(|context| Pin::new(&mut self.inner).poll_read(context, &mut into)))?;
        Ok(into.filled().len())
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let filled = poll_fn(|context| Pin::new(&mut self.inner).poll_fill_buf(context).map_ok(drop));
        wait(self.timeout, filled)?;
        // It is there, or the stream is at its end.
        Ok(self.inner.available())
    }

    fn consume(&mut self, length: usize) {
        Pin::new(&mut self.inner).consume(length);
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        wait(self.timeout, poll_fn(|context| Pin::new(&mut self.inner).poll_write(context, bytes)))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        wait(self.timeout, poll_fn(|context| Pin::new(&mut self.inner).poll_write_vectored(context, slices)))
    }

    fn flush(&mut self) -> io::Result<()> {
        wait(self.timeout, poll_fn(|context| Pin::new(&mut self.inner).poll_flush(context)))
    }
}

fn wait<T>(timeout: Option<Duration>, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout {
        None => block_on(future),
        Some(timeout) => block_on_timeout(future, timeout).unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())),
    }
}
