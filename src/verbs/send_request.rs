//! Requests of the safe tier.

use super::{Error, SendFlags, SendOperation};

/// The memory of a send request.
#[derive(Debug)]
pub enum Local<'a, B> {
    /// Copied by the call; up to the queue pair's inline capability.
    Inline(&'a [u8]),
    /// Owned by the queue until the completion.
    Owned(B),
}

/// A request for [`OwningQueue::post`](super::OwningQueue::post).
#[derive(Debug)]
pub struct SendRequest<'a, B> {
    /// Comes back with the completion.
    pub token: u64,
    /// What to do.
    pub operation: SendOperation<'a>,
    /// With what memory.
    pub local: Local<'a, B>,
    /// Options; [`SendFlags::INLINE`] follows from `local`.
    pub flags: SendFlags,
}

/// A request that was not taken, with its memory.
#[derive(Debug)]
pub struct Refused<B> {
    /// `None`: the queue is full, which polling mends.
    pub error: Option<Error>,
    /// The memory, unless it was inline.
    pub memory: Option<B>,
}

impl<B> Refused<B> {
    pub(super) fn new(error: Option<Error>, local: Local<'_, B>) -> Self {
        let memory = if let Local::Owned(memory) = local { Some(memory) } else { None };
        Self { error, memory }
    }
}
