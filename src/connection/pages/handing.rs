//! Handing over: messages that are the pages they lie in.

use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::{Arc, TryLockError};
use std::task::{Poll, ready};

use super::super::core::{Core, LinkKey, find};
use super::super::engine::Engine;
use super::super::established::{Inner, Waiting};
use super::super::link::Link;
use crate::memory::{Exposure, Slab, Tether};
use crate::protocol::{HANDED, Handed, Record, SEGMENT, cost};
use crate::telemetry::Count;
use crate::transport::{Queue, Transport};
use crate::{Buffer, Failed, Result};

/// What became of a message that was to be handed over.
pub(in crate::connection) enum Outcome {
    Done,
    /// Not in pages that the peer can have: a copy is to be sent.
    Copy,
}

/// A segment that the peer has got.
pub(in crate::connection) struct Loan {
    pub(in crate::connection) segment: u32,
    /// What the peer holds for as long as it has it.
    pub(in crate::connection) tether: Arc<Tether>,
}

/// How a buffer can go.
enum Way {
    /// In a segment of ours.
    Ours(Handed),
    /// To the peer whose pages they are.
    Back,
}

impl<T: Transport> Inner<T> {
    /// Hands `buffer` over, or sends it as the transport can.
    pub(in crate::connection) async fn hand_over(
        self: &Arc<Self>,
        channel: usize,
        buffer: Buffer,
    ) -> std::result::Result<(), Failed<Buffer>> {
        let mut held = Some(buffer);
        if self.facts.shares_pages {
            let mut waiting = Waiting::new(self);
            let handed = poll_fn(|context| {
                self.engine.drive(context, |core, waker| {
                    let handed = core.hand_over(self.key, channel, &mut held);
                    if let (Poll::Pending, Some(waker)) = (&handed, waker) {
                        core.wait_to_send(self.key, waiting.with(waker));
                    }
                    handed
                })
            });
            match handed.await {
                Ok(Outcome::Done) => return Ok(()),
                Ok(Outcome::Copy) => {}
                Err(error) => return Err(Failed { error: self.refine(error), buffer: held }),
            }
        }
        let Some(buffer) = held else { return Ok(()) };
        if buffer.len() > self.facts.eager_limit && buffer.is_of_peers_too() {
            // A device is not given these pages, and a peer not a part of what it may not keep.
            let sent = self.send(channel, &[IoSlice::new(&buffer)]).await;
            return sent.map_err(|error| Failed { error, buffer: Some(buffer) });
        }
        self.send_owned(channel, buffer).await.map(drop)
    }
}

impl<T: Transport> Inner<T> {
    /// Gives the peer the segment in which exposed memory lies, if pages are shared and it lies in one.
    pub(in crate::connection) async fn lend(self: &Arc<Self>, exposure: &Exposure) -> Result<Option<Loan>> {
        let Some((slab, _)) = exposure.memory().shareable().filter(|_| self.facts.shares_pages) else {
            return Ok(None);
        };
        let mut waiting = Waiting::new(self);
        let lent = poll_fn(|context| {
            self.engine.drive(context, |core, waker| {
                let lent = core.lend(self.key, slab);
                if let (Poll::Pending, Some(waker)) = (&lent, waker) {
                    core.wait_to_send(self.key, waiting.with(waker));
                }
                lent
            })
        });
        lent.await
    }
}

impl<Q: Queue> Core<Q> {
    /// Gives the peer a segment, if it can have it; pending as long as it cannot be told.
    fn lend(&mut self, key: LinkKey, slab: &Arc<Slab>) -> Poll<Result<Option<Loan>>> {
        let Some(link) = find(&mut self.links, key) else { return Poll::Ready(Ok(None)) };
        if let Some(error) = link.send_failure("grant") {
            return Poll::Ready(Err(error));
        }
        let Some(segment) = ready!(self.introduce(key, slab))? else { return Poll::Ready(Ok(None)) };
        self.post_frames(key, false);
        let pages = find(&mut self.links, key).and_then(|link| link.pages.as_ref());
        let tether = pages.and_then(|pages| pages.lent.tether().cloned());
        Poll::Ready(Ok(tether.map(|tether| Loan { segment, tether })))
    }

