//! States of a queue pair, and which change of attributes leads from one to the other.

use rdma_sys as ffi;

use super::{Error, QueuePair, QueuePairChange, QueuePairKind, Result};

/// State of a queue pair (IBTA 1.4, 10.3.1). An unknown state is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Nothing new is sent; what was begun is finished.
    SendQueueDrained,
    /// A send request failed; receives go on. Not for reliable connections.
    SendQueueError,
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
            ffi::ibv_qp_state::IBV_QPS_SQD => Self::SendQueueDrained,
            ffi::ibv_qp_state::IBV_QPS_SQE => Self::SendQueueError,
            other => Self::Other(other),
        }
    }

    pub(super) fn raw(self) -> ffi::ibv_qp_state::Type {
        match self {
            Self::Error => ffi::ibv_qp_state::IBV_QPS_ERR,
            Self::Initialized => ffi::ibv_qp_state::IBV_QPS_INIT,
            Self::ReadyToReceive => ffi::ibv_qp_state::IBV_QPS_RTR,
            Self::ReadyToSend => ffi::ibv_qp_state::IBV_QPS_RTS,
            Self::Reset => ffi::ibv_qp_state::IBV_QPS_RESET,
            Self::SendQueueDrained => ffi::ibv_qp_state::IBV_QPS_SQD,
            Self::SendQueueError => ffi::ibv_qp_state::IBV_QPS_SQE,
            Self::Other(raw) => raw,
        }
    }
}

/// The attributes that a transition must and may set; `None` if there is no such transition.
/// (IBTA 1.4, 11.2.5.2, tables 91 to 95.)
fn rule(kind: QueuePairKind, from: QueuePairState, to: QueuePairState) -> Option<(u32, u32)> {
    use super::QueuePairKind::{Rc, Uc, Ud};
    use QueuePairState as S;
    use mask::*;
    let entry = PKEY_INDEX | PORT | if kind == Ud { QKEY } else { ACCESS };
    let timers = TIMEOUT | RETRY_COUNT | RNR_RETRY;
    // What may be set whenever the queue pair sends.
    let live = CURRENT_STATE
        | match kind {
            Rc => ALTERNATE | ACCESS | MIN_RNR_TIMER | MIGRATION,
            Uc => ALTERNATE | ACCESS | MIGRATION,
            Ud => QKEY,
        };
    Some(match (from, to) {
        // The specification has this one, Linux has not (`ib_modify_qp_is_ok`).
        (S::Reset, S::Error) => return None,
        (_, S::Reset | S::Error) => (0, 0),
        (S::Reset, S::Initialized) => (entry, 0),
        (S::Initialized, S::Initialized) => (0, entry),
        (S::Initialized, S::ReadyToReceive) => match kind {
            Rc => {
                let required = ADDRESS | MTU | DESTINATION | RECEIVE_PSN | READS_AS_TARGET | MIN_RNR_TIMER;
                (required, ALTERNATE | ACCESS | PKEY_INDEX)
            }
            Uc => (ADDRESS | MTU | DESTINATION | RECEIVE_PSN, ALTERNATE | ACCESS | PKEY_INDEX),
            Ud => (0, PKEY_INDEX | QKEY),
        },
        (S::ReadyToReceive, S::ReadyToSend) => match kind {
            Rc => (SEND_PSN | timers | READS_AS_INITIATOR, live),
            Uc | Ud => (SEND_PSN, live),
        },
        (S::ReadyToSend, S::ReadyToSend) | (S::SendQueueDrained, S::ReadyToSend) => (0, live),
        (S::SendQueueError, S::ReadyToSend) if kind != Rc => (0, live & (CURRENT_STATE | ACCESS | QKEY)),
        (S::ReadyToSend, S::SendQueueDrained) => (0, DRAINED_EVENT),
        (S::SendQueueDrained, S::SendQueueDrained) => match kind {
            Rc => {
                let path = PORT | ADDRESS | timers | READS_AS_INITIATOR | READS_AS_TARGET;
                (0, path | ALTERNATE | ACCESS | PKEY_INDEX | MIN_RNR_TIMER | MIGRATION)
            }
            Uc => (0, ADDRESS | ALTERNATE | ACCESS | PKEY_INDEX | MIGRATION),
            Ud => (0, PKEY_INDEX | QKEY),
        },
        _ => return None,
    })
}

/// The bits of `enum ibv_qp_attr_mask`, by our names.
mod mask {
    use rdma_sys::ibv_qp_attr_mask as m;

