//! States of a queue pair, and the transitions that rdma_cm describes.

use rdma_sys as ffi;

use super::{ConnectionId, Error, QueuePair, Result};

/// State of a queue pair (IBTA 1.4, 10.3.1). An unknown state is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueuePairState {
    /// Failed: everything posted is flushed.
    Error,
    /// Receives may be posted.
    Initialized,
    /// Incoming requests are served.
    ReadyToReceive,
    /// Requests are sent too.
    ReadyToSend,
    /// Just created.
    Reset,
    /// A value this version does not name.
    Other(u32),
}

impl QueuePairState {
    pub(super) fn from_raw(raw: ffi::ibv_qp_state::Type) -> Self {
        match raw {
            ffi::ibv_qp_state::IBV_QPS_ERR => Self::Error,
            ffi::ibv_qp_state::IBV_QPS_INIT => Self::Initialized,
            ffi::ibv_qp_state::IBV_QPS_RESET => Self::Reset,
            ffi::ibv_qp_state::IBV_QPS_RTR => Self::ReadyToReceive,
            ffi::ibv_qp_state::IBV_QPS_RTS => Self::ReadyToSend,
            other => Self::Other(other),
        }
    }
}

/// What we set ourselves instead of taking rdma_cm's value.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Reads that the peer may have outstanding here; `None` keeps what was negotiated.
    pub reads_as_target: Option<u8>,
    /// Reads that we may have outstanding there; `None` keeps what was negotiated.
    pub reads_as_initiator: Option<u8>,
    /// How long a sender waits when we have no receive posted: a code of IBTA 1.4, table 45; 12 is 0.64 ms.
    /// Left at rdma_cm's 0 it would be 655 ms.
    pub min_rnr_timer: u8,
    /// Time without acknowledgement before a packet is sent again: 4.096 µs times 2 to this power.
    pub ack_timeout: u8,
    /// How often a packet is sent again; at most 7.
    pub retry_count: u8,
    /// How often a send is tried again when the receiver is not ready; 7 means for ever.
    pub rnr_retry_count: u8,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            reads_as_target: None,
            reads_as_initiator: None,
            min_rnr_timer: 12,
            // 134 ms times 8 tries: a host that vanished is noticed in one to two seconds.
            ack_timeout: 15,
            retry_count: 7,
            rnr_retry_count: 6,
        }
    }
}

impl QueuePair {
    /// RESET to INIT with the port and key of `id`, whose address must be resolved.
    ///
    /// # Errors
    /// `EINVAL` if either is in another state.
    pub fn initialize(&self, id: &ConnectionId) -> Result<()> {
        let (mut attributes, mask) = id.queue_pair_attributes(ffi::ibv_qp_state::IBV_QPS_INIT)?;
        self.modify(&mut attributes, mask)
    }

    /// INIT to RTR to RTS with the path of `id`, which has a connect request or its response.
    ///
    /// # Errors
    /// `EINVAL` if either is in another state.
    pub fn connect(&self, id: &ConnectionId, tuning: &Tuning) -> Result<()> {
        if tuning.retry_count > 7 || tuning.rnr_retry_count > 7 || tuning.ack_timeout > 31 || tuning.min_rnr_timer > 31
        {
            return Err(Error::returned("ibv_modify_qp", libc::EINVAL));
        }
        // INIT once more: only now does rdma_cm know what the peer may do here, and says so in the access flags.
        self.initialize(id)?;
        let (mut attributes, mask) = id.queue_pair_attributes(ffi::ibv_qp_state::IBV_QPS_RTR)?;
        attributes.min_rnr_timer = tuning.min_rnr_timer;
        attributes.max_dest_rd_atomic = tuning.reads_as_target.unwrap_or(attributes.max_dest_rd_atomic);
        self.modify(&mut attributes, mask | ffi::ibv_qp_attr_mask::IBV_QP_MIN_RNR_TIMER)?;
        let (mut attributes, mask) = id.queue_pair_attributes(ffi::ibv_qp_state::IBV_QPS_RTS)?;
        attributes.max_rd_atomic = tuning.reads_as_initiator.unwrap_or(attributes.max_rd_atomic);
        attributes.timeout = tuning.ack_timeout;
        attributes.retry_cnt = tuning.retry_count;
        attributes.rnr_retry = tuning.rnr_retry_count;
        self.modify(&mut attributes, mask)
    }
}
