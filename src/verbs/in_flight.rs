//! What the safe tier can have in flight.

use super::Segment;

/// Memory that can be handed to a device and comes back with the completion.
///
/// # Safety
/// As long as the value exists, wherever it is moved, the segments name memory that stays mapped and
/// registered under their keys, and that nobody else writes or, if the device writes it, touches otherwise than by
/// atomic words.
pub unsafe trait InFlight: Send + 'static {
    /// Where the memory lies; its first piece if there are several.
    fn segment(&self) -> Segment;

    /// Where its further pieces lie, which scatter and gather like one.
    fn more_segments(&self) -> &[Segment] {
        &[]
    }
}
