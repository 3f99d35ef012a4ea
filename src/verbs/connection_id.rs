//! rdma_cm identifiers: one end of a connection, or a listener.

use std::fmt;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::sockaddr::{self, RawAddress};
use super::{Error, EventChannel, Result};

/// Private data that fits a connect request over IP (56 bytes: IBTA's 92 less rdma_cm's own header).
pub(crate) const REQUEST_PRIVATE_DATA: usize = 56;
/// Private data that fits an accept.
pub(crate) const REPLY_PRIVATE_DATA: usize = 196;
/// Private data that fits a rejection.
pub(crate) const REJECT_PRIVATE_DATA: usize = 148;

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// An identifier of port space TCP (`rdma_create_id(3)`). It carries addresses and paths; the queue pair
/// is the caller's own, moved through its states with [`QueuePair::initialize`](super::QueuePair::initialize)
/// and [`QueuePair::connect`](super::QueuePair::connect). Events come on the channel, by [`key`](Self::key).
pub struct ConnectionId {
    raw: NonNull<ffi::rdma_cm_id>,
    key: u64,
    /// Address and device after `bind`; read at once, since events change the C structure later.
    bound: OnceLock<(Option<SocketAddr>, Option<String>)>,
    creator: Creator,
    channel: Arc<EventChannel>,
}

// SAFETY: librdmacm has no thread affinity. The type is not `Sync`: calls on one identifier take turns.
unsafe impl Send for ConnectionId {}

/// What both sides tell each other at set-up (`struct rdma_conn_param`).
#[derive(Clone, Copy, Debug)]
pub struct ConnectionParameters<'a> {
    /// Up to 56 bytes with a request, 196 with an accept.
    pub private_data: &'a [u8],
    /// Reads that the peer may have outstanding here.
    pub responder_resources: u8,
    /// Reads that we want to have outstanding there.
    pub initiator_depth: u8,
    /// How often the peer sends a packet again; at most 7.
    pub retry_count: u8,
    /// How often the peer tries again when we have no receive; 7 means for ever.
    pub rnr_retry_count: u8,
    /// The number of our queue pair.
    pub queue_pair: u32,
}

