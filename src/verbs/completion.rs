//! Completions: what ended, and what a message says beyond its bytes.

use std::fmt;

use rdma_sys as ffi;

use super::{CompletionError, CompletionStatus};

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
    fn an_unknown_opcode_is_a_value() {
        assert_eq!(WorkOpcode::from_raw(4711), WorkOpcode::Other(4711));
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
