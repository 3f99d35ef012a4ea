//! Events of rdma_cm, copied and acknowledged before anyone sees them.

use std::net::SocketAddr;

use rdma_sys as ffi;

use super::connection_id::private_data;
use super::{
    AddressVector, ConnectionId, Error, EventChannel, PortSpace, RejectReason, ResolutionRefusal, Result, Route,
};

/// An event of rdma_cm (`rdma_get_cm_event(3)`).
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectionEvent {
    /// The [`ConnectionId::key`] of the identifier it is for; of the listener for a connect request.
    pub key: u64,
    /// What happened.
    pub kind: ConnectionEventKind,
    /// Reason code of a rejection, status of a refused resolution, or negative errno of a failure; otherwise 0.
    pub status: i32,
    /// The peer's private data, possibly padded with zeros.
    pub private_data: Vec<u8>,
    /// Reads that we may let the peer have outstanding here.
    pub responder_resources: u8,
    /// Reads that we may have outstanding at the peer.
    pub initiator_depth: u8,
    /// How often the peer wants packets sent again; with a connect request of port space TCP.
    pub retry_count: u8,
    /// How often the peer wants sends tried again that found no receive; with a connect request of port space TCP.
    pub rnr_retry_count: u8,
    /// The number of the peer's queue pair; with a connect request and its response in port space TCP, otherwise 0.
    pub queue_pair: u32,
    /// Where to send datagrams: to a peer with [`Established`](ConnectionEventKind::Established) in port space UDP, to
    /// a group with [`MulticastJoin`](ConnectionEventKind::MulticastJoin).
    pub datagram: Option<DatagramPeer>,
    /// The group of an event about multicast, as it was joined.
    pub group: Option<SocketAddr>,
    /// Where the identifier leads: with an address resolved and with a connect request.
    pub route: Option<Route>,
    /// The new identifier of a connect request. Dropping it refuses the request.
    pub request: Option<ConnectionId>,
}

/// Whom a datagram reaches (`struct rdma_ud_param`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramPeer {
    /// The way there, for an address handle.
    pub address: AddressVector,
    /// The number of the queue pair; 0xffffff for a group.
    pub queue_pair: u32,
    /// The key that the queue pair asks for.
    pub queue_key: u32,
}

/// Kind of a [`ConnectionEvent`]. An unknown kind is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionEventKind {
    /// The netdev changed its hardware address; the connection may not survive.
    AddressChange,
    /// The address could not be resolved. The identifier may try again.
    AddressError,
    /// The address has been resolved: the device is known.
    AddressResolved,
    /// The connection could not be set up.
    ConnectError,
    /// A peer wants to connect.
    ConnectRequest,
    /// The peer accepted; the queue pair is ours to move.
    ConnectResponse,
    /// The device is going away. Every call on the identifier fails from now on (`EIO`). Drop its queue pair and what
    /// else is of the device, then the identifier: the kernel waits for that. A driver that cannot take a device from
    /// its users, as rxe, does not get here before every process that has it open has ended, and librdmacm keeps
    /// it open; such a process learns of the removal from [`Context`](super::Context)'s asynchronous events.
    DeviceRemoval,
    /// The peer, or we, disconnected.
    Disconnected,
    /// Both ends are connected; in port space UDP, the peer's queue pair is known.
    Established,
    /// The group could not be joined, or is lost.
    MulticastError,
    /// The group has been joined; a queue pair can be attached to it.
    MulticastJoin,
    /// The peer, or its kernel, said no.
    Rejected,
    /// The route could not be resolved.
    RouteError,
    /// The route has been resolved.
    RouteResolved,
    /// The wait after a disconnect is over; the queue pair number can be used again.
    TimewaitExit,
    /// The peer does not answer; in port space UDP with a positive status, it refused.
    Unreachable,
    /// A value this version does not name.
    Other(u32),
}

impl ConnectionEvent {
    /// Why the peer, or its kernel, said no; `None` for other events, and where there is no reason (iWARP has only an errno).
    pub fn reject_reason(&self) -> Option<RejectReason> {
        let is_rejection = self.kind == ConnectionEventKind::Rejected;
        u32::try_from(self.status).ok().filter(|_| is_rejection).map(RejectReason::from_number)
    }

    /// Why a peer in port space UDP did not give us a queue pair; `None` for other events, and where nobody answered.
    pub fn resolution_refusal(&self) -> Option<ResolutionRefusal> {
        let is_refusal = self.kind == ConnectionEventKind::Unreachable && self.status > 0;
        u32::try_from(self.status).ok().filter(|_| is_refusal).map(ResolutionRefusal::from_number)
    }

