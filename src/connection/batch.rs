//! Operations posted together.

use super::Connection;
use super::one_sided::Operation;
use super::pending::{Kind, Pending};
use crate::{Destination, RemoteBuffer, Source};

/// Reads and writes that reach the device in one call; made by [`Connection::batch`].
///
/// What was added happens, also if its [`Operation`] is dropped. They are posted by [`post`](Self::post), when the batch is dropped, when one of them is awaited, and in between if
/// the queue is full or another connection of the worker posts.
#[derive(Debug)]
pub struct Batch<'a> {
    connection: &'a Connection,
}

impl<'a> Batch<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection }
    }

    /// Adds a write; see [`Connection::write`].
    pub fn write<S: Source>(&mut self, source: S, remote: &RemoteBuffer) -> Operation<S> {
        Operation::new(Pending::start(&self.connection.0, Kind::Write, source, remote, false))
    }

    /// Adds a read; see [`Connection::read`].
    pub fn read<D: Destination>(&mut self, destination: D, remote: &RemoteBuffer) -> Operation<D> {
        Operation::new(Pending::start(&self.connection.0, Kind::Read, destination, remote, false))
    }

    /// Posts what was added.
    pub fn post(self) {}
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let inner = &self.connection.0;
        if inner.engine.is_ours() {
            inner.engine.with(|core| core.flush());
        }
    }
}
