//! What of our pages the peer can access: segments that it was given, and buffers that were handed over and have not come back.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use super::borrowed::MOST_SEGMENTS;
use crate::Buffer;
use crate::memory::{Slab, Tether};
use crate::protocol::{Handed, SegmentPlace};
use crate::transport::Courier;

/// Buffers that the peer may have at once; what is more is copied.
const MOST_OUT: usize = 1 << 14;

/// What the peer has of ours.
pub(in crate::connection) struct Lent {
    courier: Arc<dyn Courier>,
    /// By number, in the order in which the peer was given them. A number is not used again.
    segments: Vec<Weak<Slab>>,
    /// By the address of the slab, which is no other's as long as there is a weak reference.
    numbers: HashMap<usize, u32>,
    /// The one that was asked for last.
    last: Option<(usize, u32)>,
    /// Those that the peer is still to be told of, and those that are gone, likewise.
    unsaid: VecDeque<SegmentPlace>,
    gone: VecDeque<u32>,
    tether: Option<Arc<Tether>>,
    /// Handed over, by token.
    out: Vec<Option<Buffer>>,
    free: Vec<u32>,
}

impl Lent {
    pub(super) fn new(courier: Arc<dyn Courier>) -> Self {
        Self {
            courier,
            segments: Vec::new(),
            numbers: HashMap::new(),
            last: None,
            unsaid: VecDeque::new(),
            gone: VecDeque::new(),
            tether: None,
            out: Vec::new(),
            free: Vec::new(),
        }
    }

    /// The number of a segment, which is given to the peer if it has not got it; `None` if that cannot be.
    pub(in crate::connection) fn introduce(&mut self, slab: &Arc<Slab>) -> Option<u32> {
        let name = Arc::as_ptr(slab).addr();
        if let Some((_, number)) = self.last.filter(|(last, _)| *last == name) {
            return Some(number);
        }
        if let Some(number) = self.numbers.get(&name) {
            self.last = Some((name, *number));
            return Some(*number);
        }
        if self.numbers.len() >= MOST_SEGMENTS {
            self.forget_gone();
        }
        if self.numbers.len() >= MOST_SEGMENTS {
            return None;
        }
        let file = slab.file()?;
        let given = match &self.tether {
            Some(_) => self.courier.give(&[file.as_fd()]),
            None => Tether::new().map_err(Into::into).and_then(|(ours, theirs)| {
                self.courier.give(&[file.as_fd(), theirs.as_fd()])?;
                self.tether = Some(ours);
                Ok(())
            }),
        };
        if let Err(error) = given {
            tracing::debug!(%error, "pages could not be given to the peer: what is in them is copied");
            return None;
        }
        let number = self.segments.len() as u32;
        self.segments.push(Arc::downgrade(slab));
        self.numbers.insert(name, number);
        let mapping = slab.mapping();
        self.unsaid.push_back(SegmentPlace { base: mapping.base().addr() as u64, length: mapping.length() as u64 });
        Some(number)
    }

    /// A segment that the peer was given and not yet told of.
    pub(super) fn unsaid(&self) -> Option<SegmentPlace> {
        self.unsaid.front().copied()
    }

    pub(super) fn was_said(&mut self) {
        self.unsaid.pop_front();
    }

    /// Notes the segments that are gone here: the peer is to unmap them.
    pub(super) fn forget_gone(&mut self) {
        let (segments, gone) = (&self.segments, &mut self.gone);
        self.last = None;
        self.numbers.retain(|_, number| {
            let is_there = segments[*number as usize].strong_count() > 0;
            if !is_there {
                gone.push_back(*number);
            }
            is_there
        });
    }

    /// The next segment that the peer is to be told is gone.
    pub(super) fn next_gone(&mut self) -> Option<u32> {
        self.gone.pop_front()
    }

    /// What the next buffer that is handed over is called; `None` if there are too many.
    pub(super) fn next_token(&self) -> Option<u32> {
        match self.free.last() {
            Some(token) => Some(*token),
            None => (self.out.len() < MOST_OUT).then_some(self.out.len() as u32),
        }
    }

    /// A buffer was handed over as the next token.
    pub(super) fn handed_over(&mut self, buffer: Buffer) {
        match self.free.pop() {
            Some(token) => self.out[token as usize] = Some(buffer),
            None => {
                self.out.push(Some(buffer));
                self.free.reserve(self.out.len());
            }
        }
    }

    /// The peer has no use for a buffer any more.
    pub(super) fn returned(&mut self, token: u32) -> Result<Buffer, &'static str> {
        let buffer = self.out.get_mut(token as usize).and_then(Option::take);
        let buffer = buffer.ok_or("a buffer given back that it has not got")?;
        self.free.push(token);
        Ok(buffer)
    }

    /// The peer sends a part of a buffer back.
    pub(super) fn came_back(&mut self, handed: Handed) -> Result<Buffer, &'static str> {
        let buffer = self.returned(handed.token)?;
        let end = handed.start.checked_add(handed.length);
        match end.filter(|end| *end <= buffer.len() as u64 && handed.length > 0) {
            Some(end) => Ok(buffer.slice(handed.start as usize..end as usize)),
            None => Err("a part of a buffer that leaves it"),
        }
    }

    /// What the peer holds for as long as it has any of our pages.
    pub(in crate::connection) fn tether(&self) -> Option<&Arc<Tether>> {
        self.tether.as_ref()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let out: Vec<_> = self.out.drain(..).flatten().collect();
        match &self.tether {
            Some(tether) if !out.is_empty() => tether.drop_when_cut(out),
            _ => drop(out),
        }
    }
}
