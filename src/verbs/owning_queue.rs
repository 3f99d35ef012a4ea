//! The safe tier of posting: a completion queue that owns what its queue pairs have in flight.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use rdma_sys as ffi;

use super::work_request::send_request;
use super::{
    CompletionBatch, CompletionError, CompletionQueue, CompletionStatus, Error, QueuePair, Result, Segment, SendFlags,
    SendOperation,
};

/// Memory that can be handed to a device and comes back with the completion.
///
/// # Safety
/// As long as the value exists, wherever it is moved, the segment names memory that stays mapped and
/// registered under that key, and that nobody else writes or, if the device writes it, touches.
pub unsafe trait InFlight: Send + 'static {
    /// Where the memory lies.
    fn segment(&self) -> Segment;
}

/// A completion queue and its queue pairs, which own the memory of their requests from post to completion.
///
/// Requests of one queue pair complete in the order they were posted. A request without
/// [`SendFlags::SIGNALED`] is reported as done with the next signaled one behind it.
pub struct OwningQueue<B> {
    // Queue pairs go first: when they are destroyed the device has let go of the memory in `entries`.
    pairs: Vec<Option<Pair>>,
    entries: Vec<Entry<B>>,
    free: Vec<u32>,
    staging: Staging,
    /// Entries that the device did not take, and its errno, to be reported by the next poll.
    unposted: Vec<(u32, i32)>,
    batch: CompletionBatch,
    /// Completions that all queue pairs together can have outstanding.
    reserved: u32,
    completions: Arc<CompletionQueue>,
}

/// Names a queue pair of an [`OwningQueue`]. Keys of removed queue pairs are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueuePairKey(u32);

impl QueuePairKey {
    /// The key as a number, dense from 0.
    pub fn index(self) -> u32 {
        self.0
    }

    /// The key of a number that [`index`](Self::index) answered; any other names no queue pair or another one.
    pub fn from_index(index: u32) -> Self {
        Self(index)
    }
}

/// The memory of a send request.
#[derive(Debug)]
pub enum Local<'a, B> {
    /// Copied by the call; up to the queue pair's inline capability.
    Inline(&'a [u8]),
    /// Owned by the queue until the completion.
    Owned(B),
}

/// A request for [`OwningQueue::post`].
#[derive(Debug)]
pub struct SendRequest<'a, B> {
    /// Comes back with the completion.
    pub token: u64,
    /// What to do.
    pub operation: SendOperation,
    /// With what memory.
    pub local: Local<'a, B>,
    /// Options; [`SendFlags::INLINE`] follows from `local`.
    pub flags: SendFlags,
}

/// The end of a request.
#[derive(Debug)]
pub struct Completed<B> {
    /// The token it was posted with.
    pub token: u64,
    /// Where it was posted.
    pub queue_pair: QueuePairKey,
    /// Whether it was a receive.
    pub is_receive: bool,
    /// Bytes received (0 for other requests), or why it failed.
    pub result: std::result::Result<u32, CompletionError>,
    /// Its memory; `None` if it was inline.
    pub memory: Option<B>,
}

/// A request that was not taken, with its memory.
#[derive(Debug)]
pub struct Refused<B> {
    /// `None`: the queue is full, which polling mends.
    pub error: Option<Error>,
    /// The memory, unless it was inline.
    pub memory: Option<B>,
}

struct Pair {
    queue_pair: QueuePair,
    number: u32,
    sends: VecDeque<u32>,
    receives: VecDeque<u32>,
}

struct Entry<B> {
    generation: u32,
    /// Index of the queue pair; `FREE` if the entry is in no use.
    pair: u32,
    is_receive: bool,
    token: u64,
    memory: Option<B>,
}

const FREE: u32 = u32::MAX;

/// Requests on their way into one `ibv_post_send`, always of one queue pair.
#[derive(Default)]
struct Staging {
    pair: u32,
    entries: Vec<u32>,
    requests: Vec<ffi::ibv_send_wr>,
    segments: Vec<Segment>,
    inline: Vec<u8>,
}

// SAFETY: the raw pointers in `staging` point into its own vectors and are only followed during a call
// that has `&mut self`; everything else is `Send`.
unsafe impl<B: Send> Send for OwningQueue<B> {}

impl<B: InFlight> OwningQueue<B> {
    /// A queue without queue pairs.
    pub fn new(completions: Arc<CompletionQueue>) -> Self {
        Self {
            pairs: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            staging: Staging::default(),
            unposted: Vec::new(),
            batch: CompletionBatch::new(),
            reserved: 0,
            completions,
        }
    }

