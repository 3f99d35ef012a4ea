//! A change of a queue pair's attributes.

use rdma_sys as ffi;

use super::{Access, AddressVector, Error, Mtu, Psn, QueuePairState, Result};

/// A state to move a queue pair to, and attributes to set on the way, for [`QueuePair::modify`](super::QueuePair::modify).
/// Values are checked when it is used.
///
/// ```
/// use zcmi::verbs::{Access, QueuePairChange, QueuePairState};
///
/// let change = QueuePairChange::to(QueuePairState::Initialized).port(1).partition_key_index(0).access(Access::REMOTE_WRITE);
/// # drop(change);
/// ```
#[must_use = "give it to `QueuePair::modify`"]
pub struct QueuePairChange {
    raw: ffi::ibv_qp_attr,
    mask: u32,
    state: QueuePairState,
    /// The first value that no device can take.
    wrong: Option<&'static str>,
}

impl QueuePairChange {
    /// A change to `state`, which may be the present one.
    pub fn to(state: QueuePairState) -> Self {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut raw: ffi::ibv_qp_attr = unsafe { std::mem::zeroed() };
        raw.qp_state = state.raw();
        Self { raw, mask: ffi::ibv_qp_attr_mask::IBV_QP_STATE.0, state, wrong: None }
    }

