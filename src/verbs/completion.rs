//! Completions and what their status means.

use std::fmt;

use rdma_sys as ffi;

/// One entry of a completion queue (`struct ibv_wc`), as long as its [`CompletionBatch`](super::CompletionBatch) is not
/// polled into again. In an error only [`wr_id`](Self::wr_id), [`status`](Self::status),
/// [`queue_pair`](Self::queue_pair) and [`vendor_error`](Self::vendor_error) mean anything.
#[derive(Clone, Copy)]
pub struct Completion<'a> {
    raw: &'a ffi::ibv_wc,
}

impl<'a> Completion<'a> {
    #[inline]
    pub(super) fn new(raw: &'a ffi::ibv_wc) -> Self {
        Self { raw }
    }

    /// The id that the request was posted with.
    #[inline]
    pub fn wr_id(&self) -> u64 {
        self.raw.wr_id
    }

    /// How the request ended.
    #[inline]
    pub fn status(&self) -> CompletionStatus {
        CompletionStatus::from_raw(self.raw.status)
    }

    /// Bytes received or read, or why the request failed.
    ///
    /// # Errors
    /// Every status but success.
    #[inline]
    pub fn result(&self) -> Result<u32, CompletionError> {
        match self.status() {
            CompletionStatus::Success => Ok(self.raw.byte_len),
            status => Err(CompletionError { status, vendor_error: self.raw.vendor_err }),
        }
    }

    /// What was done.
    #[inline]
    pub fn opcode(&self) -> WorkOpcode {
        WorkOpcode::from_raw(self.raw.opcode)
    }

    /// Bytes received or read. A datagram counts the 40 bytes of its route header.
    #[inline]
    pub fn byte_length(&self) -> u32 {
        self.raw.byte_len
    }

    /// The device's own code, for its vendor.
    #[inline]
    pub fn vendor_error(&self) -> u32 {
        self.raw.vendor_err
    }

    /// The number of the queue pair.
    #[inline]
    pub fn queue_pair(&self) -> u32 {
        self.raw.qp_num
    }

    /// What a message says beyond its bytes.
    #[inline]
    pub fn arrival(&self) -> Arrival {
        let has = |flag: ffi::ibv_wc_flags| self.raw.wc_flags & flag.0 != 0;
        // SAFETY: both fields of the union are 32-bit integers, which every bit pattern is a value of.
        let word = unsafe { self.raw.imm_data_invalidated_rkey_union.imm_data };
        Arrival {
            immediate: has(ffi::ibv_wc_flags::IBV_WC_WITH_IMM).then(|| u32::from_be(word)),
            invalidated_key: has(ffi::ibv_wc_flags::IBV_WC_WITH_INV).then_some(word),
            has_route_header: has(ffi::ibv_wc_flags::IBV_WC_GRH),
            source_queue_pair: self.raw.src_qp,
        }
    }

    pub(super) fn raw(&self) -> &'a ffi::ibv_wc {
        self.raw
    }
}

impl fmt::Debug for Completion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("wr_id", &self.wr_id())
            .field("status", &self.status())
            .field("opcode", &self.opcode())
            .field("byte_length", &self.byte_length())
            .field("queue_pair", &self.queue_pair())
            .finish_non_exhaustive()
    }
}

/// What a completed receive tells beyond its bytes. All nothing for other requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// The number that the peer sent along.
    pub immediate: Option<u32>,
    /// The key of the window that the peer's message made invalid. Soft-RoCE never tells it (Linux 6.1 to 7.3).
    pub invalidated_key: Option<u32>,
    /// Whether the first 40 bytes of the buffer are the route header of a datagram (they always are on RoCE).
    pub has_route_header: bool,
    /// The queue pair that sent a datagram.
    pub source_queue_pair: u32,
}