    /// The completion queue.
    pub fn completions(&self) -> &Arc<CompletionQueue> {
        &self.completions
    }

    /// Takes a queue pair in.
    ///
    /// # Errors
    /// `EINVAL` if it completes elsewhere, `ENOMEM` if the completion queue could be overrun.
    pub fn add(&mut self, queue_pair: QueuePair) -> Result<QueuePairKey> {
        if !Arc::ptr_eq(queue_pair.completions(), &self.completions) {
            return Err(Error::returned("ibv_create_qp", libc::EINVAL));
        }
        let reserved = self.reserved.saturating_add(demand(&queue_pair));
        if reserved > self.completions.capacity() {
            return Err(Error::returned("ibv_create_cq", libc::ENOMEM));
        }
        self.reserved = reserved;
        let sizes = queue_pair.capabilities();
        let pair = Pair {
            number: queue_pair.number(),
            sends: VecDeque::with_capacity(sizes.sends as usize),
            receives: VecDeque::with_capacity(sizes.receives as usize),
            queue_pair,
        };
        self.entries.reserve(demand(&pair.queue_pair) as usize);
        let index = self.pairs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        self.pairs[index] = Some(pair);
        Ok(QueuePairKey(index as u32))
    }

    /// The queue pair; `None` if it was removed.
    pub fn queue_pair(&self, key: QueuePairKey) -> Option<&QueuePair> {
        self.pairs.get(key.0 as usize)?.as_ref().map(|pair| &pair.queue_pair)
    }

    /// Send requests that still fit.
    pub fn room(&self, key: QueuePairKey) -> usize {
        let Some(Some(pair)) = self.pairs.get(key.0 as usize) else { return 0 };
        let staged = if self.staging.pair == key.0 { self.staging.entries.len() } else { 0 };
        (pair.queue_pair.capabilities().sends as usize).saturating_sub(pair.sends.len() + staged)
    }

    /// Adds a request to those that the next [`flush`](Self::flush) posts in one call. Requests staged for
    /// another queue pair are posted first.
    ///
    /// # Errors
    /// Answers the memory if the queue is full, the inline data too long, or the queue pair gone.
    pub fn stage(&mut self, key: QueuePairKey, request: SendRequest<'_, B>) -> std::result::Result<(), Refused<B>> {
        if self.staging.pair != key.0 {
            // What fails there is reported there, by the next poll.
            let _ = self.flush();
            self.staging.pair = key.0;
        }
        let Some(sizes) = self.queue_pair(key).map(QueuePair::capabilities) else {
            return Err(Refused::new(Some(Error::returned("ibv_post_send", libc::EINVAL)), request.local));
        };
        if self.room(key) == 0 {
            return Err(Refused::new(None, request.local));
        }
        let mut flags = request.flags;
        let (segment, memory) = match request.local {
            Local::Inline(bytes) => {
                if bytes.len() > sizes.inline as usize {
                    return Err(Refused { error: Some(Error::returned("ibv_post_send", libc::EINVAL)), memory: None });
                }
                flags = flags | SendFlags::INLINE;
                // The address is an offset until `flush`, when the bytes move no more.
                let offset = self.staging.inline.len() as u64;
                self.staging.inline.extend_from_slice(bytes);
                (Segment { address: offset, length: bytes.len() as u32, local_key: 0 }, None)
            }
            Local::Owned(memory) => (memory.segment(), Some(memory)),
        };
        let (index, wr_id) = self.enter(key, request.token, false, memory);
        let staging = &mut self.staging;
        staging.entries.push(index);
        staging.segments.push(segment);
        staging.requests.push(send_request(wr_id, request.operation, std::ptr::null_mut(), 1, flags));
        Ok(())
    }

