//! What of our pages the peer can access: segments that it was given, and buffers that were handed over and have not come back.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use super::numbers::Numbers;
use crate::Buffer;
use crate::memory::{Slab, Tether};
use crate::protocol::{Handed, SegmentPlace};
use crate::transport::{Courier, MOST_SEGMENTS};

/// Buffers that the peer may have at once; what is more is copied.
const MOST_OUT: usize = 1 << 14;

/// What the peer has of ours.
pub(in crate::connection) struct Lent {
    courier: Arc<dyn Courier>,
    /// The segments that it has, by the address of the slab, which is no other's as long as there is a weak reference.
    segments: HashMap<usize, (u32, Weak<Slab>)>,
    pub(super) numbers: Numbers,
    /// The one that was asked for last.
    last: Option<(usize, u32)>,
    tether: Option<Arc<Tether>>,
    /// Handed over, by token.
    out: Vec<Option<Buffer>>,
    free: Vec<u32>,
}

impl Lent {
    pub(super) fn new(courier: Arc<dyn Courier>) -> Self {
        Self {
            courier,
            segments: HashMap::new(),
            numbers: Numbers::default(),
            last: None,
            tether: None,
            out: Vec::new(),
            free: Vec::new(),
        }
    }

    /// The number of a segment that the peer has got.
    pub(super) fn number(&mut self, slab: &Arc<Slab>) -> Option<u32> {
        let name = Arc::as_ptr(slab).addr();
        if let Some((_, number)) = self.last.filter(|(last, _)| *last == name) {
            return Some(number);
        }
        let number = self.segments.get(&name)?.0;
        self.last = Some((name, number));
        Some(number)
    }

    /// Whether the peer may not have one more. It has those in `forgotten` too, until it is told.
    pub(super) fn is_full(&self, forgotten: &VecDeque<u32>) -> bool {
        self.segments.len() + forgotten.len() >= MOST_SEGMENTS
    }

    /// Gives the peer a segment that it has not got, if it can have it. It is to be told of its place before all else.
    pub(super) fn introduce(&mut self, slab: &Arc<Slab>, forgotten: &VecDeque<u32>) -> Option<(u32, SegmentPlace)> {
        let file = slab.file().filter(|_| !self.is_full(forgotten))?;
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
        let segments = &self.segments;
        let is_there = |number| segments.values().any(|(other, _)| *other == number) || forgotten.contains(&number);
        let number = self.numbers.next(is_there);
        self.segments.insert(Arc::as_ptr(slab).addr(), (number, Arc::downgrade(slab)));
        let mapping = slab.mapping();
        Some((number, SegmentPlace { base: mapping.base().addr() as u64, length: mapping.length() as u64 }))
    }

    /// Moves the segments that are gone here to `forgotten`: the peer is to unmap them.
    pub(super) fn forget_gone(&mut self, forgotten: &mut VecDeque<u32>) {
        self.last = None;
        self.segments.retain(|_, (number, slab)| {
            let is_there = slab.strong_count() > 0;
            if !is_there {
                forgotten.push_back(*number);
            }
            is_there
        });
    }

    /// Segments that are not known to be gone.
    #[cfg(test)]
    pub(super) fn segments(&self) -> usize {
        self.segments.len()
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
