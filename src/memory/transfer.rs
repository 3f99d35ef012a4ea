//! Memory in an operation.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::ops::Range;

use super::payload::segment;
use super::{Buffer, Domain, Held, Payload, Place, Segment};
use crate::{Error, ErrorKind, Failed, Result};

/// What an operation owns from post to completion, and the pieces of it that the device is told of.
#[derive(Debug)]
pub(crate) struct Transfer {
    held: Held,
    first: Segment,
    /// Boxed twice, so that what moves with every request is small; most have none.
    #[allow(clippy::box_collection, reason = "a pointer instead of three words")]
    more: Option<Box<Vec<Segment>>>,
}

impl Transfer {
    /// Prepares all of `payload` for `place`.
    pub(crate) fn of<P: Payload>(payload: P, place: Place<'_>) -> std::result::Result<Self, Failed<P>> {
        let (mut first, mut more) = (None, None::<Box<Vec<Segment>>>);
        let held = payload.hold(place, &mut |piece: Segment| match first {
            None => first = Some(piece),
            Some(_) => more.get_or_insert_default().push(piece),
        })?;
        Ok(Self { held, first: first.unwrap_or_default(), more })
    }

    /// Prepares `range` of `buffer`.
    pub(crate) fn new(
        mut buffer: Buffer,
        range: Range<usize>,
        domain: &dyn Domain,
    ) -> std::result::Result<Self, Failed<Buffer>> {
        match Self::piece(&mut buffer, range, domain) {
            Ok(first) => Ok(Self { first, more: None, held: Held::Buffer(buffer) }),
            Err(error) => Err(Failed { error, buffer: Some(buffer) }),
        }
    }

    fn piece(buffer: &mut Buffer, range: Range<usize>, domain: &dyn Domain) -> Result<Segment> {
        if range.start > range.end || range.end > buffer.len() {
            let detail = format!("bytes {range:?} of a buffer of {}", buffer.len());
            return Err(Error::new(ErrorKind::OutOfBounds, "prepare").with_detail(detail));
        }
        let local_key = buffer.bind(domain)?;
        segment(buffer.address().wrapping_add(range.start), range.len(), local_key)
    }

    /// Pieces that it has.
    pub(crate) fn pieces(&self) -> usize {
        1 + self.more.as_ref().map_or(0, |more| more.len())
    }

    pub(crate) fn into_held(self) -> Held {
        self.held
    }

    /// The buffer that it is, if it is one.
    pub(crate) fn into_buffer(self) -> Option<Buffer> {
        Buffer::release(self.held)
    }
}

#[cfg(feature = "verbs")]
// SAFETY: the segments were made of all of the memory that is held, or checked to lie in it, and what it is cut from or keeps it
// stays mapped and registered; it is owned here, so nobody else can touch it, wherever the value moves.
unsafe impl crate::verbs::InFlight for Transfer {
    #[inline]
    fn segment(&self) -> Segment {
        self.first
    }

    #[inline]
    fn more_segments(&self) -> &[Segment] {
        self.more.as_deref().map_or(&[], Vec::as_slice)
    }
}
