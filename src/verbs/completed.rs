//! What the safe tier answers when a request has ended.

use super::operation_table::Operation;
use super::{Arrival, CompletedWindow, CompletionError, QueuePairKey};

/// The end of a request.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed<B> {
    /// The token it was posted with.
    pub token: u64,
    /// Where it was posted; for a shared receive, where its message came in ([`QueuePairKey::NONE`] if that was removed
    /// meanwhile).
    pub queue_pair: QueuePairKey,
    /// Whether it was a receive.
    pub is_receive: bool,
    /// Bytes received (0 for other requests), or why it failed.
    pub result: std::result::Result<u32, CompletionError>,
    /// What a message says beyond its bytes.
    pub arrival: Arrival,
    /// Its memory; `None` if it was inline.
    pub memory: Option<B>,
    /// Its window, if it was one that binds or invalidates one.
    pub window: Option<CompletedWindow>,
}

impl<B> Completed<B> {
    #[inline]
    pub(super) fn new(
        operation: Operation<B>,
        queue_pair: QueuePairKey,
        is_receive: bool,
        result: std::result::Result<u32, CompletionError>,
        arrival: Arrival,
    ) -> Self {
        let window = operation.window.map(|window| window.ended(result.is_ok()));
        Self { token: operation.token, queue_pair, is_receive, result, arrival, memory: operation.memory, window }
    }
}
