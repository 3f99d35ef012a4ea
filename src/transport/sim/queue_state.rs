//! The state of a queue: channels, completions that wait, receives that its channels share.

use std::collections::VecDeque;

use super::faults::Fault;
use super::node::NodeId;
use super::pair::{End, Memory, PairId, Pending, Progress, Refusal, Standing, What};
use super::state::{Action, State};
use super::trace::Note;
use super::windows::WindowChange;
use crate::memory::Transfer;
use crate::transport::{ChannelKey, Completion, Failure};
use crate::{Error, ErrorKind};

/// Which part of the completions is for receives.
pub(super) const RECEIVES_SHARE: usize = 2;
/// Requests that every channel can have outstanding, whatever the others have.
pub(super) const GUARANTEED: usize = 8;
/// How long there is no channel before the receives that the last ones have left are taken back, in nanoseconds.
const IDLE: u64 = 1_000_000_000;
/// After what time a lost receive is told of.
const OVERTAKEN: u64 = 10_000_000_000;
/// Completions that one poll answers.
const POLL: usize = 16;
/// Names no channel.
const NONE: ChannelKey = ChannelKey(u32::MAX);
/// How long a channel says that it is full, at most.
const LONGEST_FULL: u64 = 50_000;

/// Names a queue of a world; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueId(pub(super) usize);

pub(super) struct QueueState {
    pub(super) node: NodeId,
    /// Pairs by channel.
    pub(super) channels: Vec<Option<PairId>>,
    /// Completions that are written and not polled.
    ready: VecDeque<Ready>,
    pub(super) capacity: usize,
    /// Of the completions: for receives, for what each channel is guaranteed, and for requests beyond that.
    pub(super) reserved: usize,
    /// Requests that were not posted, to be told by the next poll.
    pub(super) unposted: Vec<(PairId, Pending)>,
    pub(super) staged: Option<(PairId, Vec<Pending>)>,
    pub(super) receives: VecDeque<(u64, Transfer)>,
    pub(super) most_receives: usize,
    /// Receives that were posted and not told.
    pub(super) receives_outstanding: usize,
    /// Receives that broken pairs have taken along, since when, and those of which that was told.
    lost: Vec<(u64, Transfer)>,
    told_lost: Vec<Transfer>,
    /// What was told of and not polled yet, and what the last poll has told: until the next, others may not be posted.
    is_to_be_told: bool,
    was_just_told: bool,
    pub(super) not_ready_until: u64,
    /// A channel that says that it is full, and until when.
    full: Option<(PairId, u64)>,
    /// Since when there is no channel.
    idle_since: Option<u64>,
    pub(super) is_armed: bool,
    pub(super) on_event: Option<Box<dyn FnMut() + Send>>,
}

/// A completion that is there.
pub(super) enum Ready {
    Receive {
        pair: PairId,
        token: u64,
        memory: Transfer,
        result: std::result::Result<u32, ()>,
        immediate: Option<u32>,
    },
    /// The next of this pair.
    Send(PairId),
}

impl QueueState {
    pub(super) fn new(node: NodeId, capacity: usize) -> Self {
        let most_receives = capacity / RECEIVES_SHARE;
        Self {
            node,
            channels: Vec::new(),
            ready: VecDeque::new(),
            capacity,
            reserved: most_receives,
            unposted: Vec::new(),
            staged: None,
            receives: VecDeque::new(),
            most_receives,
            receives_outstanding: 0,
            lost: Vec::new(),
            told_lost: Vec::new(),
            is_to_be_told: false,
            was_just_told: false,
            not_ready_until: 0,
            full: None,
            idle_since: None,
            is_armed: false,
            on_event: None,
        }
    }

    /// Whether there are fewer receives than their owner believes, or has just been told and posts others.
    pub(super) fn has_lost_some(&self) -> bool {
        !self.lost.is_empty() || self.is_to_be_told || self.was_just_told
    }

    /// A poll begins: what the one before has told was seen to.
    pub(super) fn losses_are_made_up_for(&mut self) {
        self.was_just_told = false;
    }

