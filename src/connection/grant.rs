//! Grants to the peer of a connection.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::core::LinkKey;
use super::domain_grants;
use super::engine::Engine;
use super::established::{Inner, Waiting};
use super::grants::NewGrant;
use super::{Active, Connection};
use crate::memory::{
    Epoch, Exposable, Exposure, GrantControl, GrantRecord, GrantState, Place, RegionAccess, Registration, check_range,
};
use crate::protocol::GrantId;
use crate::transport::Transport;
use crate::{Access, Error, ErrorKind, Exposed, ExposedDmaBuf, Grant, Isolation, RemoteBuffer, Result};

impl<M: Exposable> Exposed<M> {
    /// Lets the peer of `connection` access `range` (bytes of this memory, not empty). The right covers these bytes
    /// and no others; send the peer [`Grant::remote_buffer`].
    ///
    /// Where the device has memory windows, the key serves this connection alone; elsewhere it is a memory region's, which
    /// works for every connection of this process on that device, should a peer pass it on ([`Grant::isolation`]).
    ///
    /// Waits until the device has made the key. Dropping the future before takes the grant back.
    ///
    /// # Errors
    /// [`OutOfBounds`](ErrorKind::OutOfBounds), [`AccessDenied`](ErrorKind::AccessDenied) if the memory may only be read,
    /// [`MemoryLimit`](ErrorKind::MemoryLimit), [`ResourceExhausted`](ErrorKind::ResourceExhausted) (65,536 grants on one
    /// connection, or no window left), and whatever ended the connection.
    pub async fn grant(&self, connection: &Connection, range: Range<usize>, access: Access) -> Result<Grant> {
        grant(self.exposure(), connection, range, access, None).await
    }

    /// As [`grant`](Self::grant), for the time `lease`, on this host's monotonic clock; after that it is revoked. It ends up
    /// to 25 ms late, and what is in flight then is drained first.
    ///
    /// # Errors
    /// As [`grant`](Self::grant).
    pub async fn grant_leased(
        &self,
        connection: &Connection,
        range: Range<usize>,
        access: Access,
        lease: Duration,
    ) -> Result<Grant> {
        grant(self.exposure(), connection, range, access, Some(lease)).await
    }

    /// Lets every peer that is connected to this process through the device of `connection` access `range`, whichever gets
    /// the handle: a peer may pass it on to another. A peer that connects after the revocation has begun is not told of it.
    ///
    /// # Errors
    /// As [`grant`](Self::grant).
    pub async fn grant_domain(&self, connection: &Connection, range: Range<usize>, access: Access) -> Result<Grant> {
        check(self.exposure(), &range, access).map_err(|error| connection.0.refine(error))?;
        domain_grants::grant(self.exposure(), &connection.0.engine, range, access)
    }
}

impl ExposedDmaBuf {
    /// Lets the peer of `connection` access `range`, as [`Exposed::grant`]; the key is a memory region's.
    ///
    /// # Errors
    /// As there; [`Unsupported`](ErrorKind::Unsupported) if the device cannot import the dma-buf.
    pub async fn grant(&self, connection: &Connection, range: Range<usize>, access: Access) -> Result<Grant> {
        grant(self.exposure(), connection, range, access, None).await
    }
}

async fn grant(
    exposure: &Exposure,
    connection: &Connection,
    range: Range<usize>,
    access: Access,
    lease: Option<Duration>,
) -> Result<Grant> {
    let inner = &connection.0;
    let refine = |error: Error| inner.refine(error.within("grant"));
    let grant = begin(inner, exposure, range, access, For::Application { lease }).await.map_err(refine)?;
    let state = grant.record().state;
    let mut waiting = Waiting::new(inner);
    let is_there = poll_fn(|context| {
        inner.engine.drive(context, |core, waker| {
            if !state.is_opening() {
                return Poll::Ready(());
            }
            match (core.link(inner.key), waker) {
                (None, _) => return Poll::Ready(()),
                (Some(_), Some(waker)) => core.wait_to_send(inner.key, waiting.with(waker)),
                (Some(_), None) => {}
            }
            Poll::Pending
        })
    });
    is_there.await;
    match inner.ending.get() {
        Some(error) if !grant.is_live() => Err(refine(error.again("grant"))),
        _ => Ok(grant),
    }
}

/// What a grant is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum For {
    Application {
        lease: Option<Duration>,
    },
    /// A long message: the peer lets go of it by itself.
    Message,
}

