//! Receives that all queue pairs of an owning queue share.

use std::any::Any;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::completion_room::CompletionRoom;
use super::operation_table::{Operation, OperationTable, Owner};
use super::polling::{FLUSHED, failed};
use super::posting::with_segments;
use super::{
    Completed, CompletionQueue, Error, InFlight, OwningQueue, ProtectionDomain, QueuePairKey, Refused, Result,
    SharedReceiveQueue,
};

/// A shared receive queue that was made here and whose receives are entries here.
pub(super) struct Shared<B> {
    queue: Arc<SharedReceiveQueue>,
    /// Receives and segments that were asked for.
    wanted: (u32, u32),
    outstanding: u32,
    /// Receives that are not expected to complete any more. They need room all the same.
    written_off: u32,
    /// The number of the next receive, and of the latest that has completed.
    next: u32,
    latest: u32,
    /// What `latest` was when receives were last written off.
    latest_before: u32,
    /// Makes of the table what the queue can keep.
    pack: fn(OperationTable<B>) -> Box<dyn Any + Send>,
    /// Completions name a queue pair only by number.
    pairs: FxHashMap<u32, u32>,
}

impl<B: InFlight> OwningQueue<B> {
    /// A queue whose queue pairs share their receives: [`shared_receives`](Self::shared_receives) is what they are to be
    /// built with. Entries of the completion queue are kept for all of them, since a receive is posted again when it has completed.
    ///
    /// # Errors
    /// As [`SharedReceiveQueue::create`]; `ENOMEM` if the completion queue is smaller, `EINVAL` if it serves or has served
    /// another `OwningQueue`.
    pub fn with_shared_receives(
        completions: Arc<CompletionQueue>,
        domain: &Arc<ProtectionDomain>,
        receives: u32,
        segments: u32,
    ) -> Result<Self> {
        let queue = SharedReceiveQueue::create(domain, receives, segments)?;
        let mut this = Self::new(completions);
        this.claim()?;
        this.room.reserve(queue.receives(), this.completions.capacity())?;
        this.table.reserve(queue.receives() as usize);
        this.shared = Some(Shared {
            queue,
            wanted: (receives, segments),
            outstanding: 0,
            written_off: 0,
            next: 0,
            latest: u32::MAX,
            latest_before: u32::MAX,
            pack: |table| Box::new(table),
            pairs: FxHashMap::default(),
        });
        Ok(this)
    }

    /// The shared receive queue. As long as somebody holds it, it holds what is posted there, even if this is dropped.
    pub fn shared_receives(&self) -> Option<&Arc<SharedReceiveQueue>> {
        self.shared.as_ref().map(|shared| &shared.queue)
    }

