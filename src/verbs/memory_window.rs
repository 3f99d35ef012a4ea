//! Memory windows: a part of a region, lent under a key of its own that can be taken back.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rdma_sys as ffi;

use super::window_core::{Bond, Core, Handle};
use super::work_request::send_request;
use super::{
    Access, Arrival, Error, MemoryRegion, ProtectionDomain, QueuePair, Remote, Result, SendFlags, SendOperation,
};

/// What a window belongs to when it is bound (IBTA 1.4, 10.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// The protection domain: every queue pair of the domain serves its key. It is bound again and unbound by binds.
    One,
    /// One queue pair. It is invalidated before it is bound again.
    Two,
}

/// A window that is bound to nothing, so that no key leads through it.
///
/// [`OwningQueue::bind_window`](super::OwningQueue::bind_window) takes it and, when that has completed, gives a
/// [`BoundWindow`] for it; [`invalidate_window`](super::OwningQueue::invalidate_window) leads back. Each is taken by value,
/// so a window is invalidated once for each time it was bound. On rxe a second time crashes the kernel.
///
/// Allocate windows after the queue pair that they serve: a process that ends without dropping them then ends sooner.
///
/// ```
/// use zcmi::verbs::{Device, ProtectionDomain, UnboundWindow, WindowKind};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let domain = ProtectionDomain::allocate(&device.open()?)?;
/// match UnboundWindow::allocate(&domain, WindowKind::Two) {
///     Ok(window) => println!("it can be bound {} times", window.keys_left()),
///     Err(error) => println!("this device has none: {error}"),
/// }
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
pub struct UnboundWindow(pub(super) Handle);

/// A window that peers with its key reach memory through. Dropping it frees the window, which takes the key back too.
///
/// It holds its region. If its queue pair is destroyed first, that frees the window, and nothing leads through this any more.
///
/// Soft-RoCE looks at the rights of a window, and at the bounds of its region (Linux 6.1 to 7.3): there a window opens all of
/// its region. Where that matters, register a region of exactly the range.
pub struct BoundWindow(pub(super) Handle);

/// A window of a request that has completed.
#[derive(Debug)]
pub enum CompletedWindow {
    /// It was bound; or its invalidation failed, so that it can only be dropped.
    Bound(BoundWindow),
    /// It was invalidated; or its bind failed, so that it can only be dropped.
    Unbound(UnboundWindow),
}

/// A window that was not invalidated by the peer.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotInvalidated {
    /// Why that is not believed.
    #[source]
    pub error: Error,
    /// The window.
    pub window: BoundWindow,
}

impl UnboundWindow {
    /// Allocates a window (`ibv_alloc_mw(3)`).
    ///
    /// # Errors
    /// `EOPNOTSUPP` or `EINVAL` if the device has none of the kind, `ENOMEM` or `ENOSPC` if it has none left.
    pub fn allocate(domain: &Arc<ProtectionDomain>, kind: WindowKind) -> Result<Self> {
        Core::allocate(domain, kind).map(Self)
    }

    /// What it belongs to when it is bound.
    pub fn kind(&self) -> WindowKind {
        self.core().kind
    }

    /// Its protection domain.
    pub fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.core().domain
    }

    /// How often its key can change before an old key would come again. At 0 it can only be dropped. A new one has 255.
    pub fn keys_left(&self) -> u8 {
        self.core().keys_left()
    }

    /// A bind to `range` (bytes within `region`), for the `unsafe` tier.
    ///
    /// # Errors
    /// As [`OwningQueue::bind_window`](super::OwningQueue::bind_window), as far as that concerns window and region.
    pub fn binding(&self, region: &Arc<MemoryRegion>, range: Range<usize>, access: Access) -> Result<Binding> {
        Binding::new(self.core(), region, range, access)
    }

    /// The same window, bound.
    ///
    /// # Safety
    /// `binding` was made by this window and posted to `pair`, once; it has completed successfully, and no other
    /// binding of this window has been posted since it was made.
    pub unsafe fn assume_bound(self, pair: &QueuePair, binding: Binding) -> BoundWindow {
        self.core().begin(binding.bond(), pair.windows());
        self.core().note_key();
        self.core().bound();
        BoundWindow(self.0)
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.0.0
    }
}

