//! rdma_cm's event channels.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::event::Route;
use super::fork::Creator;
use super::limits::explain_descriptors;
use super::{ConnectionEvent, ConnectionEventKind, ConnectionId, Error, Result, device, sockaddr};

/// A channel that identifiers report to (`rdma_create_event_channel(3)`), never blocking.
pub struct EventChannel {
    raw: NonNull<ffi::rdma_event_channel>,
    creator: Creator,
}

// SAFETY: librdmacm locks internally; reading events and creating identifiers are thread-safe.
unsafe impl Send for EventChannel {}
// SAFETY: as above.
unsafe impl Sync for EventChannel {}

impl EventChannel {
    /// Creates a channel.
    ///
    /// # Errors
    /// `ENOSYS` without librdmacm, `ENODEV` or `ENOENT` without the kernel's `rdma_ucm`, `EACCES` if
    /// `/dev/infiniband/rdma_cm` may not be opened, `EMFILE` if no descriptor is left.
    pub fn create() -> Result<Arc<Self>> {
        // SAFETY: takes nothing.
        let raw = unsafe { ffi::rdma_create_event_channel() };
        let raw = NonNull::new(raw).ok_or_else(|| explain_descriptors(Error::last("rdma_create_event_channel")))?;
        let channel = Self { raw, creator: Creator::here() };
        rustix::io::ioctl_fionbio(channel.as_fd(), true)
            .map_err(|errno| Error::returned("ioctl", errno.raw_os_error()))?;
        Ok(Arc::new(channel))
    }

    /// The next event, copied and acknowledged, or `None` if there is none yet.
    pub fn next_event(self: &Arc<Self>) -> Result<Option<ConnectionEvent>> {
        let Some(pending) = PendingEvent::take(self)? else { return Ok(None) };
        Ok(Some(pending.copy()))
    }

    pub(super) fn raw(&self) -> *mut ffi::rdma_event_channel {
        self.raw.as_ptr()
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel exists, so its structure may be read.
        let fd = unsafe { (*self.raw()).fd };
        // SAFETY: the descriptor is open as long as the channel, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl fmt::Debug for EventChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventChannel").field("fd", &self.as_fd()).finish()
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        if self.creator.may_destroy("event channel") {
            // SAFETY: identifiers hold an `Arc` of their channel, so none is left on it.
            unsafe { ffi::rdma_destroy_event_channel(self.raw()) }
        }
    }
}

/// An event that librdmacm still owns; acknowledged on drop, until when its identifier cannot be destroyed.
struct PendingEvent<'a> {
    raw: NonNull<ffi::rdma_cm_event>,
    channel: &'a Arc<EventChannel>,
}

impl<'a> PendingEvent<'a> {
    fn take(channel: &'a Arc<EventChannel>) -> Result<Option<Self>> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the channel exists and the out-pointer is writable for the call.
        let answer = unsafe { ffi::rdma_get_cm_event(channel.raw(), &mut raw) };
        match NonNull::new(raw) {
            Some(raw) if answer == 0 => Ok(Some(Self { raw, channel })),
            _ => {
                let error = Error::last("rdma_get_cm_event");
                if error.io().kind() == std::io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
            }
        }
    }

    fn copy(self) -> ConnectionEvent {
        // SAFETY: the event is ours until it is acknowledged.
        let event = unsafe { self.raw.as_ref() };
        let kind = ConnectionEventKind::from_raw(event.event);
        // SAFETY: identifiers of RDMA_PS_TCP, the only ones this crate makes, have the connected variant.
        let parameters = unsafe { &event.param.conn };
        let private_data = if parameters.private_data.is_null() {
            Vec::new()
        } else {
            let (data, length) = (parameters.private_data.cast::<u8>(), usize::from(parameters.private_data_len));
            // SAFETY: librdmacm answers that many bytes, which live until the event is acknowledged.
            unsafe { std::slice::from_raw_parts(data, length) }.to_vec()
        };
        let is_request = kind == ConnectionEventKind::ConnectRequest;
        let owner = if is_request { event.listen_id } else { event.id };
        // SAFETY: an identifier cannot be destroyed while an event of it is not acknowledged.
        let key = unsafe { (*owner).context } as u64;
        let has_route = is_request || kind == ConnectionEventKind::AddressResolved;
        ConnectionEvent {
            key,
            kind,
            status: event.status,
            private_data,
            responder_resources: parameters.responder_resources,
            initiator_depth: parameters.initiator_depth,
            // SAFETY: as for `key`; librdmacm has filled the route before it reported the event.
            route: if has_route { unsafe { route(event.id) } } else { None },
            // SAFETY: a connect request hands over a new identifier that nobody else owns.
            request: is_request.then(|| unsafe { ConnectionId::adopt(event.id, self.channel) }),
        }
    }
}

impl Drop for PendingEvent<'_> {
    fn drop(&mut self) {
        // SAFETY: the event is acknowledged once.
        let answer = unsafe { ffi::rdma_ack_cm_event(self.raw.as_ptr()) };
        super::fork::destroyed("rdma_ack_cm_event", answer);
    }
}

/// Device and addresses of an identifier; `None` before it has a device.
///
/// # Safety
/// `id` exists, and no other thread changes it, for the duration of the call.
unsafe fn route(id: *mut ffi::rdma_cm_id) -> Option<Route> {
    // SAFETY: the caller promises that the identifier may be read.
    let id = unsafe { &*id };
    if id.verbs.is_null() {
        return None;
    }
    // SAFETY: rdma_get_local_addr answers storage as large as any address.
    let local = unsafe { sockaddr::parse(&raw const id.route.addr.src_addr_union.src_addr) };
    // SAFETY: as above, for the peer's.
    let peer = unsafe { sockaddr::parse(&raw const id.route.addr.dst_addr_union.dst_addr) };
    // SAFETY: the context is librdmacm's own and open.
    let device = unsafe { device::context_name(id.verbs) };
    Some(Route { device, port: id.port_num, local, peer })
}
