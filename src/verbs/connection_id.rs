//! rdma_cm identifiers: one end of a connection, or a listener.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::librdmacm;
use super::sockaddr::RawAddress;
use super::{ConnectionParameters, Error, EventChannel, PortSpace, Result};

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// An identifier (`rdma_create_id(3)`): one end of a connection, a listener, or a member of multicast groups. It
/// carries addresses and paths; the queue pair is the caller's own, moved through its states with
/// [`QueuePair::initialize`](super::QueuePair::initialize) and [`QueuePair::connect`](super::QueuePair::connect).
/// What it starts ends with an event on its channel, which names it by its [`key`](Self::key).
///
/// | end | steps, each with the event that ends it |
/// |---|---|
/// | active | [`resolve_address`](Self::resolve_address) → `AddressResolved`, [`resolve_route`](Self::resolve_route) → `RouteResolved`, [`connect`](Self::connect) → `ConnectResponse`, [`establish`](Self::establish) |
/// | passive | [`bind`](Self::bind), [`listen`](Self::listen) → `ConnectRequest`, [`accept`](Self::accept) on the request's own identifier → `Established` |
///
/// # Timeouts
/// The kernel ends the two resolving steps after the time they are given. Without an answer to `connect` it takes
/// over a minute to report `Unreachable`, and a request that nobody accepts waits for ever. So wait
/// with [`EventChannel::wait`], and drop the identifier when the time is up: that cancels what is under way.
///
/// # Device removal
/// See [`DeviceRemoval`](super::ConnectionEventKind::DeviceRemoval).
///
/// # Threads
/// The type is not `Sync`: calls on one identifier take turns. Its events may be read by another thread meanwhile.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use zcmi::verbs::{ConnectionEventKind, ConnectionId, Device, EventChannel, Result};
///
/// fn main() -> Result<()> {
///     let Some(device) = Device::list().ok().and_then(|list| list.into_iter().next()) else { return Ok(()) };
///     let Some(ours) = device.open()?.gid(1, 1).ok().and_then(|gid| gid.ip()) else { return Ok(()) };
///     let Ok(channel) = EventChannel::create() else { return Ok(()) };
///
///     let listener = ConnectionId::create(&channel)?;
///     listener.bind((ours, 0).into())?;
///     listener.listen(8)?;
///     let address = listener.local_address().expect("bound");
///
///     let active = ConnectionId::create(&channel)?;
///     active.resolve_address(address, Duration::from_secs(2))?;
///     let Some(event) = channel.wait(Duration::from_secs(5))? else { return Ok(()) };
///     assert_eq!(event.key, active.key());
///     let resolved = event.expect(ConnectionEventKind::AddressResolved)?;
///     println!("the way to {address} is through {:?}", resolved.route);
///     Ok(())
/// }
/// ```
pub struct ConnectionId {
    raw: NonNull<ffi::rdma_cm_id>,
    key: u64,
    space: PortSpace,
    listens: Cell<bool>,
    /// Groups joined and not left, each at an address that events about it carry.
    pub(super) joined: RefCell<Vec<Arc<SocketAddr>>>,
    creator: Creator,
    channel: Arc<EventChannel>,
}

// SAFETY: librdmacm has no thread affinity. The type is not `Sync`: calls on one identifier take turns.
unsafe impl Send for ConnectionId {}

impl ConnectionId {
    /// Creates an identifier of port space TCP that reports to `channel`.
    ///
    /// # Errors
    /// `ENODEV` if this process' network namespace has no rdma_cm, `ENOMEM`.
    pub fn create(channel: &Arc<EventChannel>) -> Result<Self> {
        Self::create_in(PortSpace::Tcp, channel)
    }