    /// The device's port, counted from 1.
    pub fn port(mut self, port: u8) -> Self {
        self.raw.port_num = port;
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_PORT)
    }

    /// The entry of the port's partition key table; 0 on RoCE.
    pub fn partition_key_index(mut self, index: u16) -> Self {
        self.raw.pkey_index = index;
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_PKEY_INDEX)
    }

    /// What the peer may do here, with regions that allow it too.
    pub fn access(mut self, access: Access) -> Self {
        self.raw.qp_access_flags = access.raw();
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_ACCESS_FLAGS)
    }

    /// The key that datagrams must carry to be taken.
    pub fn queue_key(mut self, key: u32) -> Self {
        self.raw.qkey = key;
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_QKEY)
    }

    /// The way to the peer.
    pub fn address(mut self, address: &AddressVector) -> Self {
        match address.to_raw() {
            Some(raw) => self.raw.ah_attr = raw,
            None => self.wrong = self.wrong.or(Some("a GID index is at most 255")),
        }
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_AV)
    }

    /// The payload of a packet; the same at both ends, and at most the ports' active MTU.
    pub fn path_mtu(mut self, mtu: Mtu) -> Self {
        match mtu {
            Mtu::Other(_) => self.wrong = self.wrong.or(Some("path_mtu has a size that is known")),
            known => self.raw.path_mtu = known.to_raw(),
        }
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_PATH_MTU)
    }

    /// The number of the peer's queue pair.
    pub fn destination(mut self, queue_pair: u32) -> Self {
        self.raw.dest_qp_num = queue_pair;
        self.below(queue_pair, 1 << 24, "destination has 24 bits").with(ffi::ibv_qp_attr_mask::IBV_QP_DEST_QPN)
    }

    /// The number of the first packet that comes in: what the peer's `send_psn` is.
    pub fn receive_psn(mut self, psn: Psn) -> Self {
        self.raw.rq_psn = psn.number();
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_RQ_PSN)
    }

    /// The number of the first packet that goes out.
    pub fn send_psn(mut self, psn: Psn) -> Self {
        self.raw.sq_psn = psn.number();
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_SQ_PSN)
    }

    /// Reads and atomics that the peer may have outstanding here.
    pub fn reads_as_target(mut self, count: u8) -> Self {
        self.raw.max_dest_rd_atomic = count;
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_MAX_DEST_RD_ATOMIC)
    }

    /// Reads and atomics that we may have outstanding at the peer.
    pub fn reads_as_initiator(mut self, count: u8) -> Self {
        self.raw.max_rd_atomic = count;
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_MAX_QP_RD_ATOMIC)
    }

    /// How long a sender waits when we have no receive posted: a code of IBTA 1.4, table 45, at most 31; 12 is 0.64 ms,
    /// 0 is 655 ms.
    pub fn min_rnr_timer(mut self, code: u8) -> Self {
        self.raw.min_rnr_timer = code;
        self.below(code.into(), 32, "min_rnr_timer is at most 31").with(ffi::ibv_qp_attr_mask::IBV_QP_MIN_RNR_TIMER)
    }

    /// Time without acknowledgement before a packet is sent again: 4.096 µs times 2 to this power, at most 31; 0 is for
    /// ever.
    pub fn ack_timeout(mut self, exponent: u8) -> Self {
        self.raw.timeout = exponent;
        self.below(exponent.into(), 32, "ack_timeout is at most 31").with(ffi::ibv_qp_attr_mask::IBV_QP_TIMEOUT)
    }

    /// How often a packet is sent again; at most 7, which rxe takes for ever.
    pub fn retry_count(mut self, count: u8) -> Self {
        self.raw.retry_cnt = count;
        self.below(count.into(), 8, "retry_count is at most 7").with(ffi::ibv_qp_attr_mask::IBV_QP_RETRY_CNT)
    }

    /// How often a send is tried again when the receiver is not ready; at most 7, which means for ever.
    pub fn rnr_retry_count(mut self, count: u8) -> Self {
        self.raw.rnr_retry = count;
        self.below(count.into(), 8, "rnr_retry_count is at most 7").with(ffi::ibv_qp_attr_mask::IBV_QP_RNR_RETRY)
    }

    /// With SQD: a device event says when the send queue has been drained.
    pub fn drained_event(mut self) -> Self {
        self.raw.en_sqd_async_notify = 1;
        self.with(ffi::ibv_qp_attr_mask::IBV_QP_EN_SQD_ASYNC_NOTIFY)
    }

    pub(super) fn state(&self) -> QueuePairState {
        self.state
    }

    pub(super) fn into_raw(self, call: &'static str) -> Result<(ffi::ibv_qp_attr, ffi::ibv_qp_attr_mask)> {
        match self.wrong {
            Some(wrong) => Err(Error::invalid(call, wrong)),
            None => Ok((self.raw, ffi::ibv_qp_attr_mask(self.mask))),
        }
    }

    fn with(mut self, bit: ffi::ibv_qp_attr_mask) -> Self {
        self.mask |= bit.0;
        self
    }

    fn below(mut self, value: u32, limit: u32, wrong: &'static str) -> Self {
        if value >= limit {
            self.wrong = self.wrong.or(Some(wrong));
        }
        self
    }
}

impl std::fmt::Debug for QueuePairChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueuePairChange").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_no_device_can_take_is_refused() {
        let change = || QueuePairChange::to(QueuePairState::ReadyToReceive);
        for (change, wrong) in [
            (change().path_mtu(Mtu::Other(9)), "path_mtu"),
            (change().destination(1 << 24), "destination"),
            (change().min_rnr_timer(32), "min_rnr_timer"),
            (change().ack_timeout(32), "ack_timeout"),
            (change().retry_count(8), "retry_count"),
            (change().rnr_retry_count(8), "rnr_retry_count"),
        ] {
            let error = change.into_raw("ibv_modify_qp").map(drop).expect_err(wrong);
            assert!(error.detail().is_some_and(|detail| detail.contains(wrong)), "{error}");
        }
    }

    #[test]
    fn the_mtu_becomes_its_code() {
        for (bytes, code) in [(256, 1), (512, 2), (1024, 3), (2048, 4), (4096, 5)] {
            let (raw, _) = QueuePairChange::to(QueuePairState::Reset)
                .path_mtu(Mtu::from_bytes(bytes).expect("one of them"))
                .into_raw("")
                .expect("valid");
            assert_eq!(raw.path_mtu, code);
        }
    }
}
