//! The serving side of a queue pair: what a device does with a request that comes in.

use std::sync::Arc;

use super::faults::Fault;
use super::node::NodeId;
use super::pair::{Ghost, PairId, Refusal, What};
use super::queue_state::Ready;
use super::requester::UNANSWERED;
use super::settings::Planted;
use super::state::{Action, State};
use super::trace::Note;
use crate::Access;
use crate::memory::{Registrable, Transfer, volatile};
use crate::transport::Operation;

/// What has become of a request at its target.
pub(super) enum Carried {
    /// It will be read a little later.
    Later,
    /// There was no receive.
    NotReady,
    /// It was carried out, with what was read.
    Out(Option<Vec<u8>>),
    Refused(Refusal),
}

/// How long a target finds no receive, at most: somewhat more than the requester tries.
const LONGEST_RNR: u64 = 320_000_000;

impl State {
    /// Carries out a request of `id` at its peer.
    pub(super) fn carry_out(&mut self, id: PairId, peer: PairId, sequence: u64) -> Carried {
        let Some((operation, bytes)) = self.source(id, sequence) else { return Carried::Out(None) };
        let Some((token, length)) =
            self.pair(id).and_then(|pair| pair.pending(sequence)).map(|known| (known.token, known.memory.length()))
        else {
            return Carried::Out(None);
        };
        let carried = self.act(peer, operation, &bytes, length);
        let how = match &carried {
            Carried::Later => "to be read later",
            Carried::NotReady => "no receive",
            Carried::Out(_) => "done",
            Carried::Refused(refusal) => refusal.name(),
        };
        self.note(Note::Done { pair: id, token, what: What::Remote(operation).name(), length, how });
        if let Carried::Refused(refusal) = &carried {
            self.fail_pair(peer, refusal.name());
        }
        carried
    }

    /// A request comes in whose requester has failed meanwhile: nobody hears of it.
    pub(super) fn ghost_arrives(&mut self, ghost: Ghost) {
        if self.is_ready(ghost.to)
            && let Carried::Refused(refusal) = self.act(ghost.to, ghost.operation, &ghost.bytes, ghost.bytes.len())
        {
            self.fail_pair(ghost.to, refusal.name());
        }
    }

    /// Does what `operation` asks of the end `at`.
    fn act(&mut self, at: PairId, operation: Operation, bytes: &[u8], length: usize) -> Carried {
        match operation {
            Operation::Probe => Carried::Out(None),
            Operation::Send => self.receive(at, bytes, None),
            Operation::Write { address, key } => match self.target(at, key, address, length, Access::WRITE) {
                Ok(target) => {
                    store(target, bytes);
                    Carried::Out(None)
                }
                Err(()) => Carried::Refused(Refusal::RemoteAccess),
            },
            Operation::WriteNotify { address, key, value } => {
                match self.target(at, key, address, length, Access::WRITE) {
                    Ok(target) if self.has_receive(at) => {
                        store(target, bytes);
                        self.receive(at, &[], Some((value, length as u32)))
                    }
                    // Nothing of it is done before there is a receive.
                    Ok(_) => self.receive(at, &[], Some((value, length as u32))),
                    Err(()) => Carried::Refused(Refusal::RemoteAccess),
                }
            }
            Operation::Read { address, key } => match self.target(at, key, address, length, Access::READ) {
                // What follows on the channel may overtake the reading.
                Ok(_) if self.below(2) == 0 => Carried::Later,
                Ok(target) => Carried::Out(Some(load(target, length))),
                Err(()) => Carried::Refused(Refusal::RemoteAccess),
            },
            Operation::FetchAdd { address, key, add } => {
                self.change_word(at, address, key, |old| old.wrapping_add(add))
            }
            Operation::CompareSwap { address, key, compare, swap } => {
                self.change_word(at, address, key, |old| if old == compare { swap } else { old })
            }
        }
    }

    /// A read that was put off is done, if it still may be.
    pub(super) fn read_late(&mut self, id: PairId, sequence: u64) {
        let Some(pair) = self.pair(id) else { return };
        let (Some(peer), Some(request)) = (pair.peer, pair.pending(sequence)) else { return };
        let What::Remote(Operation::Read { address, key }) = request.what else { return };
        let length = request.memory.length();
        if !self.is_ready(peer) {
            // What was asked is asked again, and nobody answers.
            if let Some(pair) = self.pair(id) {
                pair.is_stopped = true;
                if pair.is_patient {
                    return;
                }
            }
            return self.after(UNANSWERED, Action::Respond(id, sequence, Err(Refusal::RetryExceeded)));
        }
        let outcome = match self.target(peer, key, address, length, Access::READ) {
            Ok(target) => Ok(Some(load(target, length))),
            Err(()) => {
                self.fail_pair(peer, Refusal::RemoteAccess.name());
                if let Some(pair) = self.pair(id) {
                    pair.is_stopped = true;
                }
                Err(Refusal::RemoteAccess)
            }
        };
        let delay = self.wire_delay();
        self.after(delay, Action::Respond(id, sequence, outcome));
    }