    /// Hands the buffer over, if window, credits and queue allow; else answers pending.
    fn hand_over(&mut self, key: LinkKey, channel: usize, held: &mut Option<Buffer>) -> Poll<Result<Outcome>> {
        let Some(id) = self.may_send(key, channel, cost(HANDED))? else { return Poll::Pending };
        let Some(pages) = find(&mut self.links, key).and_then(|link| link.pages.as_mut()) else {
            return Poll::Ready(Ok(Outcome::Copy));
        };
        let Some(buffer) = held.as_ref().filter(|buffer| !buffer.is_empty()) else {
            return Poll::Ready(Ok(Outcome::Copy));
        };
        let way = if let Some((slab, start)) = buffer.shareable() {
            let Some(token) = pages.lent.next_token() else { return Poll::Ready(Ok(Outcome::Copy)) };
            let Some(segment) = ready!(self.introduce(key, slab))? else { return Poll::Ready(Ok(Outcome::Copy)) };
            Way::Ours(Handed { segment, token, start: start as u64, length: buffer.len() as u64 })
        } else if buffer.is_all_of(&pages.borrowed.returns) {
            Way::Back
        } else {
            return Poll::Ready(Ok(Outcome::Copy));
        };
        if !self.has_room_for(key, HANDED)? {
            return Poll::Pending;
        }
        let (Some(buffer), Some(link)) = (held.take(), find(&mut self.links, key)) else { return Poll::Pending };
        let Some(pages) = &mut link.pages else { return Poll::Pending };
        let (place, back) = match way {
            Way::Ours(handed) => {
                pages.lent.handed_over(buffer);
                (handed, false)
            }
            Way::Back => {
                let length = buffer.len() as u64;
                match buffer.vacate(&pages.borrowed.returns) {
                    Ok((block, start)) => {
                        let token = block.token().unwrap_or_default();
                        pages.borrowed.returns.keep(block);
                        (Handed { segment: 0, token, start: start as u64, length }, true)
                    }
                    Err(buffer) => {
                        *held = Some(buffer);
                        return Poll::Ready(Ok(Outcome::Copy));
                    }
                }
            }
        };
        link.count_sent(place.length);
        link.tally.add(Count::HandOvers, 1);
        let place = place.to_bytes();
        let record = Record::Hand { channel: id, back, place: &place };
        self.append(key, record, HANDED, std::iter::once(&place[..]))?;
        self.sent(key, channel, cost(HANDED));
        self.post_frames(key, false);
        Poll::Ready(Ok(Outcome::Done))
    }

    /// The number of a segment, which is given to the peer if it has not got it: none if it cannot have it, pending as long as it
    /// cannot be told. What is given is told at once, so it is never gone before.
    fn introduce(&mut self, key: LinkKey, slab: &Arc<Slab>) -> Poll<Result<Option<u32>>> {
        let Some(link) = find(&mut self.links, key) else { return Poll::Ready(Ok(None)) };
        let Some(pages) = &mut link.pages else { return Poll::Ready(Ok(None)) };
        if let Some(number) = pages.lent.number(slab) {
            return Poll::Ready(Ok(Some(number)));
        }
        if pages.lent.is_full(&link.outbox.forgotten) {
            pages.lent.forget_gone(&mut link.outbox.forgotten);
            self.post_frames(key, false);
            if find(&mut self.links, key).is_none_or(|link| !link.may_lend()) {
                return Poll::Ready(Ok(None));
            }
        }
        if !self.has_room_for(key, SEGMENT)? {
            return Poll::Pending;
        }
        let Some(link) = find(&mut self.links, key) else { return Poll::Ready(Ok(None)) };
        let Some(pages) = &mut link.pages else { return Poll::Ready(Ok(None)) };
        let Some((number, place)) = pages.lent.introduce(slab, &link.outbox.forgotten) else {
            return Poll::Ready(Ok(None));
        };
        let place = place.to_bytes();
        link.outbox.append(Record::Segment { place: &place }, SEGMENT, std::iter::once(&place[..]));
        Poll::Ready(Ok(Some(number)))
    }

    /// What is gone of the peer's pages, and which of ours, is to be said.
    pub(in crate::connection) fn collect_returns(&mut self, key: LinkKey) {
        let Some(link) = find(&mut self.links, key) else { return };
        let Some(pages) = &mut link.pages else { return };
        pages.borrowed.returns.take(|token| link.outbox.returned.push_back(token));
        pages.lent.forget_gone(&mut link.outbox.forgotten);
        self.post_frames(key, false);
    }

    /// The same for all connections.
    pub(in crate::connection) fn collect_all_returns(&mut self) {
        for index in 0..self.links.len() {
            let shares = self.links[index].as_ref().is_some_and(|(_, link)| link.pages.is_some());
            if let Some(key) = self.key_at(index).filter(|_| shares) {
                self.collect_returns(key);
            }
        }
    }
}

impl Link {
    /// Whether the peer may have one more segment.
    fn may_lend(&self) -> bool {
        self.pages.as_ref().is_some_and(|pages| !pages.lent.is_full(&self.outbox.forgotten))
    }
}

impl<T: Transport> Engine<T> {
    /// A buffer in a peer's pages was dropped, on whatever thread.
    pub(in crate::connection) fn buffer_dropped(self: &Arc<Self>, key: LinkKey) {
        if !self.is_ours() {
            return;
        }
        let mut core = match self.try_lock() {
            Ok(core) => core,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Perhaps this thread itself has it. Who has it looks when he lets go, or the service thread soon.
            Err(TryLockError::WouldBlock) => return self.must_tend(),
        };
        core.collect_returns(key);
        self.settle(core);
    }
}