impl ConnectionId {
    /// Creates an identifier that reports to `channel`.
    pub fn create(channel: &Arc<EventChannel>) -> Result<Self> {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        let mut raw = std::ptr::null_mut();
        let space = ffi::rdma_port_space::RDMA_PS_TCP;
        // SAFETY: the channel exists and the identifier keeps it alive; the context is a number to librdmacm.
        let answer = unsafe { ffi::rdma_create_id(channel.raw(), &mut raw, key as *mut _, space) };
        Error::check("rdma_create_id", answer)?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("rdma_create_id"))?;
        Ok(Self { raw, key, bound: OnceLock::new(), creator: Creator::here(), channel: Arc::clone(channel) })
    }

    /// Takes over the identifier of a connect request.
    ///
    /// # Safety
    /// `raw` came with a connect request on `channel` that has not been acknowledged, and has no other owner.
    pub(super) unsafe fn adopt(raw: *mut ffi::rdma_cm_id, channel: &Arc<EventChannel>) -> Self {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller promises a live identifier.
        unsafe { (*raw).context = key as *mut _ };
        // SAFETY: librdmacm reports no request without an identifier.
        let raw = unsafe { NonNull::new_unchecked(raw) };
        Self { raw, key, bound: OnceLock::new(), creator: Creator::here(), channel: Arc::clone(channel) }
    }

    /// A number that no other identifier of this process ever has; events carry it.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The channel that events of this identifier come on.
    pub fn channel(&self) -> &Arc<EventChannel> {
        &self.channel
    }

    /// Binds to a local address (`rdma_bind_addr(3)`); port 0 lets the kernel choose.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL`, or `ENODEV` if no RDMA device has the address.
    pub fn bind(&self, address: SocketAddr) -> Result<()> {
        let mut address = RawAddress::new(address);
        // SAFETY: the identifier exists and the address is valid for the call.
        Error::check("rdma_bind_addr", unsafe { ffi::rdma_bind_addr(self.raw(), address.as_mut_ptr()) })?;
        // SAFETY: the identifier exists, and has nothing under way whose event could change it.
        let local = unsafe { &raw const (*self.raw()).route.addr.src_addr_union.src_addr };
        // SAFETY: the storage is as large as any address.
        let local = unsafe { sockaddr::parse(local) };
        // SAFETY: as for the address.
        let context = unsafe { (*self.raw()).verbs };
        // SAFETY: librdmacm keeps the contexts of its identifiers open.
        let device = (!context.is_null()).then(|| unsafe { super::device::context_name(context) });
        let _ = self.bound.set((local, device));
        Ok(())
    }

    /// The local address after [`bind`](Self::bind).
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.bound.get()?.0
    }

    /// The name of the device after [`bind`](Self::bind) to an address of one; `None` after binding to all addresses.
    pub fn device(&self) -> Option<&str> {
        self.bound.get()?.1.as_deref()
    }

    /// Starts to find the device and hardware address for `peer`; ends with an event.
    pub fn resolve_address(&self, peer: SocketAddr, timeout: Duration) -> Result<()> {
        let mut peer = RawAddress::new(peer);
        let source = std::ptr::null_mut();
        // SAFETY: the identifier exists and the address is valid for the call.
        let answer = unsafe { ffi::rdma_resolve_addr(self.raw(), source, peer.as_mut_ptr(), milliseconds(timeout)) };
        Error::check("rdma_resolve_addr", answer)
    }

    /// Starts to find the path to the resolved address; ends with an event.
    pub fn resolve_route(&self, timeout: Duration) -> Result<()> {
        // SAFETY: the identifier exists.
        let answer = unsafe { ffi::rdma_resolve_route(self.raw(), milliseconds(timeout)) };
        Error::check("rdma_resolve_route", answer)
    }

    /// Listens for connect requests; `backlog` of them may wait.
    pub fn listen(&self, backlog: i32) -> Result<()> {
        // SAFETY: the identifier exists.
        Error::check("rdma_listen", unsafe { ffi::rdma_listen(self.raw(), backlog) })
    }

    /// Asks the resolved peer for a connection; ends with an event.
    ///
    /// # Errors
    /// `EINVAL` if the private data is too long or a count too high.
    pub fn connect(&self, parameters: &ConnectionParameters<'_>) -> Result<()> {
        let mut raw = parameters.to_raw("rdma_connect", REQUEST_PRIVATE_DATA)?;
        // SAFETY: the identifier exists; parameters and private data are valid for the call.
        Error::check("rdma_connect", unsafe { ffi::rdma_connect(self.raw(), &mut raw) })
    }

    /// Accepts the connect request that this identifier came with.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn accept(&self, parameters: &ConnectionParameters<'_>) -> Result<()> {
        let mut raw = parameters.to_raw("rdma_accept", REPLY_PRIVATE_DATA)?;
        // SAFETY: the identifier exists; parameters and private data are valid for the call.
        Error::check("rdma_accept", unsafe { ffi::rdma_accept(self.raw(), &mut raw) })
    }

    /// Tells the peer that our queue pair is ready, after [`ConnectResponse`](super::ConnectionEventKind::ConnectResponse).
    pub fn establish(&self) -> Result<()> {
        // SAFETY: the identifier exists.
        Error::check("rdma_establish", unsafe { ffi::rdma_establish(self.raw()) })
    }

    /// Refuses the connect request that this identifier came with.
    ///
    /// # Errors
    /// `EINVAL` if the private data is longer than 148 bytes.
    pub fn reject(&self, private_data: &[u8]) -> Result<()> {
        let length = private_data_length("rdma_reject", private_data, REJECT_PRIVATE_DATA)?;
        // SAFETY: the identifier exists and the data is valid for the call.
        let answer = unsafe { ffi::rdma_reject(self.raw(), private_data.as_ptr().cast(), length) };
        Error::check("rdma_reject", answer)
    }

    /// Disconnects; both ends get an event.
    pub fn disconnect(&self) -> Result<()> {
        // SAFETY: the identifier exists.
        Error::check("rdma_disconnect", unsafe { ffi::rdma_disconnect(self.raw()) })
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
        Error::check("rdma_init_qp_attr", answer)?;
        Ok((attributes, ffi::ibv_qp_attr_mask(mask as u32)))
    }

    fn raw(&self) -> *mut ffi::rdma_cm_id {
        self.raw.as_ptr()
    }
}

impl ConnectionParameters<'_> {
    fn to_raw(self, call: &'static str, limit: usize) -> Result<ffi::rdma_conn_param> {
        if self.retry_count > 7 || self.rnr_retry_count > 7 {
            return Err(Error::returned(call, libc::EINVAL));
        }
        Ok(ffi::rdma_conn_param {
            private_data: self.private_data.as_ptr().cast(),
            private_data_len: private_data_length(call, self.private_data, limit)?,
            responder_resources: self.responder_resources,
            initiator_depth: self.initiator_depth,
            flow_control: 1,
            retry_count: self.retry_count,
            rnr_retry_count: self.rnr_retry_count,
            srq: 0,
            qp_num: self.queue_pair,
        })
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionId").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Drop for ConnectionId {
    fn drop(&mut self) {
        if self.creator.may_destroy("connection identifier") {
            // SAFETY: destroyed once; every event is acknowledged when it is read, so this does not wait long.
            fork::destroyed("rdma_destroy_id", unsafe { ffi::rdma_destroy_id(self.raw()) });
        }
    }
}

fn private_data_length(call: &'static str, data: &[u8], limit: usize) -> Result<u8> {
    u8::try_from(data.len())
        .ok()
        .filter(|&length| usize::from(length) <= limit)
        .ok_or_else(|| Error::returned(call, libc::EINVAL))
}

/// Rounded up, so that a short timeout is not taken for none.
fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}
