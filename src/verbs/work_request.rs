//! What is posted to a queue pair.

use std::ops::BitOr;
use std::sync::Arc;

use rdma_sys as ffi;

use super::{AddressHandle, Binding, Error, QueuePair, QueuePairKind, Result, Segment};

// `Segment` is handed to the C functions as `struct ibv_sge`.
const _: () = assert!(size_of::<Segment>() == size_of::<ffi::ibv_sge>());
const _: () = assert!(std::mem::offset_of!(Segment, length) == std::mem::offset_of!(ffi::ibv_sge, length));
const _: () = assert!(std::mem::offset_of!(Segment, local_key) == std::mem::offset_of!(ffi::ibv_sge, lkey));

/// A place in a peer's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// Address in the peer's process.
    pub address: u64,
    /// The peer's remote key.
    pub key: u32,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The way to the peer's port.
    pub address: &'a Arc<AddressHandle>,
    /// The peer's queue pair; 24 bits.
    pub queue_pair: u32,
    /// The peer's queue key. With the highest bit set, the key of our own queue pair is sent instead
    /// (IBTA 1.4, 10.2.5).
    pub queue_key: u32,
}

/// What a send request does. Immediates are the same number at both ends, whatever their byte order.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum SendOperation<'a> {
    /// Binds a window of type 2. Only [`QueuePair::post_send`](super::QueuePair::post_send) takes it: see there.
    BindWindow(&'a Binding),
    /// Compares the `u64` at an aligned place with a value and, if equal, replaces it; the old value comes here
    /// (8 bytes). The number is in the byte order of the peer's processor.
    CompareSwap {
        /// The `u64`; its address is a multiple of 8.
        remote: Remote,
        /// What must be there.
        compare: u64,
        /// What is then put there.
        swap: u64,
    },
    /// A message to any queue pair of type UD. At most one path MTU long: a longer one fails, or on rxe is lost silently.
    Datagram(Destination<'a>),
    /// The same, with an immediate.
    DatagramWithImmediate(Destination<'a>, u32),
    /// Adds to the `u64` at an aligned place; the old value comes here (8 bytes).
    FetchAdd {
        /// The `u64`; its address is a multiple of 8.
        remote: Remote,
        /// What is added, wrapping.
        add: u64,
    },
    /// Makes a bound window's key invalid. Only [`QueuePair::post_send`](super::QueuePair::post_send) takes it: see there.
    LocalInvalidate(u32),
    /// RDMA read: the peer's memory is copied here.
    Read(Remote),
    /// A message, into the peer's next receive.
    Send,
    /// The same, with an immediate.
    SendWithImmediate(u32),
    /// The same; the peer's device makes the key of a window bound there invalid before the receive completes.
    /// The peer must have said that it wants that: on rxe, a key that is not bound any more crashes its kernel.
    SendWithInvalidate(u32),
    /// RDMA write: our memory is copied to the peer's.
    Write(Remote),
    /// The same, and the peer's next receive completes with the immediate and without data.
    WriteWithImmediate(Remote, u32),
}

/// Options of a send request (`ibv_post_send(3)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendFlags(u32);

impl SendFlags {
    /// Wait for earlier reads and atomics of this queue pair. Only [`Rc`](super::QueuePairKind::Rc) has those.
    pub const FENCE: Self = Self(ffi::ibv_send_flags::IBV_SEND_FENCE.0);
    /// The data is copied during the call and needs no registration.
    pub const INLINE: Self = Self(ffi::ibv_send_flags::IBV_SEND_INLINE.0);
    /// No options.
    pub const NONE: Self = Self(0);
    /// Success makes a completion too.
    pub const SIGNALED: Self = Self(ffi::ibv_send_flags::IBV_SEND_SIGNALED.0);
    /// The peer's receive makes an event even if its queue was armed for such only.
    pub const SOLICITED: Self = Self(ffi::ibv_send_flags::IBV_SEND_SOLICITED.0);

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) const fn without_inline(self) -> Self {
        Self(self.0 & !Self::INLINE.0)
    }

    pub(super) const fn raw(self) -> u32 {
        self.0
    }
}

impl BitOr for SendFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl SendOperation<'_> {
    /// Whether the safe tier can post it to `pair`. The driver would read a destination where there is none, or a handle of
    /// another driver; and some refuse a misaligned atomic, where others break the connection.
    pub(super) fn check_for(&self, pair: &QueuePair) -> Result<()> {
        use QueuePairKind::{Rc, Uc, Ud};
        if let Self::CompareSwap { remote, .. } | Self::FetchAdd { remote, .. } = self
            && !remote.address.is_multiple_of(8)
        {
            let detail = format!("an atomic at {:#x}, which is no multiple of 8", remote.address);
            return Err(Error::invalid("ibv_post_send", detail));
        }
        let fits = match self {
            Self::Datagram(to) | Self::DatagramWithImmediate(to, _) => {
                if !Arc::ptr_eq(to.address.domain(), pair.domain()) {
                    return Err(Error::invalid("ibv_post_send", "the address handle is of another protection domain"));
                }
                pair.kind() == Ud
            }
            Self::CompareSwap { .. } | Self::FetchAdd { .. } | Self::Read(_) | Self::SendWithInvalidate(_) => {
                pair.kind() == Rc
            }
            Self::Send | Self::SendWithImmediate(_) | Self::Write(_) | Self::WriteWithImmediate(..) => {
                matches!(pair.kind(), Rc | Uc)
            }
            Self::BindWindow(_) | Self::LocalInvalidate(_) => {
                return Err(Error::invalid("ibv_post_send", "windows are bound and invalidated by calls of their own"));
            }
        };
        if fits {
            return Ok(());
        }
        Err(Error::invalid("ibv_post_send", format!("a queue pair of type {:?} does not do this", pair.kind())))
    }

    /// Whether it is for queue pairs of type UD, and only for those.
    pub(super) fn destination(&self) -> Option<&Destination<'_>> {
        match self {
            Self::Datagram(to) | Self::DatagramWithImmediate(to, _) => Some(to),
            _ => None,
        }
    }
}