    /// The event if it is of the kind `wanted`, otherwise the error that it stands for.
    ///
    /// # Errors
    /// `ECONNREFUSED` for a rejection, with its reason as detail; `ECONNRESET` for a disconnect; `ENODEV` for a device
    /// removed; the errno that a failure came with; `EPROTO` for any other event.
    pub fn expect(self, wanted: ConnectionEventKind) -> Result<Self> {
        use ConnectionEventKind as Kind;
        if self.kind == wanted {
            return Ok(self);
        }
        let errno = match self.kind {
            Kind::Disconnected | Kind::TimewaitExit => libc::ECONNRESET,
            Kind::DeviceRemoval => libc::ENODEV,
            Kind::Rejected => libc::ECONNREFUSED,
            _ if self.resolution_refusal().is_some() => libc::ECONNREFUSED,
            _ if self.status < 0 => self.status.saturating_neg(),
            Kind::Unreachable => libc::EHOSTUNREACH,
            _ => libc::EPROTO,
        };
        let detail = match (self.reject_reason(), self.resolution_refusal()) {
            (Some(reason), _) => reason.to_string(),
            (_, Some(refusal)) => refusal.to_string(),
            _ => format!("{:?} instead of {wanted:?}", self.kind),
        };
        Err(Error::returned("rdma_get_cm_event", errno).with_detail(detail))
    }

    /// Copies what librdmacm has filled in for this kind of event and nothing else.
    ///
    /// # Safety
    /// `raw` came from `rdma_get_cm_event` on `channel`, which the caller has locked, and is not acknowledged; it is
    /// copied once.
    pub(super) unsafe fn copy(raw: *const ffi::rdma_cm_event, channel: &std::sync::Arc<EventChannel>) -> Self {
        // SAFETY: the caller promises an event.
        let event = unsafe { &*raw };
        let kind = ConnectionEventKind::from_raw(event.event);
        let is_request = kind == ConnectionEventKind::ConnectRequest;
        let owner = if is_request { event.listen_id } else { event.id };
        // SAFETY: an identifier cannot be destroyed while an event of it is not acknowledged. Its key never changes.
        let key = unsafe { (*owner).context } as u64;
        // SAFETY: as above, and its type neither.
        let space = PortSpace::of_queue_pair_type(unsafe { (*owner).qp_type });
        let mut copy = Self {
            key,
            kind,
            status: event.status,
            private_data: Vec::new(),
            responder_resources: 0,
            initiator_depth: 0,
            retry_count: 0,
            rnr_retry_count: 0,
            queue_pair: 0,
            datagram: None,
            group: None,
            route: None,
            request: None,
        };
        match Filled::of(kind, space) {
            Filled::Connected => {
                // SAFETY: librdmacm fills this arm for this kind and type.
                copy.fill_connected(unsafe { &event.param.conn });
            }
            Filled::Datagram => {
                // SAFETY: as above.
                copy.fill_datagram(unsafe { &event.param.ud });
            }
            Filled::Multicast => {
                // SAFETY: as above.
                let parameters = unsafe { &event.param.ud };
                // SAFETY: our joins give the group's address as context, and keep it until the group is left, which
                // waits for this event to be acknowledged.
                copy.group = unsafe { parameters.private_data.cast::<SocketAddr>().as_ref() }.copied();
                if kind == ConnectionEventKind::MulticastJoin {
                    copy.datagram = Some(DatagramPeer::from_raw(parameters));
                }
            }
            Filled::Nothing => {}
        }
        if is_request || kind == ConnectionEventKind::AddressResolved {
            // SAFETY: as for `key`; librdmacm has filled the route, and changes it only while the channel is locked.
            copy.route = unsafe { Route::read(event.id) };
        }
        if is_request {
            // SAFETY: a connect request hands over a new identifier that nobody else owns.
            copy.request = Some(unsafe { ConnectionId::adopt(event.id, channel, space) });
        }
        copy
    }

    fn fill_connected(&mut self, parameters: &ffi::rdma_conn_param) {
        // SAFETY: librdmacm answers that many bytes, which live until the event is acknowledged.
        self.private_data = unsafe { private_data(parameters.private_data, parameters.private_data_len) };
        self.responder_resources = parameters.responder_resources;
        self.initiator_depth = parameters.initiator_depth;
        self.retry_count = parameters.retry_count;
        self.rnr_retry_count = parameters.rnr_retry_count;
        self.queue_pair = parameters.qp_num;
    }

    fn fill_datagram(&mut self, parameters: &ffi::rdma_ud_param) {
        // SAFETY: as for a connected one.
        self.private_data = unsafe { private_data(parameters.private_data, parameters.private_data_len) };
        if self.kind == ConnectionEventKind::Established {
            self.datagram = Some(DatagramPeer::from_raw(parameters));
        }
    }
}

impl DatagramPeer {
    fn from_raw(raw: &ffi::rdma_ud_param) -> Self {
        Self { address: AddressVector::from_raw(&raw.ah_attr), queue_pair: raw.qp_num, queue_key: raw.qkey }
    }
}

/// The arm of an event's union that librdmacm has filled in.
#[derive(Debug, PartialEq, Eq)]
enum Filled {
    Connected,
    Datagram,
    /// As `Datagram`, with the join's context instead of private data.
    Multicast,
    Nothing,
}