impl BoundWindow {
    /// What it belongs to.
    pub fn kind(&self) -> WindowKind {
        self.core().kind
    }

    /// What a peer needs to reach the first byte. All nothing if the window was freed with its queue pair.
    pub fn remote(&self) -> Remote {
        self.core().bond(|bond| bond.remote).unwrap_or_default()
    }

    /// Bytes that can be reached.
    pub fn length(&self) -> u64 {
        self.core().bond(|bond| bond.length).unwrap_or_default()
    }

    /// What peers may do.
    pub fn access(&self) -> Access {
        self.core().bond(|bond| bond.access).unwrap_or(Access::LOCAL_READ)
    }

    /// What it leads to; `None` if the window was freed with its queue pair.
    pub fn region(&self) -> Option<Arc<MemoryRegion>> {
        self.core().bond(|bond| Arc::clone(&bond.region))
    }

    /// The peer has invalidated the window by a message ([`SendOperation::SendWithInvalidate`]), which came in with
    /// `arrival`. That is believed only if the completion says so and names this window's key.
    ///
    /// A program that lets peers do this must trust them, and must not invalidate the window itself meanwhile. Soft-RoCE
    /// serves such a message from any peer, for any window of the host, at any time: a window that is not bound then
    /// crashes the kernel, and one of another connection is taken away from that. No program can prevent it there. Nor
    /// does its completion ever say what was invalidated (Linux 6.1 to 7.3, which sets another flag), so there a window that a
    /// peer may have invalidated is to be dropped.
    ///
    /// # Errors
    /// `EINVAL` and the window. It is still bound if `arrival` names another key, or if it is of type 1, which peers cannot
    /// invalidate. If `arrival` names none, it can only be dropped from then on: whether it is bound is not known.
    pub fn invalidated_by_peer(self, arrival: &Arrival) -> std::result::Result<UnboundWindow, NotInvalidated> {
        let call = "ibv_poll_cq";
        let key = self.remote().key;
        let error = match arrival.invalidated_key {
            _ if self.kind() == WindowKind::One => Error::invalid(call, "a peer cannot invalidate a window of type 1"),
            None => {
                self.core().doubt();
                Error::invalid(call, "the completion names no key: the window can only be dropped")
            }
            Some(_) if self.core().usable(call).is_err() => {
                Error::invalid(call, "the window was freed, or is in doubt: it can only be dropped")
            }
            Some(told) if told != key => Error::invalid(call, "the message has invalidated another key"),
            Some(_) => {
                self.core().invalidated();
                return Ok(UnboundWindow(self.0));
            }
        };
        Err(NotInvalidated { error, window: self })
    }

    /// The bind of no bytes that unbinds a window of type 1, for the `unsafe` tier.
    ///
    /// # Errors
    /// `EINVAL` if the window is of type 2, which [`SendOperation::LocalInvalidate`] unbinds, or in doubt.
    pub fn unbinding(&self) -> Result<Binding> {
        Binding::nothing(self.core())
    }

    /// The same window, unbound.
    ///
    /// # Safety
    /// A [`LocalInvalidate`](SendOperation::LocalInvalidate) of its key (type 2) or an [`unbinding`](Self::unbinding)
    /// (type 1) has completed successfully.
    pub unsafe fn assume_invalidated(self) -> UnboundWindow {
        self.core().invalidated();
        UnboundWindow(self.0)
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.0.0
    }
}

/// A checked bind, which [`QueuePair::post_bind`] posts. It holds the region.
pub struct Binding {
    core: Arc<Core>,
    region: Arc<MemoryRegion>,
    /// As the request names it, also if peers count from 0.
    start: u64,
    length: u64,
    access: Access,
    /// The key it will have. The device chooses that of a window of type 1.
    key: u32,
}