/// How a request ended (`ibv_poll_cq(3)`, IBTA 1.4, 11.6.2). An unknown status is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompletionStatus {
    /// The peer's device answered with something that is no answer.
    BadResponse,
    /// The device is broken.
    FatalError,
    /// Dropped because the queue pair had already failed or was closed. rxe tells a local protection error of a send or a
    /// write by this alone.
    Flushed,
    /// The device gives no better name.
    GeneralError,
    /// A peer's write with immediate was refused by our memory.
    LocalAccess,
    /// The message is longer than the posted receive, or than the path allows.
    LocalLength,
    /// The local region does not cover the buffer, is of another domain, or lacks the right.
    LocalProtection,
    /// The request itself is malformed. rxe also says so of a receive that is too short or may not be written.
    LocalQueuePairOperation,
    /// The device did not take the request; its errno is in `vendor_error`.
    NotPosted,
    /// The peer had no receive posted for too long.
    ReceiverNotReady,
    /// The peer's device gave the request up.
    RemoteAborted,
    /// The peer's key, range or right does not allow the access.
    RemoteAccess,
    /// The peer's device found the request malformed, or the message too long for the receive.
    RemoteInvalidRequest,
    /// The peer's device failed while it served the request; of rxe also: the message was too long for the receive.
    RemoteOperation,
    /// The device's own command timed out.
    ResponseTimeout,
    /// The peer's device did not answer within the retries.
    RetryExceeded,
    /// Done.
    Success,
    /// A window could not be bound: region, range or right do not allow it.
    WindowBind,
    /// A value this version does not name.
    Other(u32),
}

impl CompletionStatus {
    #[inline]
    fn from_raw(raw: ffi::ibv_wc_status::Type) -> Self {
        use ffi::ibv_wc_status as s;
        match raw {
            s::IBV_WC_BAD_RESP_ERR => Self::BadResponse,
            s::IBV_WC_FATAL_ERR => Self::FatalError,
            s::IBV_WC_WR_FLUSH_ERR => Self::Flushed,
            s::IBV_WC_GENERAL_ERR => Self::GeneralError,
            s::IBV_WC_LOC_ACCESS_ERR => Self::LocalAccess,
            s::IBV_WC_LOC_LEN_ERR => Self::LocalLength,
            s::IBV_WC_LOC_PROT_ERR => Self::LocalProtection,
            s::IBV_WC_LOC_QP_OP_ERR => Self::LocalQueuePairOperation,
            s::IBV_WC_RNR_RETRY_EXC_ERR => Self::ReceiverNotReady,
            s::IBV_WC_REM_ABORT_ERR => Self::RemoteAborted,
            s::IBV_WC_REM_ACCESS_ERR => Self::RemoteAccess,
            s::IBV_WC_REM_INV_REQ_ERR => Self::RemoteInvalidRequest,
            s::IBV_WC_REM_OP_ERR => Self::RemoteOperation,
            s::IBV_WC_RESP_TIMEOUT_ERR => Self::ResponseTimeout,
            s::IBV_WC_RETRY_EXC_ERR => Self::RetryExceeded,
            s::IBV_WC_SUCCESS => Self::Success,
            s::IBV_WC_MW_BIND_ERR => Self::WindowBind,
            other => Self::Other(other),
        }
    }

    /// The status and what probably happened.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::BadResponse => "bad response: the peer's device answered with an opcode that does not fit",
            Self::FatalError => "fatal error: the device or its driver is broken",
            Self::Flushed => {
                "flushed: the queue pair had already failed or was closed; the first error tells why (if this is the first: \
                 look at the request's own memory)"
            }
            Self::GeneralError => "general error: the vendor error may tell more",
            Self::LocalAccess => "local access error: a peer's write was refused by the memory here",
            Self::LocalLength => {
                "local length error: the message is longer than the buffer posted for it, or than the path or port allows"
            }
            Self::LocalProtection => {
                "local protection error: the local region does not cover the buffer, is of another protection domain, or lacks the right"
            }
            Self::LocalQueuePairOperation => {
                "local queue pair operation error: the request is malformed, or a receive is too short or may not be written"
            }
            Self::NotPosted => "not posted: the device did not take the request",
            Self::ReceiverNotReady => "receiver not ready: the peer posted no receive in time",
            Self::RemoteAborted => "remote aborted: the peer's device gave the request up",
            Self::RemoteAccess => {
                "remote access error: the peer's key is wrong or revoked, the range is outside, or the right is missing"
            }
            Self::RemoteInvalidRequest => {
                "remote invalid request: the peer's device found the request malformed, misaligned or too long for its receive"
            }
            Self::RemoteOperation => {
                "remote operation error: the peer's device failed while serving the request, or its receive was too short"
            }
            Self::ResponseTimeout => "response timeout: the device did not answer its driver",
            Self::RetryExceeded => "transport retry exceeded: the peer's device does not answer",
            Self::Success => "success",
            Self::WindowBind => "memory window bind error: the region, the range or the rights do not allow the window",
            Self::Other(_) => "a completion status that this version does not name",
        }
    }
}

