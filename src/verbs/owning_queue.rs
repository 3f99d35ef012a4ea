//! The safe tier of posting: a completion queue that owns what its queue pairs have in flight.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::completion_room::CompletionRoom;
use super::operation_table::{Operation, OperationTable, Owner};
use super::{
    Arrival, Completed, CompletionBatch, CompletionError, CompletionQueue, CompletionStatus, Detached, Error, InFlight,
    Local, PostBatch, ProtectionDomain, QueuePair, QueuePairState, Refused, Remote, Result, Segment, SendFlags,
    SendList, SendRequest, SharedReceiveQueue,
};

/// A completion queue and its queue pairs, which own the memory of their requests from post to completion.
///
/// Requests of one queue pair complete in the order they were posted. A request without
/// [`SendFlags::SIGNALED`] is reported as done with the next signaled one behind it.
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
    pairs: Vec<Option<Pair>>,
    shared: Option<Shared<B>>,
    table: OperationTable<B>,
    staging: Staging,
    /// Entries that the device did not take, and its errno, to be reported by the next poll.
    unposted: Vec<(u32, i32)>,
    batch: CompletionBatch,
    /// Room for those of a receive.
    segments: Vec<Segment>,
    /// Completions that all queue pairs together can have outstanding.
    room: CompletionRoom,
    /// Whether the completion queue is ours.
    is_claimed: bool,
    completions: Arc<CompletionQueue>,
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

struct Pair {
    queue_pair: QueuePair,
    number: u32,
    sends: VecDeque<u32>,
    receives: VecDeque<u32>,
}

/// A shared receive queue that was made here and whose receives are entries here.
struct Shared<B> {
    queue: Arc<SharedReceiveQueue>,
    outstanding: u32,
    /// Makes of the table what the queue can keep.
    pack: fn(OperationTable<B>) -> Box<dyn Any + Send>,
    /// Completions name a queue pair only by number.
    pairs: HashMap<u32, u32>,
}

/// Requests on their way into one `ibv_post_send`, always of one queue pair.
#[derive(Default)]
struct Staging {
    pair: u32,
    entries: Vec<u32>,
    list: SendList<'static>,
    inline: Vec<u8>,
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

