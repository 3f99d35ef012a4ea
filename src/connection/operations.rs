//! The table of one-sided operations: who waits for what, under numbers that are never mistaken.

use std::task::{Poll, Waker};
use std::time::Instant;

use super::core::LinkKey;
use crate::Result;
use crate::memory::{Held, Transfer};
use crate::protocol::GrantId;
use crate::telemetry::OperationKind;
use crate::transport::Operation;

/// Names an operation; stale keys name nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OperationKey(u64);

/// How an operation ended, and its memory; without that, the device has not let go of it.
pub(super) type Outcome = (Result<()>, Option<Held>);

/// Generations of a slot; the highest bits of a token tell others from operations.
const GENERATIONS: u32 = 1 << 30;

#[derive(Default)]
pub(super) struct Operations {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    generation: u32,
    posted: Posted,
    state: State,
}

/// What is known of an operation that is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Posted {
    pub(super) link: LinkKey,
    pub(super) kind: OperationKind,
    /// Whose handle it uses.
    pub(super) grant: Option<GrantId>,
    /// Whether it counts among the reads that are outstanding.
    pub(super) is_read: bool,
    pub(super) bytes: u64,
    /// When, as the connections were last looked at.
    pub(super) at: Instant,
}

/// What an operation that has ended no longer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) grant: Option<GrantId>,
    pub(super) is_read: bool,
    pub(super) bytes: u64,
}

enum State {
    Free,
    /// Posted, and somebody will ask.
    Waited(Option<Waker>),
    /// Posted, and nobody will ask: the future was dropped.
    Detached,
    Done(Outcome),
}

/// What is left to do after a completion.
pub(super) enum Completed {
    /// Nobody wants the memory: its future was dropped.
    Unwanted(Held),
    /// Nobody waits yet.
    Unwatched,
    Waited(Waker),
}

impl OperationKey {
    pub(super) fn token(self) -> u64 {
        self.0
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }
}

impl Operations {
    /// Makes an entry for an operation.
    pub(super) fn insert(&mut self, posted: Posted) -> OperationKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, posted, state: State::Free });
            self.free.reserve(self.slots.len());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        (slot.posted, slot.state) = (posted, State::Waited(None));
        OperationKey(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// What the operation of `token` is called.
    pub(super) fn name(&mut self, token: u64) -> Option<&'static str> {
        self.get(OperationKey(token)).map(|slot| slot.posted.kind.name())
    }

    /// Takes back an operation that was not posted.
    pub(super) fn cancel(&mut self, key: OperationKey) {
        if self.get(key).is_some() {
            self.release(key);
        }
    }

    /// The completion of `token` has come; answers what is no longer used by it too.
    pub(super) fn complete(
        &mut self,
        token: u64,
        memory: Option<Transfer>,
        result: Result<()>,
    ) -> (Completed, Option<Ended>) {
        let key = OperationKey(token);
        let held = memory.map(Transfer::into_held);
        let unwanted = |held: Option<Held>| held.map_or(Completed::Unwatched, Completed::Unwanted);
        let Some(slot) = self.get(key) else { return (unwanted(held), None) };
        let Posted { grant, is_read, bytes, .. } = slot.posted;
        let ended = Some(Ended { grant, is_read, bytes });
        let waker = match &mut slot.state {
            State::Waited(waker) => waker.take(),
            State::Detached => {
                self.release(key);
                return (unwanted(held), ended);
            }
            State::Free | State::Done(_) => return (unwanted(held), None),
        };
        slot.state = State::Done((result, held));
        (waker.map_or(Completed::Unwatched, Completed::Waited), ended)
    }

    /// The outcome, once. Remembers `waker` if it is not there yet, and tells `true` if that is a new waiter.
    pub(super) fn poll(&mut self, key: OperationKey, waker: Option<&Waker>) -> (Poll<Outcome>, bool) {
        let slot = self.get(key).expect("an operation is asked for until it has answered");
        match &mut slot.state {
            State::Waited(known) => {
                let Some(waker) = waker else { return (Poll::Pending, false) };
                let is_new = known.is_none();
                if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    *known = Some(waker.clone());
                }
                (Poll::Pending, is_new)
            }
            State::Done(_) => match self.release(key) {
                State::Done(outcome) => (Poll::Ready(outcome), false),
                _ => unreachable!("matched above"),
            },
            State::Free | State::Detached => unreachable!("only a live future asks"),
        }
    }

    /// Nobody will ask any more. Answers whether a waiter went, and the memory that nobody wants now.
    pub(super) fn detach(&mut self, key: OperationKey) -> (bool, Option<Held>) {
        let Some(slot) = self.get(key) else { return (false, None) };
        match &mut slot.state {
            State::Waited(waker) => {
                let had_waiter = waker.is_some();
                slot.state = State::Detached;
                (had_waiter, None)
            }
            _ => match self.release(key) {
                State::Done((_, held)) => (false, held),
                _ => (false, None),
            },
        }
    }

    /// Those of a link that have not ended, and whether nobody waits for them.
    pub(super) fn in_flight(&self, link: LinkKey) -> impl Iterator<Item = (Posted, bool)> + '_ {
        self.slots.iter().filter(move |slot| slot.posted.link == link).filter_map(|slot| match slot.state {
            State::Waited(_) => Some((slot.posted, false)),
            State::Detached => Some((slot.posted, true)),
            State::Free | State::Done(_) => None,
        })
    }

    /// How many have not ended, of all links.
    #[cfg(feature = "metrics")]
    pub(super) fn count_in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.state, State::Waited(_) | State::Detached)).count()
    }

    fn get(&mut self, key: OperationKey) -> Option<&mut Slot> {
        let generation = (key.0 >> 32) as u32;
        let slot = self.slots.get_mut(key.index())?;
        (slot.generation == generation && !matches!(slot.state, State::Free)).then_some(slot)
    }

    fn release(&mut self, key: OperationKey) -> State {
        let slot = &mut self.slots[key.index()];
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(key.index() as u32);
        std::mem::replace(&mut slot.state, State::Free)
    }
}

