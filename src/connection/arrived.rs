//! What comes out of a frame.

use super::later_span::Told;
use crate::Buffer;
use crate::protocol::GrantId;

/// What came of a frame, besides what the link keeps for itself. Its room is used again.
#[derive(Default)]
pub(super) struct Arrived {
    /// The peer has let go of these grants, which it was asked for.
    pub(super) agreed: Vec<GrantId>,
    /// The peer has let go of these by itself; whether it did not want them.
    pub(super) taken: Vec<(GrantId, bool)>,
    /// Channels, by index, on which something has come.
    pub(super) channels: Vec<usize>,
    /// Whether the peer asks for grants.
    pub(super) is_asked: bool,
    /// What a subscriber is told when the lock is free.
    pub(super) told: Vec<Told>,
    /// What the peer has given back of our pages, or what nobody receives: to be dropped when the lock is free.
    pub(super) unwanted: Vec<Buffer>,
}
