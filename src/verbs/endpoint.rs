//! Queue pairs brought up without rdma_cm: what two ends tell each other by other means.

use std::fmt;

use rdma_sys as ffi;
use serde::{Deserialize, Serialize};

use super::{
    Access, AddressVector, ConnectionId, Error, Gid, Mtu, QueuePair, QueuePairChange, QueuePairKind, QueuePairState,
    Result, Tuning,
};

/// The number of a packet (IBTA 1.4, 9.7.1); 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub struct Psn(u32);

impl Psn {
    /// A random one, so that late packets of an earlier connection do not fit.
    pub fn random() -> Self {
        Self::from(rand::random::<u32>())
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl From<u32> for Psn {
    /// Takes the lower 24 bits.
    fn from(number: u32) -> Self {
        Self(number & 0xff_ffff)
    }
}

impl From<Psn> for u32 {
    fn from(psn: Psn) -> Self {
        psn.0
    }
}

/// What a peer must know of a queue pair to connect its own to it. It travels as the program likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The port's address.
    pub gid: Gid,
    /// The port's local id; 0 on RoCE.
    pub lid: u16,
    /// The number of the queue pair.
    pub queue_pair: u32,
    /// The number of the first packet it sends.
    pub psn: Psn,
}

/// Our side of a connection without rdma_cm.
#[derive(Clone, Copy, Debug)]
pub struct LocalEnd {
    /// The device's port, counted from 1.
    pub port: u8,
    /// The entry of its GID table that fits the peer; see `Context::gid_for` and `gid_toward`.
    pub gid_index: u32,
    /// The number of the first packet that we send.
    pub psn: Psn,
    /// What the peer may do here.
    pub access: Access,
    /// The payload of a packet; at most the port's active MTU, and the same at both ends.
    pub path_mtu: Mtu,
}

impl QueuePair {
    /// What the peer must be told.
    ///
    /// # Errors
    /// If port or GID index are not there.
    pub fn endpoint(&self, local: &LocalEnd) -> Result<Endpoint> {
        let context = self.domain().context();
        Ok(Endpoint {
            gid: context.gid(local.port, local.gid_index)?,
            lid: context.port(local.port)?.lid,
            queue_pair: self.number(),
            psn: local.psn,
        })
    }

    /// RESET to INIT, so that receives can be posted before the peer is told of us. For RC and UC.
    ///
    /// # Errors
    /// `EINVAL` if the queue pair is in another state, of type UD, or the port is not there.
    pub fn prepare(&self, local: &LocalEnd) -> Result<()> {
        let change = QueuePairChange::to(QueuePairState::Initialized).port(local.port).partition_key_index(0);
        self.modify(change.access(local.access))
    }

    /// INIT to RTR to RTS, connected to the peer's queue pair. For RC and UC. If this fails half-way, the queue pair can be
    /// [`reset`](Self::reset).
    ///
    /// # Errors
    /// `EINVAL` if the queue pair was not [prepared](Self::prepare) or a value is too large, `ENETUNREACH`, `ETIMEDOUT` or
    /// another errno if there is no way to the peer's GID.
    pub fn connect_to(&self, local: &LocalEnd, peer: &Endpoint, tuning: &Tuning) -> Result<()> {
        let mut address = AddressVector::to(local.port, local.gid_index, peer.gid);
        address.lid = peer.lid;
        let receive = QueuePairChange::to(QueuePairState::ReadyToReceive)
            .address(&address)
            .path_mtu(local.path_mtu)
            .destination(peer.queue_pair)
            .receive_psn(peer.psn);
        let send = QueuePairChange::to(QueuePairState::ReadyToSend).send_psn(local.psn);
        if self.kind() == QueuePairKind::Uc {
            self.modify(receive)?;
            return self.modify(send);
        }
        let limits = self.domain().context().attributes()?;
        let target = tuning.reads_as_target.unwrap_or(limits.max_reads_as_target.min(16));
        let initiator = tuning.reads_as_initiator.unwrap_or(limits.max_reads_as_initiator.min(16));
        self.modify(receive.reads_as_target(target).min_rnr_timer(tuning.min_rnr_timer))?;
        self.modify(
            send.ack_timeout(tuning.ack_timeout)
                .retry_count(tuning.retry_count)
                .rnr_retry_count(tuning.rnr_retry_count)
                .reads_as_initiator(initiator),
        )
    }

