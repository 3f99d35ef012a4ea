//! What of the peer's pages we can access.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::numbers::Numbers;
use crate::Buffer;
use crate::memory::foreign::{Foreign, Returns};
use crate::protocol::{Handed, SegmentPlace};
use crate::transport::{Courier, MOST_SEGMENTS};

/// The peer's segments, and who tells it which buffers in them are gone.
pub(in crate::connection) struct Borrowed {
    courier: Arc<dyn Courier>,
    /// By number.
    segments: BTreeMap<u32, Segment>,
    pub(super) numbers: Numbers,
    /// What the peer learns by that we have unmapped all.
    tether: Option<Arc<OwnedFd>>,
    pub(in crate::connection) returns: Arc<Returns>,
}

pub(super) struct Segment {
    pub(super) pages: Foreign,
    /// Where it begins, as the peer's handles name it.
    base: u64,
}

impl Segment {
    /// The place of `length` bytes that the peer's handles name by `address`, if all of them are here.
    pub(super) fn place(&self, address: u64, length: usize) -> Option<usize> {
        let at = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let end = at.checked_add(length)?;
        (end <= self.pages.slab().mapping().length()).then_some(at)
    }
}

impl Borrowed {
    pub(super) fn new(courier: Arc<dyn Courier>, returns: Arc<Returns>) -> Self {
        Self { courier, segments: BTreeMap::new(), numbers: Numbers::default(), tether: None, returns }
    }

    /// The peer has given the next segment.
    pub(super) fn introduced(&mut self, place: SegmentPlace) -> Result<(), &'static str> {
        let mut gift = self.courier.take()?.into_iter();
        if self.segments.len() == MOST_SEGMENTS {
            return Err("more segments of pages than there may be at once");
        }
        let file = gift.next().ok_or("pages without a descriptor")?;
        let tether = match (&self.tether, gift.next()) {
            (Some(tether), None) => Arc::clone(tether),
            (None, Some(tether)) => Arc::clone(self.tether.insert(Arc::new(tether))),
            _ => return Err("pages with more or fewer descriptors than they have to have"),
        };
        let pages = Foreign::new(&file, place.length, &tether)?;
        let number = self.numbers.next(|number| self.segments.contains_key(&number));
        self.segments.insert(number, Segment { pages, base: place.base });
        Ok(())
    }

    /// The peer has given a segment up: it is unmapped when no buffer is left in it.
    pub(super) fn forget(&mut self, number: u32) -> Result<(), &'static str> {
        let segment = self.segments.remove(&number).ok_or("a segment given up that there is none of")?;
        self.returns.forget(&segment.pages);
        Ok(())
    }

    /// A message in the peer's pages.
    pub(super) fn arrived(&self, handed: Handed) -> Result<Buffer, &'static str> {
        let Handed { segment, token, start, length } = handed;
        let segment = self.segment(segment).ok_or("a message in a segment that there is none of")?;
        let buffer = segment.pages.buffer(start, length, token, &self.returns);
        buffer.ok_or("a message that leaves its segment")
    }

    #[cfg(test)]
    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn segment(&self, number: u32) -> Option<&Segment> {
        self.segments.get(&number)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.returns.close();
    }
}
