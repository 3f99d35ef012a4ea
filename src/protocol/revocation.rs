//! Revocation in two phases: the owner asks, the holder stops using the handle, drains and agrees.
//!
//! A request names up to [`MOST_IDS`] grants and is answered by one agreement, when nothing that uses any of them is in
//! flight. [`REQUESTS`] of them can be unanswered, so the frames of both kinds have receives of their own.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::grant_id::{GrantId, MOST_GRANTS, Scope};

/// Requests that a side may have unanswered.
pub(crate) const REQUESTS: usize = 2;
/// Grants that one request can name.
pub(crate) const MOST_IDS: usize = 24;
/// Bytes of the longest control payload.
pub(crate) const CONTROL_PAYLOAD: usize = size_of::<Head>() + MOST_IDS * size_of::<WireId>();

/// Begins the payload of a request; all of an agreement.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    serial: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireId {
    /// The highest bit is set for a grant of the domain.
    slot: U32,
    generation: U32,
}

const OF_DOMAIN: u32 = 1 << 31;

/// The owner's side: which grants the peer is asked to let go.
#[derive(Debug, Default)]
pub(crate) struct Revoking {
    wanted: Vec<GrantId>,
    unanswered: Vec<(u32, Vec<GrantId>)>,
    next_serial: u32,
}

impl Revoking {
    /// Has the peer asked for `id`.
    pub(crate) fn want(&mut self, id: GrantId) {
        self.wanted.push(id);
    }

    /// Whether a request can be sent now.
    pub(crate) fn is_due(&self) -> bool {
        !self.wanted.is_empty() && self.unanswered.len() < REQUESTS
    }

    /// The payload of the next request; it counts as sent.
    pub(crate) fn request(&mut self) -> Option<Vec<u8>> {
        if !self.is_due() {
            return None;
        }
        let rest = self.wanted.split_off(self.wanted.len().min(MOST_IDS));
        let ids = std::mem::replace(&mut self.wanted, rest);
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let mut payload = head(serial).to_vec();
        for id in &ids {
            let flag = if id.scope == Scope::Domain { OF_DOMAIN } else { 0 };
            let wire = WireId { slot: (id.slot | flag).into(), generation: id.generation.into() };
            payload.extend_from_slice(wire.as_bytes());
        }
        self.unanswered.push((serial, ids));
        Some(payload)
    }

    /// The peer has agreed: the grants that it has let go, or how it violates the protocol.
    pub(crate) fn agreed(&mut self, payload: &[u8]) -> Result<Vec<GrantId>, &'static str> {
        let head = Head::ref_from_bytes(payload).map_err(|_| "an agreement of another length")?;
        let serial = head.serial.get();
        let at = self.unanswered.iter().position(|(asked, _)| *asked == serial);
        let at = at.ok_or("an agreement that was not asked for")?;
        Ok(self.unanswered.swap_remove(at).1)
    }
}

/// The holder's side: which handles are no longer good, and what still uses them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    of_connection: Vec<Slot>,
    of_domain: Vec<Slot>,
    unfinished: Vec<(u32, Vec<GrantId>)>,
    due: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Generations below are revoked.
    valid_from: u64,
    /// Operations that use a handle of this slot.
    in_flight: u32,
}

impl Held {
    /// Whether an operation may use a handle of `id`; it counts as in flight from here on.
    pub(crate) fn begin(&mut self, id: GrantId) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        if u64::from(id.generation) < slot.valid_from {
            return false;
        }
        slot.in_flight += 1;
        true
    }

    /// An operation that used a handle of `id` has ended.
    pub(crate) fn end(&mut self, id: GrantId) {
        let Some(slot) = self.slot(id) else { return };
        slot.in_flight = slot.in_flight.saturating_sub(1);
        if slot.in_flight == 0 && !self.unfinished.is_empty() {
            self.settle();
        }
    }

    /// The owner asks for its grants; an error says how it violates the protocol.
    pub(crate) fn asked(&mut self, payload: &[u8]) -> Result<(), &'static str> {
        let (head, ids) = Head::ref_from_prefix(payload).map_err(|_| "a request shorter than its head")?;
        let ids = <[WireId]>::ref_from_bytes(ids).map_err(|_| "a request of a broken length")?;
        if ids.is_empty() || ids.len() > MOST_IDS {
            return Err("a request for no grant, or for too many");
        }
        if self.unfinished.len() + self.due.len() >= REQUESTS {
            return Err("more requests than may be unanswered");
        }
        let mut asked = Vec::with_capacity(ids.len());
        for wire in ids {
            let scope = if wire.slot.get() & OF_DOMAIN == 0 { Scope::Connection } else { Scope::Domain };
            let id = GrantId { scope, slot: wire.slot.get() & !OF_DOMAIN, generation: wire.generation.get() };
            let slot = self.slot(id).ok_or("a grant beyond the most that there may be")?;
            slot.valid_from = slot.valid_from.max(u64::from(id.generation) + 1);
            asked.push(id);
        }
        self.unfinished.push((head.serial.get(), asked));
        self.settle();
        Ok(())
    }

    /// Whether an agreement can be sent.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The payload of the next agreement; it counts as sent.
    pub(crate) fn agreement(&mut self) -> Option<[u8; size_of::<Head>()]> {
        (!self.due.is_empty()).then(|| head(self.due.remove(0)))
    }

    fn settle(&mut self) {
        let (of_connection, of_domain) = (&self.of_connection, &self.of_domain);
        let is_drained = |id: &GrantId| {
            let slots = match id.scope {
                Scope::Connection => of_connection,
                Scope::Domain => of_domain,
            };
            slots.get(id.slot as usize).is_none_or(|slot| slot.in_flight == 0)
        };
        let due = &mut self.due;
        self.unfinished.retain(|(serial, ids)| {
            let is_over = ids.iter().all(is_drained);
            if is_over {
                due.push(*serial);
            }
            !is_over
        });
    }

    fn slot(&mut self, id: GrantId) -> Option<&mut Slot> {
        if id.slot >= MOST_GRANTS {
            return None;
        }
        let slots = match id.scope {
            Scope::Connection => &mut self.of_connection,
            Scope::Domain => &mut self.of_domain,
        };
        let index = id.slot as usize;
        if slots.len() <= index {
            slots.resize(index + 1, Slot::default());
        }
        slots.get_mut(index)
    }
}