    /// Creates an identifier of a port space that reports to `channel`.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_in(space: PortSpace, channel: &Arc<EventChannel>) -> Result<Self> {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the channel exists and the identifier keeps it alive; the context is a number to librdmacm.
        let answer = unsafe { ffi::rdma_create_id(channel.raw(), &mut raw, key as *mut _, space.raw()) };
        Error::check("rdma_create_id", answer)?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("rdma_create_id"))?;
        Ok(Self::from_raw(raw, key, space, channel))
    }

    /// Takes over the identifier of a connect request.
    ///
    /// # Safety
    /// `raw`, of port space `space`, came with a connect request on `channel`, which the caller has locked; the event
    /// has not been acknowledged, and the identifier has no other owner.
    pub(super) unsafe fn adopt(raw: *mut ffi::rdma_cm_id, channel: &Arc<EventChannel>, space: PortSpace) -> Self {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller promises a live identifier; it has no events yet that would read its context.
        unsafe { (*raw).context = key as *mut _ };
        // SAFETY: librdmacm reports no request without an identifier.
        let raw = unsafe { NonNull::new_unchecked(raw) };
        Self::from_raw(raw, key, space, channel)
    }

    fn from_raw(raw: NonNull<ffi::rdma_cm_id>, key: u64, space: PortSpace, channel: &Arc<EventChannel>) -> Self {
        let (joined, creator, channel) = (RefCell::default(), Creator::here(), Arc::clone(channel));
        Self { raw, key, space, listens: Cell::new(false), joined, creator, channel }
    }

    /// A number that no other identifier of this process ever has; events carry it.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The channel that events of this identifier come on.
    pub fn channel(&self) -> &Arc<EventChannel> {
        &self.channel
    }

    /// The port space it was created in; that of the listener for a connect request.
    pub fn port_space(&self) -> PortSpace {
        self.space
    }

    /// Binds to a local address (`rdma_bind_addr(3)`); port 0 lets the kernel choose.
    ///
    /// # Errors
    /// `EADDRINUSE`; `EADDRNOTAVAIL` if this host does not have the address, or the port is in use at all addresses;
    /// `ENODEV` if no RDMA device has the address; `EINVAL` if the identifier is bound already.
    pub fn bind(&self, address: SocketAddr) -> Result<()> {
        let mut raw = RawAddress::new(address);
        let _quiet = self.channel.lock();
        // SAFETY: the identifier exists and the address is valid for the call; no event is under way to change it.
        let answer = unsafe { ffi::rdma_bind_addr(self.raw(), raw.as_mut_ptr()) };
        check("rdma_bind_addr", answer).map_err(|error| match error.errno() {
            Some(libc::EADDRINUSE) => error.with_detail(format!("{address} is taken in port space {:?}", self.space)),
            Some(libc::ENODEV) => error.with_detail(format!("no RDMA device has the address {}", address.ip())),
            Some(libc::EADDRNOTAVAIL) => error.with_detail(format!(
                "this host does not have {}, or an identifier that is bound to all addresses has port {}",
                address.ip(),
                address.port()
            )),
            _ => error,
        })
    }

    /// Starts to find the device and hardware address for `peer` (`rdma_resolve_addr(3)`). Ends with
    /// [`AddressResolved`](super::ConnectionEventKind::AddressResolved), or with
    /// [`AddressError`](super::ConnectionEventKind::AddressError), after which it may be tried again.
    ///
    /// The kernel may look at a neighbour's answer only when `timeout` is over: a few short attempts, each twice as
    /// long, find the address sooner than a long one.
    ///
    /// # Errors
    /// `ENETUNREACH` without a route, `ENODEV` if it leaves by a netdev without an RDMA device, `EINVAL` in another
    /// state or address family.
    pub fn resolve_address(&self, peer: SocketAddr, timeout: Duration) -> Result<()> {
        self.resolve(None, peer, timeout)
    }

    /// As [`resolve_address`](Self::resolve_address), from the local address `source`; with port 0 the kernel chooses one.
    ///
    /// # Errors
    /// Also those of [`bind`](Self::bind), and `EINVAL` for addresses of two families.
    pub fn resolve_address_from(&self, source: SocketAddr, peer: SocketAddr, timeout: Duration) -> Result<()> {
        if source.is_ipv4() != peer.is_ipv4() {
            let detail = format!("{source} and {peer} are of different families");
            return Err(Error::invalid("rdma_resolve_addr", detail));
        }
        self.resolve(Some(source), peer, timeout)
    }

    fn resolve(&self, source: Option<SocketAddr>, peer: SocketAddr, timeout: Duration) -> Result<()> {
        let mut peer = RawAddress::new(peer);
        let mut source = source.map(RawAddress::new);
        let source = source.as_mut().map_or(std::ptr::null_mut(), RawAddress::as_mut_ptr);
        let _quiet = self.channel.lock();
        // SAFETY: the identifier exists and the addresses are valid for the call; librdmacm notes the peer's after the
        // kernel has begun, so no event may be read meanwhile.
        let answer = unsafe { ffi::rdma_resolve_addr(self.raw(), source, peer.as_mut_ptr(), milliseconds(timeout)) };
        check("rdma_resolve_addr", answer)
    }

    /// Starts to find the path to the resolved address (`rdma_resolve_route(3)`); ends with an event.
    ///
    /// # Errors
    /// `EINVAL` unless the address has been resolved.
    pub fn resolve_route(&self, timeout: Duration) -> Result<()> {
        self.require_device("rdma_resolve_route")?;
        // SAFETY: the identifier exists and has a device, which librdmacm does not check.
        let answer = unsafe { ffi::rdma_resolve_route(self.raw(), milliseconds(timeout)) };
        check("rdma_resolve_route", answer)
    }

    /// Listens for connect requests (`rdma_listen(3)`). `backlog` of them may wait to be read from the channel; 0 stands
    /// for the most that `/proc/sys/net/rdma_ucm/max_backlog` allows. Those beyond are not answered: the peer's kernel
    /// asks again every few seconds, for a minute. Without [`bind`](Self::bind) it listens at all addresses, at a port
    /// that the kernel chooses.
    ///
    /// # Errors
    /// `EINVAL` in another state, `EADDRINUSE` if another identifier shares the address.
    pub fn listen(&self, backlog: u32) -> Result<()> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let _quiet = self.channel.lock();
        // SAFETY: the identifier exists; no event is under way to change it.
        check("rdma_listen", unsafe { ffi::rdma_listen(self.raw(), backlog) })?;
        self.listens.set(true);
        Ok(())
    }

    /// Asks the resolved peer for a connection, or in port space UDP for its queue pair (`rdma_connect(3)`); ends with
    /// an event.
    ///
    /// # Errors
    /// `EINVAL` unless the route has been resolved, or if the private data is too long or a count too high.
    pub fn connect(&self, parameters: &ConnectionParameters<'_>) -> Result<()> {
        let mut raw = parameters.to_raw("rdma_connect", self.space, self.space.connect_private_data())?;
        self.require_device("rdma_connect")?;
        // SAFETY: the identifier exists and has a device; parameters and private data are valid for the call.
        check("rdma_connect", unsafe { ffi::rdma_connect(self.raw(), &mut raw) })
    }

    /// Accepts the connect request that this identifier came with (`rdma_accept(3)`). The queue pair must be ready.
    /// In port space TCP it ends with an event; in UDP it is done.
    ///
    /// # Errors
    /// `EINVAL` if it came with no request, or the request is over; else as [`connect`](Self::connect).
    pub fn accept(&self, parameters: &ConnectionParameters<'_>) -> Result<()> {
        let mut raw = parameters.to_raw("rdma_accept", self.space, self.space.accept_private_data())?;
        self.require_device("rdma_accept")?;
        // SAFETY: the identifier exists and has a device; parameters and private data are valid for the call.
        check("rdma_accept", unsafe { ffi::rdma_accept(self.raw(), &mut raw) })
    }

    /// Tells the peer that our queue pair is ready (`rdma_establish(3)`), after
    /// [`ConnectResponse`](super::ConnectionEventKind::ConnectResponse).
    ///
    /// # Errors
    /// `EINVAL` in another state.
    pub fn establish(&self) -> Result<()> {
        // SAFETY: the identifier exists.
        check("rdma_establish", unsafe { ffi::rdma_establish(self.raw()) })
    }

    /// Refuses the connect request that this identifier came with (`rdma_reject(3)`). The peer sees
    /// [`RejectReason::Consumer`](super::RejectReason::Consumer), in port space UDP
    /// [`ResolutionRefusal::Rejected`](super::ResolutionRefusal::Rejected).
    ///
    /// # Errors
    /// `EINVAL` if it came with no request, or if the private data is longer than
    /// [`PortSpace::reject_private_data`].
    pub fn reject(&self, private_data: &[u8]) -> Result<()> {
        let length = self.reject_length("rdma_reject", private_data)?;
        // SAFETY: the identifier exists and the data is valid for the call.
        let answer = unsafe { ffi::rdma_reject(self.raw(), private_data.as_ptr().cast(), length) };
        check("rdma_reject", answer)
    }

    /// As [`reject`](Self::reject), because of the vendor's extension that the peer asked for: it sees
    /// [`RejectReason::VendorOptionNotSupported`](super::RejectReason::VendorOptionNotSupported).
    ///
    /// # Errors
    /// As [`reject`](Self::reject).
    pub fn reject_vendor_option(&self, private_data: &[u8]) -> Result<()> {
        let length = self.reject_length("rdma_reject_ece", private_data)?;
        // SAFETY: the identifier exists.
        check("rdma_reject_ece", unsafe { librdmacm::reject_ece(self.raw(), private_data, length) }?)
    }

    /// Disconnects (`rdma_disconnect(3)`). The peer gets [`Disconnected`](super::ConnectionEventKind::Disconnected), and is
    /// to disconnect too; then, or when it has not done so in time, we get one. Disconnecting again does nothing.
    ///
    /// # Errors
    /// `EINVAL` before any request was made or came.
    pub fn disconnect(&self) -> Result<()> {
        self.require_device("rdma_disconnect")?;
        // SAFETY: the identifier exists and has a device.
        check("rdma_disconnect", unsafe { ffi::rdma_disconnect(self.raw()) })
    }

    /// Tells rdma_cm of an asynchronous event of the connection's queue pair (`rdma_notify(3)`): the device may see a
    /// first message before rdma_cm has seen the peer's confirmation. Then comes
    /// [`Established`](super::ConnectionEventKind::Established).
    ///
    /// # Errors
    /// `EINVAL` unless the connection is being set up, or already is (`EISCONN`).
    pub fn notify(&self, notice: QueuePairNotice) -> Result<()> {
        let event = match notice {
            QueuePairNotice::CommunicationEstablished => ffi::ibv_event_type::IBV_EVENT_COMM_EST,
            QueuePairNotice::PathMigrated => ffi::ibv_event_type::IBV_EVENT_PATH_MIG,
        };
        // SAFETY: the identifier exists.
        check("rdma_notify", unsafe { librdmacm::notify(self.raw(), event as u32) }?)
    }

    /// Moves to another channel (`rdma_migrate_id(3)`). Events that have not been read move too; from now on all come
    /// there. Waits while another thread reads from either channel, which does not block.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for a listener: the kernel leaves the identifiers of requests that nobody has read on the old
    /// channel, where they can never be accepted. `EIO` if the device has been removed.
    pub fn migrate(&mut self, channel: &Arc<EventChannel>) -> Result<()> {
        if self.listens.get() {
            let detail = "a listener would lose the connect requests that have not been read";
            return Err(Error::returned("rdma_migrate_id", libc::EOPNOTSUPP).with_detail(detail));
        }
        if Arc::ptr_eq(&self.channel, channel) {
            return Ok(());
        }
        // Let go only when nothing refers to it any more.
        let old = Arc::clone(&self.channel);
        let _quiet = EventChannel::lock_both(&old, channel);
        // SAFETY: identifier and channel exist. With both channels locked no event lies between reading and
        // acknowledgement, so nothing reads the identifier's channel and nothing is waited for.
        check("rdma_migrate_id", unsafe { ffi::rdma_migrate_id(self.raw(), channel.raw()) })?;
        self.channel = Arc::clone(channel);
        Ok(())
    }

    /// What rdma_cm knows of the queue pair for its transition to `state`.
    pub(super) fn queue_pair_attributes(
        &self,
        state: ffi::ibv_qp_state::Type,
    ) -> Result<(ffi::ibv_qp_attr, ffi::ibv_qp_attr_mask)> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut attributes: ffi::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attributes.qp_state = state;
        let mut mask = 0;
        // SAFETY: the identifier exists and both out-pointers are writable for the call.
        let answer = unsafe { ffi::rdma_init_qp_attr(self.raw(), &mut attributes, &mut mask) };
        check("rdma_init_qp_attr", answer)?;
        Ok((attributes, ffi::ibv_qp_attr_mask(mask as u32)))
    }

    /// Refuses calls that librdmacm carries out without looking whether there is a device.
    pub(super) fn require_device(&self, call: &'static str) -> Result<()> {
        let _quiet = self.channel.lock();
        // SAFETY: the identifier exists; no event is under way to change it.
        let context = unsafe { (*self.raw()).verbs };
        if context.is_null() {
            return Err(Error::invalid(
                call,
                "the identifier has no device yet: resolve its address, or bind it to one",
            ));
        }
        Ok(())
    }

    fn reject_length(&self, call: &'static str, private_data: &[u8]) -> Result<u8> {
        private_data_length(call, private_data, self.space, self.space.reject_private_data())
    }

    pub(super) fn raw(&self) -> *mut ffi::rdma_cm_id {
        self.raw.as_ptr()
    }
}