impl fmt::Display for CompletionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explanation())?;
        if let Self::Other(raw) = self { write!(f, " ({raw})") } else { Ok(()) }
    }
}

/// A completion that is no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}")]
#[non_exhaustive]
pub struct CompletionError {
    /// How it ended; never `Success`.
    pub status: CompletionStatus,
    /// The device's own code, for its vendor.
    pub vendor_error: u32,
}

/// What a completed request did. An unknown opcode is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkOpcode {
    /// An atomic write of ours.
    AtomicWrite,
    /// A window was bound.
    BindWindow,
    /// A compare and swap of ours.
    CompareSwap,
    /// A fetch and add of ours.
    FetchAdd,
    /// A key of ours was made invalid by us.
    LocalInvalidate,
    /// An RDMA read of ours.
    Read,
    /// A message that came in.
    Receive,
    /// The immediate of an RDMA write that came in; its data is elsewhere.
    ReceiveWrite,
    /// A message of ours.
    Send,
    /// An RDMA write of ours.
    Write,
    /// A value this version does not name.
    Other(u32),
}

impl WorkOpcode {
    /// Whether it completed a receive.
    pub fn is_receive(self) -> bool {
        matches!(self, Self::Receive | Self::ReceiveWrite)
    }

    #[inline]
    fn from_raw(raw: ffi::ibv_wc_opcode::Type) -> Self {
        use ffi::ibv_wc_opcode as o;
        match raw {
            o::IBV_WC_ATOMIC_WRITE => Self::AtomicWrite,
            o::IBV_WC_BIND_MW => Self::BindWindow,
            o::IBV_WC_COMP_SWAP => Self::CompareSwap,
            o::IBV_WC_FETCH_ADD => Self::FetchAdd,
            o::IBV_WC_LOCAL_INV => Self::LocalInvalidate,
            o::IBV_WC_RDMA_READ => Self::Read,
            o::IBV_WC_RECV => Self::Receive,
            o::IBV_WC_RECV_RDMA_WITH_IMM => Self::ReceiveWrite,
            o::IBV_WC_SEND => Self::Send,
            o::IBV_WC_RDMA_WRITE => Self::Write,
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_status_or_opcode_is_a_value() {
        assert_eq!(CompletionStatus::from_raw(4711), CompletionStatus::Other(4711));
        assert!(CompletionStatus::Other(4711).to_string().ends_with("(4711)"));
        assert_eq!(WorkOpcode::from_raw(4711), WorkOpcode::Other(4711));
    }

    #[test]
    fn every_known_status_explains_itself_differently() {
        let mut explained: Vec<_> = (0..24).map(|raw| CompletionStatus::from_raw(raw).to_string()).collect();
        explained.sort();
        explained.dedup();
        assert_eq!(explained.len(), 24);
    }

    #[test]
    fn what_comes_with_a_message_is_taken_only_if_flagged() {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut raw: ffi::ibv_wc = unsafe { std::mem::zeroed() };
        raw.imm_data_invalidated_rkey_union.imm_data = 0x0102_0304_u32.to_be();
        assert_eq!(Completion::new(&raw).arrival(), Arrival::default());
        raw.wc_flags = ffi::ibv_wc_flags::IBV_WC_WITH_IMM.0;
        assert_eq!(Completion::new(&raw).arrival().immediate, Some(0x0102_0304));
        raw.wc_flags = ffi::ibv_wc_flags::IBV_WC_WITH_INV.0;
        assert_eq!(Completion::new(&raw).arrival().invalidated_key, Some(0x0102_0304_u32.to_be()));
    }
}
