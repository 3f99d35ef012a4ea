//! The sending side of a queue pair: launching requests in order, and ending them in order.

use super::faults::Fault;
use super::node::NodeId;
use super::pair::{End, Ghost, Memory, Pair, PairId, Pending, Progress, Refusal, Standing, What};
use super::queue_state::{GUARANTEED, QueueId};
use super::responder::Carried;
use super::state::{Action, State};
use super::trace::Note;
use crate::transport::{ChannelKey, ChannelSizes, Failure, Operation};

/// What the peer's device, or its silence, has answered.
pub(super) type Outcome = Result<Option<Vec<u8>>, Refusal>;

/// Time without an answer before a packet is sent again, and how often that is done; see `transport::verbs`.
const ACK_TIMEOUT: u64 = 134_000_000;
const RETRIES: u32 = 7;
/// All of that together.
pub(super) const UNANSWERED: u64 = RETRIES as u64 * ACK_TIMEOUT;
/// The same where the peer has no receive.
const RNR_TIMER: u64 = 41_000_000;
const RNR_RETRIES: u32 = 6;

impl State {
    pub(super) fn open_pair(
        &mut self,
        node: NodeId,
        queue: QueueId,
        channel: ChannelKey,
        sizes: ChannelSizes,
    ) -> PairId {
        let pair = PairId(self.pairs.len());
        self.pairs.push(Some(Box::new(Pair {
            node,
            queue,
            channel: Some(channel),
            peer: None,
            standing: Standing::Initialized,
            sends: sizes.sends as usize,
            inline: sizes.inline as usize,
            segments: sizes.segments as usize,
            outstanding: 0,
            guaranteed: GUARANTEED.min(sizes.sends as usize),
            guaranteed_used: 0,
            common: 0,
            requests: Default::default(),
            unsignaled: Vec::new(),
            completed: Default::default(),
            received: Default::default(),
            next_sequence: 0,
            next_launch: 0,
            launched_at: 0,
            wire: Default::default(),
            wire_at: 0,
            is_arriving: false,
            is_stopped: false,
            is_patient: false,
            attempts: 0,
            not_ready: 0,
            sends_told_at: 0,
            receives_told_at: 0,
            is_withheld: false,
            is_told: false,
        })));
        self.note(Note::Opened { pair, node });
        pair
    }

    /// Posts requests to a pair, which takes them all.
    pub(super) fn post(&mut self, id: PairId, requests: impl IntoIterator<Item = Pending>) {
        for mut request in requests {
            let note = Note::Posted {
                pair: id,
                token: request.token,
                what: request.what.name(),
                length: request.memory.length(),
            };
            self.note(note);
            *self.statistics.requests.entry(request.what.name()).or_default() += 1;
            let most = self.settings.reads;
            let Some(pair) = self.pair(id) else { return self.discard(request) };
            request.sequence = pair.next_sequence;
            pair.next_sequence += 1;
            let reads = pair.requests.iter().filter(|known| known.what.is_read() && !known.has_ended()).count();
            let stalls = request.what.is_read() && pair.standing == Standing::Ready && reads >= most;
            pair.requests.push_back(request);
            if stalls {
                self.bug(format!("{id} has more than {most} reads and atomics outstanding: the channel stalls"));
            }
        }
        match self.pair(id).map(|pair| pair.standing) {
            Some(Standing::Failed) => self.flush_later(id),
            Some(Standing::Ready | Standing::Initialized) => self.launch(id),
            None => {}
        }
    }

    /// Begins what can be begun.
    pub(super) fn launch(&mut self, id: PairId) {
        loop {
            let now = self.now();
            let Some(pair) = self.pair(id).filter(|pair| pair.standing == Standing::Ready) else { return };
            let sequence = pair.next_launch;
            let Some(request) = pair.pending(sequence) else { return };
            let (what, is_fenced) = (request.what, request.is_fenced);
            let is_earlier_read =
                |known: &Pending| known.sequence < sequence && known.what.is_read() && !known.has_ended();
            if is_fenced && pair.requests.iter().any(is_earlier_read) {
                return;
            }
            let launch_after = pair.launched_at.max(now);
            let launched_at = launch_after + 1 + self.below(500);
            let arrives_after = launched_at + if let What::Remote(_) = what { self.wire_delay() } else { 0 };
            let Some(pair) = self.pair(id) else { return };
            pair.launched_at = launched_at;
            pair.next_launch += 1;
            if let Some(request) = pair.pending(sequence) {
                request.progress = Progress::Launched;
            }
            match what {
                What::Local(_) => self.at(launched_at, Action::Local(id, sequence)),
                What::Remote(_) => {
                    let arrives_at = arrives_after.max(pair.wire_at + 1);
                    pair.wire_at = arrives_at;
                    pair.wire.push_back((arrives_at, sequence));
                    if !std::mem::replace(&mut pair.is_arriving, true) {
                        self.at(arrives_at, Action::Arrive(id));
                    }
                }
            }
        }
    }

