//! Events of rdma_cm and of devices, copied and acknowledged before anyone sees them.

use std::mem::MaybeUninit;
use std::net::SocketAddr;

use rdma_sys as ffi;

use super::{ConnectionId, Context, Error, Result};

/// An event of rdma_cm (`rdma_get_cm_event(3)`).
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectionEvent {
    /// The [`ConnectionId::key`] of the identifier it is for; of the listener for a connect request.
    pub key: u64,
    /// What happened.
    pub kind: ConnectionEventKind,
    /// Reason code of a rejection or negative errno of a failure; otherwise 0.
    pub status: i32,
    /// The peer's private data, possibly padded with zeros.
    pub private_data: Vec<u8>,
    /// Reads that we may let the peer have outstanding here.
    pub responder_resources: u8,
    /// Reads that we may have outstanding at the peer.
    pub initiator_depth: u8,
    /// Where the identifier leads: with an address resolved and with a connect request.
    pub route: Option<Route>,
    /// The new identifier of a connect request.
    pub request: Option<ConnectionId>,
}

/// The two ends of an identifier and the device between them.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name of the local device.
    pub device: String,
    /// The device's port, counted from 1.
    pub port: u8,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// The peer's address.
    pub peer: Option<SocketAddr>,
}

/// Kind of a [`ConnectionEvent`]. An unknown kind is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEventKind {
    /// The netdev changed its hardware address; the connection may not survive.
    AddressChange,
    /// The address could not be resolved.
    AddressError,
    /// The address has been resolved: the device is known.
    AddressResolved,
    /// The connection could not be set up.
    ConnectError,
    /// A peer wants to connect.
    ConnectRequest,
    /// The peer accepted; the queue pair is ours to move.
    ConnectResponse,
    /// The device is going away.
    DeviceRemoval,
    /// The peer, or we, disconnected.
    Disconnected,
    /// Both ends are connected.
    Established,
    /// The peer, or its kernel, said no.
    Rejected,
    /// The route could not be resolved.
    RouteError,
    /// The route has been resolved.
    RouteResolved,
    /// The wait after a disconnect is over; the queue pair number can be used again.
    TimewaitExit,
    /// The peer does not answer.
    Unreachable,
    /// A value this version does not name.
    Other(u32),
}

impl ConnectionEventKind {
    pub(super) fn from_raw(raw: ffi::rdma_cm_event_type::Type) -> Self {
        use ffi::rdma_cm_event_type as e;
        match raw {
            e::RDMA_CM_EVENT_ADDR_CHANGE => Self::AddressChange,
            e::RDMA_CM_EVENT_ADDR_ERROR => Self::AddressError,
            e::RDMA_CM_EVENT_ADDR_RESOLVED => Self::AddressResolved,
            e::RDMA_CM_EVENT_CONNECT_ERROR => Self::ConnectError,
            e::RDMA_CM_EVENT_CONNECT_REQUEST => Self::ConnectRequest,
            e::RDMA_CM_EVENT_CONNECT_RESPONSE => Self::ConnectResponse,
            e::RDMA_CM_EVENT_DEVICE_REMOVAL => Self::DeviceRemoval,
            e::RDMA_CM_EVENT_DISCONNECTED => Self::Disconnected,
            e::RDMA_CM_EVENT_ESTABLISHED => Self::Established,
            e::RDMA_CM_EVENT_REJECTED => Self::Rejected,
            e::RDMA_CM_EVENT_ROUTE_ERROR => Self::RouteError,
            e::RDMA_CM_EVENT_ROUTE_RESOLVED => Self::RouteResolved,
            e::RDMA_CM_EVENT_TIMEWAIT_EXIT => Self::TimewaitExit,
            e::RDMA_CM_EVENT_UNREACHABLE => Self::Unreachable,
            other => Self::Other(other),
        }
    }
}

/// An asynchronous event of a device (`ibv_get_async_event(3)`), by its number: an unknown one is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent {
    /// The `IBV_EVENT_…` number.
    pub number: u32,
}

impl AsyncEvent {
    /// The name of `ibv_event_type_str(3)`'s list, or `unknown`.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 20] = [
            "completion queue error",
            "queue pair fatal",
            "queue pair request error",
            "queue pair access error",
            "communication established",
            "send queue drained",
            "path migrated",
            "path migration error",
            "device fatal",
            "port active",
            "port error",
            "local id change",
            "partition key change",
            "subnet manager change",
            "shared receive queue error",
            "shared receive queue limit reached",
            "last work request reached",
            "client reregister",
            "GID change",
            "work queue fatal",
        ];
        NAMES.get(self.number as usize).copied().unwrap_or("unknown")
    }

    pub(super) fn read(context: &Context) -> Result<Option<Self>> {
        let mut raw = MaybeUninit::<ffi::ibv_async_event>::zeroed();
        // SAFETY: the context is open and the structure is writable for the call.
        let answer = unsafe { ffi::ibv_get_async_event(context.raw(), raw.as_mut_ptr()) };
        if answer != 0 {
            let error = Error::last("ibv_get_async_event");
            return if error.io().kind() == std::io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
        }
        // The field is a C enum that may hold a number the binding does not know: it is read as an
        // integer and never becomes a Rust enum.
        // SAFETY: the field lies within the structure.
        let field = unsafe { &raw const (*raw.as_ptr()).event_type };
        // SAFETY: the structure was zeroed and then filled, so these four bytes are initialised.
        let number = unsafe { field.cast::<u32>().read() };
        // SAFETY: the event was just read and is acknowledged once.
        unsafe { ffi::ibv_ack_async_event(raw.as_mut_ptr()) };
        Ok(Some(Self { number }))
    }
}