impl Filled {
    fn of(kind: ConnectionEventKind, space: PortSpace) -> Self {
        use ConnectionEventKind as Kind;
        match (kind, space) {
            (Kind::AddressResolved | Kind::RouteResolved, _) => Self::Nothing,
            (Kind::MulticastError | Kind::MulticastJoin, _) => Self::Multicast,
            // Here librdmacm takes the kernel's bytes for those of a connection, whatever they are.
            (Kind::ConnectResponse | Kind::Disconnected | Kind::Rejected, PortSpace::Udp) => Self::Nothing,
            (_, PortSpace::Udp) => Self::Datagram,
            (_, PortSpace::Tcp) => Self::Connected,
        }
    }
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
            e::RDMA_CM_EVENT_MULTICAST_ERROR => Self::MulticastError,
            e::RDMA_CM_EVENT_MULTICAST_JOIN => Self::MulticastJoin,
            e::RDMA_CM_EVENT_REJECTED => Self::Rejected,
            e::RDMA_CM_EVENT_ROUTE_ERROR => Self::RouteError,
            e::RDMA_CM_EVENT_ROUTE_RESOLVED => Self::RouteResolved,
            e::RDMA_CM_EVENT_TIMEWAIT_EXIT => Self::TimewaitExit,
            e::RDMA_CM_EVENT_UNREACHABLE => Self::Unreachable,
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConnectionEventKind as Kind;

    fn event(kind: Kind, status: i32) -> ConnectionEvent {
        ConnectionEvent {
            key: 1,
            kind,
            status,
            private_data: Vec::new(),
            responder_resources: 0,
            initiator_depth: 0,
            retry_count: 0,
            rnr_retry_count: 0,
            queue_pair: 0,
            datagram: None,
            group: None,
            route: None,
            request: None,
        }
    }

    #[test]
    fn an_unknown_kind_is_a_value() {
        for number in 0..64 {
            let kind = Kind::from_raw(number);
            assert_eq!(matches!(kind, Kind::Other(_)), number > 15, "{kind:?}");
        }
        assert_eq!(Kind::from_raw(u32::MAX), Kind::Other(u32::MAX));
    }

    #[test]
    fn only_rejections_have_a_reason() {
        assert_eq!(event(Kind::Rejected, 8).reject_reason(), Some(RejectReason::InvalidServiceId));
        assert_eq!(event(Kind::Rejected, -libc::ECONNREFUSED).reject_reason(), None);
        assert_eq!(event(Kind::Unreachable, 8).reject_reason(), None);
        assert_eq!(event(Kind::Unreachable, 2).resolution_refusal(), Some(ResolutionRefusal::Rejected));
        assert_eq!(event(Kind::Unreachable, -libc::ETIMEDOUT).resolution_refusal(), None);
        assert_eq!(event(Kind::Rejected, 2).resolution_refusal(), None);
    }

    #[test]
    fn an_unwanted_event_is_the_error_it_stands_for() {
        assert!(event(Kind::Established, 0).expect(Kind::Established).is_ok());
        let errno = |kind, status| event(kind, status).expect(Kind::Established).unwrap_err().errno();
        assert_eq!(errno(Kind::Rejected, 28), Some(libc::ECONNREFUSED));
        assert_eq!(errno(Kind::Unreachable, 1), Some(libc::ECONNREFUSED));
        assert_eq!(errno(Kind::Unreachable, -libc::ETIMEDOUT), Some(libc::ETIMEDOUT));
        assert_eq!(errno(Kind::Unreachable, 0), Some(libc::EHOSTUNREACH));
        assert_eq!(errno(Kind::AddressError, -libc::ENETUNREACH), Some(libc::ENETUNREACH));
        assert_eq!(errno(Kind::Disconnected, 0), Some(libc::ECONNRESET));
        assert_eq!(errno(Kind::DeviceRemoval, 0), Some(libc::ENODEV));
        assert_eq!(errno(Kind::RouteResolved, 0), Some(libc::EPROTO));
        assert_eq!(errno(Kind::ConnectError, i32::MIN), Some(i32::MAX));
        let error = event(Kind::Rejected, 8).expect(Kind::Established).unwrap_err();
        assert_eq!(error.detail(), Some("nobody listens at that port (reason 8)"));
    }

    #[test]
    fn the_union_is_read_as_it_was_filled() {
        assert_eq!(Filled::of(Kind::Established, PortSpace::Tcp), Filled::Connected);
        assert_eq!(Filled::of(Kind::Established, PortSpace::Udp), Filled::Datagram);
        assert_eq!(Filled::of(Kind::Unreachable, PortSpace::Udp), Filled::Datagram);
        assert_eq!(Filled::of(Kind::Rejected, PortSpace::Udp), Filled::Nothing);
        assert_eq!(Filled::of(Kind::MulticastJoin, PortSpace::Tcp), Filled::Multicast);
        assert_eq!(Filled::of(Kind::AddressResolved, PortSpace::Tcp), Filled::Nothing);
    }
}