    pub(super) const ACCESS: u32 = m::IBV_QP_ACCESS_FLAGS.0;
    pub(super) const ADDRESS: u32 = m::IBV_QP_AV.0;
    pub(super) const ALTERNATE: u32 = m::IBV_QP_ALT_PATH.0;
    pub(super) const CURRENT_STATE: u32 = m::IBV_QP_CUR_STATE.0;
    pub(super) const DESTINATION: u32 = m::IBV_QP_DEST_QPN.0;
    pub(super) const DRAINED_EVENT: u32 = m::IBV_QP_EN_SQD_ASYNC_NOTIFY.0;
    pub(super) const MIGRATION: u32 = m::IBV_QP_PATH_MIG_STATE.0;
    pub(super) const MIN_RNR_TIMER: u32 = m::IBV_QP_MIN_RNR_TIMER.0;
    pub(super) const MTU: u32 = m::IBV_QP_PATH_MTU.0;
    pub(super) const PKEY_INDEX: u32 = m::IBV_QP_PKEY_INDEX.0;
    pub(super) const PORT: u32 = m::IBV_QP_PORT.0;
    pub(super) const QKEY: u32 = m::IBV_QP_QKEY.0;
    pub(super) const READS_AS_INITIATOR: u32 = m::IBV_QP_MAX_QP_RD_ATOMIC.0;
    pub(super) const READS_AS_TARGET: u32 = m::IBV_QP_MAX_DEST_RD_ATOMIC.0;
    pub(super) const RECEIVE_PSN: u32 = m::IBV_QP_RQ_PSN.0;
    pub(super) const RETRY_COUNT: u32 = m::IBV_QP_RETRY_CNT.0;
    pub(super) const RNR_RETRY: u32 = m::IBV_QP_RNR_RETRY.0;
    pub(super) const SEND_PSN: u32 = m::IBV_QP_SQ_PSN.0;
    pub(super) const TIMEOUT: u32 = m::IBV_QP_TIMEOUT.0;

    pub(super) const NAMES: [(u32, &str); 19] = [
        (ACCESS, "access"),
        (ADDRESS, "address"),
        (ALTERNATE, "alternate path"),
        (CURRENT_STATE, "current state"),
        (DESTINATION, "destination"),
        (DRAINED_EVENT, "drained event"),
        (MIGRATION, "path migration"),
        (MIN_RNR_TIMER, "min_rnr_timer"),
        (MTU, "path_mtu"),
        (PKEY_INDEX, "partition_key_index"),
        (PORT, "port"),
        (QKEY, "queue_key"),
        (READS_AS_INITIATOR, "reads_as_initiator"),
        (READS_AS_TARGET, "reads_as_target"),
        (RECEIVE_PSN, "receive_psn"),
        (RETRY_COUNT, "retry_count"),
        (RNR_RETRY, "rnr_retry_count"),
        (SEND_PSN, "send_psn"),
        (TIMEOUT, "ack_timeout"),
    ];
}

/// The attributes of `bits`, by name.
fn names(bits: u32) -> String {
    let known = mask::NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|&(_, name)| name);
    known.collect::<Vec<_>>().join(", ")
}

/// Whether a change with the attributes `given` leads from one state to the other.
fn check(kind: QueuePairKind, from: QueuePairState, to: QueuePairState, given: u32) -> std::result::Result<(), String> {
    let Some((required, optional)) = rule(kind, from, to) else {
        return Err(format!("a queue pair of type {kind:?} does not go from {from:?} to {to:?}"));
    };
    let given = given & !ffi::ibv_qp_attr_mask::IBV_QP_STATE.0;
    let (missing, unknown) = (required & !given, given & !(required | optional));
    match (missing, unknown) {
        (0, 0) => Ok(()),
        (0, unknown) => Err(format!("{from:?} to {to:?} of type {kind:?} does not take: {}", names(unknown))),
        (missing, _) => Err(format!("{from:?} to {to:?} of type {kind:?} also needs: {}", names(missing))),
    }
}

impl QueuePair {
    /// The state that the device reports (`ibv_query_qp(3)`).
    pub fn state(&self) -> Result<QueuePairState> {
        Ok(QueuePairState::from_raw(self.query_raw(ffi::ibv_qp_attr_mask::IBV_QP_STATE)?.qp_state))
    }

