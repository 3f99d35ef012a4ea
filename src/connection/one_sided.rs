//! Reads, writes and atomic operations on a peer's memory.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::pending::{How, Kind, Pending};
use super::{Batch, Connection};
#[cfg(feature = "internals")]
use crate::memory::registration_cache::Lease;
use crate::memory::{Held, Payload, RegionAccess};
use crate::{
    Buffer, CacheStatistics, Destination, Error, ErrorKind, Failed, RemoteBuffer, RemoteValue, Result, Source,
};

impl Connection {
    /// Copies all of `source` to the start of the peer's memory. Posted by this call already; resolves, with the
    /// source, when the bytes are placed there.
    ///
    /// # Errors
    /// [`Foreign`](ErrorKind::Foreign), [`Revoked`](ErrorKind::Revoked), [`AccessDenied`](ErrorKind::AccessDenied),
    /// [`OutOfBounds`](ErrorKind::OutOfBounds) or [`TooLong`](ErrorKind::TooLong): nothing was sent and the connection lives
    /// on. [`RemoteAccess`](ErrorKind::RemoteAccess): the peer's device refused, and the connection is lost.
    /// Every error gives the source back.
    pub fn write<S: Source>(&self, source: S, remote: &RemoteBuffer) -> Operation<S> {
        Operation::new(Pending::start(&self.0, Kind::Write, source, remote, How::default()))
    }

    /// As [`write`](Self::write), and when the bytes are placed the owner of the memory is told: its
    /// [`notified`](Self::notified) answers `value`. Its process has no part in the write, and hears of it when it looks.
    ///
    /// Waits while the peer has no receive for it, or 256 are there that its application has not asked for.
    ///
    /// ```no_run
    /// # async fn example(connection: zcmi::Connection, remote: zcmi::RemoteBuffer) -> zcmi::Result<()> {
    /// let mut slot = zcmi::Buffer::allocate(64)?;
    /// slot.fill(7);
    /// connection.write_notify(slot, &remote.slice(3 * 64..4 * 64)?, 3).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_notify<S: Source>(&self, source: S, remote: &RemoteBuffer, value: u32) -> Operation<S> {
        Operation::new(Pending::start(&self.0, Kind::WriteNotify { value }, source, remote, How::default()))
    }

    /// Fills all of `destination` from the start of the peer's memory. Posted by this call already; resolves, with
    /// the destination, when the bytes are here.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn read<D: Destination>(&self, destination: D, remote: &RemoteBuffer) -> Operation<D> {
        Operation::new(Pending::start(&self.0, Kind::Read, destination, remote, How::default()))
    }

    /// Gathers `sources` in order and writes them to the start of the peer's memory, in one request; as
    /// [`write`](Self::write), which takes a list too. At most [`max_segments`](Self::max_segments).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_vectored<S: Source>(&self, sources: Vec<S>, remote: &RemoteBuffer) -> Operation<Vec<S>> {
        self.write(sources, remote)
    }

    /// Scatters the peer's memory, from its start, over `destinations` in order, in one request; as
    /// [`read`](Self::read), which takes a list too. At most [`max_segments`](Self::max_segments).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn read_vectored<D: Destination>(&self, destinations: Vec<D>, remote: &RemoteBuffer) -> Operation<Vec<D>> {
        self.read(destinations, remote)
    }

    /// Adds `add`, wrapping, to the peer's `u64` and answers what it was before. Atomic among all operations through the
    /// owner's device, and no others; where [pages are shared](Self::shares_pages), among all processors'.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn fetch_add(&self, remote: &RemoteValue<u64>, add: u64) -> AtomicOperation {
        AtomicOperation::start(self, Kind::FetchAdd { add }, remote, How::default())
    }

    /// Replaces the peer's `u64` by `swap` if it is `compare`, and answers what it was before. Atomic as
    /// [`fetch_add`](Self::fetch_add).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn compare_swap(&self, remote: &RemoteValue<u64>, compare: u64, swap: u64) -> AtomicOperation {
        AtomicOperation::start(self, Kind::CompareSwap { compare, swap }, remote, How::default())
    }

    /// Reads the peer's value. One that the owner writes meanwhile can be torn, unless it is an aligned word.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn read_value<T: FromBytes + IntoBytes>(&self, remote: &RemoteValue<T>) -> Result<T> {
        let buffer = Buffer::allocate(size_of::<T>())?;
        let buffer = self.read(buffer, remote.remote_buffer()).await?;
        T::read_from_bytes(&buffer).map_err(|_| Error::new(ErrorKind::Other, "read"))
    }

    /// Writes the peer's value.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_value<T>(&self, remote: &RemoteValue<T>, value: &T) -> Result<()>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let mut buffer = Buffer::allocate(size_of::<T>())?;
        buffer.copy_from_slice(value.as_bytes());
        self.write(buffer, remote.remote_buffer()).await?;
        Ok(())
    }

    /// Reads and writes that are posted together, in one call of the device.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// What the registration cache of the device's domain has done so far. Workers of a process share it.
    pub fn cache_statistics(&self) -> CacheStatistics {
        self.0.engine.cache.statistics()
    }

    /// Registers memory with this connection's device ahead of its first use, which then finds it in the registration cache, unless that has
    /// given it up meanwhile. Memory that is registered already is left as it is: that costs what a use of it does.
    ///
    /// # Errors
    /// [`MemoryLimit`](crate::ErrorKind::MemoryLimit) and [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted) if there is no room for it, and whatever else
    /// the device answers.
    pub fn register(&self, memory: &crate::SharedMemory) -> Result<()> {
        let engine = &self.0.engine;
        engine.cache.get(memory, 0..memory.len(), &*engine.domain, RegionAccess::LocalRead).map(drop)
    }

    #[cfg(feature = "internals")]
    pub(crate) fn lease(&self, memory: &crate::SharedMemory) -> Result<Lease> {
        let engine = &self.0.engine;
        engine.cache.get(memory, 0..memory.len(), &*engine.domain, RegionAccess::LocalRead)
    }

    /// Pieces of memory that one read or write can take.
    pub fn max_segments(&self) -> usize {
        self.0.facts.capabilities.segments
    }
}