    fn change_word(&mut self, at: PairId, address: u64, key: u32, change: impl FnOnce(u64) -> u64) -> Carried {
        if !address.is_multiple_of(8) {
            return Carried::Refused(Refusal::RemoteInvalid);
        }
        match self.target(at, key, address, 8, Access::ATOMIC) {
            Ok(target) => {
                let old = load(target.clone(), 8);
                let mut word = [0; 8];
                word.copy_from_slice(&old);
                store(target, &change(u64::from_ne_bytes(word)).to_ne_bytes());
                Carried::Out(Some(old))
            }
            Err(()) => Carried::Refused(Refusal::RemoteAccess),
        }
    }

    /// The memory that `key` opens to the peer of `at`, and where in it `address` is. Of no bytes no device looks at the key.
    fn target(&mut self, at: PairId, key: u32, address: u64, length: usize, right: Access) -> Result<Target, ()> {
        if length == 0 {
            return Ok(None);
        }
        let node = self.pair(at).map(|pair| pair.node).ok_or(())?;
        self.find_remote(node, at, key, address, length, right).map(Some)
    }

    fn has_receive(&mut self, at: PairId) -> bool {
        let now = self.now();
        let queue = self.pair(at).map(|pair| pair.queue).and_then(|queue| self.queue(queue));
        queue.is_some_and(|queue| queue.not_ready_until <= now && !queue.receives.is_empty())
    }

    /// A message, or the notice of a write of so many bytes, takes the next receive.
    fn receive(&mut self, at: PairId, bytes: &[u8], notice: Option<(u32, u32)>) -> Carried {
        let Some((queue, node)) = self.pair(at).map(|pair| (pair.queue, pair.node)) else { return Carried::NotReady };
        let now = self.now();
        if self.queue(queue).is_some_and(|queue| queue.not_ready_until <= now) && self.hit(Fault::Rnr) {
            let until = now + self.below(LONGEST_RNR);
            if let Some(queue) = self.queue(queue) {
                queue.not_ready_until = until;
            }
        }
        if !self.has_receive(at) {
            let is_injected =
                self.queue(queue).is_some_and(|queue| queue.not_ready_until > now || queue.has_lost_some());
            let count = if is_injected { &mut self.statistics.injected_rnr } else { &mut self.statistics.rnr };
            *count += 1;
            return Carried::NotReady;
        }
        let Some((token, memory)) = self.queue(queue).and_then(|queue| queue.receives.pop_front()) else {
            return Carried::NotReady;
        };
        if notice.is_none() && bytes.len() > memory.length() {
            self.received(at, token, memory, Err(()), None);
            return Carried::Refused(Refusal::RemoteInvalid);
        }
        let mut memory = memory;
        if notice.is_none() {
            self.put_message(node, &mut memory, bytes);
        }
        let length = notice.map_or(bytes.len() as u32, |(_, length)| length);
        self.received(at, token, memory, Ok(length), notice.map(|(value, _)| value));
        if self.settings.planted == Some(Planted::DoubleCompletion)
            && self.below(20) == 0
            && let Some((token, memory)) = self.queue(queue).and_then(|queue| queue.receives.pop_front())
        {
            self.received(at, token, memory, Ok(length), None);
        }
        Carried::Out(None)
    }

    /// Puts a message into its receive, with the bugs that were planted.
    fn put_message(&mut self, node: NodeId, memory: &mut Transfer, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let planted = self.settings.planted;
        match planted {
            Some(Planted::ReusedBuffer) if self.below(20) == 0 => return,
            // Bytes 2 and 3 of a frame are the credits that it gives back; one of kind 2 has nothing else.
            Some(Planted::LostCredit) if bytes.len() >= 8 && bytes[0] != 2 && self.below(4) == 0 => {
                bytes[2..4].fill(0);
            }
            _ => {}
        }
        self.put(node, memory, &bytes);
    }

    /// A receive has ended.
    fn received(&mut self, at: PairId, token: u64, memory: Transfer, result: Result<u32, ()>, immediate: Option<u32>) {
        self.note(Note::Received { pair: at, length: result.unwrap_or_default() as usize });
        let Some(earliest) = self.pair(at).map(|pair| pair.receives_told_at + 1) else {
            return self.discard(memory);
        };
        let time = self.completion_time().max(earliest);
        if let Some(pair) = self.pair(at) {
            pair.receives_told_at = time;
            pair.received.push_back(Ready::Receive { pair: at, token, memory, result, immediate });
        }
        self.at(time, Action::DeliverReceive(at));
    }

    /// Puts bytes into memory of our own, as a device does.
    pub(super) fn put(&mut self, node: NodeId, memory: &mut Transfer, bytes: &[u8]) {
        if let Err(what) = self.nodes[node.0].books.check_local(memory, true) {
            return self.bug(format!("{node} receives into memory that it may not write: {what}"));
        }
        if !memory.fill(bytes) {
            self.bug(format!("{node} receives into memory that others may read, or is too short"));
        }
    }
}

/// Memory and a place in it; `None` for no bytes.
type Target = Option<(Arc<dyn Registrable>, usize)>;

fn load(target: Target, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if let Some((memory, offset)) = target {
        volatile::in_turn(&*memory, false, || volatile::load(&*memory, offset, &mut bytes));
    }
    bytes
}

fn store(target: Target, bytes: &[u8]) {
    if let Some((memory, offset)) = target {
        volatile::in_turn(&*memory, true, || volatile::store(&*memory, offset, bytes));
    }
}
