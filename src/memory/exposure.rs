//! Exposure: a buffer that peers may access, and the grants that allow it.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::{Access, Buffer, Domain, RegionAccess, Registrable, Registration, RemoteBuffer, volatile};
use crate::{Error, ErrorKind, Result};

/// A buffer that peers may read or write while grants on it live.
///
/// There is no slice of it: [`read_at`](Self::read_at) and [`write_at`](Self::write_at) copy. A read that races with
/// a peer's write can see part of it, in any order; a later message on the same connection
/// says that the write is complete.
pub struct ExposedBuffer {
    // Some until `into_buffer` or `drop` takes it; never dropped while a grant may be live.
    buffer: Option<Buffer>,
    grants: Mutex<Vec<Arc<GrantState>>>,
    /// Our own threads take turns: words and bytes of one place must not be accessed at once within a process.
    turns: RwLock<()>,
}

impl ExposedBuffer {
    pub(super) fn new(buffer: Buffer) -> Self {
        Self { buffer: Some(buffer), grants: Mutex::default(), turns: RwLock::default() }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.buffer().len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes from `offset` on into `destination`. Aligned 8-byte words are read whole.
    ///
    /// # Panics
    /// If the range leaves the buffer.
    pub fn read_at(&self, offset: usize, destination: &mut [u8]) {
        self.check(offset, destination.len());
        let _turn = self.turns.read().unwrap_or_else(PoisonError::into_inner);
        volatile::load(&**self.buffer().slab().mapping(), self.buffer().start() + offset, destination);
    }

    /// Copies `source` into the buffer from `offset` on. Aligned 8-byte words are written whole.
    ///
    /// # Panics
    /// If the range leaves the buffer.
    pub fn write_at(&self, offset: usize, source: &[u8]) {
        self.check(offset, source.len());
        let _turn = self.turns.write().unwrap_or_else(PoisonError::into_inner);
        volatile::store(&**self.buffer().slab().mapping(), self.buffer().start() + offset, source);
    }

    /// Registers exactly `range` for `access` in `domain` and answers the grant. `session` is stamped on the handle.
    pub(crate) fn grant_in(
        &self,
        domain: &dyn Domain,
        session: u64,
        range: Range<usize>,
        access: Access,
    ) -> Result<Grant> {
        if range.start >= range.end || range.end > self.len() {
            let detail = format!("bytes {range:?} of an exposed buffer of {}", self.len());
            return Err(Error::new(ErrorKind::OutOfBounds, "grant").with_detail(detail));
        }
        let start = self.buffer().start() + range.start;
        let mapping = self.buffer().slab().mapping();
        let wanted = RegionAccess::Remote {
            read: access.contains(Access::READ),
            write: access.contains(Access::WRITE),
            atomic: false,
        };
        let memory = Arc::clone(mapping) as Arc<dyn Registrable>;
        let registration = domain.register(&memory, start..start + range.len(), wanted)?;
        let address = mapping.base() as u64 + start as u64;
        let generation = rand::random();
        let handle =
            RemoteBuffer::new(address, range.len() as u64, registration.remote_key(), access, session, generation);
        let state = Arc::new(GrantState(Mutex::new(Standing::Live(registration))));
        let mut grants = lock(&self.grants);
        grants.retain(|grant| !matches!(*lock(&grant.0), Standing::Revoked));
        grants.push(Arc::clone(&state));
        Ok(Grant { state, handle })
    }

    /// Revokes every grant and gives the buffer back: from then on no peer can access it.
    ///
    /// A peer that still uses a revoked handle is refused by the device, which breaks that connection.
    ///
    /// # Errors
    /// If a device does not let go of the memory. The memory is then never used again.
    pub async fn into_buffer(mut self) -> Result<Buffer> {
        let revoked = self.revoke_all();
        let buffer = self.buffer.take();
        match (revoked, buffer) {
            (Ok(()), Some(buffer)) => Ok(buffer),
            (Err(error), buffer) => {
                // The device may still reach it.
                std::mem::forget(buffer);
                Err(error)
            }
            (Ok(()), None) => unreachable!("only `into_buffer` and `drop` take the buffer"),
        }
    }

    fn buffer(&self) -> &Buffer {
        self.buffer.as_ref().expect("only `into_buffer` and `drop` take the buffer")
    }

    fn revoke_all(&self) -> Result<()> {
        let mut result = Ok(());
        for grant in lock(&self.grants).drain(..) {
            if let Err(error) = grant.revoke() {
                result = Err(error);
            }
        }
        result
    }

    fn check(&self, offset: usize, length: usize) {
        let end = offset.checked_add(length).expect("a range within the buffer");
        assert!(end <= self.len(), "bytes {offset}..{end} leave an exposed buffer of {} bytes", self.len());
    }
}

impl Drop for ExposedBuffer {
    fn drop(&mut self) {
        if self.revoke_all().is_err() {
            // The device may still reach it.
            std::mem::forget(self.buffer.take());
        }
    }
}

impl fmt::Debug for ExposedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExposedBuffer").field("length", &self.len()).field("grants", &lock(&self.grants).len()).finish()
    }
}

/// The right of a peer to access a range of an exposed buffer. Dropping it revokes it.
#[derive(Debug)]
#[must_use = "dropping a grant revokes it"]
pub struct Grant {
    state: Arc<GrantState>,
    handle: RemoteBuffer,
}

impl Grant {
    /// The handle to send to the peer.
    pub fn remote_buffer(&self) -> RemoteBuffer {
        self.handle
    }

    /// Revokes the grant: when this returns `Ok`, the peer cannot access the memory any more.
    ///
    /// # Errors
    /// If the device does not let go of the memory, which is then never used again.
    pub fn revoke(self) -> Result<()> {
        self.state.revoke()
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        // The failure is remembered: the exposure will not give its memory back.
        let _ = self.state.revoke();
    }
}

struct GrantState(Mutex<Standing>);

enum Standing {
    Live(Arc<dyn Registration>),
    Revoked,
    /// The device did not let go.
    Stuck,
}

impl GrantState {
    fn revoke(&self) -> Result<()> {
        let mut standing = lock(&self.0);
        match std::mem::replace(&mut *standing, Standing::Stuck) {
            Standing::Live(registration) => registration.end()?,
            Standing::Revoked => {}
            Standing::Stuck => {
                return Err(
                    Error::new(ErrorKind::Other, "revoke").with_detail("the device did not let go of the memory")
                );
            }
        }
        *standing = Standing::Revoked;
        Ok(())
    }
}

impl fmt::Debug for GrantState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *lock(&self.0) {
            Standing::Live(_) => "live",
            Standing::Revoked => "revoked",
            Standing::Stuck => "stuck",
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
