//! The safe tier of posting: a completion queue that owns what its queue pairs have in flight.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::completion_room::{CompletionRoom, Share};
use super::operation_table::{OperationTable, Owner};
use super::polling::{FLUSHED, failed};
use super::posting::Staging;
use super::shared_receives::Shared;
use super::{CompletionBatch, CompletionQueue, Detached, Error, InFlight, QueuePair, Result, Segment};

/// A completion queue and its queue pairs, which own the memory of their requests from post to completion.
///
/// Requests of one queue pair complete in the order they were posted. A request without
/// [`SendFlags::SIGNALED`](super::SendFlags::SIGNALED) is reported as done with the next signaled one behind it.
///
/// ```
/// use zcmi::verbs::{CompletionQueue, Device, OwningQueue, ProtectionDomain, QueuePair, RegisteredBuffer};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let context = device.open()?;
/// let domain = ProtectionDomain::allocate(&context)?;
/// let completions = CompletionQueue::create(&context, 256)?;
/// let mut queue = OwningQueue::new(completions);
/// let pair = QueuePair::builder(&domain, queue.completions()).create()?;
/// let pair = queue.add(pair)?;
/// // ... connect it, then:
/// let buffer = RegisteredBuffer::allocate(&domain, 4096)?;
/// match queue.post_receive(pair, 1, buffer) {
///     Ok(()) => println!("posted"),
///     Err(refused) => println!("not posted, and here is the buffer again: {:?}", refused.memory),
/// }
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
pub struct OwningQueue<B> {
    pub(super) pairs: Vec<Option<Pair>>,
    pub(super) shared: Option<Shared<B>>,
    pub(super) table: OperationTable<B>,
    pub(super) staging: Staging,
    /// Entries that the device did not take, and its errno, to be reported by the next poll.
    pub(super) unposted: Vec<(u32, i32)>,
    pub(super) batch: CompletionBatch,
    /// Room for those of a receive.
    pub(super) segments: Vec<Segment>,
    /// Completions that can come.
    pub(super) room: CompletionRoom,
    /// Whether the completion queue is ours.
    is_claimed: bool,
    pub(super) completions: Arc<CompletionQueue>,
}

/// Names a queue pair of an [`OwningQueue`]. Keys of removed queue pairs are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueuePairKey(u32);

impl QueuePairKey {
    /// Names no queue pair.
    pub const NONE: Self = Self(u32::MAX);

    /// The key as a number, dense from 0.
    pub fn index(self) -> u32 {
        self.0
    }

    /// The key of a number that [`index`](Self::index) answered; any other names no queue pair or another one.
    pub fn from_index(index: u32) -> Self {
        Self(index)
    }
}

pub(super) struct Pair {
    pub(super) queue_pair: QueuePair,
    pub(super) number: u32,
    pub(super) sends: VecDeque<u32>,
    /// Of the completion queue's entries, for `sends` and what is staged.
    pub(super) share: Share,
    pub(super) receives: VecDeque<u32>,
}

impl<B: InFlight> OwningQueue<B> {
    /// A queue without queue pairs.
    pub fn new(completions: Arc<CompletionQueue>) -> Self {
        Self {
            pairs: Vec::new(),
            shared: None,
            table: OperationTable::new(),
            staging: Staging::default(),
            unposted: Vec::new(),
            batch: CompletionBatch::new(),
            segments: Vec::new(),
            room: CompletionRoom::default(),
            is_claimed: false,
            completions,
        }
    }

    /// The completion queue.
    pub fn completions(&self) -> &Arc<CompletionQueue> {
        &self.completions
    }

    /// Takes a queue pair in. Entries of the completion queue are kept for all receives of its own, since a receive is posted again
    /// when it has completed, and for 8 of its send requests, or fewer if it has no room for so many. The entries that are left
    /// are for send requests of whichever queue pair posts them.
    ///
    /// # Errors
    /// `EINVAL` if it completes elsewhere or takes its receives from elsewhere, or the completion queue serves or has served
    /// another `OwningQueue`; `ENOMEM` if the completion queue has not so many entries left; `EBUSY` if completions of a queue pair
    /// that had the same number may still come.
    pub fn add(&mut self, queue_pair: QueuePair) -> Result<QueuePairKey> {
        let completes_here = [queue_pair.send_completions(), queue_pair.receive_completions()]
            .into_iter()
            .all(|queue| Arc::ptr_eq(queue, &self.completions));
        let receives_here = match (queue_pair.shared_receives(), self.shared_receives()) {
            (Some(theirs), Some(ours)) => Arc::ptr_eq(theirs, ours),
            (theirs, _) => theirs.is_none(),
        };
        if !completes_here || !receives_here {
            let detail = "it completes to another queue or takes its receives from another";
            return Err(Error::invalid("ibv_create_qp", detail));
        }
        let (number, sizes) = (queue_pair.number(), queue_pair.capabilities());
        if self.room.may_still_complete(number) {
            // A message of its predecessor would be taken for one of its own.
            let detail =
                format!("number {number} had another, of which completions may still come: poll, and make a new one");
            return Err(Error::returned("ibv_create_qp", libc::EBUSY).with_detail(detail));
        }
        self.claim()?;
        let capacity = self.completions.capacity();
        let share = self.room.open(sizes.sends, sizes.receives, capacity)?;
        // So that posting does not allocate.
        self.table.reserve(sizes.sends.saturating_add(sizes.receives).min(capacity) as usize);
        let pair = Pair {
            number,
            sends: VecDeque::with_capacity(sizes.sends as usize),
            share,
            receives: VecDeque::with_capacity(sizes.receives as usize),
            queue_pair,
        };
        let index = self.pairs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        self.pairs[index] = Some(pair);
        if let Some(shared) = &mut self.shared {
            shared.add(number, index as u32);
        }
        Ok(QueuePairKey(index as u32))
    }