    /// Posts what is staged, in one `ibv_post_send`.
    ///
    /// # Errors
    /// The device's error. [`poll`](Self::poll) reports the requests that it did not take, as
    /// [`NotPosted`](CompletionStatus::NotPosted), so the error need not be kept.
    pub fn flush(&mut self) -> Result<()> {
        let staging = &mut self.staging;
        let count = staging.requests.len();
        if count == 0 {
            return Ok(());
        }
        let Some(Some(pair)) = self.pairs.get_mut(staging.pair as usize) else {
            // `detach` empties the staging of its queue pair.
            staging.clear();
            return Err(Error::returned("ibv_post_send", libc::EINVAL));
        };
        let inline = SendFlags::INLINE.raw();
        for (request, segment) in staging.requests.iter_mut().zip(&mut staging.segments) {
            if request.send_flags & inline != 0 {
                segment.address += staging.inline.as_ptr() as u64;
            }
            request.sg_list = (&raw mut *segment).cast();
        }
        let first = staging.requests.as_mut_ptr();
        for index in 1..count {
            staging.requests[index - 1].next = first.wrapping_add(index);
        }
        // SAFETY: the chain lies in `staging`, untouched during the call; the memory of every request is
        // inline in `staging` or owned by its entry, which only a completion, or the end of the queue
        // pair, releases.
        let answer = unsafe { pair.queue_pair.post_send_list(first) };
        let (posted, result) = match answer {
            Ok(()) => (count, Ok(())),
            Err((error, bad)) => (position(&staging.requests, bad), Err(error)),
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
    /// As [`stage`](Self::stage) and [`flush`](Self::flush).
    pub fn post(&mut self, key: QueuePairKey, request: SendRequest<'_, B>) -> std::result::Result<(), Refused<B>> {
        self.stage(key, request)?;
        self.flush().map_err(|error| Refused { error: Some(error), memory: None })
    }

    /// Posts a receive.
    ///
    /// # Errors
    /// Answers the memory if the queue is full, the queue pair gone, or the device refuses.
    pub fn post_receive(&mut self, key: QueuePairKey, token: u64, memory: B) -> std::result::Result<(), Refused<B>> {
        let Some(pair) = self.pairs.get(key.0 as usize).and_then(Option::as_ref) else {
            return Err(Refused { error: Some(Error::returned("ibv_post_recv", libc::EINVAL)), memory: Some(memory) });
        };
        if pair.receives.len() >= pair.queue_pair.capabilities().receives as usize {
            return Err(Refused { error: None, memory: Some(memory) });
        }
        let segment = memory.segment();
        let (index, wr_id) = self.enter(key, token, true, Some(memory));
        let Some(Some(pair)) = self.pairs.get_mut(key.0 as usize) else { unreachable!("looked up above") };
        // SAFETY: the entry owns the memory until the completion or the end of the queue pair.
        match unsafe { pair.queue_pair.post_receive(wr_id, &[segment]) } {
            Ok(()) => {
                pair.receives.push_back(index);
                Ok(())
            }
            Err(error) => Err(Refused { error: Some(error), memory: self.leave(index).1 }),
        }
    }

    /// Passes on the completions that are there, up to 16 polled ones; answers how many were polled.
    ///
    /// # Errors
    /// Fails if the queue was overrun or the device is gone.
    pub fn poll(&mut self, done: &mut Vec<Completed<B>>) -> Result<usize> {
        for (index, errno) in std::mem::take(&mut self.unposted) {
            let status = CompletionStatus::NotPosted;
            done.push(self.failed(index, CompletionError { status, vendor_error: errno.unsigned_abs() }));
        }
        let polled = self.completions.poll(&mut self.batch);
        if let Ok(count) = polled {
            for index in 0..count {
                let Some(completion) = self.batch.get(index) else { break };
                let result = match completion.status {
                    CompletionStatus::Success => Ok(completion.byte_length),
                    status => Err(CompletionError { status, vendor_error: completion.vendor_error }),
                };
                self.complete(completion.wr_id, completion.queue_pair, result, done);
            }
        }
        polled
    }

    /// Takes a queue pair out. Its memory is in the answer, whose [`Detached::destroy`] gives it back; that may
    /// block and can be done on another thread. Completions that still come are ignored.
    pub fn detach(&mut self, key: QueuePairKey) -> Option<Detached<B>> {
        let pair = self.pairs.get_mut(key.0 as usize)?.take()?;
        self.reserved -= demand(&pair.queue_pair);
        let mut outstanding: Vec<u32> = pair.receives.into_iter().chain(pair.sends).collect();
        if self.staging.pair == key.0 {
            outstanding.append(&mut self.staging.entries);
            self.staging.clear();
        }
        let unposted = std::mem::take(&mut self.unposted);
        let (gone, kept) =
            unposted.into_iter().partition::<Vec<_>, _>(|&(i, _)| self.entries[i as usize].pair == key.0);
        self.unposted = kept;
        outstanding.extend(gone.into_iter().map(|(index, _)| index));
        let flushed = outstanding.into_iter().map(|index| self.failed(index, FLUSHED)).collect();
        Some(Detached { queue_pair: pair.queue_pair, flushed })
    }

    fn failed(&mut self, index: u32, error: CompletionError) -> Completed<B> {
        let entry = &self.entries[index as usize];
        let (pair, is_receive) = (entry.pair, entry.is_receive);
        let (token, memory) = self.leave(index);
        Completed { token, queue_pair: QueuePairKey(pair), is_receive, result: Err(error), memory }
    }
}

const FLUSHED: CompletionError = CompletionError { status: CompletionStatus::Flushed, vendor_error: 0 };

impl<B> OwningQueue<B> {
    fn enter(&mut self, key: QueuePairKey, token: u64, is_receive: bool, memory: Option<B>) -> (u32, u64) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, pair: FREE, is_receive: false, token: 0, memory: None });
            // Room for every entry at once, so that completing never allocates.
            self.free.reserve(self.entries.len());
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.pair = key.0;
        entry.is_receive = is_receive;
        entry.token = token;
        entry.memory = memory;
        (index, u64::from(entry.generation) << 32 | u64::from(index))
    }

    fn leave(&mut self, index: u32) -> (u64, Option<B>) {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.pair = FREE;
        let memory = entry.memory.take();
        let token = entry.token;
        self.free.push(index);
        (token, memory)
    }

    /// Reports the request `wr_id` and the unsignaled ones before it. A stale id, or one under another
    /// queue pair's number, is ignored.
    fn complete(
        &mut self,
        wr_id: u64,
        number: u32,
        result: std::result::Result<u32, CompletionError>,
        done: &mut Vec<Completed<B>>,
    ) {
        let (generation, last) = ((wr_id >> 32) as u32, wr_id as u32);
        let Some(entry) = self.entries.get(last as usize) else { return };
        if entry.generation != generation || entry.pair == FREE {
            return;
        }
        let (pair_index, is_receive) = (entry.pair, entry.is_receive);
        loop {
            let Some(Some(pair)) = self.pairs.get_mut(pair_index as usize) else { return };
            if pair.number != number {
                return;
            }
            let outstanding = if is_receive { &mut pair.receives } else { &mut pair.sends };
            let Some(index) = outstanding.pop_front() else { return };
            let (token, memory) = self.leave(index);
            let is_last = index == last;
            done.push(Completed {
                token,
                queue_pair: QueuePairKey(pair_index),
                is_receive,
                // A send request behind which another completed has succeeded: failures always complete.
                result: if is_last { if is_receive { result } else { result.map(|_| 0) } } else { Ok(0) },
                memory,
            });
            if is_last {
                return;
            }
        }
    }
}