    /// A poll answers all that was found.
    pub(super) fn losses_are_told(&mut self) {
        self.was_just_told |= std::mem::take(&mut self.is_to_be_told);
    }

    pub(super) fn pair(&self, channel: ChannelKey) -> Option<PairId> {
        self.channels.get(channel.0 as usize).copied().flatten()
    }

    /// Whether everything of it was taken back.
    pub(super) fn pairs(&self) -> usize {
        self.channels.iter().flatten().count()
    }
}

impl State {
    /// A completion of a receive is written.
    pub(super) fn completion_arrives(&mut self, id: QueueId, ready: Ready) {
        let delay = 100 + self.below(20_000);
        let Some(queue) = self.queue(id) else { return self.discard(ready) };
        queue.ready.push_back(ready);
        let is_overrun = queue.ready.len() > queue.capacity;
        if std::mem::take(&mut queue.is_armed) {
            self.after(delay, Action::Notice(id));
        }
        if is_overrun {
            self.bug(format!("completion queue {} is overrun", id.0));
        }
    }

    /// The completion of a pair's next receive is written.
    pub(super) fn receive_completion_arrives(&mut self, id: PairId) {
        if let Some(pair) = self.pair(id)
            && let Some(ready) = pair.received.pop_front()
        {
            let queue = pair.queue;
            self.completion_arrives(queue, ready);
        }
    }

    pub(super) fn send_completion_arrives(&mut self, pair: PairId) {
        if let Some(queue) = self.pair(pair).map(|pair| pair.queue) {
            self.completion_arrives(queue, Ready::Send(pair));
        }
    }

    /// Somebody is to look at the events of a queue.
    pub(super) fn notice(&mut self, id: QueueId) {
        if self.queue(id).is_some() && !self.notices.contains(&id) {
            self.notices.push(id);
        }
    }

    pub(super) fn poll(&mut self, id: QueueId, done: &mut Vec<Completion>) -> bool {
        self.devices_go_on();
        let Some(queue) = self.queue(id) else { return false };
        for (pair, request) in std::mem::take(&mut queue.unposted) {
            let channel = self.pair(pair).and_then(|pair| pair.channel).unwrap_or(NONE);
            self.give_back(pair, 1);
            let mut end = request.flushed();
            end.result = Err(Refusal::Injected.failure());
            self.told(channel, end, done);
        }
        let mut polled = 0;
        while polled < POLL
            && let Some(ready) = self.queue(id).and_then(|queue| queue.ready.pop_front())
        {
            polled += 1;
            match ready {
                Ready::Receive { pair, token, memory, result, immediate } => {
                    if let Some(queue) = self.queue(id) {
                        queue.receives_outstanding -= 1;
                    }
                    let channel = self.pair(pair).and_then(|pair| pair.channel).unwrap_or(NONE);
                    let too_long = |()| {
                        let error = Error::new(ErrorKind::Protocol, "complete").with_detail("longer than the receive");
                        Failure::Broken(error)
                    };
                    let result = result.map_err(too_long);
                    done.push(Completion { token, channel, is_receive: true, result, immediate, memory: Some(memory) });
                }
                Ready::Send(pair) => {
                    // What was taken out comes back with its end.
                    let Some(known) = self.pair(pair).filter(|pair| pair.channel.is_some()) else { continue };
                    let channel = known.channel.unwrap_or(NONE);
                    let ends = known.completed.pop_front().unwrap_or_default();
                    self.give_back(pair, ends.len());
                    for end in ends {
                        self.told(channel, end, done);
                    }
                }
            }
        }
        polled > 0
    }

    fn told(&mut self, channel: ChannelKey, end: End, done: &mut Vec<Completion>) {
        if let Some(change) = end.change {
            self.window_changed(change, end.result.is_ok());
        }
        done.push(end.completion(channel));
    }

