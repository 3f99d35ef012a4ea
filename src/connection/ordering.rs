//! Ordering: what may overtake what, and how to rule it out.

use super::Connection;
use super::one_sided::{AtomicOperation, Operation};
use super::pending::{How, Kind, Pending};
use crate::{Destination, RemoteBuffer, RemoteValue, Result, Source};

impl Connection {
    /// Has the next operation wait, in the device, for the reads and atomic operations that were posted before it on this
    /// connection: it begins when their results are here.
    ///
    /// What is ordered without it, of operations in the order in which they were posted (IBTA 1.4 §9.5, §10.8.3; an operation
    /// that found no room is posted when it is polled):
    ///
    /// | | behind a write or message | behind a read | behind an atomic operation |
    /// |---|---|---|---|
    /// | a write or message | in order | **may overtake** | **may overtake** |
    /// | a read | in order | in order | in order |
    /// | an atomic operation | in order | **may overtake** | in order |
    ///
    /// Overtaking is: the write can be placed before the read in front of it has looked, so that the read sees what came
    /// after it. Awaiting the read before the write is posted rules it out too, at the cost of a round trip in which
    /// nothing is posted. Operations on different connections are in no order.
    ///
    /// ```no_run
    /// # async fn example(connection: zcmi::Connection, remote: zcmi::RemoteBuffer) -> zcmi::Result<()> {
    /// // Takes what is there and puts something else in its place, in one round trip.
    /// let old = connection.read(zcmi::Buffer::allocate(64)?, &remote);
    /// let new = connection.fenced().write(zcmi::Buffer::allocate(64)?, &remote);
    /// let old = old.await?;
    /// new.await?;
    /// # drop(old);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fenced(&self) -> Fenced<'_> {
        Fenced(self)
    }

    /// Waits until every operation that was posted before on this connection, by whichever clone, has been carried out at the
    /// peer, also those whose futures were dropped. The peer's process has no part in it. Messages in frames that were posted have reached its
    /// device then; for those that the peer had no room for yet there is [`send_acknowledged`](Self::send_acknowledged).
    ///
    /// There is no bound but that of the device, which gives a peer up that does not answer.
    ///
    /// ```no_run
    /// # async fn example(connection: zcmi::Connection, remote: zcmi::RemoteBuffer) -> zcmi::Result<()> {
    /// for part in 0..16 {
    ///     drop(connection.write(zcmi::Buffer::allocate(64)?, &remote.slice(part * 64..part * 64 + 64)?));
    /// }
    /// connection.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Whatever ended the connection: then nobody knows which of them were carried out.
    pub async fn flush(&self) -> Result<()> {
        self.0.engine.with(|core| core.post_frames(self.0.key, true));
        let mut probe = Pending::probe(&self.0);
        std::future::poll_fn(|context| probe.poll(context)).await.0
    }
}

/// Begins an operation behind those before it; made by [`Connection::fenced`].
#[derive(Clone, Copy, Debug)]
#[must_use = "it does nothing by itself"]
pub struct Fenced<'a>(&'a Connection);

impl Fenced<'_> {
    const HOW: How = How { fence: true, staged: false };

    /// As [`Connection::write`].
    pub fn write<S: Source>(self, source: S, remote: &RemoteBuffer) -> Operation<S> {
        Operation::new(Pending::start(&self.0.0, Kind::Write, source, remote, Self::HOW))
    }

    /// As [`Connection::write_notify`].
    pub fn write_notify<S: Source>(self, source: S, remote: &RemoteBuffer, value: u32) -> Operation<S> {
        Operation::new(Pending::start(&self.0.0, Kind::WriteNotify { value }, source, remote, Self::HOW))
    }

    /// As [`Connection::read`].
    pub fn read<D: Destination>(self, destination: D, remote: &RemoteBuffer) -> Operation<D> {
        Operation::new(Pending::start(&self.0.0, Kind::Read, destination, remote, Self::HOW))
    }

    /// As [`Connection::fetch_add`].
    pub fn fetch_add(self, remote: &RemoteValue<u64>, add: u64) -> AtomicOperation {
        AtomicOperation::start(self.0, Kind::FetchAdd { add }, remote, Self::HOW)
    }

    /// As [`Connection::compare_swap`].
    pub fn compare_swap(self, remote: &RemoteValue<u64>, compare: u64, swap: u64) -> AtomicOperation {
        AtomicOperation::start(self.0, Kind::CompareSwap { compare, swap }, remote, Self::HOW)
    }
}
