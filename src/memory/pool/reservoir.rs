//! Where blocks come home to, pool or no pool.

use std::sync::Arc;

use super::depot::Depot;
use super::waiters::Waiters;
use super::{Budget, Class, IdleBlock, thread_number};
use crate::memory::Epoch;
use crate::sync::locks::Mutex;

/// The part of a pool that its buffers know: idle blocks, and who waits for one.
///
/// It lives for ever, and is used again by another pool when its own is gone and so are all buffers of that. So a
/// buffer needs no count to keep it, which would cost two more atomic operations for each buffer.
pub(crate) struct Reservoir {
    pub(super) depot: Depot<IdleBlock>,
    pub(super) waiters: Waiters<IdleBlock>,
}

/// Those whose pool is gone.
static CLOSED: Mutex<Vec<Closed>> = Mutex::new(Vec::new());

struct Closed {
    reservoir: &'static Reservoir,
    /// Tells whether any slab of the pool is left, and so any block.
    budget: Arc<Budget>,
    epoch: Epoch,
}

/// More than the processors of most machines; a thread more than that shares a lock.
const SHARDS: usize = 64;

impl Reservoir {
    pub(super) fn open() -> &'static Self {
        // Not available only in a child that was forked just now: then another is made.
        if let Ok(mut closed) = CLOSED.try_lock() {
            // A parent's are not touched: their locks may be held for ever.
            closed.retain(|closed| closed.epoch.is_current());
            if let Some(at) = closed.iter().position(|closed| closed.budget.slabs() == 0) {
                let reservoir = closed.swap_remove(at).reservoir;
                reservoir.depot.open();
                return reservoir;
            }
        }
        Box::leak(Box::new(Self { depot: Depot::new(SHARDS), waiters: Waiters::new() }))
    }

    /// The pool goes: idle blocks go now, the others when they are released.
    pub(super) fn close(&'static self, budget: &Arc<Budget>) {
        drop(self.depot.close());
        let closed = Closed { reservoir: self, budget: Arc::clone(budget), epoch: Epoch::current() };
        CLOSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(closed);
    }

    #[inline]
    pub(super) fn take(&self, class: Class) -> Option<IdleBlock> {
        self.depot.take(thread_number(), class)
    }

    /// A block is released.
    #[inline]
    pub(super) fn take_back(&self, block: IdleBlock) {
        let Some(class) = block.class() else { return self.give_up(block) };
        #[cfg(test)]
        if super::planted::is(super::planted::Bug::ReturnedTwice) {
            self.depot.supply(class, [block.again()]);
        }
        // Refused where the pool is gone: then the block goes too.
        drop(self.depot.release(thread_number(), class, block, &self.waiters));
    }

    /// Memory was let go of by somebody who did not bring it back: who waits may find room.
    pub(super) fn room_may_be_free(&self) {
        if self.waiters.are_there() {
            self.waiters.notify();
        }
    }

    /// A slab of its own is unmapped, and its room can be used.
    fn give_up(&self, block: IdleBlock) {
        self.depot.account(thread_number(), -(block.length() as i64));
        drop(block);
        self.waiters.notify();
    }
}
