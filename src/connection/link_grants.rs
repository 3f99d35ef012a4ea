//! The grants of one connection: those that we made for the peer, and what we hold of its.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::later_span::{self, LaterSpan, Told, What};
use super::spans::Identity;
use crate::memory::{GrantState, Registration, Revocation};
use crate::protocol::{GrantId, GrantSlots, Held, Revoking, Scope, named};
use crate::telemetry::{Count, Tally};
use crate::transport::WindowKey;

/// Tokens of requests for windows have this bit, which those of operations have not.
const GRANT: u64 = 1 << 63;
const INVALIDATION: u64 = 1 << 62;
/// Tokens of requests to revoke have this bit, and not that of grants.
const REQUEST: u64 = 1 << 62;

/// A grant to the peer of this connection.
pub(super) struct OwnedGrant {
    pub(super) id: GrantId,
    /// When, as the connections were last looked at.
    pub(super) opened_at: Instant,
    /// Bytes that it opens.
    pub(super) length: u64,
    /// Of its revocation, once that has begun.
    pub(super) trace: Option<LaterSpan>,
    pub(super) state: Arc<GrantState>,
    /// Holds the memory until no peer can reach it.
    pub(super) region: Option<Arc<dyn Registration>>,
    /// `None` for a grant that is a region.
    pub(super) window: Option<WindowKey>,
    pub(super) phase: Phase,
    pub(super) lease: Option<Instant>,
    /// What the holder has to agree, once asked.
    pub(super) patience: Duration,
    /// Whether the holder has been asked and has not answered: its slot is not used again before that.
    pub(super) is_asked: bool,
    pub(super) is_agreed: bool,
    /// Whether it is of a long message, which the peer lets go by itself.
    pub(super) is_offer: bool,
    /// Whether the holder accesses the memory by itself.
    pub(super) is_direct: bool,
    /// Bytes of the long message, once it is offered.
    pub(super) offered: u64,
}

impl OwnedGrant {
    /// When something is due for it.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Live => self.lease,
            Phase::Asking { until, .. } | Phase::Closing { until } | Phase::Closed { until } => Some(until),
            Phase::Binding { unwanted } => unwanted,
            Phase::Deregistering | Phase::Over => None,
        }
    }

    /// It is over; answers what a subscriber is to be told.
    pub(super) fn tell_end(&mut self, tally: &mut Tally) -> Option<Told> {
        let (outcome, count) =
            if self.is_agreed { ("agreed", Count::GrantsAgreed) } else { ("forced", Count::GrantsForced) };
        tally.add(count, u64::from(!self.is_offer));
        self.trace.take()?.end(outcome)
    }

    /// How it ends, now that its region goes; the state knows from here on if it is with consent.
    pub(super) fn how(&self) -> Revocation {
        if !self.is_agreed {
            return Revocation::Forced;
        }
        self.state.agreed();
        Revocation::Agreed
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its key is being made; until when it must be there, if it is to be taken back at once.
    Binding {
        unwanted: Option<Instant>,
    },
    Live,
    /// The holder is asked. The time counts from when the question has reached its device, for which there is a bound too.
    Asking {
        until: Instant,
        latest: Instant,
    },
    /// Its key is to be made invalid, as soon as there is room for the request.
    Closing {
        until: Instant,
    },
    /// The request is posted.
    Closed {
        until: Instant,
    },
    /// Its region is being deregistered, which takes what it takes: no end of a connection would hasten it.
    Deregistering,
    /// Ended; the holder has still to say that it knows.
    Over,
}

/// What a token of a window's request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GrantToken {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) is_invalidation: bool,
}

impl GrantToken {
    pub(super) fn of(id: GrantId, is_invalidation: bool) -> Self {
        Self { slot: id.slot, generation: id.generation, is_invalidation }
    }

    pub(super) fn to_token(self) -> u64 {
        let kind = if self.is_invalidation { GRANT | INVALIDATION } else { GRANT };
        kind | u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    pub(super) fn parse(token: u64) -> Option<Self> {
        let slot = (token & !(GRANT | INVALIDATION)) >> 32;
        let is_one = token & GRANT != 0 && slot < u64::from(crate::protocol::MOST_GRANTS);
        is_one.then_some(Self {
            slot: slot as u32,
            generation: token as u32,
            is_invalidation: token & INVALIDATION != 0,
        })
    }
}

/// The token of a request to revoke.
pub(super) fn request_token(serial: u32) -> u64 {
    REQUEST | u64::from(serial)
}

/// The request that a token is of.
pub(super) fn parse_request(token: u64) -> Option<u32> {
    (token >> 32 == REQUEST >> 32).then_some(token as u32)
}

/// Told when a peer has answered for a grant of the domain, by being dropped.
pub(super) type Answer = Arc<dyn Send + Sync>;

/// Both sides of granting, on one connection.
#[derive(Default)]
pub(super) struct LinkGrants {
    pub(super) slots: GrantSlots,
    table: Vec<Option<OwnedGrant>>,
    pub(super) revoking: Revoking,
    pub(super) held: Held,
    /// Questions of the peer whose last answer is to come.
    questions: Vec<(u32, LaterSpan)>,
    /// Grants of the domain that this peer was asked to let go.
    pub(super) of_domain: Vec<(GrantId, Answer)>,
    /// Those whose keys are to be made invalid when there is room for the request.
    pub(super) waiting_for_room: Vec<GrantId>,
    /// When something is due next.
    pub(super) next_due: Option<Instant>,
}

impl LinkGrants {
    pub(super) fn insert(&mut self, grant: OwnedGrant) {
        let slot = grant.id.slot as usize;
        if self.table.len() <= slot {
            self.table.resize_with(slot + 1, || None);
        }
        self.table[slot] = Some(grant);
    }