fn head(serial: u32) -> [u8; size_of::<Head>()] {
    zerocopy::transmute!(Head { serial: serial.into(), reserved: U32::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(slot: u32, generation: u32) -> GrantId {
        GrantId { scope: Scope::Connection, slot, generation }
    }

    #[test]
    fn the_holder_agrees_when_what_uses_the_handle_has_ended() {
        let (mut owner, mut holder) = (Revoking::default(), Held::default());
        assert!(holder.begin(id(3, 7)) && holder.begin(id(3, 7)));
        owner.want(id(3, 7));
        let request = owner.request().expect("due");
        assert_eq!(request, [0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0]);
        holder.asked(&request).expect("well-formed");
        assert!(!holder.begin(id(3, 7)), "nothing new may begin");
        assert!(!holder.is_due());
        holder.end(id(3, 7));
        assert!(!holder.is_due());
        holder.end(id(3, 7));
        let agreement = holder.agreement().expect("due");
        assert_eq!(owner.agreed(&agreement), Ok(vec![id(3, 7)]));
        assert!(holder.begin(id(3, 8)), "the slot's next generation is good");
        assert!(owner.agreed(&agreement).is_err(), "nobody asked twice");
    }

    #[test]
    fn scopes_are_told_apart() {
        let (mut owner, mut holder) = (Revoking::default(), Held::default());
        let of_domain = GrantId { scope: Scope::Domain, ..id(0, 0) };
        owner.want(of_domain);
        holder.asked(&owner.request().expect("due")).expect("well-formed");
        assert!(!holder.begin(of_domain) && holder.begin(id(0, 0)));
    }

    #[test]
    fn what_violates_the_protocol_is_said() {
        let mut owner = Revoking::default();
        (0..60).for_each(|slot| owner.want(id(slot, 0)));
        let requests: Vec<_> = std::iter::from_fn(|| owner.request()).collect();
        assert_eq!(requests.len(), REQUESTS, "the rest waits for an answer");
        let mut holder = Held::default();
        assert!(holder.begin(id(0, 0)) && holder.begin(id(30, 0)));
        for request in &requests {
            holder.asked(request).expect("well-formed");
        }
        assert!(holder.asked(&requests[0]).expect_err("too many").contains("unanswered"));
        let mut holder = Held::default();
        for broken in [&[][..], &[0; 8], &[0; 15], &[0; 9], &[0xff; 16], &[0; 8 + 8 * (MOST_IDS + 1)]] {
            assert!(holder.asked(broken).is_err(), "{broken:?}");
        }
        assert!(owner.agreed(&[9; 8]).is_err() && owner.agreed(&[0; 7]).is_err());
    }

    proptest! {
        /// Random use and revocation over an ordered link: nothing begins after the request has arrived, every wanted grant is
        /// agreed once, and only when nothing uses it.
        #[test]
        fn every_revocation_ends_once_and_after_the_last_use(
            choices in proptest::collection::vec((0u8..5, 0u32..40), 0..400),
        ) {
            let (mut owner, mut holder) = (Revoking::default(), Held::default());
            let mut generations = [0u32; 40];
            let mut revoking = [false; 40];
            let mut flying: Vec<GrantId> = Vec::new();
            let mut to_holder = std::collections::VecDeque::new();
            let mut to_owner = std::collections::VecDeque::new();
            let finish = choices.len();
            let drain = (0..2000).map(|turn| ([1u8, 2, 3, 4][turn % 4], 0));
            for (turn, (choice, slot)) in choices.into_iter().chain(drain).enumerate() {
                let at = slot as usize;
                match choice {
                    0 if !revoking[at] => {
                        revoking[at] = true;
                        owner.want(id(slot, generations[at]));
                    }
                    1 => {
                        while let Some(request) = owner.request() {
                            to_holder.push_back(request);
                        }
                    }
                    2 => if let Some(request) = to_holder.pop_front() {
                        prop_assert!(holder.asked(&request).is_ok());
                    },
                    3 => {
                        if turn < finish && holder.begin(id(slot, generations[at])) {
                            flying.push(id(slot, generations[at]));
                        } else if let Some(done) = flying.pop() {
                            holder.end(done);
                        }
                        while let Some(agreement) = holder.agreement() {
                            to_owner.push_back(agreement);
                        }
                    }
                    4 => if let Some(agreement) = to_owner.pop_front() {
                        for agreed in owner.agreed(&agreement).expect("asked for") {
                            prop_assert!(!flying.contains(&agreed));
                            let at = agreed.slot as usize;
                            prop_assert!(revoking[at] && generations[at] == agreed.generation);
                            revoking[at] = false;
                            generations[at] += 1;
                        }
                    },
                    _ => {}
                }
            }
            prop_assert!(flying.is_empty() && revoking.iter().all(|revoking| !revoking));
        }

        #[test]
        fn any_bytes_are_taken_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..220)) {
            let _ = Held::default().asked(&bytes);
            let _ = Revoking::default().agreed(&bytes);
        }
    }
}