    /// A queue whose queue pairs share their receives: [`shared_receives`](Self::shared_receives) is what they are to be
    /// built with.
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
        this.reserve(queue.receives())?;
        this.shared = Some(Shared { queue, outstanding: 0, pack: |table| Box::new(table), pairs: HashMap::new() });
        Ok(this)
    }

    /// The completion queue.
    pub fn completions(&self) -> &Arc<CompletionQueue> {
        &self.completions
    }

    /// The shared receive queue. As long as somebody holds it, it holds what is posted there, even if this is dropped.
    pub fn shared_receives(&self) -> Option<&Arc<SharedReceiveQueue>> {
        self.shared.as_ref().map(|shared| &shared.queue)
    }

    /// Takes a queue pair in.
    ///
    /// # Errors
    /// `EINVAL` if it completes elsewhere or takes its receives from elsewhere, or the completion queue serves or has served
    /// another `OwningQueue`; `ENOMEM` if the completion queue could be overrun.
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
        let sizes = queue_pair.capabilities();
        self.reserve(demand(&queue_pair))?;
        let number = queue_pair.number();
        let pair = Pair {
            number,
            sends: VecDeque::with_capacity(sizes.sends as usize),
            receives: VecDeque::with_capacity(sizes.receives as usize),
            queue_pair,
        };
        let index = self.pairs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        self.pairs[index] = Some(pair);
        if let Some(shared) = &mut self.shared {
            shared.pairs.insert(number, index as u32);
        }
        Ok(QueuePairKey(index as u32))
    }

    fn reserve(&mut self, completions: u32) -> Result<()> {
        if !self.is_claimed {
            self.completions.claim()?;
            self.is_claimed = true;
        }
        self.room.reserve(completions, self.completions.capacity())?;
        self.table.reserve(completions as usize);
        Ok(())
    }

    /// The queue pair; `None` if it was removed.
    pub fn queue_pair(&self, key: QueuePairKey) -> Option<&QueuePair> {
        self.pair(key).map(|pair| &pair.queue_pair)
    }

    /// Send requests that still fit.
    pub fn room(&self, key: QueuePairKey) -> usize {
        let Some(pair) = self.pair(key) else { return 0 };
        let staged = if self.staging.pair == key.0 { self.staging.entries.len() } else { 0 };
        (pair.queue_pair.capabilities().sends as usize).saturating_sub(pair.sends.len() + staged)
    }

    /// Requests, of either queue, that have not completed.
    pub fn outstanding(&self, key: QueuePairKey) -> usize {
        self.pair(key).map_or(0, |pair| pair.sends.len() + pair.receives.len())
    }

    /// Requests that are posted in one call. Only one such batch can be open.
    pub fn batch(&mut self, key: QueuePairKey) -> PostBatch<'_, B> {
        PostBatch::new(self, key)
    }

    /// Adds a request to those that the next [`flush`](Self::flush) posts in one call. Requests staged for
    /// another queue pair are posted first.
    ///
    /// # Errors
    /// Answers the memory if the queue is full, the inline data too long, the segments too many, the operation not one for
    /// this type of queue pair, an atomic misaligned, or the queue pair gone or not yet in state RTS.
    pub fn stage(&mut self, key: QueuePairKey, request: SendRequest<'_, B>) -> std::result::Result<(), Refused<B>> {
        self.enter(key, request).map(drop)
    }

    /// Stages a request; answers the index of its entry.
    fn enter(&mut self, key: QueuePairKey, request: SendRequest<'_, B>) -> std::result::Result<u32, Refused<B>> {
        if self.staging.pair != key.0 {
            // What fails there is reported there, by the next poll.
            let _ = self.flush();
            self.staging.pair = key.0;
        }
        if let Err(error) = self.fits(key, &request) {
            return Err(Refused::new(Some(error), request.local));
        }
        let flags = match self.room(key) {
            0 => return Err(Refused::new(None, request.local)),
            // What fills the queue completes, or it would stay full if nothing in it were signaled.
            1 => request.flags | SendFlags::SIGNALED,
            _ => request.flags,
        };
        let staging = &mut self.staging;
        let (token, operation, address) = (request.token, request.operation, request.operation.destination());
        let address = address.map(|to| Arc::clone(to.address));
        let enter = |memory| self.table.enter(Owner::Sends(key.0), Operation { token, memory, address, window: None });
        let index = match request.local {
            Local::Inline(bytes) => {
                // The address is an offset until `flush`, when the bytes move no more.
                let offset = staging.inline.len() as u64;
                staging.inline.extend_from_slice(bytes);
                let segment = Segment { address: offset, length: bytes.len() as u32, local_key: 0 };
                let (index, wr_id) = enter(None);
                staging.list.push_kept(wr_id, operation, segment, &[], flags | SendFlags::INLINE);
                index
            }
            Local::Owned(memory) => {
                let segment = memory.segment();
                let (index, wr_id) = enter(Some(memory));
                let more = self.table.memory(index).map_or(&[][..], InFlight::more_segments);
                staging.list.push_kept(wr_id, operation, segment, more, flags.without_inline());
                index
            }
        };
        staging.entries.push(index);
        Ok(index)
    }

    /// Whether the request is one that the queue pair can be given.
    fn fits(&self, key: QueuePairKey, request: &SendRequest<'_, B>) -> Result<()> {
        let call = "ibv_post_send";
        let Some(pair) = self.queue_pair(key) else { return Err(Error::invalid(call, "the queue pair was removed")) };
        let sizes = pair.capabilities();
        request.operation.check_for(pair)?;
        if !pair.has_been_ready() {
            // rxe takes such requests, says that it does not, and carries them out later.
            return Err(Error::invalid(call, "the queue pair was not yet moved to state RTS"));
        }
        match &request.local {
            Local::Inline(bytes) if bytes.len() > sizes.inline as usize => {
                Err(Error::invalid(call, format!("{} bytes inline; at most {}", bytes.len(), sizes.inline)))
            }
            Local::Owned(memory) if memory.more_segments().len() >= sizes.segments.max(1) as usize => {
                let count = memory.more_segments().len() + 1;
                Err(Error::invalid(call, format!("{count} segments; at most {}", sizes.segments)))
            }
            _ => Ok(()),
        }
    }

    /// Posts what is staged, in one `ibv_post_send`.
    ///
    /// # Errors
    /// The device's error. [`poll`](Self::poll) reports the requests that it did not take, as
    /// [`NotPosted`](CompletionStatus::NotPosted), so the error need not be kept. A driver may fail and not say which
    /// those are; then all count as posted, and come back at the latest by [`detach`](Self::detach).
    pub fn flush(&mut self) -> Result<()> {
        let staging = &mut self.staging;
        if staging.list.is_empty() {
            return Ok(());
        }
        let Some(Some(pair)) = self.pairs.get_mut(staging.pair as usize) else {
            // `detach` empties the staging of its queue pair.
            staging.clear();
            return Err(Error::invalid("ibv_post_send", "the queue pair was removed"));
        };
        staging.list.place_inline(staging.inline.as_ptr() as u64);
        let Some(first) = staging.list.link() else { return Ok(()) };
        // SAFETY: the chain lies in `staging`, untouched during the call. The memory of every request is
        // inline in `staging`, or owned by its entry, which only a completion, or the end of the queue
        // pair, releases; so is its address handle. `fits` has checked that it is for this type of queue pair and this
        // device, and invalidates nothing.
        let answer = unsafe { pair.queue_pair.post_send_chain(first) };
        let (posted, result) = match answer {
            Ok(()) => (staging.entries.len(), Ok(())),
            Err((error, bad)) => (staging.list.take_before(bad), Err(error)),
        };
        pair.sends.extend(staging.entries.drain(..posted));
        let errno = result.as_ref().err().and_then(Error::errno).unwrap_or(libc::EIO);
        self.unposted.extend(staging.entries.drain(..).map(|index| (index, errno)));
        staging.clear();
        result
    }

    /// Posts one request at once.
    ///
    /// # Errors
    /// As [`stage`](Self::stage), and the device's error. If the device took the request in spite of that, its memory is not
    /// in the answer and comes back as [`flush`](Self::flush) says.
    pub fn post(&mut self, key: QueuePairKey, request: SendRequest<'_, B>) -> std::result::Result<(), Refused<B>> {
        let index = self.enter(key, request)?;
        self.flush().map_err(|error| {
            // It was the last in the chain.
            let is_back = self.unposted.pop_if(|(last, _)| *last == index).is_some();
            Refused { error: Some(error), memory: if is_back { self.table.leave(index).memory } else { None } }
        })
    }

    /// Posts a write of 8 bytes that a reader sees all or nothing of; see [`QueuePair::post_atomic_write`].
    ///
    /// # Errors
    /// As there; without an error in the answer if the queue is full.
    pub fn post_atomic_write(
        &mut self,
        key: QueuePairKey,
        token: u64,
        remote: Remote,
        bytes: [u8; 8],
        flags: SendFlags,
    ) -> std::result::Result<(), Refused<B>> {
        let operation = Operation { token, memory: None, address: None, window: None };
        // What fills the queue completes, or it would stay full if nothing in it were signaled.
        let flags = if self.room(key) == 1 { flags | SendFlags::SIGNALED } else { flags };
        self.post_alone(key, operation, |pair, wr_id| {
            // SAFETY: the id is that of an entry of this queue, which stays until its completion.
            unsafe { pair.post_atomic_write(wr_id, remote, bytes, flags) }.map_err(|error| (error, false))
        })
        .map_err(|(error, _)| Refused { error, memory: None })
    }

    /// Posts a send request that has a call of its own. On failure `post` tells whether the device may have it all the same; if
    /// not, the operation comes back, without an error if the queue is full.
    pub(super) fn post_alone(
        &mut self,
        key: QueuePairKey,
        operation: Operation<B>,
        post: impl FnOnce(&QueuePair, u64) -> std::result::Result<(), (Error, bool)>,
    ) -> std::result::Result<(), (Option<Error>, Option<Operation<B>>)> {
        // What fails there is reported there, by the next poll.
        let _ = self.flush();
        let room = self.room(key);
        let call = "ibv_post_send";
        let pair = match self.pairs.get_mut(key.0 as usize) {
            Some(Some(pair)) if pair.queue_pair.has_been_ready() => pair,
            Some(Some(_)) => {
                let error = Error::invalid(call, "the queue pair was not yet moved to state RTS");
                return Err((Some(error), Some(operation)));
            }
            _ => return Err((Some(Error::invalid(call, "the queue pair was removed")), Some(operation))),
        };
        if room == 0 {
            return Err((None, Some(operation)));
        }
        let (index, wr_id) = self.table.enter(Owner::Sends(key.0), operation);
        let answer = post(&pair.queue_pair, wr_id);
        if let Err((error, false)) = answer {
            return Err((Some(error), Some(self.table.leave(index))));
        }
        pair.sends.push_back(index);
        answer.map_err(|(error, _)| (Some(error), None))
    }

    /// Posts a receive.
    ///
    /// # Errors
    /// Answers the memory if the queue is full, the queue pair gone, its receives are shared, or the device refuses.
    pub fn post_receive(&mut self, key: QueuePairKey, token: u64, memory: B) -> std::result::Result<(), Refused<B>> {
        let Some(Some(pair)) = self.pairs.get_mut(key.0 as usize) else {
            let error = Error::invalid("ibv_post_recv", "the queue pair was removed");
            return Err(Refused { error: Some(error), memory: Some(memory) });
        };
        if pair.receives.len() >= pair.queue_pair.capabilities().receives as usize
            && pair.queue_pair.shared_receives().is_none()
        {
            return Err(Refused { error: None, memory: Some(memory) });
        }
        let operation = Operation { token, memory: Some(memory), address: None, window: None };
        let (index, wr_id) = self.table.enter(Owner::Receives(key.0), operation);
        let result = with_segments(self.table.memory(index), &mut self.segments, |segments| {
            // SAFETY: the entry owns the memory until the completion or the end of the queue pair.
            unsafe { pair.queue_pair.post_receive(wr_id, segments) }
        });
        match result {
            Ok(()) => {
                pair.receives.push_back(index);
                Ok(())
            }
            Err(error) => Err(Refused { error: Some(error), memory: self.table.leave(index).memory }),
        }
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
        let (index, wr_id) = self.table.enter(Owner::Shared, operation);
        let result = with_segments(self.table.memory(index), &mut self.segments, |segments| {
            // SAFETY: the entry owns the memory until the completion or the end of the shared queue.
            unsafe { shared.queue.post_receive(wr_id, segments) }
        });
        match result {
            Ok(()) => {
                shared.outstanding += 1;
                Ok(())
            }
            Err(error) => Err(Refused { error: Some(error), memory: self.table.leave(index).memory }),
        }
    }

    /// Passes on the completions that are there, up to 16 polled ones; answers how many were polled.
    ///
    /// # Errors
    /// Fails if the queue was overrun or the device is gone.
    pub fn poll(&mut self, done: &mut Vec<Completed<B>>) -> Result<usize> {
        if !self.unposted.is_empty() {
            for (index, errno) in std::mem::take(&mut self.unposted) {
                let status = CompletionStatus::NotPosted;
                let error = CompletionError { status, vendor_error: errno.unsigned_abs() };
                done.push(failed(&mut self.table, index, error));
            }
        }
        self.room.before_poll();
        let completions = self.completions.poll(&mut self.batch)?;
        let count = completions.len();
        if !completions.is_full() {
            self.room.after_emptying();
        }
        for completion in completions {
            let Some((last, owner)) = self.table.find(completion.wr_id()) else { continue };
            let number = completion.queue_pair();
            if owner == Owner::Shared {
                let Some(shared) = &mut self.shared else { continue };
                shared.outstanding -= 1;
                let key = QueuePairKey(shared.pairs.get(&number).copied().unwrap_or(QueuePairKey::NONE.0));
                let operation = self.table.leave(last);
                done.push(Completed::new(operation, key, true, completion.result(), completion.arrival()));
                continue;
            }
            let (Owner::Sends(pair_index) | Owner::Receives(pair_index)) = owner else { continue };
            let Some(Some(pair)) = self.pairs.get_mut(pair_index as usize) else { continue };
            // Of an earlier queue pair.
            if pair.number != number {
                continue;
            }
            let is_receive = matches!(owner, Owner::Receives(_));
            let outstanding = if is_receive { &mut pair.receives } else { &mut pair.sends };
            while let Some(index) = outstanding.pop_front() {
                let is_last = index == last;
                let operation = self.table.leave(index);
                let (result, arrival) = match (is_last, is_receive) {
                    (true, true) => (completion.result(), completion.arrival()),
                    (true, false) => (completion.result().map(|_| 0), Arrival::default()),
                    // A send request behind which another completed has succeeded: failures always complete.
                    (false, _) => (Ok(0), Arrival::default()),
                };
                done.push(Completed::new(operation, QueuePairKey(pair_index), is_receive, result, arrival));
                if is_last {
                    break;
                }
            }
        }
        Ok(count)
    }

    /// Moves the queue pair to ERROR and polls, for at most `patience`, until all its requests have completed; answers
    /// whether they have. Those that the driver withholds come back by [`detach`](Self::detach).
    ///
    /// # Errors
    /// As [`QueuePair::fail`] and [`poll`](Self::poll).
    pub fn drain(&mut self, key: QueuePairKey, patience: Duration, done: &mut Vec<Completed<B>>) -> Result<bool> {
        let begun = Instant::now();
        // What fails is reported by the poll.
        let _ = self.flush();
        let Some(pair) = self.queue_pair(key) else { return Ok(true) };
        // From RESET there is no way to ERROR, nor anything that completes.
        if pair.state()? != QueuePairState::Reset {
            pair.fail()?;
        }
        loop {
            let polled = self.poll(done)?;
            if self.outstanding(key) == 0 {
                return Ok(true);
            }
            if begun.elapsed() >= patience {
                return Ok(false);
            }
            if polled == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }

    /// Takes a queue pair out. Its memory is in the answer, whose [`Detached::destroy`] gives it back; that may
    /// block and can be done on another thread. Completions that still come are ignored. Receives that it has taken from
    /// the shared queue and not completed may come back only when that is destroyed.
    pub fn detach(&mut self, key: QueuePairKey) -> Option<Detached<B>> {
        let pair = self.pairs.get_mut(key.0 as usize)?.take()?;
        if let Some(shared) = &mut self.shared {
            shared.pairs.remove(&pair.number);
        }
        let mut outstanding: Vec<u32> = pair.receives.into_iter().chain(pair.sends).collect();
        let has_ended = Arc::new(AtomicBool::new(false));
        self.room.retire(demand(&pair.queue_pair), outstanding.len() as u32, Arc::clone(&has_ended));
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

    fn pair(&self, key: QueuePairKey) -> Option<&Pair> {
        self.pairs.get(key.0 as usize)?.as_ref()
    }
}

const FLUSHED: CompletionError = CompletionError { status: CompletionStatus::Flushed, vendor_error: 0 };

/// Takes out the request at `index`, which has failed.
fn failed<B>(table: &mut OperationTable<B>, index: u32, error: CompletionError) -> Completed<B> {
    let (key, is_receive) = match table.owner(index) {
        Owner::Receives(pair) => (QueuePairKey(pair), true),
        Owner::Sends(pair) => (QueuePairKey(pair), false),
        Owner::Shared | Owner::Nobody => (QueuePairKey::NONE, true),
    };
    Completed::new(table.leave(index), key, is_receive, Err(error), Arrival::default())
}

/// The segments of a receive, together; `room` is for those that are several.
#[inline]
fn with_segments<B: InFlight, R>(memory: Option<&B>, room: &mut Vec<Segment>, post: impl FnOnce(&[Segment]) -> R) -> R {
    match memory {
        None => post(&[]),
        Some(memory) if memory.more_segments().is_empty() => post(&[memory.segment()]),
        Some(memory) => {
            room.clear();
            room.push(memory.segment());
            room.extend_from_slice(memory.more_segments());
            post(room)
        }
    }
}

fn demand(queue_pair: &QueuePair) -> u32 {
    let sizes = queue_pair.capabilities();
    sizes.sends.saturating_add(sizes.receives)
}

impl Staging {
    fn clear(&mut self) {
        self.entries.clear();
        self.list.clear();
        self.inline.clear();
    }
}

impl<B> Drop for OwningQueue<B> {
    fn drop(&mut self) {
        let mut is_free = true;
        for pair in self.pairs.drain(..).flatten() {
            is_free &= pair.queue_pair.destroy().is_ok();
        }
        if let Some(shared) = self.shared.take() {
            match Arc::try_unwrap(shared.queue) {
                Ok(queue) => is_free &= queue.destroy().is_ok(),
                // A queue pair that was taken out, for instance: what is posted lives as long as the queue.
                Err(queue) if is_free => {
                    queue.keep((shared.pack)(std::mem::replace(&mut self.table, OperationTable::new())));
                }
                Err(_) => {}
            }
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