/// What an operation is called.
pub(super) fn kind_of(operation: &Operation) -> OperationKind {
    match operation {
        Operation::CompareSwap { .. } => OperationKind::CompareSwap,
        Operation::FetchAdd { .. } => OperationKind::FetchAdd,
        // Frames are not in the table.
        Operation::Probe | Operation::Send => OperationKind::Flush,
        Operation::Read { .. } => OperationKind::Read,
        Operation::Write { .. } => OperationKind::Write,
        Operation::WriteNotify { .. } => OperationKind::WriteNotify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Scope;

    const GRANT: GrantId = GrantId { scope: Scope::Connection, slot: 1, generation: 2 };

    fn posted() -> Posted {
        let kind = OperationKind::Read;
        Posted { link: LinkKey::default(), kind, grant: Some(GRANT), is_read: true, bytes: 7, at: Instant::now() }
    }

    #[test]
    fn a_stale_key_names_nothing() {
        let mut operations = Operations::default();
        let old = operations.insert(posted());
        operations.cancel(old);
        let new = operations.insert(posted());
        assert_eq!(old.index(), new.index());
        assert_ne!(old, new);
        assert!(matches!(operations.complete(old.token(), None, Ok(())), (Completed::Unwatched, None)));
        assert!(!operations.detach(old).0);
        assert!(operations.poll(new, None).0.is_pending());
    }

    #[test]
    fn a_detached_operation_frees_its_slot_and_its_grant_when_it_completes() {
        let mut operations = Operations::default();
        let key = operations.insert(posted());
        let (pending, is_new) = operations.poll(key, Some(Waker::noop()));
        assert!(pending.is_pending() && is_new);
        assert!(operations.detach(key).0);
        let in_flight = |operations: &Operations| operations.in_flight(LinkKey::default()).collect::<Vec<_>>();
        assert!(matches!(in_flight(&operations)[..], [(Posted { bytes: 7, .. }, true)]));
        assert!(matches!(
            operations.complete(key.token(), None, Ok(())),
            (Completed::Unwatched, Some(Ended { grant: Some(GRANT), is_read: true, bytes: 7 }))
        ));
        assert_eq!((operations.free.len(), in_flight(&operations).len()), (1, 0));
        assert!(matches!(operations.complete(key.token(), None, Ok(())), (Completed::Unwatched, None)), "only once");
    }
}
