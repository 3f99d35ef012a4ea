//! One-sided access by the holder's own processor, in pages of the peer's that are mapped here. The owner has no part in it.

use std::io::IoSlice;

use super::super::core::{Core, LinkKey, NOTIFY, find};
use super::super::counting::count;
use super::super::operations::{OperationKey, Posted, kind_of};
use super::super::posting::Wanted;
use super::borrowed::Segment;
use crate::Result;
use crate::memory::{Transfer, volatile};
use crate::transport::{Operation, Queue, Request, Source};

/// Bytes of the longest operation that is carried out here: longer ones would keep the engine's lock from all other connections of the
/// worker for more than a millisecond or so. Its owner serves them, piece by piece.
const MOST_DIRECT: usize = 4 << 20;

/// Pieces that are told of at once.
const PIECES: usize = 16;

impl<Q: Queue> Core<Q> {
    /// Carries the operation out, if its memory is mapped here; else gives it back, to be served by the owner.
    #[expect(clippy::result_large_err, reason = "a box would allocate for each that is served")]
    pub(in crate::connection) fn go_direct(
        &mut self,
        key: LinkKey,
        wanted: Wanted,
    ) -> std::result::Result<OperationKey, Wanted> {
        let Wanted { operation, memory: Some(mut memory), grant: Some(grant), segment: Some(number), fence } = wanted
        else {
            return Err(wanted);
        };
        let give_back =
            |memory| Err(Wanted { operation, memory: Some(memory), grant: Some(grant), segment: Some(number), fence });
        let Some(link) = find(&mut self.links, key) else { return give_back(memory) };
        let Some(pages) = link.pages.as_ref() else { return give_back(memory) };
        let Some(segment) = pages.borrowed.segment(number.into()) else { return give_back(memory) };
        if memory.length() > MOST_DIRECT {
            return give_back(memory);
        }
        // What is served comes after what was posted before it; what is done here must not overtake that.
        if pages.served > 0 || !link.grants.held.begin(grant) {
            return give_back(memory);
        }
        let is_done = carry_out(segment, operation, &mut memory);
        link.grants.held.end(grant);
        if !is_done {
            return give_back(memory);
        }
        let kind = kind_of(&operation);
        count(&mut link.tally, kind, memory.length() as u64);
        let (at, grant) = (self.stamp, Some(grant));
        let started = self.operations.insert(Posted { link: key, kind, grant, is_read: false, bytes: 0, at });
        // Nobody waits yet.
        let _ = self.operations.complete(started.token(), Some(memory), Ok(()));
        Ok(started)
    }

    /// Tells the peer of a write that was carried out here.
    pub(in crate::connection) fn notify(&mut self, key: LinkKey, operation: Operation) -> Result<()> {
        let Some(link) = find(&mut self.links, key) else { return Ok(()) };
        let Some(channel) = link.channel else { return Ok(()) };
        link.spend_notification();
        let signaled = link.signal(true);
        let request = Request { token: NOTIFY, operation, source: Source::Inline(&[]), signaled, fence: false };
        match self.queue.stage(channel, request) {
            Ok(()) => Ok(()),
            Err(refused) => {
                let full = || crate::Error::new(crate::ErrorKind::ResourceExhausted, "post");
                Err(refused.error.unwrap_or_else(full))
            }
        }
    }
}

/// Does what the operation says; answers whether its memory is all in the segment.
fn carry_out(segment: &Segment, operation: Operation, memory: &mut Transfer) -> bool {
    let pages = &**segment.pages.slab().mapping();
    let length = memory.length();
    let (address, length) = match operation {
        Operation::Read { address, .. } | Operation::Write { address, .. } | Operation::WriteNotify { address, .. } => {
            (address, length)
        }
        Operation::CompareSwap { address, .. } | Operation::FetchAdd { address, .. } => (address, size_of::<u64>()),
        Operation::Probe | Operation::Send => return false,
    };
    let Some(at) = segment.place(address, length) else { return false };
    match operation {
        Operation::Read { .. } => segment.pages.in_turn(false, || {
            let mut done = 0;
            while done < length {
                let Some(piece) = memory.piece_from(done) else { return false };
                volatile::load(pages, at + done, piece);
                done += piece.len();
            }
            true
        }),
        Operation::Write { .. } | Operation::WriteNotify { .. } => segment.pages.in_turn(true, || {
            let mut done = 0;
            while done < length {
                let mut slices = [IoSlice::new(&[]); PIECES];
                let count = memory.gather(done, &mut slices);
                for slice in &slices[..count] {
                    volatile::store(pages, at + done, slice);
                    done += slice.len();
                }
                if count == 0 {
                    return false;
                }
            }
            true
        }),
        Operation::FetchAdd { add, .. } if at.is_multiple_of(size_of::<u64>()) => {
            let old = segment.pages.in_turn(true, || volatile::fetch_add(pages, at, add));
            memory.fill(&old.to_ne_bytes())
        }
        Operation::CompareSwap { compare, swap, .. } if at.is_multiple_of(size_of::<u64>()) => {
            let old = segment.pages.in_turn(true, || volatile::compare_swap(pages, at, compare, swap));
            memory.fill(&old.to_ne_bytes())
        }
        _ => false,
    }
}