/// What [`ConnectionId::notify`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueuePairNotice {
    /// The queue pair has received something (`IBV_EVENT_COMM_EST`).
    CommunicationEstablished,
    /// The queue pair has changed to its alternate path (`IBV_EVENT_PATH_MIG`).
    PathMigrated,
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionId").field("key", &self.key).field("space", &self.space).finish_non_exhaustive()
    }
}

impl Drop for ConnectionId {
    fn drop(&mut self) {
        if self.creator.may_destroy("connection identifier") {
            self.leave_all();
            // SAFETY: destroyed once; every event is acknowledged when it is read, so this does not wait long.
            fork::destroyed("rdma_destroy_id", unsafe { ffi::rdma_destroy_id(self.raw()) });
        }
    }
}

/// The error of a call on an identifier, with what its errno means there.
pub(super) fn check(call: &'static str, answer: i32) -> Result<()> {
    Error::check(call, answer).map_err(|error| match error.errno() {
        Some(libc::EINVAL) => {
            error.with_detail("the identifier is in no state for this call, or a value is out of range")
        }
        Some(libc::EIO) => error.with_detail("the identifier's device has been removed"),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => error.with_detail("this host has no route to the address"),
        _ => error,
    })
}

pub(super) fn private_data_length(call: &'static str, data: &[u8], space: PortSpace, limit: usize) -> Result<u8> {
    u8::try_from(data.len()).ok().filter(|&length| usize::from(length) <= limit).ok_or_else(|| {
        let length = data.len();
        Error::invalid(call, format!("{length} bytes of private data; {limit} fit in port space {space:?}"))
    })
}

/// Copies an event's private data.
///
/// # Safety
/// Unless `data` is null, `length` bytes can be read there.
pub(super) unsafe fn private_data(data: *const std::ffi::c_void, length: u8) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller promises so many bytes.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), usize::from(length)) }.to_vec()
}

/// Rounded up, so that a short timeout is not taken for none.
fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX).max(1)
}