    /// Receives that [`post_shared_receive`](Self::post_shared_receive) still takes.
    pub fn receive_room(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.queue.receives().saturating_sub(shared.outstanding) as usize)
    }

    /// Posts a receive that any of the queue pairs may take.
    ///
    /// # Errors
    /// Answers the memory if the queue is full, there is no shared queue, or the device refuses.
    pub fn post_shared_receive(&mut self, token: u64, memory: B) -> std::result::Result<(), Refused<B>> {
        let Some(shared) = &mut self.shared else {
            let error = Error::invalid("ibv_post_srq_recv", "made without a shared receive queue");
            return Err(Refused { error: Some(error), memory: Some(memory) });
        };
        if shared.outstanding >= shared.queue.receives() {
            return Err(Refused { error: None, memory: Some(memory) });
        }
        let operation = Operation { token, memory: Some(memory), address: None, window: None };
        let (index, wr_id) = self.table.enter(Owner::Shared(shared.next), operation);
        let result = with_segments(self.table.memory(index), &mut self.segments, |segments| {
            // SAFETY: the entry owns the memory until the completion or the end of the shared queue.
            unsafe { shared.queue.post_receive(wr_id, segments) }
        });
        match result {
            Ok(()) => {
                shared.outstanding += 1;
                shared.next = shared.next.wrapping_add(1);
                Ok(())
            }
            Err(error) => Err(Refused { error: Some(error), memory: self.table.leave(index).memory }),
        }
    }

    /// Stops counting on shared receives that have not completed though later ones had when this was called before: they are likely
    /// to be lost. Answers how many they are; each makes room for another. rxe loses the receive of a queue pair that fails in the
    /// middle of a message (Linux 6.12 to 7.3). To be called seldom, since a message may just take long.
    ///
    /// The memory is kept as before: it comes back should they complete in spite of that, or when the queue is made anew.
    pub fn write_off_receives(&mut self) -> usize {
        let Some(shared) = &mut self.shared else { return 0 };
        let (before, capacity) = (shared.latest_before, self.completions.capacity());
        shared.latest_before = shared.latest;
        let is_lost = |owner| matches!(owner, Owner::Shared(number) if is_earlier(number, before));
        let lost: Vec<u32> = self.table.all_of(is_lost).collect();
        // Room is needed for those and for what takes their place.
        let lost = lost.into_iter().take_while(|_| self.room.reserve(1, capacity).is_ok());
        let lost = lost.map(|index| self.table.set_owner(index, Owner::WrittenOff)).count();
        shared.written_off += lost as u32;
        shared.outstanding -= lost as u32;
        lost
    }

    /// Takes back what is posted to the shared receive queue, which is possible only when no queue pair takes from it any more: the
    /// queue is destroyed, which may block, and made anew. Appends what it held as flushed, behind completions that were there.
    ///
    /// # Errors
    /// `EINVAL` if there is no shared queue; `EBUSY` if somebody else holds it, such as a queue pair that was not taken out or not
    /// destroyed; as [`SharedReceiveQueue::create`] and [`poll`](Self::poll). All is then as before.
    pub fn renew_shared_receives(&mut self, done: &mut Vec<Completed<B>>) -> Result<()> {
        let call = "ibv_destroy_srq";
        let Some(shared) = &mut self.shared else {
            return Err(Error::invalid(call, "made without a shared receive queue"));
        };
        if Arc::get_mut(&mut shared.queue).is_none() {
            return Err(Error::returned(call, libc::EBUSY).with_detail("something still takes receives from it"));
        }
        let (receives, segments) = shared.wanted;
        let new = SharedReceiveQueue::create(shared.queue.domain(), receives, segments)?;
        if new.receives() != shared.queue.receives() {
            return Err(
                Error::returned("ibv_create_srq", libc::ENOMEM).with_detail("it would not be as large as before")
            );
        }
        // Those that have completed are passed on. No more will, since nobody takes from the queue.
        while self.poll(done)? > 0 {}
        let Some(shared) = &mut self.shared else { return Ok(()) };
        shared.outstanding = 0;
        self.room.release(std::mem::take(&mut shared.written_off));
        let old = Arc::into_inner(std::mem::replace(&mut shared.queue, new));
        let is_free = old.is_some_and(|old| old.destroy().is_ok());
        let posted = self.table.all_of(|owner| matches!(owner, Owner::Shared(_) | Owner::WrittenOff));
        for index in posted.collect::<Vec<_>>() {
            let mut completed = failed(&mut self.table, index, FLUSHED);
            if is_free {
                done.push(completed);
            } else {
                // It was logged. The device may still use the memory.
                std::mem::forget(completed.memory.take());
            }
        }
        Ok(())
    }
}

impl<B> Shared<B> {
    pub(super) fn add(&mut self, number: u32, index: u32) {
        self.pairs.insert(number, index);
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.pairs.remove(&number);
    }

    /// A receive has completed; answers the queue pair of this number.
    #[inline]
    pub(super) fn completed(&mut self, number: u32, owner: Owner, room: &mut CompletionRoom) -> QueuePairKey {
        match owner {
            Owner::Shared(receive) => {
                self.outstanding -= 1;
                if is_earlier(self.latest, receive) {
                    self.latest = receive;
                }
            }
            _ => {
                self.written_off -= 1;
                room.release(1);
            }
        }
        self.pairs.get(&number).map_or(QueuePairKey::NONE, |index| QueuePairKey::from_index(*index))
    }

    /// Destroys the queue, or leaves it what is posted if somebody still holds it; answers whether the device has let go of what
    /// `table` has then. `is_free` is whether it has of all else.
    pub(super) fn end(self, table: &mut OperationTable<B>, is_free: bool) -> bool {
        match Arc::try_unwrap(self.queue) {
            Ok(queue) => queue.destroy().is_ok() && is_free,
            // A queue pair that was taken out, for instance: what is posted lives as long as the queue.
            Err(queue) if is_free => {
                queue.keep((self.pack)(std::mem::replace(table, OperationTable::new())));
                true
            }
            Err(_) => false,
        }
    }
}

/// Whether the receive of number `this` was posted before that of number `that`. They are never half the numbers apart.
#[inline]
fn is_earlier(this: u32, that: u32) -> bool {
    (this.wrapping_sub(that) as i32) < 0
}