    pub(super) fn get(&mut self, slot: u32, generation: u32) -> Option<&mut OwnedGrant> {
        let grant = self.table.get_mut(slot as usize)?.as_mut()?;
        (grant.id.generation == generation).then_some(grant)
    }

    /// Forgets a grant that is over and whose holder knows; its slot is free.
    pub(super) fn forget(&mut self, id: GrantId) {
        if self.get(id.slot, id.generation).is_some() {
            self.table[id.slot as usize] = None;
            self.slots.release(id);
        }
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut OwnedGrant> {
        self.table.iter_mut().flatten()
    }

    /// All that have not been forgotten.
    pub(super) fn table(&self) -> impl Iterator<Item = &OwnedGrant> {
        self.table.iter().flatten()
    }

    /// Whether `id` is of a long message that the peer has not taken.
    pub(super) fn is_offer(&mut self, id: GrantId) -> bool {
        self.get(id.slot, id.generation).is_some_and(|grant| grant.is_offer && !grant.is_agreed)
    }

    /// Long messages whose memory the peer can still reach.
    pub(super) fn offers(&self) -> usize {
        self.table.iter().flatten().filter(|grant| grant.is_offer && grant.phase != Phase::Over).count()
    }

    /// Bytes that the peer may be fetching.
    pub(super) fn offered(&self) -> u64 {
        self.table.iter().flatten().filter(|grant| !grant.is_agreed).map(|grant| grant.offered).sum()
    }

    /// Whether something waits for room in the send queue.
    pub(super) fn is_waiting(&self) -> bool {
        self.revoking.is_due() || self.held.is_due() || !self.waiting_for_room.is_empty()
    }

    /// Everything goes: the connection has ended.
    pub(super) fn drain(&mut self) -> Vec<OwnedGrant> {
        self.of_domain.clear();
        self.waiting_for_room.clear();
        self.next_due = None;
        self.table.drain(..).flatten().collect()
    }

    /// The questions whose last answer will not come: to be dropped when the lock is free.
    pub(super) fn forget_questions(&mut self) -> Vec<(u32, LaterSpan)> {
        std::mem::take(&mut self.questions)
    }

    /// The peer wants grants back; answers what a subscriber is to be told.
    pub(super) fn trace_question(&mut self, payload: &[u8], identity: Option<&Arc<Identity>>) -> Option<Told> {
        if !later_span::somebody_may_listen() {
            return None;
        }
        let (serial, grants) = named(payload).ok()?;
        let (span, told) = LaterSpan::begin(identity, What::Question { serial, grants });
        self.questions.push((serial, span));
        told
    }

    /// An answer is on its way; answers what a subscriber is to be told.
    pub(super) fn trace_answer(&mut self, payload: &[u8]) -> Option<Told> {
        if self.questions.is_empty() {
            return None;
        }
        let (serial, ids) = named(payload).ok()?;
        let index = self.questions.iter().position(|(asked, _)| ids.is_empty() && *asked == serial)?;
        self.questions.swap_remove(index).1.end("agreed")
    }

    /// Notes that something is due at `when`.
    pub(super) fn due_at(&mut self, when: Instant) {
        self.next_due = Some(self.next_due.map_or(when, |known| known.min(when)));
    }

    /// The peer has agreed to what it was asked for; grants of the domain are settled, the others answered.
    pub(super) fn agreed(&mut self, payload: &[u8]) -> Result<Vec<GrantId>, &'static str> {
        let mut ids = self.revoking.agreed(payload)?;
        ids.retain(|id| match id.scope {
            Scope::Connection => true,
            Scope::Domain => {
                self.of_domain.retain(|(asked, _)| asked != id);
                false
            }
        });
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_grants_are_told_apart_from_others() {
        for is_invalidation in [false, true] {
            for (slot, generation) in [(0, 0), (65_535, u32::MAX), (3, 7)] {
                let token = GrantToken { slot, generation, is_invalidation };
                assert_eq!(GrantToken::parse(token.to_token()), Some(token));
            }
        }
        for other in [u64::MAX, u64::MAX - 1, 0, 5 << 32 | 1, (1 << 62) - 1, request_token(0), request_token(u32::MAX)]
        {
            assert_eq!(GrantToken::parse(other), None);
            let serial = parse_request(other);
            assert_eq!(serial.map(request_token), serial.map(|_| other));
        }
        assert_eq!(parse_request(request_token(7)), Some(7));
        assert_eq!(parse_request((1 << 62) - 1), None);
    }
}