/// A send request in the C layout; the address of its segments is the caller's matter.
#[inline]
pub(super) fn send_request(
    wr_id: u64,
    operation: SendOperation<'_>,
    segments: *mut Segment,
    count: usize,
    flags: SendFlags,
) -> ffi::ibv_send_wr {
    use ffi::ibv_wr_opcode as opcode;
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut request: ffi::ibv_send_wr = unsafe { std::mem::zeroed() };
    request.wr_id = wr_id;
    request.sg_list = segments.cast();
    request.num_sge = count as i32;
    request.send_flags = flags.raw();
    request.opcode = match operation {
        SendOperation::BindWindow(_) => opcode::IBV_WR_BIND_MW,
        SendOperation::CompareSwap { .. } => opcode::IBV_WR_ATOMIC_CMP_AND_SWP,
        SendOperation::Datagram(_) | SendOperation::Send => opcode::IBV_WR_SEND,
        SendOperation::DatagramWithImmediate(..) | SendOperation::SendWithImmediate(_) => opcode::IBV_WR_SEND_WITH_IMM,
        SendOperation::FetchAdd { .. } => opcode::IBV_WR_ATOMIC_FETCH_AND_ADD,
        SendOperation::LocalInvalidate(_) => opcode::IBV_WR_LOCAL_INV,
        SendOperation::Read(_) => opcode::IBV_WR_RDMA_READ,
        SendOperation::SendWithInvalidate(_) => opcode::IBV_WR_SEND_WITH_INV,
        SendOperation::Write(_) => opcode::IBV_WR_RDMA_WRITE,
        SendOperation::WriteWithImmediate(..) => opcode::IBV_WR_RDMA_WRITE_WITH_IMM,
    };
    match operation {
        SendOperation::DatagramWithImmediate(_, immediate)
        | SendOperation::SendWithImmediate(immediate)
        | SendOperation::WriteWithImmediate(_, immediate) => {
            request.imm_data_invalidated_rkey_union =
                ffi::imm_data_invalidated_rkey_union_t { imm_data: immediate.to_be() };
        }
        SendOperation::LocalInvalidate(key) | SendOperation::SendWithInvalidate(key) => {
            request.imm_data_invalidated_rkey_union = ffi::imm_data_invalidated_rkey_union_t { invalidated_rkey: key };
        }
        _ => {}
    }
    match operation {
        SendOperation::BindWindow(binding) => {
            request.bind_mw_tso_union = ffi::bind_mw_tso_union_t { bind_mw: binding.request() };
        }
        SendOperation::CompareSwap { remote, compare, swap } => {
            request.wr.atomic = atomic(remote, compare, swap);
        }
        SendOperation::FetchAdd { remote, add } => request.wr.atomic = atomic(remote, add, 0),
        SendOperation::Datagram(to) | SendOperation::DatagramWithImmediate(to, _) => {
            request.wr.ud = ffi::ud_t { ah: to.address.raw(), remote_qpn: to.queue_pair, remote_qkey: to.queue_key };
        }
        SendOperation::Read(remote) | SendOperation::Write(remote) | SendOperation::WriteWithImmediate(remote, _) => {
            request.wr.rdma = ffi::rdma_t { remote_addr: remote.address, rkey: remote.key };
        }
        SendOperation::LocalInvalidate(_)
        | SendOperation::Send
        | SendOperation::SendWithImmediate(_)
        | SendOperation::SendWithInvalidate(_) => {}
    }
    request
}

fn atomic(remote: Remote, compare_add: u64, swap: u64) -> ffi::atomic_t {
    ffi::atomic_t { remote_addr: remote.address, compare_add, swap, rkey: remote.key }
}
