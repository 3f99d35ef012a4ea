//! What a device says of a queue pair.

use rdma_sys as ffi;

use super::{Access, AddressVector, Mtu, Psn, QueuePair, QueuePairCapabilities, QueuePairState, Result};

/// The attributes of a queue pair (`ibv_query_qp(3)`). Those that its kind and state do not use are 0 or what they
/// happen to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueuePairAttributes {
    /// The state.
    pub state: QueuePairState,
    /// Whether the device still finishes what was sent before SQD.
    pub is_draining: bool,
    /// The sizes.
    pub capabilities: QueuePairCapabilities,
    /// Our port, counted from 1.
    pub port: u8,
    /// The entry of the port's partition key table.
    pub partition_key_index: u16,
    /// What the peer may do here.
    pub access: Access,
    /// The key that datagrams must carry.
    pub queue_key: u32,
    /// The payload of a packet; `Other(0)` if none is set.
    pub path_mtu: Mtu,
    /// The way to a connection's peer; `None` if there is none, or none by a GID.
    pub address: Option<AddressVector>,
    /// The number of the peer's queue pair.
    pub destination: u32,
    /// The number of the next packet that comes in.
    pub receive_psn: Psn,
    /// The number of the next packet that goes out.
    pub send_psn: Psn,
    /// Reads and atomics that the peer may have outstanding here.
    pub reads_as_target: u8,
    /// Reads and atomics that we may have outstanding at the peer.
    pub reads_as_initiator: u8,
    /// How long a sender waits when we have no receive posted, as a code.
    pub min_rnr_timer: u8,
    /// Time without acknowledgement before a packet is sent again, as an exponent.
    pub ack_timeout: u8,
    /// How often a packet is sent again.
    pub retry_count: u8,
    /// How often a send is tried again when the receiver is not ready.
    pub rnr_retry_count: u8,
}

impl QueuePair {
    /// What the device says of it now.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn attributes(&self) -> Result<QueuePairAttributes> {
        use ffi::ibv_qp_attr_mask as mask;
        let bits = [
            mask::IBV_QP_STATE,
            mask::IBV_QP_CAP,
            mask::IBV_QP_PORT,
            mask::IBV_QP_PKEY_INDEX,
            mask::IBV_QP_ACCESS_FLAGS,
            mask::IBV_QP_QKEY,
            mask::IBV_QP_PATH_MTU,
            mask::IBV_QP_AV,
            mask::IBV_QP_DEST_QPN,
            mask::IBV_QP_RQ_PSN,
            mask::IBV_QP_SQ_PSN,
            mask::IBV_QP_MAX_DEST_RD_ATOMIC,
            mask::IBV_QP_MAX_QP_RD_ATOMIC,
            mask::IBV_QP_MIN_RNR_TIMER,
            mask::IBV_QP_TIMEOUT,
            mask::IBV_QP_RETRY_CNT,
            mask::IBV_QP_RNR_RETRY,
        ];
        let raw = self.query_raw(bits.into_iter().fold(mask(0), |all, bit| all | bit))?;
        Ok(QueuePairAttributes {
            state: QueuePairState::from_raw(raw.qp_state),
            is_draining: raw.sq_draining != 0,
            capabilities: self.capabilities(),
            port: raw.port_num,
            partition_key_index: raw.pkey_index,
            access: Access::from_raw(raw.qp_access_flags),
            queue_key: raw.qkey,
            path_mtu: Mtu::from_raw(raw.path_mtu),
            address: (raw.ah_attr.is_global != 0).then(|| AddressVector::from_raw(&raw.ah_attr)),
            destination: raw.dest_qp_num,
            receive_psn: Psn::from(raw.rq_psn),
            send_psn: Psn::from(raw.sq_psn),
            reads_as_target: raw.max_dest_rd_atomic,
            reads_as_initiator: raw.max_rd_atomic,
            min_rnr_timer: raw.min_rnr_timer,
            ack_timeout: raw.timeout,
            retry_count: raw.retry_cnt,
            rnr_retry_count: raw.rnr_retry,
        })
    }
}