    /// Makes a change of state or attributes (`ibv_modify_qp(3)`).
    ///
    /// # Errors
    /// `EINVAL` without a call if the transition does not exist, lacks an attribute or does not take one: the detail says
    /// which. Otherwise the device's error, with which nothing has changed.
    pub fn modify(&self, change: QueuePairChange) -> Result<()> {
        let to = change.state();
        let (mut attributes, given) = change.into_raw("ibv_modify_qp")?;
        let from = self.state()?;
        check(self.kind(), from, to, given.0).map_err(|detail| Error::invalid("ibv_modify_qp", detail))?;
        self.modify_raw(&mut attributes, given)
    }

    /// Moves the queue pair to ERROR: what is posted completes as flushed, unless the driver withholds it until the queue
    /// pair is destroyed, as rxe may.
    ///
    /// # Errors
    /// `EINVAL` in state RESET, from which Linux knows no way to ERROR.
    pub fn fail(&self) -> Result<()> {
        self.modify(QueuePairChange::to(QueuePairState::Error))
    }

    /// Takes the queue pair back to RESET: everything posted is forgotten, **without a completion**. A queue pair of an
    /// [`OwningQueue`](super::OwningQueue) is [detached](super::OwningQueue::detach) instead, which gives the memory back.
    pub fn reset(&self) -> Result<()> {
        self.modify(QueuePairChange::to(QueuePairState::Reset))
    }

    pub(super) fn modify_raw(&self, attributes: &mut ffi::ibv_qp_attr, mask: ffi::ibv_qp_attr_mask) -> Result<()> {
        // SAFETY: the queue pair exists and the structure is valid for the call.
        let answer = unsafe { ffi::ibv_modify_qp(self.raw(), attributes, mask.0 as i32) };
        Error::check("ibv_modify_qp", answer)?;
        if mask.0 & ffi::ibv_qp_attr_mask::IBV_QP_STATE.0 != 0 {
            self.was_moved_to(attributes.qp_state);
        }
        Ok(())
    }

    pub(super) fn query_raw(&self, mask: ffi::ibv_qp_attr_mask) -> Result<ffi::ibv_qp_attr> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut attributes: ffi::ibv_qp_attr = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut initial: ffi::ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the queue pair exists and both structures are writable for the call.
        let answer = unsafe { ffi::ibv_query_qp(self.raw(), &mut attributes, mask.0 as i32, &mut initial) };
        Error::check("ibv_query_qp", answer)?;
        Ok(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::QueuePairKind::{Rc, Uc, Ud};
    use super::QueuePairState as S;
    use super::*;

    const STATES: [S; 7] =
        [S::Error, S::Initialized, S::ReadyToReceive, S::ReadyToSend, S::Reset, S::SendQueueDrained, S::SendQueueError];

    #[test]
    fn a_state_survives_the_round_trip() {
        for state in STATES.into_iter().chain([S::Other(99)]) {
            assert_eq!(S::from_raw(state.raw()), state);
        }
    }

    #[test]
    fn there_are_as_many_transitions_as_the_specification_has() {
        let count = |kind| {
            let pairs = STATES.iter().flat_map(|&from| STATES.iter().map(move |&to| (from, to)));
            pairs.filter(|&(from, to)| rule(kind, from, to).is_some()).count()
        };
        // 7 to RESET, 6 to ERROR, and: RESET-INIT, INIT-INIT, INIT-RTR, RTR-RTS, RTS-RTS, RTS-SQD, SQD-SQD, SQD-RTS, SQE-RTS.
        assert_eq!((count(Rc), count(Uc), count(Ud)), (21, 22, 22));
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let error = check(Rc, S::Initialized, S::ReadyToReceive, mask::ADDRESS | mask::MTU).expect_err("incomplete");
        assert!(error.contains("min_rnr_timer") && error.contains("receive_psn") && !error.contains("path_mtu"));
        let error = check(Uc, S::ReadyToReceive, S::ReadyToSend, mask::SEND_PSN | mask::TIMEOUT).expect_err("too much");
        assert!(error.contains("does not take: ack_timeout"), "{error}");
        let error = check(Ud, S::Reset, S::ReadyToSend, mask::SEND_PSN).expect_err("no such transition");
        assert!(error.contains("Reset") && error.contains("ReadyToSend"));
    }

    #[test]
    fn every_attribute_has_a_name() {
        for kind in [Rc, Uc, Ud] {
            for (from, to) in STATES.iter().flat_map(|&from| STATES.iter().map(move |&to| (from, to))) {
                let (required, optional) = rule(kind, from, to).unwrap_or_default();
                let bits = (required | optional).count_ones() as usize;
                assert_eq!(names(required | optional).split(", ").filter(|name| !name.is_empty()).count(), bits);
            }
        }
    }
}