    /// RESET to INIT to RTR to RTS, taking datagrams that carry `queue_key`. For UD.
    ///
    /// # Errors
    /// `EINVAL` if the queue pair is in another state or of another type.
    pub fn open_for_datagrams(&self, port: u8, queue_key: u32) -> Result<()> {
        let to = QueuePairChange::to;
        self.modify(to(QueuePairState::Initialized).port(port).partition_key_index(0).queue_key(queue_key))?;
        self.modify(to(QueuePairState::ReadyToReceive))?;
        self.modify(to(QueuePairState::ReadyToSend).send_psn(Psn::random()))
    }

    /// RESET to INIT with the port and key of `id`, whose address must be resolved.
    ///
    /// # Errors
    /// `EINVAL` if either is in another state.
    pub fn initialize(&self, id: &ConnectionId) -> Result<()> {
        let (mut attributes, mask) = id.queue_pair_attributes(ffi::ibv_qp_state::IBV_QPS_INIT)?;
        self.modify_raw(&mut attributes, mask)
    }

    /// INIT to RTR to RTS with the path of `id`, which has a connect request or its response.
    ///
    /// # Errors
    /// `EINVAL` if either is in another state.
    pub fn connect(&self, id: &ConnectionId, tuning: &Tuning) -> Result<()> {
        if tuning.retry_count > 7 || tuning.rnr_retry_count > 7 || tuning.ack_timeout > 31 || tuning.min_rnr_timer > 31
        {
            let limits = "retry counts are at most 7, ack_timeout and min_rnr_timer at most 31";
            return Err(Error::invalid("ibv_modify_qp", limits));
        }
        // INIT once more: only now does rdma_cm know what the peer may do here, and says so in the access flags.
        self.initialize(id)?;
        let (mut attributes, mask) = id.queue_pair_attributes(ffi::ibv_qp_state::IBV_QPS_RTR)?;
        attributes.min_rnr_timer = tuning.min_rnr_timer;
        attributes.max_dest_rd_atomic = tuning.reads_as_target.unwrap_or(attributes.max_dest_rd_atomic);
        self.modify_raw(&mut attributes, mask | ffi::ibv_qp_attr_mask::IBV_QP_MIN_RNR_TIMER)?;
        let (mut attributes, mask) = id.queue_pair_attributes(ffi::ibv_qp_state::IBV_QPS_RTS)?;
        attributes.max_rd_atomic = tuning.reads_as_initiator.unwrap_or(attributes.max_rd_atomic);
        attributes.timeout = tuning.ack_timeout;
        attributes.retry_cnt = tuning.retry_count;
        attributes.rnr_retry = tuning.rnr_retry_count;
        self.modify_raw(&mut attributes, mask)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue pair {:#x} at {}", self.queue_pair, self.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_number_has_24_bits() {
        assert_eq!(Psn::from(u32::MAX).number(), 0xff_ffff);
        assert_eq!(Psn::from(0x0100_0007).number(), 7);
        assert!((0..100).all(|_| Psn::random().number() <= 0xff_ffff));
    }

    #[test]
    fn an_endpoint_travels_as_text_and_a_hostile_number_is_cut() {
        let endpoint = Endpoint { gid: Gid([1; 16]), lid: 2, queue_pair: 3, psn: Psn::from(4) };
        let text = serde_json::to_string(&endpoint).expect("serialises");
        assert_eq!(serde_json::from_str::<Endpoint>(&text).expect("parses"), endpoint);
        let hostile = text.replace("\"psn\":4", "\"psn\":4294967295");
        assert_eq!(serde_json::from_str::<Endpoint>(&hostile).expect("parses").psn.number(), 0xff_ffff);
    }
}