    /// Posts what is staged; answers whether the device took it all.
    pub(super) fn flush_staged(&mut self, id: QueueId) -> bool {
        let Some((pair, mut requests)) = self.queue(id).and_then(|queue| queue.staged.take()) else { return true };
        let taken = (0..requests.len()).find(|_| self.hit(Fault::PostRefused)).unwrap_or(requests.len());
        let refused: Vec<_> = requests.drain(taken..).map(|request| (pair, request)).collect();
        self.post(pair, requests);
        let is_whole = refused.is_empty();
        if let Some(queue) = self.queue(id) {
            queue.unposted.extend(refused);
        }
        is_whole
    }

    /// The pair of a channel, ready to be posted to.
    pub(super) fn postable(&mut self, id: QueueId, channel: ChannelKey) -> std::result::Result<PairId, Error> {
        let pair = self.queue(id).and_then(|queue| queue.pair(channel));
        let pair = pair.ok_or_else(|| refused("the queue pair was removed"))?;
        match self.pair(pair).map(|pair| pair.standing) {
            None | Some(Standing::Initialized) => Err(refused("the queue pair was not yet moved to state RTS")),
            Some(Standing::Ready | Standing::Failed) => Ok(pair),
        }
    }

    /// Requests that a channel still takes.
    pub(super) fn room(&mut self, id: QueueId, channel: ChannelKey) -> usize {
        let Some(queue) = self.queue(id) else { return 0 };
        let common = queue.capacity - queue.reserved;
        let Some(pair) = queue.pair(channel) else { return 0 };
        self.pair(pair).map_or(0, |pair| {
            let completions = common + pair.guaranteed - pair.guaranteed_used;
            pair.sends.saturating_sub(pair.outstanding).min(completions)
        })
    }

    /// So many requests have been told of.
    fn give_back(&mut self, id: PairId, requests: usize) {
        let Some(pair) = self.pair(id) else { return };
        pair.outstanding -= requests;
        let guaranteed = requests.min(pair.guaranteed_used);
        pair.guaranteed_used -= guaranteed;
        pair.common -= requests - guaranteed;
        let queue = pair.queue;
        if let Some(queue) = self.queue(queue) {
            queue.reserved -= requests - guaranteed;
        }
    }

    /// Whether the channel says that it is full though it is not: only while something of it will complete.
    pub(super) fn seems_full(&mut self, id: QueueId, channel: ChannelKey) -> bool {
        let now = self.now();
        let Some(queue) = self.queue(id) else { return false };
        let Some(pair) = queue.pair(channel) else { return false };
        let is_full = queue.full.is_some_and(|(full, until)| full == pair && until > now);
        let will_complete = self.pair(pair).is_some_and(|pair| {
            pair.standing == Standing::Ready && pair.requests.iter().any(|request| request.is_signaled)
        });
        if !will_complete || (!is_full && !self.hit(Fault::QueueFull)) {
            return false;
        }
        if !is_full {
            let until = now + self.below(LONGEST_FULL);
            if let Some(queue) = self.queue(id) {
                queue.full = Some((pair, until));
            }
        }
        true
    }

    /// Adds a request to the staged ones of its channel.
    pub(super) fn stage(&mut self, id: QueueId, pair: PairId, mut request: Pending) {
        let is_tight = self.queue(id).is_some_and(|queue| {
            let is_tight = queue.reserved >= queue.capacity;
            queue.reserved += usize::from(!is_tight);
            is_tight
        });
        let Some(known) = self.pair(pair) else { return self.discard(request) };
        known.outstanding += 1;
        *if is_tight { &mut known.guaranteed_used } else { &mut known.common } += 1;
        // What fills the queue completes, or it would stay full if nothing in it were signaled; and so does what takes of the last.
        request.is_signaled |= is_tight || known.outstanding >= known.sends;
        if let Some(queue) = self.queue(id) {
            queue.staged.get_or_insert_with(|| (pair, Vec::new())).1.push(request);
        }
    }

