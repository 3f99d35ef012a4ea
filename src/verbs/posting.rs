//! What is posted to an owning queue, and owned by it from then on.

use std::sync::Arc;

use super::operation_table::{Operation, Owner};
use super::{
    Error, InFlight, Local, OwningQueue, PostBatch, QueuePair, QueuePairKey, Refused, Remote, Result, Segment,
    SendFlags, SendList, SendRequest,
};

/// Requests on their way into one `ibv_post_send`, always of one queue pair.
#[derive(Default)]
pub(super) struct Staging {
    pub(super) pair: u32,
    pub(super) entries: Vec<u32>,
    list: SendList<'static>,
    inline: Vec<u8>,
}

impl<B: InFlight> OwningQueue<B> {
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
        if self.staging.pair != key.index() {
            // What fails there is reported there, by the next poll.
            let _ = self.flush();
            self.staging.pair = key.index();
        }
        if let Err(error) = self.fits(key, &request) {
            return Err(Refused::new(Some(error), request.local));
        }
        let flags = match self.room(key) {
            0 => return Err(Refused::new(None, request.local)),
            room if self.must_complete(room) => request.flags | SendFlags::SIGNALED,
            _ => request.flags,
        };
        let staging = &mut self.staging;
        let (token, operation, address) = (request.token, request.operation, request.operation.destination());
        let address = address.map(|to| Arc::clone(to.address));
        let enter =
            |memory| self.table.enter(Owner::Sends(key.index()), Operation { token, memory, address, window: None });
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
        self.take_room(key);
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
    /// [`NotPosted`](super::CompletionStatus::NotPosted), so the error need not be kept. A driver may fail and not say which
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
        self.room.give_back(&mut pair.share, staging.entries.len() as u32);
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
        let flags = if self.must_complete(self.room(key)) { flags | SendFlags::SIGNALED } else { flags };
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
        let pair = match self.pairs.get_mut(key.index() as usize) {
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
        let (index, wr_id) = self.table.enter(Owner::Sends(key.index()), operation);
        let answer = post(&pair.queue_pair, wr_id);
        if let Err((error, false)) = answer {
            return Err((Some(error), Some(self.table.leave(index))));
        }
        pair.sends.push_back(index);
        self.take_room(key);
        answer.map_err(|(error, _)| (Some(error), None))
    }

    /// Posts a receive.
    ///
    /// # Errors
    /// Answers the memory if the queue is full, the queue pair gone, its receives are shared, or the device refuses.
    pub fn post_receive(&mut self, key: QueuePairKey, token: u64, memory: B) -> std::result::Result<(), Refused<B>> {
        let Some(Some(pair)) = self.pairs.get_mut(key.index() as usize) else {
            let error = Error::invalid("ibv_post_recv", "the queue pair was removed");
            return Err(Refused { error: Some(error), memory: Some(memory) });
        };
        if pair.receives.len() >= pair.queue_pair.capabilities().receives as usize
            && pair.queue_pair.shared_receives().is_none()
        {
            return Err(Refused { error: None, memory: Some(memory) });
        }
        let operation = Operation { token, memory: Some(memory), address: None, window: None };
        let (index, wr_id) = self.table.enter(Owner::Receives(key.index()), operation);
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

    /// Whether a request must be signaled if there is `room` for it: one that fills the queue, which would stay full if nothing in it
    /// completed, and one that takes of what the queue pair is guaranteed, which only its own completions give back.
    #[inline]
    fn must_complete(&self, room: usize) -> bool {
        room == 1 || self.room.is_tight(self.completions.capacity())
    }

    /// Takes an entry of the completion queue for a send request.
    #[inline]
    fn take_room(&mut self, key: QueuePairKey) {
        if let Some(Some(pair)) = self.pairs.get_mut(key.index() as usize) {
            self.room.take(&mut pair.share, self.completions.capacity());
        }
    }
}

impl Staging {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.list.clear();
        self.inline.clear();
    }
}

/// The segments of a receive, together; `room` is for those that are several.
#[inline]
pub(super) fn with_segments<B: InFlight, R>(
    memory: Option<&B>,
    room: &mut Vec<Segment>,
    post: impl FnOnce(&[Segment]) -> R,
) -> R {
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
