//! Memory in an operation.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

#[cfg(not(loom))]
use std::io::IoSlice;
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

    /// The pieces in order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment> {
        std::iter::once(self.first).chain(self.more.iter().flat_map(|more| more.iter().copied()))
    }

    /// Bytes that it has.
    pub(crate) fn length(&self) -> usize {
        self.segments().map(|piece| piece.length as usize).sum()
    }

    /// Shortens what the device is told of to the first `length` bytes. Does nothing to what is shorter.
    pub(crate) fn truncate(&mut self, length: usize) {
        let mut left = length as u64;
        let more = self.more.iter_mut().flat_map(|more| more.iter_mut());
        for segment in std::iter::once(&mut self.first).chain(more) {
            segment.length = u64::from(segment.length).min(left) as u32;
            left -= u64::from(segment.length);
        }
        if let Some(more) = &mut self.more {
            more.retain(|segment| segment.length > 0);
        }
    }

    pub(crate) fn into_held(self) -> Held {
        self.held
    }

    /// The buffer that it is, if it is one.
    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        match &self.held {
            Held::Buffer(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The buffer that it is, if it is one.
    pub(crate) fn into_buffer(self) -> Option<Buffer> {
        Buffer::release(self.held)
    }
}

/// What a device does with the memory, for transports that have none.
#[cfg(not(loom))]
impl Transfer {
    /// Appends its bytes, in the order of its pieces.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn copy_to(&self, bytes: &mut Vec<u8>) {
        for piece in self.segments() {
            bytes.extend_from_slice(self.bytes_of(piece));
        }
    }

    /// Puts the slices of its bytes behind `skip` into `slices`, as far as there is room; answers how many they are.
    pub(crate) fn gather<'a>(&'a self, skip: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut skip, mut count) = (skip, 0);
        for piece in self.segments() {
            let bytes = self.bytes_of(piece);
            let left = &bytes[skip.min(bytes.len())..];
            skip -= bytes.len() - left.len();
            if !left.is_empty() && count < slices.len() {
                slices[count] = IoSlice::new(left);
                count += 1;
            }
        }
        count
    }

    /// Fills `bytes` with its own behind `skip`; answers whether there are so many.
    pub(crate) fn copy_from(&self, skip: usize, bytes: &mut [u8]) -> bool {
        let (mut skip, mut done) = (skip, 0);
        for piece in self.segments() {
            let all = self.bytes_of(piece);
            let left = &all[skip.min(all.len())..];
            skip -= all.len() - left.len();
            let now = left.len().min(bytes.len() - done);
            bytes[done..done + now].copy_from_slice(&left[..now]);
            done += now;
        }
        done == bytes.len()
    }

    fn bytes_of(&self, piece: Segment) -> &[u8] {
        if piece.length == 0 {
            return &[];
        }
        let first = std::ptr::with_exposed_provenance::<u8>(piece.address as usize);
        // SAFETY: the piece lies in the memory that is held, which stays mapped; whoever shares it only reads it.
        unsafe { std::slice::from_raw_parts(first, piece.length as usize) }
    }

    /// The rest of the piece that has the byte at `skip`, to be written; `None` if there is none, or it may not be.
    pub(crate) fn piece_from(&mut self, skip: usize) -> Option<&mut [u8]> {
        if !self.held.is_writable() {
            return None;
        }
        let mut skip = skip;
        for piece in self.segments() {
            let length = piece.length as usize;
            if skip < length {
                let first = std::ptr::with_exposed_provenance_mut::<u8>(piece.address as usize + skip);
                // SAFETY: it lies in the memory that is held, which stays mapped and, as was looked at, belongs to nobody else; it is
                // borrowed as this is.
                return Some(unsafe { std::slice::from_raw_parts_mut(first, length - skip) });
            }
            skip -= length;
        }
        None
    }

    /// Puts `bytes` into its pieces, from the one that has the byte at `skip` on; answers whether it has room for them and may be
    /// written.
    pub(crate) fn fill_from(&mut self, skip: usize, mut bytes: &[u8]) -> bool {
        let mut at = skip;
        while !bytes.is_empty() {
            let Some(piece) = self.piece_from(at) else { return false };
            let (now, later) = bytes.split_at(bytes.len().min(piece.len()));
            piece[..now.len()].copy_from_slice(now);
            at += now.len();
            bytes = later;
        }
        true
    }

    /// Puts `bytes` into its pieces, from the first on; answers whether it has room for them and may be written.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> bool {
        self.held.is_writable() && bytes.len() <= self.length() && self.fill_from(0, bytes)
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::fake_domain::FakeDomain;
    use crate::memory::registration_cache::RegistrationCache;
    use crate::{CacheLimits, Registered, SharedMemory};

    fn transfer<P: Payload>(payload: P) -> Transfer {
        let (domain, cache) =
            (FakeDomain::without_snapshots(), RegistrationCache::without_timer(CacheLimits::default()));
        Transfer::of(payload, Place { domain: &domain, cache: &cache }).expect("it registers anything")
    }

    #[test]
    fn bytes_go_over_all_pieces_in_order_and_come_back() {
        let mut memory =
            transfer(vec![Registered::new(vec![0u8; 3]), Registered::new(vec![0; 0]), Registered::new(vec![0; 4])]);
        assert_eq!((memory.length(), memory.segments().count()), (7, 3));
        assert!(memory.fill(&[1, 2, 3, 4, 5]) && !memory.fill(&[9; 8]));
        let mut bytes = vec![7];
        memory.copy_to(&mut bytes);
        assert_eq!(bytes, [7, 1, 2, 3, 4, 5, 0, 0]);
        let values = Vec::<Registered<Vec<u8>>>::release(memory.into_held()).expect("the same again");
        assert_eq!((&*values[0], &*values[2]), (&[1, 2, 3][..], &[4, 5, 0, 0][..]));
    }

    #[test]
    fn parts_are_found_wherever_they_begin() {
        let mut memory = transfer(vec![
            Registered::new(vec![1u8, 2, 3]),
            Registered::new(vec![0; 0]),
            Registered::new(vec![4, 5, 6, 7]),
        ]);
        let all = [1, 2, 3, 4, 5, 6, 7];
        for skip in 0..=7 {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = memory.gather(skip, &mut slices);
            assert_eq!(slices[..count].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>(), all[skip..]);
            let mut rest = vec![0; 7 - skip];
            assert!(memory.copy_from(skip, &mut rest) && rest == all[skip..]);
            assert!(!memory.copy_from(skip, &mut [0; 8][..8 - skip]));
        }
        assert_eq!(memory.gather(0, &mut [IoSlice::new(&[])]), 1, "there is room for one");
        assert_eq!(memory.piece_from(1).map(|piece| piece.to_vec()), Some(vec![2, 3]));
        assert_eq!(memory.piece_from(3).map(|piece| piece.to_vec()), Some(vec![4, 5, 6, 7]));
        assert!(memory.piece_from(7).is_none());
        assert!(memory.fill_from(2, &[9, 8, 7]) && !memory.fill_from(5, &[1, 1, 1]));
        let mut bytes = Vec::new();
        memory.copy_to(&mut bytes);
        assert_eq!(bytes, [1, 2, 9, 8, 7, 1, 1]);
    }

    #[test]
    fn what_others_may_read_is_not_written() {
        let mut memory = transfer(SharedMemory::from(bytes::Bytes::from_static(b"abc")));
        assert!(!memory.fill(b"x"));
        let mut bytes = Vec::new();
        memory.copy_to(&mut bytes);
        assert_eq!(bytes, b"abc");
        assert!(!transfer(Buffer::allocate(3).expect("memory").freeze()).fill(b"x"));
        assert!(transfer(Buffer::allocate(3).expect("memory")).fill(b"x"));
    }
}