    /// Breaks what has failed by itself without anybody being told.
    pub(super) fn tend(&mut self, id: QueueId) -> Vec<Completion> {
        let mut found = self.release_receives(id);
        let channels = self.queue(id).map(|queue| queue.channels.clone()).unwrap_or_default();
        for pair in channels.into_iter().flatten() {
            if let Some(pair) = self.pair(pair).filter(|pair| pair.standing == Standing::Failed && !pair.is_told) {
                pair.is_told = true;
                found.push(Completion {
                    token: 0,
                    channel: pair.channel.unwrap_or(NONE),
                    is_receive: true,
                    result: Err(Failure::Flushed),
                    immediate: None,
                    memory: None,
                });
            }
        }
        found
    }

    /// A pair breaks, and a receive goes with it.
    pub(super) fn lose_receive(&mut self, id: QueueId) {
        let now = self.now();
        if let Some(queue) = self.queue(id)
            && let Some((_, memory)) = queue.receives.pop_front()
        {
            queue.lost.push((now, memory));
        }
    }

    /// Takes back what is posted when there has been no channel for some time, and tells of what was lost.
    fn release_receives(&mut self, id: QueueId) -> Vec<Completion> {
        let now = self.now();
        let Some(queue) = self.queue(id) else { return Vec::new() };
        let completion = |memory| Completion {
            token: 0,
            channel: NONE,
            is_receive: true,
            result: Err(Failure::Flushed),
            immediate: None,
            memory,
        };
        let mut found = Vec::new();
        for (_, memory) in queue.lost.extract_if(.., |(since, _)| now - *since >= OVERTAKEN) {
            queue.receives_outstanding -= 1;
            queue.told_lost.push(memory);
            queue.is_to_be_told = true;
            found.push(completion(None));
        }
        if queue.pairs() > 0 || (queue.receives.is_empty() && queue.lost.is_empty() && queue.told_lost.is_empty()) {
            queue.idle_since = None;
        } else if now - *queue.idle_since.get_or_insert(now) >= IDLE {
            let told = queue.told_lost.drain(..).map(|memory| (false, memory));
            let lost = queue.lost.drain(..).map(|(_, memory)| (true, memory));
            let posted = queue.receives.drain(..).map(|(_, memory)| (true, memory));
            for (is_outstanding, memory) in told.chain(lost).chain(posted) {
                queue.receives_outstanding -= usize::from(is_outstanding);
                found.push(completion(Some(memory)));
            }
        }
        found
    }

    /// Ends a pair that was taken out.
    pub(super) fn destroy_pair(&mut self, id: PairId) -> Vec<End> {
        self.end_windows_of(id);
        let Some(mut pair) = self.pairs[id.0].take() else { return Vec::new() };
        self.note(Note::Closed { pair: id });
        // Nothing is written any more when it is gone.
        for ready in std::mem::take(&mut pair.received) {
            self.completion_arrives(pair.queue, ready);
        }
        if let Some(queue) = self.queue(pair.queue) {
            queue.reserved -= pair.guaranteed + pair.common;
            queue.ready.retain(|ready| !matches!(ready, Ready::Send(of) if *of == id));
        }
        pair.remains()
    }

    /// Posts a request for a window; answers whether the device took it.
    pub(super) fn post_alone(&mut self, id: QueueId, pair: PairId, token: u64, change: WindowChange) -> bool {
        if self.hit(Fault::PostRefused) {
            return false;
        }
        self.take_alone(id, pair, token, change);
        true
    }

    pub(super) fn take_alone(&mut self, id: QueueId, pair: PairId, token: u64, change: WindowChange) {
        let memory = Memory::Inline(Vec::new());
        let what = What::Local(change);
        let pending = Pending {
            sequence: 0,
            token,
            what,
            memory,
            is_signaled: true,
            is_fenced: false,
            progress: Progress::Posted,
        };
        self.stage(id, pair, pending);
        if let Some((pair, requests)) = self.queue(id).and_then(|queue| queue.staged.take()) {
            self.post(pair, requests);
        }
    }
}

pub(super) fn refused(detail: &str) -> Error {
    Error::new(ErrorKind::Other, "post").with_detail(detail)
}
