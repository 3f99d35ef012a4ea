//! Port spaces of rdma_cm, and what fits their messages.

use rdma_sys as ffi;

/// What kind of service an identifier is for (`rdma_create_id(3)`); ports of one space are none of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PortSpace {
    /// `RDMA_PS_TCP`: reliable connections.
    Tcp,
    /// `RDMA_PS_UDP`: unreliable datagrams. Connecting asks the peer for its queue pair's number and key.
    Udp,
}

impl PortSpace {
    /// Bytes of private data that fit [`ConnectionId::connect`](super::ConnectionId::connect): 56 or 180,
    /// IBTA's 92 or 216 less the 36 of rdma_cm's own header.
    pub const fn connect_private_data(self) -> usize {
        match self {
            Self::Tcp => 56,
            Self::Udp => 180,
        }
    }

    /// Bytes of private data that fit [`ConnectionId::accept`](super::ConnectionId::accept): 196 or 136.
    pub const fn accept_private_data(self) -> usize {
        match self {
            Self::Tcp => 196,
            Self::Udp => 136,
        }
    }

    /// Bytes of private data that fit [`ConnectionId::reject`](super::ConnectionId::reject): 148 or 136.
    pub const fn reject_private_data(self) -> usize {
        match self {
            Self::Tcp => 148,
            Self::Udp => 136,
        }
    }

    /// The space of an identifier whose queue pair is of type `queue_pair`, by which librdmacm, too, chooses what it
    /// writes into an event.
    pub(super) const fn of_queue_pair_type(queue_pair: ffi::ibv_qp_type::Type) -> Self {
        match queue_pair {
            ffi::ibv_qp_type::IBV_QPT_UD => Self::Udp,
            _ => Self::Tcp,
        }
    }

    pub(super) const fn raw(self) -> ffi::rdma_port_space::Type {
        match self {
            Self::Tcp => ffi::rdma_port_space::RDMA_PS_TCP,
            Self::Udp => ffi::rdma_port_space::RDMA_PS_UDP,
        }
    }
}
