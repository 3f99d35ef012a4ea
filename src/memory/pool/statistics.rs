//! What a pool has.

/// Figures of a pool at one moment; those of a pool in use by other threads need not fit each other exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatistics {
    /// The most bytes that may be mapped.
    pub limit: usize,
    /// Bytes mapped: in use and idle.
    pub mapped_bytes: usize,
    /// Bytes of the blocks that buffers are in; a block may be longer than its buffer.
    pub in_use_bytes: usize,
    /// Mapped, and not in use.
    pub idle_bytes: usize,
    /// Mappings. Each has one registration with each device that it was used with.
    pub slabs: usize,
    /// Allocations that had to wait, so far.
    pub waits: u64,
    /// Allocations that wait now.
    pub waiting: usize,
    /// Allocations that failed, so far.
    pub failures: u64,
}
