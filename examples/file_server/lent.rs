//! The chunks that a client may be reading.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zcmi::{Access, Buffer, Connection, ExposedBuffer, Grant, RemoteBuffer};

use crate::protocol::MOST_CHUNKS;

/// How long a client has to read a chunk.
const LEASE: Duration = Duration::from_secs(60);
/// How often it is looked whose lease is over.
const LOOK: Duration = Duration::from_secs(10);

/// Chunks in registered memory, each granted to the client until it has read it or its lease is over.
pub(crate) struct Lent {
    room: Arc<Semaphore>,
    chunks: Mutex<HashMap<u64, Loan>>,
    next: AtomicU64,
}

/// One of them. Dropping it revokes; the memory is used again when the device has confirmed that the key is dead.
struct Loan {
    grant: Grant,
    _memory: ExposedBuffer,
    _room: OwnedSemaphorePermit,
}

impl Lent {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(MOST_CHUNKS)), chunks: Mutex::default(), next: AtomicU64::new(0) }
    }

    /// Room for one more, if there is.
    pub(crate) fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// Lets the client read a chunk; answers its number, and where it is.
    pub(crate) async fn lend(
        &self,
        room: OwnedSemaphorePermit,
        connection: &Connection,
        chunk: Buffer,
    ) -> zcmi::Result<(u64, RemoteBuffer)> {
        let memory = chunk.expose();
        let grant = memory.grant_leased(connection, 0..memory.len(), Access::READ, LEASE).await?;
        let handle = grant.remote_buffer();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.chunks().insert(id, Loan { grant, _memory: memory, _room: room });
        Ok((id, handle))
    }

    /// Takes chunks back that the client has read.
    pub(crate) fn take_back(&self, done: &[u64]) {
        let mut chunks = self.chunks();
        let taken: Vec<_> = done.iter().filter_map(|id| chunks.remove(id)).collect();
        drop(chunks);
        drop(taken);
    }

    /// Takes back what the client has not read in time, for as long as it is polled.
    pub(crate) async fn look_after(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            let over: Vec<_> = self.chunks().extract_if(|_, loan| !loan.grant.is_live()).collect();
            drop(over);
        }
    }

    fn chunks(&self) -> MutexGuard<'_, HashMap<u64, Loan>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