impl Binding {
    pub(super) fn new(
        core: &Arc<Core>,
        region: &Arc<MemoryRegion>,
        range: Range<usize>,
        access: Access,
    ) -> Result<Self> {
        let call = "ibv_bind_mw";
        let raw = core.usable(call)?;
        // A window of type 1 keeps a key for its unbinding.
        let needed = if core.kind == WindowKind::One { 2 } else { 1 };
        if core.keys_left() < needed {
            let detail = "the window has used its keys up, an old one would come again: drop it and allocate another";
            return Err(Error::returned(call, libc::ENOSPC).with_detail(detail));
        }
        let known = Access::REMOTE_ATOMIC | Access::REMOTE_READ | Access::REMOTE_WRITE | Access::ZERO_BASED;
        let detail = if !Arc::ptr_eq(&core.domain, region.domain()) {
            "window and region are of different protection domains".to_owned()
        } else if !region.access().contains(Access::MW_BIND) {
            format!("the region allows {}, which lacks MW_BIND", region.access())
        } else if !known.contains(access) {
            format!("a window is for peers: it does not give {}", access.without(known))
        } else if access.is_writing() && !region.access().is_writing() {
            format!("the region allows {}; a window that gives {access} needs LOCAL_WRITE there", region.access())
        } else if core.kind == WindowKind::One && access.contains(Access::ZERO_BASED) {
            "a window of type 1 cannot be ZERO_BASED".to_owned()
        } else if range.start >= range.end || range.end > region.length() {
            let (Range { start, end }, length) = (&range, region.length());
            format!("{start}..{end} is no range of bytes in a region of {length}")
        } else {
            // SAFETY: the window has not been freed: its owner lends it.
            let old = unsafe { (*raw.as_ptr()).rkey };
            return Ok(Self {
                core: Arc::clone(core),
                start: region.address() + range.start as u64,
                length: range.len() as u64,
                region: Arc::clone(region),
                access,
                key: next_key(old),
            });
        };
        Err(Error::invalid(call, detail))
    }

    pub(super) fn nothing(core: &Arc<Core>) -> Result<Self> {
        let call = "ibv_bind_mw";
        if core.kind != WindowKind::One {
            return Err(Error::invalid(call, "only a window of type 1 is unbound by a bind"));
        }
        core.usable(call)?;
        let bond = core.bond(|bond| (Arc::clone(&bond.region), bond.remote.address));
        let Some((region, start)) = bond else { return Err(Error::invalid(call, "the window is bound to nothing")) };
        // The region goes along, though it does not count: the library of rxe (rdma-core 44) reads it all the same.
        Ok(Self { core: Arc::clone(core), region, start, length: 0, access: Access::LOCAL_READ, key: 0 })
    }

    /// The key that peers will present; the device chooses that of a window of type 1 when the bind is posted.
    pub fn key(&self) -> Option<u32> {
        (self.core.kind == WindowKind::Two).then_some(self.key)
    }

    /// What the window will be bound to; `None` if that is nothing.
    pub(super) fn bond(&self) -> Option<Bond> {
        let address = if self.access.contains(Access::ZERO_BASED) { 0 } else { self.start };
        (self.length > 0).then(|| Bond {
            region: Arc::clone(&self.region),
            remote: Remote { address, key: self.key },
            length: self.length,
            access: self.access,
        })
    }

    pub(super) fn request(&self) -> ffi::bind_mw_t {
        ffi::bind_mw_t { mw: self.core.raw(), rkey: self.key, bind_info: self.info() }
    }

    fn info(&self) -> ffi::ibv_mw_bind_info {
        ffi::ibv_mw_bind_info {
            mr: self.region.raw(),
            addr: self.start,
            length: self.length,
            // Local writing is the region's right, and no window's.
            mw_access_flags: self.access.without(Access::LOCAL_WRITE).raw(),
        }
    }

