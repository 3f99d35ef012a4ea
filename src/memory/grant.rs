//! Grants: the right of a peer to access exposed memory, and how it ends.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::RemoteBuffer;
use crate::sync::locks::{Mutex, MutexGuard};
use crate::{Error, ErrorKind, Result};

/// The right of a peer to access a range of exposed memory.
///
/// It ends by [`revoke`](Self::revoke), when it is dropped, when its lease is over, when the exposure ends, and with its
/// connection. Ending takes two steps: the holder's library is asked to stop, drains what is in flight and agrees; then the
/// key is made invalid. A holder that does not agree in time loses the right all the same, and if it then
/// still uses the handle, its device breaks that connection.
#[must_use = "dropping a grant revokes it"]
pub struct Grant {
    record: GrantRecord,
    handle: RemoteBuffer,
    isolation: Isolation,
}

/// Whose requests the key of a grant serves, should its bytes come into other hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Those of the connection it was granted for (a memory window of type 2).
    Connection,
    /// Those of every connection of this process on the device (a memory region).
    Domain,
}

/// How a grant ended. In every case no peer can access the memory any more; of [pages that are shared](crate::memory_guide) only one that has
/// agreed cannot, and the others are left what they could access until they have unmapped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// The holder's library has agreed, or there was none to ask.
    Agreed,
    /// The holder's connection had ended.
    ConnectionLost,
    /// The holder did not agree in time. If it goes on using the handle it loses its connection.
    Forced,
}

impl Grant {
    pub(crate) fn new(record: GrantRecord, handle: RemoteBuffer, isolation: Isolation) -> Self {
        Self { record, handle, isolation }
    }

    pub(crate) fn record(&self) -> GrantRecord {
        self.record.clone()
    }

    /// The handle to send to the peer.
    pub fn remote_buffer(&self) -> RemoteBuffer {
        self.handle
    }

    /// Whose requests its key serves.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Whether the right is there: not revoked, its lease not over, its connection not lost.
    pub fn is_live(&self) -> bool {
        self.record.state.is_live()
    }

    /// Revokes the grant. When this answers `Ok`, the peer cannot access the memory any more. The holder has
    /// [`Config::revoke_timeout`](crate::Config::revoke_timeout) to agree. Dropping the future does not take it back.
    ///
    /// # Errors
    /// If the device does not let go of the memory, which is then never used again.
    pub async fn revoke(self) -> Result<Revocation> {
        self.record.control.begin(None);
        self.record.ended().await
    }

    /// As [`revoke`](Self::revoke), with `patience` for the holder to agree; zero does not wait for it.
    ///
    /// # Errors
    /// As [`revoke`](Self::revoke).
    pub async fn revoke_within(self, patience: Duration) -> Result<Revocation> {
        self.record.control.begin(Some(patience));
        self.record.ended().await
    }

    /// Waits until the grant has ended by something else: its lease, or the end of its connection. There is no bound: a
    /// grant without a lease lasts as long as its connection.
    ///
    /// # Errors
    /// As [`revoke`](Self::revoke).
    pub async fn ended(&self) -> Result<Revocation> {
        self.record.ended().await
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.record.control.begin(None);
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("handle", &self.handle)
            .field("isolation", &self.isolation)
            .field("state", &*self.record.state.lock())
            .finish()
    }
}

/// Takes a grant back; what that means is the connection layer's matter.
pub(crate) trait GrantControl: Send + Sync {
    /// Begins, if nobody has yet. It never blocks. `patience` is what the holder has to agree, or the configured time.
    fn begin(&self, patience: Option<Duration>);

    /// Whether this process made the grant: a forked child can do nothing about it.
    fn is_ours(&self) -> bool;

    /// Helps the grant to its end, and registers the waker for it. `state` tells.
    fn poll(&self, context: &mut Context<'_>, state: &GrantState);
}

/// A grant, for those who must see it ended.
#[derive(Clone)]
pub(crate) struct GrantRecord {
    pub(crate) state: Arc<GrantState>,
    pub(crate) control: Arc<dyn GrantControl>,
}

impl GrantRecord {
    /// Waits until the grant has ended.
    pub(crate) async fn ended(&self) -> Result<Revocation> {
        if !self.control.is_ours() {
            let error = Error::new(ErrorKind::Closed, "revoke").with_detail("the grant is the parent process'");
            return Err(error);
        }
        poll_fn(|context| {
            if let Some(result) = self.state.result() {
                return Poll::Ready(result);
            }
            self.control.poll(context, &self.state);
            self.state.poll_result(context.waker())
        })
        .await
    }
}

/// How far a grant is; shared by those who hold it and those who end it.
#[derive(Default)]
pub(crate) struct GrantState(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    standing: Standing,
    /// The peer did not want what it was granted.
    is_declined: bool,
    has_agreed: bool,
    wakers: Vec<Waker>,
}

#[derive(Default)]
enum Standing {
    /// The key is not there yet.
    #[default]
    Opening,
    Live,
    Ending,
    Ended(Result<Revocation>),
}

impl GrantState {
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.lock().standing, Standing::Live)
    }

    /// Whether the key was never there: it is still being made.
    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.lock().standing, Standing::Opening)
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.lock().standing, Standing::Ended(_))
    }

    pub(crate) fn opened(&self) {
        let mut inner = self.lock();
        if matches!(inner.standing, Standing::Opening) {
            inner.standing = Standing::Live;
        }
    }

    pub(crate) fn decline(&self) {
        self.lock().is_declined = true;
    }

    pub(crate) fn is_declined(&self) -> bool {
        self.lock().is_declined
    }

    /// The holder has agreed, and does not access the memory any more. It is said before the region goes: what then looks whether it may
    /// use the memory again comes before the end.
    pub(crate) fn agreed(&self) {
        self.lock().has_agreed = true;
    }

    pub(crate) fn has_agreed(&self) -> bool {
        self.lock().has_agreed
    }

    pub(crate) fn ending(&self) {
        let mut inner = self.lock();
        if !matches!(inner.standing, Standing::Ended(_)) {
            inner.standing = Standing::Ending;
        }
    }

    /// No peer can reach the memory any more, or it is set aside. Wakes those who wait; their code must not run under a
    /// lock, so the answer is to be called when there is none.
    #[must_use]
    pub(crate) fn end(&self, result: Result<Revocation>) -> Vec<Waker> {
        let mut inner = self.lock();
        if !matches!(inner.standing, Standing::Ended(_)) {
            inner.standing = Standing::Ended(result);
        }
        std::mem::take(&mut inner.wakers)
    }

    pub(crate) fn result(&self) -> Option<Result<Revocation>> {
        match &self.lock().standing {
            Standing::Ended(result) => Some(again(result)),
            _ => None,
        }
    }

    fn poll_result(&self, waker: &Waker) -> Poll<Result<Revocation>> {
        let mut inner = self.lock();
        if let Standing::Ended(result) = &inner.standing {
            return Poll::Ready(again(result));
        }
        if !inner.wakers.iter().any(|known| known.will_wake(waker)) {
            inner.wakers.push(waker.clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn again(result: &Result<Revocation>) -> Result<Revocation> {
    result.as_ref().copied().map_err(|error: &Error| error.again("revoke"))
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.standing {
            Standing::Opening => "opening",
            Standing::Live => "live",
            Standing::Ending => "ending",
            Standing::Ended(Ok(_)) => "ended",
            Standing::Ended(Err(_)) => "stuck",
        })
    }
}
