//! Pieces of local memory, as a device is told of them.

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