    /// Makes the completion queue this one's for good.
    pub(super) fn claim(&mut self) -> Result<()> {
        if !self.is_claimed {
            self.completions.claim()?;
            self.is_claimed = true;
        }
        Ok(())
    }

    /// The queue pair; `None` if it was removed.
    pub fn queue_pair(&self, key: QueuePairKey) -> Option<&QueuePair> {
        self.pair(key).map(|pair| &pair.queue_pair)
    }

    /// Send requests that still fit: the queue pair's send queue, and the completion queue beside what others have outstanding. Never
    /// fewer than 8 when none is outstanding, or what the send queue holds. If there are none, some of this queue pair will complete
    /// and make room.
    pub fn room(&self, key: QueuePairKey) -> usize {
        let Some(pair) = self.pair(key) else { return 0 };
        let staged = if self.staging.pair == key.0 { self.staging.entries.len() } else { 0 };
        let fit = (pair.queue_pair.capabilities().sends as usize).saturating_sub(pair.sends.len() + staged);
        fit.min(self.room.left(&pair.share, self.completions.capacity()) as usize)
    }

    /// Requests, of either queue, that have not completed.
    pub fn outstanding(&self, key: QueuePairKey) -> usize {
        self.pair(key).map_or(0, |pair| pair.sends.len() + pair.receives.len())
    }

    /// Takes a queue pair out. Its memory is in the answer, whose [`Detached::destroy`] gives it back; that may
    /// block and can be done on another thread. Completions that still come are ignored. Receives that it has taken from
    /// the shared queue and not completed may come back only when that is destroyed.
    pub fn detach(&mut self, key: QueuePairKey) -> Option<Detached<B>> {
        let pair = self.pairs.get_mut(key.0 as usize)?.take()?;
        if let Some(shared) = &mut self.shared {
            shared.remove(pair.number);
        }
        let mut outstanding: Vec<u32> = pair.receives.into_iter().chain(pair.sends).collect();
        let has_ended = Arc::new(AtomicBool::new(false));
        let (receives, requests) = (pair.queue_pair.capabilities().receives, outstanding.len() as u32);
        self.room.retire(pair.number, pair.share, receives, requests, Arc::clone(&has_ended));
        if self.staging.pair == key.0 {
            outstanding.append(&mut self.staging.entries);
            self.staging.clear();
        }
        let unposted = std::mem::take(&mut self.unposted);
        let (gone, kept) =
            unposted.into_iter().partition::<Vec<_>, _>(|&(i, _)| self.table.owner(i) == Owner::Sends(key.0));
        self.unposted = kept;
        outstanding.extend(gone.into_iter().map(|(index, _)| index));
        let addresses = outstanding.iter().filter_map(|&index| self.table.take_address(index)).collect();
        let flushed = outstanding.into_iter().map(|index| failed(&mut self.table, index, FLUSHED)).collect();
        Some(Detached::new(pair.queue_pair, flushed, addresses, has_ended))
    }

    pub(super) fn pair(&self, key: QueuePairKey) -> Option<&Pair> {
        self.pairs.get(key.0 as usize)?.as_ref()
    }
}

impl<B> Drop for OwningQueue<B> {
    fn drop(&mut self) {
        let mut is_free = true;
        for pair in self.pairs.drain(..).flatten() {
            is_free &= pair.queue_pair.destroy().is_ok();
        }
        if let Some(shared) = self.shared.take() {
            is_free = shared.end(&mut self.table, is_free);
        }
        if !is_free {
            tracing::error!("the device may still use what is in flight: its memory is set aside for ever");
            std::mem::forget(std::mem::replace(&mut self.table, OperationTable::new()));
        }
    }
}

impl<B> fmt::Debug for OwningQueue<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwningQueue").field("pairs", &self.pairs.iter().flatten().count()).finish_non_exhaustive()
    }
}