/// Begins to make a grant; what is sent from here on comes to the peer when its key is there. Dropping the future, or the grant,
/// takes it back.
pub(super) async fn begin<T: Transport>(
    inner: &Arc<Inner<T>>,
    exposure: &Exposure,
    range: Range<usize>,
    access: Access,
    what_for: For,
) -> Result<Grant> {
    check(exposure, &range, access)?;
    let length = range.len() as u64;
    let (region, address, by_window) = region(exposure, inner.engine.place(), range, access, what_for)?;
    let patience = inner.engine.config.revoke_timeout;
    let (lease, is_offer) = match what_for {
        // One that ends after all time has no end.
        For::Application { lease } => (lease.and_then(|lease| inner.engine.now().checked_add(lease)), false),
        For::Message => (None, true),
    };
    let loan = match what_for {
        For::Application { .. } => inner.lend(exposure).await?,
        For::Message => None,
    };
    let is_direct = loan.is_some();
    let new = NewGrant { region, by_window, access, length, lease, patience, is_offer, is_direct };
    let mut waiting = Waiting::new(inner);
    let opened = poll_fn(|context| {
        inner.engine.drive(context, |core, waker| {
            let opened = core.open_grant(inner.key, &new);
            if let (Poll::Pending, Some(waker)) = (&opened, waker) {
                core.wait_to_send(inner.key, waiting.with(waker));
            }
            opened
        })
    });
    let (id, remote_key, state) = opened.await?;
    let control =
        Arc::new(OfConnection { engine: Arc::downgrade(&inner.engine), epoch: Epoch::current(), link: inner.key, id });
    let record = GrantRecord { state, control };
    exposure.add(&record);
    let mut handle = RemoteBuffer::new(address, length, remote_key, access, inner.facts.session, id);
    if let Some(loan) = loan {
        exposure.memory().open_to(&loan.tether, &record.state);
        handle = handle.in_segment(loan.segment);
    }
    let isolation = if by_window { Isolation::Connection } else { Isolation::Domain };
    Ok(Grant::new(record, handle, isolation))
}

/// A region for the grant, the address of its first byte, and whether the grant is to be a window of it.
fn region(
    exposure: &Exposure,
    place: Place<'_>,
    range: Range<usize>,
    access: Access,
    what_for: For,
) -> Result<(Arc<dyn Registration>, u64, bool)> {
    let memory = exposure.memory();
    // The same bytes may be sent again. A region without a window then stays open to who has its key; it was sent to them.
    let shared = matches!(what_for, For::Message).then(|| memory.shared()).flatten();
    if place.domain.has_windows() && memory.takes_windows() {
        let windows = RegionAccess::Windows { write: access.is_writing() };
        let made = match &shared {
            Some(memory) => place.cached(memory, windows),
            None => place.make_room(|domain| exposure.window_region(domain, range.clone(), windows)),
        };
        match made {
            Ok((region, address)) => {
                check_alignment(address, access)?;
                return Ok((region, address, true));
            }
            // Pages that are mapped read-only take no windows.
            Err(error) if !memory.is_writable() && error.kind() == ErrorKind::Unsupported => {
                tracing::debug!(%error, "the grant is a region, not a window");
            }
            Err(error) => return Err(error),
        }
    }
    let remote = RegionAccess::Remote { access, on_demand: memory.is_on_demand() };
    let (region, address) = match &shared {
        Some(memory) => place.cached(memory, remote),
        None => place.make_room(|domain| exposure.grant_region(domain, range.clone(), remote)),
    }?;
    check_alignment(address, access)?;
    Ok((region, address, false))
}

/// Atomic access begins with a word.
pub(super) fn check_alignment(address: u64, access: Access) -> Result<()> {
    if !access.contains(Access::ATOMIC) || address.is_multiple_of(size_of::<u64>() as u64) {
        return Ok(());
    }
    let detail = format!("{access} access to a range that begins between words");
    Err(Error::new(ErrorKind::Misaligned, "grant").with_detail(detail))
}

fn check(exposure: &Exposure, range: &Range<usize>, access: Access) -> Result<()> {
    check_range(range, exposure.memory().length())?;
    if access.is_writing() && !exposure.memory().is_writable() {
        let detail = format!("the memory may only be read, and {access} asks for more");
        return Err(Error::new(ErrorKind::AccessDenied, "grant").with_detail(detail));
    }
    Ok(())
}

/// Takes a grant on one connection back.
struct OfConnection<T: Transport> {
    engine: Weak<Engine<T>>,
    epoch: Epoch,
    link: LinkKey,
    id: GrantId,
}

impl<T: Transport> GrantControl for OfConnection<T> {
    fn begin(&self, patience: Option<Duration>) {
        if let Some(engine) = self.engine.upgrade().filter(|_| self.is_ours()) {
            engine.with(|core| core.begin_revoke(self.link, self.id, patience));
        }
    }

    fn is_ours(&self) -> bool {
        self.epoch.is_current()
    }

    fn poll(&self, context: &mut Context<'_>, state: &GrantState) {
        // An engine goes only after its connections, and those end their grants.
        let Some(engine) = self.engine.upgrade() else { return };
        let driven = engine.drive(context, |core, waker| {
            if state.has_ended() {
                return Poll::Ready(());
            }
            if let Some(waker) = waker {
                core.wait_to_send(self.link, waker);
            }
            Poll::Pending
        });
        let _: Poll<()> = driven;
    }
}

const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<OfConnection<Active>>();
};