    /// A bind or an invalidation is carried out.
    pub(super) fn carry_out_locally(&mut self, id: PairId, sequence: u64) {
        let Some(pair) = self.pair(id).filter(|pair| pair.standing == Standing::Ready) else { return };
        let Some(Pending { what: What::Local(change), .. }) = pair.pending(sequence) else { return };
        let change = *change;
        self.change_window(id, change);
        let delay = 100 + self.below(2_000);
        self.after(delay, Action::Respond(id, sequence, Ok(None)));
    }

    /// The first request on the wire reaches the peer.
    pub(super) fn arrive(&mut self, id: PairId) {
        let Some(pair) = self.pair(id) else { return };
        let Some(&(_, sequence)) = pair.wire.front().filter(|_| pair.standing == Standing::Ready && !pair.is_stopped)
        else {
            pair.is_arriving = false;
            return;
        };
        let peer = pair.peer;
        let answers = peer.filter(|&peer| self.is_ready(peer));
        let Some(peer) = answers else { return self.try_again_later(id, sequence) };
        match self.carry_out(id, peer, sequence) {
            Carried::NotReady => {
                let Some(pair) = self.pair(id) else { return };
                pair.not_ready += 1;
                if pair.not_ready <= RNR_RETRIES {
                    return self.after(RNR_TIMER, Action::Arrive(id));
                }
                self.refused(id, sequence, Refusal::ReceiverNotReady);
            }
            Carried::Refused(refusal) => self.refused(id, sequence, refusal),
            Carried::Out(read) => {
                let delay = self.wire_delay();
                self.after(delay, Action::Respond(id, sequence, Ok(read)));
            }
            Carried::Later => {
                let delay = self.below(60_000);
                self.after(delay, Action::Sample(id, sequence));
            }
        }
        self.next_arrival(id);
    }

    /// What is behind the first request on the wire comes next.
    fn next_arrival(&mut self, id: PairId) {
        let now = self.now();
        let Some(pair) = self.pair(id) else { return };
        (pair.attempts, pair.not_ready) = (0, 0);
        pair.wire.pop_front();
        match pair.wire.front() {
            Some(&(arrives_at, _)) => self.at(arrives_at.max(now), Action::Arrive(id)),
            None => pair.is_arriving = false,
        }
    }

    /// Nobody answers.
    fn try_again_later(&mut self, id: PairId, sequence: u64) {
        let spread = self.below(ACK_TIMEOUT / 4);
        let Some(pair) = self.pair(id) else { return };
        if pair.is_patient {
            return;
        }
        pair.attempts += 1;
        if pair.attempts < RETRIES {
            return self.after(ACK_TIMEOUT + spread, Action::Arrive(id));
        }
        pair.is_arriving = false;
        self.refused(id, sequence, Refusal::RetryExceeded);
    }

    fn refused(&mut self, id: PairId, sequence: u64, refusal: Refusal) {
        if let Some(pair) = self.pair(id) {
            pair.is_stopped = true;
        }
        let delay = self.wire_delay();
        self.after(delay, Action::Respond(id, sequence, Err(refusal)));
    }

    /// An answer is there. Requests end in order.
    pub(super) fn answered(&mut self, id: PairId, sequence: u64, outcome: Outcome) {
        let Some(pair) = self.pair(id).filter(|pair| pair.standing == Standing::Ready) else { return };
        let Some(request) = pair.pending(sequence) else { return };
        request.progress = Progress::Ended(outcome);
        while self.end_first(id) {}
        // A fence may be open now.
        self.launch(id);
    }

    /// Ends the first request if its answer is there.
    fn end_first(&mut self, id: PairId) -> bool {
        let Some(pair) = self.pair(id).filter(|pair| pair.standing == Standing::Ready) else { return false };
        let Some(Pending { progress: Progress::Ended(_), .. }) = pair.requests.front() else { return false };
        let Some(request) = pair.requests.pop_front() else { return false };
        let Progress::Ended(outcome) = request.progress else { return false };
        let change = if let What::Local(change) = request.what { Some(change) } else { None };
        let mut memory = request.memory.into_transfer();
        match outcome {
            Ok(read) => {
                if let (Some(bytes), Some(memory)) = (read, &mut memory) {
                    let node = pair.node;
                    self.put(node, memory, &bytes);
                }
                let end = End { token: request.token, result: Ok(()), memory, change };
                self.tell(id, end, request.is_signaled);
                true
            }
            Err(refusal) => {
                pair.is_told = true;
                let end = End { token: request.token, result: Err(refusal.failure()), memory, change };
                self.tell(id, end, true);
                self.fail_pair(id, refusal.name());
                false
            }
        }
    }

