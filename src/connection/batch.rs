//! Operations posted together.

use super::Connection;
use super::one_sided::{AtomicOperation, Operation};
use super::pending::{How, Kind, Pending};
use crate::{Destination, RemoteBuffer, RemoteValue, Source};

/// Operations that reach the device in one call; made by [`Connection::batch`].
///
/// What was added happens, also if its [`Operation`] is dropped; but for one that found no room, which [`Operation::is_posted`] tells: that is posted when it is
/// awaited, and not at all if it is dropped before. They are posted by [`post`](Self::post), when the batch is dropped, when one of them is awaited, and in between if
/// the queue is full or another connection of the worker posts.
///
/// ```no_run
/// # async fn example(connection: zcmi::Connection, remote: zcmi::RemoteBuffer) -> zcmi::Result<()> {
/// let counter = remote.at::<u64>(0)?;
/// let mut batch = connection.batch();
/// let before = batch.fetch_add(&counter, 1);
/// let data = batch.write(zcmi::Buffer::allocate(64)?, &remote.slice(64..128)?);
/// let told = batch.fence().write_notify(zcmi::Buffer::allocate(64)?, &remote.slice(128..192)?, 7);
/// batch.post();
/// println!("{}", before.await?);
/// data.await?;
/// told.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Batch<'a> {
    connection: &'a Connection,
    fence: bool,
}

impl<'a> Batch<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, fence: false }
    }

    /// The next operation that is added begins when the reads and atomic operations before it have ended; see
    /// [`Connection::fenced`].
    pub fn fence(&mut self) -> &mut Self {
        self.fence = true;
        self
    }

    /// Adds a write; see [`Connection::write`].
    pub fn write<S: Source>(&mut self, source: S, remote: &RemoteBuffer) -> Operation<S> {
        let how = self.how();
        Operation::new(Pending::start(&self.connection.0, Kind::Write, source, remote, how))
    }

    /// Adds a write with a notification; see [`Connection::write_notify`].
    pub fn write_notify<S: Source>(&mut self, source: S, remote: &RemoteBuffer, value: u32) -> Operation<S> {
        let how = self.how();
        Operation::new(Pending::start(&self.connection.0, Kind::WriteNotify { value }, source, remote, how))
    }

    /// Adds a read; see [`Connection::read`].
    pub fn read<D: Destination>(&mut self, destination: D, remote: &RemoteBuffer) -> Operation<D> {
        let how = self.how();
        Operation::new(Pending::start(&self.connection.0, Kind::Read, destination, remote, how))
    }

    /// Adds an addition; see [`Connection::fetch_add`].
    pub fn fetch_add(&mut self, remote: &RemoteValue<u64>, add: u64) -> AtomicOperation {
        AtomicOperation::start(self.connection, Kind::FetchAdd { add }, remote, self.how())
    }

    /// Adds a replacement; see [`Connection::compare_swap`].
    pub fn compare_swap(&mut self, remote: &RemoteValue<u64>, compare: u64, swap: u64) -> AtomicOperation {
        AtomicOperation::start(self.connection, Kind::CompareSwap { compare, swap }, remote, self.how())
    }

    /// Posts what was added.
    pub fn post(self) {}

    fn how(&mut self) -> How {
        How { fence: std::mem::take(&mut self.fence), staged: true }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let inner = &self.connection.0;
        if inner.engine.is_ours() {
            inner.engine.with(|core| core.flush());
        }
    }
}