    /// Posts it; on failure tells also whether the device may have it all the same.
    ///
    /// # Safety
    /// As [`QueuePair::post_bind`].
    pub(super) unsafe fn post(
        &self,
        pair: &QueuePair,
        wr_id: u64,
        flags: SendFlags,
    ) -> std::result::Result<(), (Error, bool)> {
        if self.core.kind == WindowKind::Two {
            let mut request = send_request(wr_id, SendOperation::BindWindow(self), std::ptr::null_mut(), 0, flags);
            let this = &raw mut request;
            // SAFETY: one request that ends the list; the caller vouches for what it names.
            return unsafe { pair.post_send_chain(this) }.map_err(|(error, bad)| (error, !std::ptr::eq(bad, this)));
        }
        let mut bind = ffi::ibv_mw_bind { wr_id, send_flags: flags.raw(), bind_info: self.info() };
        // SAFETY: window, queue pair and region exist; the structure is valid for the call.
        let answer = unsafe { ffi::ibv_bind_mw(pair.raw(), self.core.raw(), &mut bind) };
        Error::check("ibv_bind_mw", answer).map_err(|error| {
            let is_unknown = matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::ENOSYS));
            (error, !is_unknown)
        })
    }
}

impl QueuePair {
    /// Posts a bind: by `ibv_post_send(3)` for a window of type 2, by `ibv_bind_mw(3)` for one of type 1.
    ///
    /// # Errors
    /// `ENOMEM` if the send queue is full, `EINVAL` if the queue pair cannot send.
    ///
    /// # Safety
    /// - The queue pair is of type RC or UC, and of the window's protection domain.
    /// - The window lives, and nothing else is posted for it, until the completion; then, if that is a success, it becomes
    ///   [bound](UnboundWindow::assume_bound) or [unbound](BoundWindow::assume_invalidated), otherwise it is dropped.
    /// - The completion queue is not that of an [`OwningQueue`](super::OwningQueue).
    pub unsafe fn post_bind(&self, wr_id: u64, binding: &Binding, flags: SendFlags) -> Result<()> {
        // SAFETY: the caller promises what is asked.
        unsafe { binding.post(self, wr_id, flags) }.map_err(|(error, _)| error)
    }
}

/// The key after `key`: the lowest 8 bits count (`ibv_inc_rkey(3)`).
fn next_key(key: u32) -> u32 {
    key & !0xff | key.wrapping_add(1) & 0xff
}

/// What a request does with a window that its queue owns meanwhile.
pub(super) enum WindowRequest {
    Bind(UnboundWindow),
    Invalidate(BoundWindow),
    Rebind(BoundWindow),
}

impl WindowRequest {
    /// The window, now that the request has succeeded or failed.
    pub(super) fn ended(self, is_success: bool) -> CompletedWindow {
        match (self, is_success) {
            (Self::Bind(UnboundWindow(handle)) | Self::Rebind(BoundWindow(handle)), true) => {
                handle.0.bound();
                CompletedWindow::Bound(BoundWindow(handle))
            }
            (Self::Invalidate(BoundWindow(handle)), true) => {
                handle.0.invalidated();
                CompletedWindow::Unbound(UnboundWindow(handle))
            }
            (Self::Bind(UnboundWindow(handle)), false) => {
                handle.0.doubt();
                CompletedWindow::Unbound(UnboundWindow(handle))
            }
            (Self::Invalidate(BoundWindow(handle)) | Self::Rebind(BoundWindow(handle)), false) => {
                handle.0.doubt();
                CompletedWindow::Bound(BoundWindow(handle))
            }
        }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        match self {
            Self::Bind(window) => window.core(),
            Self::Invalidate(window) | Self::Rebind(window) => window.core(),
        }
    }

    /// The window, in the state that the caller knows.
    pub(super) fn into_handle(self) -> Handle {
        match self {
            Self::Bind(UnboundWindow(handle))
            | Self::Invalidate(BoundWindow(handle))
            | Self::Rebind(BoundWindow(handle)) => handle,
        }
    }
}

impl fmt::Debug for UnboundWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnboundWindow").field("kind", &self.kind()).field("keys_left", &self.keys_left()).finish()
    }
}

impl fmt::Debug for BoundWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundWindow")
            .field("kind", &self.kind())
            .field("length", &self.length())
            .field("access", &self.access())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("length", &self.length).field("access", &self.access).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lowest_byte_of_a_key_counts() {
        assert_eq!(next_key(0x1234_5600), 0x1234_5601);
        assert_eq!(next_key(0x1234_56ff), 0x1234_5600);
        assert_eq!(next_key(u32::MAX), 0xffff_ff00);
    }
}