/// A read or write on its way. It is a future of its memory.
///
/// It was posted, or added to its batch, when it was made. If there was no room ([`is_posted`](Self::is_posted)) it will be when it is
/// polled, behind what was posted meanwhile, and only then does dropping it cancel it; otherwise it goes on, and its memory
/// is freed when it completes.
#[must_use = "dropping an operation detaches it: nobody learns how it ends"]
pub struct Operation<P = Buffer> {
    pending: Pending,
    /// What was not even tried.
    refused: Option<P>,
}

// Nothing in it is pinned.
impl<P> Unpin for Operation<P> {}

impl<P> Operation<P> {
    pub(super) fn new((pending, refused): (Pending, Option<P>)) -> Self {
        Self { pending, refused }
    }

    /// Whether it has its place in the order of the connection's operations: posted, or in a batch. If not, there was no room
    /// for it, or it was refused.
    pub fn is_posted(&self) -> bool {
        self.pending.is_posted()
    }
}

impl<P: Payload> Future for Operation<P> {
    type Output = std::result::Result<P, Failed<P>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.pending.poll(context).map(|(result, held)| {
            let payload = held.and_then(P::release).or_else(|| self.refused.take());
            match (result, payload) {
                (Ok(()), Some(payload)) => Ok(payload),
                (Err(error), buffer) => Err(Failed { error, buffer }),
                (Ok(()), None) => {
                    let error = Error::new(ErrorKind::Other, self.pending.kind.name());
                    Err(Failed { error: error.with_detail("it came back without its memory"), buffer: None })
                }
            }
        })
    }
}

impl<P> fmt::Debug for Operation<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("kind", &self.pending.kind).finish_non_exhaustive()
    }
}

/// An atomic operation on its way. It is a future of the value before it.
///
/// As for [`Operation`], dropping it does not take it back.
#[must_use = "dropping an operation detaches it: nobody learns how it ends"]
pub struct AtomicOperation(std::result::Result<Pending, Option<Error>>);

impl AtomicOperation {
    pub(super) fn start(connection: &Connection, kind: Kind, remote: &RemoteValue<u64>, how: How) -> Self {
        let start = |buffer: Buffer| Pending::start(&connection.0, kind, buffer, remote.remote_buffer(), how).0;
        Self(Buffer::allocate(size_of::<u64>()).map(start).map_err(Some))
    }

    /// As [`Operation::is_posted`].
    pub fn is_posted(&self) -> bool {
        self.0.as_ref().is_ok_and(Pending::is_posted)
    }
}

impl Future for AtomicOperation {
    type Output = Result<u64>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<u64>> {
        let pending = match &mut self.0 {
            Ok(pending) => pending,
            Err(error) => return Poll::Ready(Err(error.take().expect("polled after it was ready"))),
        };
        let name = pending.kind.name();
        pending.poll(context).map(|(result, held)| {
            result?;
            let old = match &held {
                Some(Held::Buffer(buffer)) => u64::read_from_bytes(buffer).ok(),
                _ => None,
            };
            old.ok_or_else(|| Error::new(ErrorKind::Other, name).with_detail("it came back without its memory"))
        })
    }
}

impl fmt::Debug for AtomicOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.0.as_ref().ok().map(|pending| pending.kind);
        f.debug_struct("AtomicOperation").field("kind", &kind).finish_non_exhaustive()
    }
}
