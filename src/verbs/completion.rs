//! Completions and what their status means.

use std::fmt;

use rdma_sys as ffi;

/// One entry of a completion queue (`struct ibv_wc`).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Completion {
    /// The id that the request was posted with.
    pub wr_id: u64,
    /// How it ended. In an error only this, `wr_id`, `vendor_error` and `queue_pair` mean anything.
    pub status: CompletionStatus,
    /// What was done.
    pub opcode: WorkOpcode,
    /// Bytes received or read.
    pub byte_length: u32,
    /// The device's own code, for its vendor.
    pub vendor_error: u32,
    /// The number of the queue pair.
    pub queue_pair: u32,
}

impl Completion {
    pub(super) fn from_raw(raw: &ffi::ibv_wc) -> Self {
        Self {
            wr_id: raw.wr_id,
            status: CompletionStatus::from_raw(raw.status),
            opcode: WorkOpcode::from_raw(raw.opcode),
            byte_length: raw.byte_len,
            vendor_error: raw.vendor_err,
            queue_pair: raw.qp_num,
        }
    }
}

/// How a request ended (`ibv_poll_cq(3)`, IBTA 1.4, 11.6.2). An unknown status is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompletionStatus {
    /// Dropped because the queue pair had already failed or was closed.
    Flushed,
    /// The local region does not cover the buffer or lacks the right.
    LocalProtection,
    /// The message is longer than the posted receive.
    LocalLength,
    /// The request itself is malformed.
    LocalQueuePairOperation,
    /// The device did not take the request; its errno is in `vendor_error`.
    NotPosted,
    /// The peer's key, range or right does not allow the access.
    RemoteAccess,
    /// The peer's device found the request malformed.
    RemoteInvalidRequest,
    /// The peer's device failed while it served the request.
    RemoteOperation,
    /// The peer had no receive posted for too long.
    ReceiverNotReady,
    /// The peer's device did not answer within the retries.
    RetryExceeded,
    /// Done.
    Success,
    /// A value this version does not name.
    Other(u32),
}

impl CompletionStatus {
    fn from_raw(raw: ffi::ibv_wc_status::Type) -> Self {
        use ffi::ibv_wc_status as s;
        match raw {
            s::IBV_WC_SUCCESS => Self::Success,
            s::IBV_WC_LOC_LEN_ERR => Self::LocalLength,
            s::IBV_WC_LOC_QP_OP_ERR => Self::LocalQueuePairOperation,
            s::IBV_WC_LOC_PROT_ERR | s::IBV_WC_LOC_ACCESS_ERR => Self::LocalProtection,
            s::IBV_WC_REM_ACCESS_ERR => Self::RemoteAccess,
            s::IBV_WC_REM_INV_REQ_ERR => Self::RemoteInvalidRequest,
            s::IBV_WC_REM_OP_ERR => Self::RemoteOperation,
            s::IBV_WC_RETRY_EXC_ERR => Self::RetryExceeded,
            s::IBV_WC_RNR_RETRY_EXC_ERR => Self::ReceiverNotReady,
            s::IBV_WC_WR_FLUSH_ERR => Self::Flushed,
            other => Self::Other(other),
        }
    }

    /// The status and what probably happened.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Flushed => "flushed: the queue pair had already failed or was closed; the first error tells why",
            Self::LocalLength => "local length error: the message is longer than the buffer posted for it",
            Self::LocalProtection => "local protection error: the local region does not cover the buffer",
            Self::LocalQueuePairOperation => "local queue pair operation error: the request is malformed",
            Self::NotPosted => "not posted: the device did not take the request",
            Self::ReceiverNotReady => "receiver not ready: the peer posted no receive in time",
            Self::RemoteAccess => {
                "remote access error: the peer's key is wrong or revoked, the range is outside, or the right is missing"
            }
            Self::RemoteInvalidRequest => "remote invalid request: the peer's device found the request malformed",
            Self::RemoteOperation => "remote operation error: the peer's device failed while serving the request",
            Self::RetryExceeded => "transport retry exceeded: the peer's device does not answer",
            Self::Success => "success",
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkOpcode {
    /// An RDMA read of ours.
    Read,
    /// A message that came in.
    Receive,
    /// A message of ours.
    Send,
    /// An RDMA write of ours.
    Write,
    /// A value this version does not name.
    Other(u32),
}

impl WorkOpcode {
    fn from_raw(raw: ffi::ibv_wc_opcode::Type) -> Self {
        match raw {
            ffi::ibv_wc_opcode::IBV_WC_RDMA_READ => Self::Read,
            ffi::ibv_wc_opcode::IBV_WC_RECV => Self::Receive,
            ffi::ibv_wc_opcode::IBV_WC_SEND => Self::Send,
            ffi::ibv_wc_opcode::IBV_WC_RDMA_WRITE => Self::Write,
            other => Self::Other(other),
        }
    }
}