    /// The end of a request becomes a completion, at once or with the next one.
    fn tell(&mut self, id: PairId, end: End, is_signaled: bool) {
        let how = match &end.result {
            Ok(()) => "done",
            Err(Failure::Flushed) => "flushed",
            Err(Failure::Broken(_)) => "broken",
        };
        self.note(Note::Completed { pair: id, token: end.token, how });
        let Some(pair) = self.pair(id) else { return self.discard(end) };
        pair.unsignaled.push(end);
        if !is_signaled {
            return;
        }
        let group = std::mem::take(&mut pair.unsignaled);
        pair.completed.push_back(group);
        let earliest = pair.sends_told_at + 1;
        let at = self.completion_time().max(earliest);
        if let Some(pair) = self.pair(id) {
            pair.sends_told_at = at;
        }
        self.at(at, Action::DeliverSend(id));
    }

    /// When a completion that is made now is written.
    pub(super) fn completion_time(&mut self) -> u64 {
        let delay = 50 + self.below(3_000);
        let late = if self.hit(Fault::Reorder) { self.below(300_000) } else { 0 };
        self.now() + delay + late
    }

    /// Moves a pair to the state of errors. What it has outstanding comes back flushed, if the driver tells.
    pub(super) fn fail_pair(&mut self, id: PairId, why: &'static str) {
        let Some(pair) = self.pair(id).filter(|pair| pair.standing != Standing::Failed) else { return };
        pair.standing = Standing::Failed;
        self.note(Note::Broke { pair: id, why });
        self.leave_ghosts(id);
        if let Some(queue) = self.pair(id).map(|pair| pair.queue)
            && self.hit(Fault::ReceiveLost)
        {
            self.lose_receive(queue);
        }
        let is_withheld = self.hit(Fault::WithheldFlush);
        if let Some(pair) = self.pair(id) {
            pair.is_withheld = is_withheld;
        }
        self.flush_later(id);
    }

    /// What is on the wire goes on without its requester, as far as chance wants.
    fn leave_ghosts(&mut self, id: PairId) {
        let Some(pair) = self.pair(id) else { return };
        let wire = std::mem::take(&mut pair.wire);
        let Some(to) = pair.peer.filter(|_| !pair.is_stopped) else { return };
        for (arrives_at, sequence) in wire {
            if self.below(2) == 0 {
                return;
            }
            let Some((operation, bytes)) = self.source(id, sequence) else { return };
            let at = arrives_at.max(self.now());
            self.at(at, Action::Ghost(Ghost { to, operation, bytes }));
        }
    }

    fn flush_later(&mut self, id: PairId) {
        if self.pair(id).is_some_and(|pair| !pair.is_withheld) {
            let delay = self.below(30_000);
            self.after(delay, Action::Flush(id));
        }
    }

    /// Ends all requests of a failed pair.
    pub(super) fn flush_pair(&mut self, id: PairId) {
        let Some(pair) = self.pair(id) else { return };
        let requests: Vec<_> = pair.requests.drain(..).collect();
        pair.is_told |= !requests.is_empty();
        for request in requests {
            self.tell(id, request.flushed(), true);
        }
    }

    /// A pair breaks for no reason that software could know.
    pub(super) fn break_some_pair(&mut self) {
        let is_ready = |pair: &Option<Box<Pair>>| pair.as_ref().is_some_and(|pair| pair.standing == Standing::Ready);
        let ready: Vec<_> = (0..self.pairs.len()).filter(|&index| is_ready(&self.pairs[index])).collect();
        if ready.is_empty() {
            return;
        }
        let id = PairId(ready[self.below(ready.len() as u64) as usize]);
        // With a request to blame, if there is one.
        if let Some(first) = self.pair(id).and_then(|pair| pair.requests.front_mut()) {
            first.progress = Progress::Ended(Err(Refusal::Injected));
            self.end_first(id);
        } else {
            self.fail_pair(id, Refusal::Injected.name());
        }
    }

    /// What a request sends or asks, with the bytes that its memory has now.
    pub(super) fn source(&mut self, id: PairId, sequence: u64) -> Option<(Operation, Vec<u8>)> {
        let pair = self.pairs.get(id.0)?.as_ref()?;
        let first = pair.requests.front()?.sequence;
        let request = pair.requests.get(usize::try_from(sequence.checked_sub(first)?).ok()?)?;
        let What::Remote(operation) = request.what else { return None };
        let bytes = match &request.memory {
            _ if request.what.is_read() => Vec::new(),
            Memory::Inline(bytes) => bytes.clone(),
            Memory::Owned(memory) => {
                let mut bytes = Vec::with_capacity(memory.length());
                memory.copy_to(&mut bytes);
                if let Err(what) = self.nodes[pair.node.0].books.check_local(memory, false) {
                    let what = format!("{id} sends from memory that it may not read: {what}");
                    self.bug(what);
                }
                bytes
            }
        };
        Some((operation, bytes))
    }
}

impl Pending {
    /// Whether its answer is there.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.progress, Progress::Ended(_))
    }
}