/// A queue pair that was taken out, and the memory that it still has in flight.
pub struct Detached<B> {
    // The queue pair goes first, also when this is merely dropped.
    queue_pair: QueuePair,
    flushed: Vec<Completed<B>>,
}

impl<B> Detached<B> {
    /// Destroys the queue pair, after which the device has let go of the memory, and answers all that was
    /// outstanding, as flushed. If it cannot be destroyed, the memory is set aside for ever and not in the answer.
    pub fn destroy(mut self) -> Vec<Completed<B>> {
        if self.queue_pair.destroy().is_err() {
            for completed in &mut self.flushed {
                std::mem::forget(completed.memory.take());
            }
        }
        self.flushed
    }
}

impl<B> Refused<B> {
    fn new(error: Option<Error>, local: Local<'_, B>) -> Self {
        let memory = if let Local::Owned(memory) = local { Some(memory) } else { None };
        Self { error, memory }
    }
}

impl Staging {
    fn clear(&mut self) {
        self.entries.clear();
        self.requests.clear();
        self.segments.clear();
        self.inline.clear();
    }
}

/// Index of `bad` in `requests`; all of them if it points elsewhere, so that nothing is taken for unposted
/// that the device may hold.
fn position(requests: &[ffi::ibv_send_wr], bad: *const ffi::ibv_send_wr) -> usize {
    requests.iter().position(|request| std::ptr::eq(request, bad)).unwrap_or(requests.len())
}

fn demand(queue_pair: &QueuePair) -> u32 {
    let sizes = queue_pair.capabilities();
    sizes.sends.saturating_add(sizes.receives)
}

impl<B> fmt::Debug for OwningQueue<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwningQueue").field("pairs", &self.pairs.iter().flatten().count()).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Detached<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("outstanding", &self.flushed.len()).finish_non_exhaustive()
    }
}
