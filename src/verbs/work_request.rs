//! What is posted to a queue pair.

use std::ops::BitOr;

use rdma_sys as ffi;

/// A piece of registered local memory (`struct ibv_sge`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Address of the first byte.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// Key of the region that holds them; ignored for inline data.
    pub local_key: u32,
}

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

/// What a send request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendOperation {
    /// RDMA read: the peer's memory is copied here.
    Read(Remote),
    /// A message, into the peer's next receive.
    Send,
    /// RDMA write: our memory is copied to the peer's.
    Write(Remote),
}

/// Options of a send request (`ibv_post_send(3)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendFlags(u32);

impl SendFlags {
    /// Wait for earlier reads and atomics of this queue pair.
    pub const FENCE: Self = Self(ffi::ibv_send_flags::IBV_SEND_FENCE.0);
    /// The data is copied during the call and needs no registration.
    pub const INLINE: Self = Self(ffi::ibv_send_flags::IBV_SEND_INLINE.0);
    /// No options.
    pub const NONE: Self = Self(0);
    /// Success makes a completion too.
    pub const SIGNALED: Self = Self(ffi::ibv_send_flags::IBV_SEND_SIGNALED.0);

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
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

/// A send request in the C layout; the address of its segments is the caller's matter.
pub(super) fn send_request(
    wr_id: u64,
    operation: SendOperation,
    segments: *mut Segment,
    count: usize,
    flags: SendFlags,
) -> ffi::ibv_send_wr {
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut request: ffi::ibv_send_wr = unsafe { std::mem::zeroed() };
    request.wr_id = wr_id;
    request.sg_list = segments.cast();
    request.num_sge = count as i32;
    request.send_flags = flags.raw();
    let remote = match operation {
        SendOperation::Read(remote) => {
            request.opcode = ffi::ibv_wr_opcode::IBV_WR_RDMA_READ;
            remote
        }
        SendOperation::Send => {
            request.opcode = ffi::ibv_wr_opcode::IBV_WR_SEND;
            Remote::default()
        }
        SendOperation::Write(remote) => {
            request.opcode = ffi::ibv_wr_opcode::IBV_WR_RDMA_WRITE;
            remote
        }
    };
    request.wr.rdma = ffi::rdma_t { remote_addr: remote.address, rkey: remote.key };
    request
}
