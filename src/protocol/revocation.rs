//! Revocation in two phases: the owner asks, the holder stops using the handle, drains and agrees.
//!
//! A request names grants. It is answered at once for those that nothing in flight uses, and once more for the rest, when they
//! are drained; one answer if they are all alike. [`REQUESTS`] requests can be unanswered.

use std::collections::VecDeque;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::grant_id::{GrantId, MOST_GRANTS, Scope};

/// Requests that a side may have unanswered.
const REQUESTS: usize = 2;
/// Answers to one request.
#[cfg(test)]
const ANSWERS: usize = 2;
/// Bytes of the longest payload of revocation that is sent: it fits inline where a device can do that at all.
pub(crate) const CONTROL_PAYLOAD: usize = size_of::<Head>() + 24 * size_of::<WireId>();

/// Begins the payload of a request and of an answer; the grants follow. The last answer names none: it is for all that are left.
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

    /// Number and payload of the next request, of at most `room` bytes; it counts as sent.
    pub(crate) fn request(&mut self, room: usize) -> Option<(u32, Vec<u8>)> {
        if !self.is_due() {
            return None;
        }
        let most = room.saturating_sub(size_of::<Head>()) / size_of::<WireId>();
        let rest = self.wanted.split_off(self.wanted.len().min(most));
        let ids = std::mem::replace(&mut self.wanted, rest);
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let payload = payload(serial, &ids);
        self.unanswered.push((serial, ids));
        Some((serial, payload))
    }

    /// The grants of a request that has not been answered to the end.
    pub(crate) fn asked(&self, serial: u32) -> &[GrantId] {
        self.unanswered.iter().find(|(asked, _)| *asked == serial).map_or(&[], |(_, ids)| ids)
    }

    /// The peer has agreed: the grants that it has let go, or how it violates the protocol.
    pub(crate) fn agreed(&mut self, payload: &[u8]) -> Result<Vec<GrantId>, &'static str> {
        let (serial, agreed) = named(payload)?;
        let at = self.unanswered.iter().position(|(asked, _)| *asked == serial);
        let at = at.ok_or("an agreement that was not asked for")?;
        if agreed.is_empty() {
            return Ok(self.unanswered.swap_remove(at).1);
        }
        let asked = &mut self.unanswered[at].1;
        let before = asked.len();
        asked.retain(|id| !agreed.contains(id));
        // None of them twice, and the rest by the last answer.
        if before - asked.len() != agreed.len() || asked.is_empty() {
            return Err("an agreement to what was not asked for");
        }
        Ok(agreed)
    }
}

/// The holder's side: which handles are no longer good, and what still uses them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    of_connection: Vec<Slot>,
    of_domain: Vec<Slot>,
    /// Requests whose last answer is to come, and what they still wait for.
    unfinished: Vec<(u32, Vec<GrantId>)>,
    /// Answers to be sent: the serials of their requests and what they name; the last one of a request names nothing.
    due: VecDeque<(u32, Vec<GrantId>)>,
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

    /// We have told the owner that we are done with `id`, unasked.
    pub(crate) fn let_go(&mut self, id: GrantId) {
        if let Some(slot) = self.slot(id) {
            slot.valid_from = slot.valid_from.max(u64::from(id.generation) + 1);
        }
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
        let (serial, asked) = named(payload)?;
        if asked.is_empty() {
            return Err("a request for no grant");
        }
        let last_due = self.due.iter().filter(|(_, ids)| ids.is_empty());
        let mut unanswered = self.unfinished.iter().chain(last_due);
        if unanswered.clone().count() >= REQUESTS {
            return Err("more requests than may be unanswered");
        }
        if unanswered.any(|(other, _)| *other == serial) {
            return Err("a request with the serial of another that is unanswered");
        }
        for id in &asked {
            let slot = self.slot(*id).ok_or("a grant beyond the most that there may be")?;
            slot.valid_from = slot.valid_from.max(u64::from(id.generation) + 1);
        }
        let (drained, busy): (Vec<_>, Vec<_>) = asked.into_iter().partition(|id| self.is_drained(id));
        if !busy.is_empty() && !drained.is_empty() {
            self.due.push_back((serial, drained));
        }
        self.unfinished.push((serial, busy));
        self.settle();
        Ok(())
    }

    /// Whether an answer can be sent.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The payload of the next answer; it counts as sent.
    pub(crate) fn answer(&mut self) -> Option<Vec<u8>> {
        self.due.pop_front().map(|(serial, ids)| payload(serial, &ids))
    }

    /// Slots that operations use: whose they are, how many operations, and whether a request waits for them.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = (Scope, u32, u32, bool)> + '_ {
        let of = |scope, slots: &'_ [Slot]| {
            let used = slots.iter().enumerate().filter(|(_, slot)| slot.in_flight > 0);
            used.map(move |(index, slot)| (scope, index as u32, slot.in_flight)).collect::<Vec<_>>()
        };
        let used = of(Scope::Connection, &self.of_connection).into_iter().chain(of(Scope::Domain, &self.of_domain));
        used.map(|(scope, slot, operations)| {
            let is_wanted =
                self.unfinished.iter().flat_map(|(_, ids)| ids).any(|id| id.scope == scope && id.slot == slot);
            (scope, slot, operations, is_wanted)
        })
    }

    /// Requests and answers that are kept, for tests.
    #[cfg(all(any(test, feature = "internals"), not(loom)))]
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.unfinished.len(), self.due.len())
    }

    fn settle(&mut self) {
        let unfinished = std::mem::take(&mut self.unfinished);
        for (serial, ids) in unfinished {
            if ids.iter().all(|id| self.is_drained(id)) {
                self.due.push_back((serial, Vec::new()));
            } else {
                self.unfinished.push((serial, ids));
            }
        }
    }

    fn is_drained(&self, id: &GrantId) -> bool {
        let slots = match id.scope {
            Scope::Connection => &self.of_connection,
            Scope::Domain => &self.of_domain,
        };
        slots.get(id.slot as usize).is_none_or(|slot| slot.in_flight == 0)
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

fn payload(serial: u32, ids: &[GrantId]) -> Vec<u8> {
    let mut payload = Head { serial: serial.into(), reserved: U32::ZERO }.as_bytes().to_vec();
    for id in ids {
        let flag = if id.scope == Scope::Domain { OF_DOMAIN } else { 0 };
        let wire = WireId { slot: (id.slot | flag).into(), generation: id.generation.into() };
        payload.extend_from_slice(wire.as_bytes());
    }
    payload
}

/// The serial of a question or an answer, and the grants that it names.
pub(crate) fn named(payload: &[u8]) -> Result<(u32, Vec<GrantId>), &'static str> {
    let (head, ids) = Head::ref_from_prefix(payload).map_err(|_| "a payload shorter than its head")?;
    if head.reserved != U32::ZERO {
        return Err("a payload whose reserved bytes are not 0");
    }
    let ids = <[WireId]>::ref_from_bytes(ids).map_err(|_| "a payload of a broken length")?;
    let id = |wire: &WireId| GrantId {
        scope: if wire.slot.get() & OF_DOMAIN == 0 { Scope::Connection } else { Scope::Domain },
        slot: wire.slot.get() & !OF_DOMAIN,
        generation: wire.generation.get(),
    };
    Ok((head.serial.get(), ids.iter().map(id).collect()))
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
        let (serial, request) = owner.request(CONTROL_PAYLOAD).expect("due");
        assert_eq!(request, [0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(owner.asked(serial), [id(3, 7)]);
        holder.asked(&request).expect("well-formed");
        assert!(!holder.begin(id(3, 7)), "nothing new may begin");
        assert!(!holder.is_due());
        holder.end(id(3, 7));
        assert!(!holder.is_due());
        holder.end(id(3, 7));
        let agreement = holder.answer().expect("due");
        assert_eq!(owner.agreed(&agreement), Ok(vec![id(3, 7)]));
        assert!(holder.begin(id(3, 8)), "the slot's next generation is good");
        assert!(owner.agreed(&agreement).is_err(), "nobody asked twice");
    }

    #[test]
    fn scopes_are_told_apart() {
        let (mut owner, mut holder) = (Revoking::default(), Held::default());
        let of_domain = GrantId { scope: Scope::Domain, ..id(0, 0) };
        owner.want(of_domain);
        holder.asked(&owner.request(CONTROL_PAYLOAD).expect("due").1).expect("well-formed");
        assert!(!holder.begin(of_domain) && holder.begin(id(0, 0)));
    }

    #[test]
    fn what_is_idle_is_answered_at_once_and_the_rest_when_it_is_drained() {
        let (mut owner, mut holder) = (Revoking::default(), Held::default());
        assert!(holder.begin(id(1, 0)));
        (0..3).for_each(|slot| owner.want(id(slot, 0)));
        holder.asked(&owner.request(CONTROL_PAYLOAD).expect("due").1).expect("well-formed");
        let first = holder.answer().expect("due");
        assert_eq!(owner.agreed(&first), Ok(vec![id(0, 0), id(2, 0)]));
        assert!(owner.agreed(&first).is_err(), "nobody asked twice");
        assert!(holder.answer().is_none());
        holder.end(id(1, 0));
        assert_eq!(owner.agreed(&holder.answer().expect("due")), Ok(vec![id(1, 0)]));
    }

    #[test]
    fn what_violates_the_protocol_is_said() {
        let mut owner = Revoking::default();
        (0..60).for_each(|slot| owner.want(id(slot, 0)));
        let requests: Vec<_> =
            std::iter::from_fn(|| owner.request(CONTROL_PAYLOAD)).map(|(_, payload)| payload).collect();
        assert_eq!(requests.len(), REQUESTS, "the rest waits for an answer");
        assert!(requests.iter().all(|request| request.len() <= CONTROL_PAYLOAD));
        let mut holder = Held::default();
        assert!(holder.begin(id(0, 0)) && holder.begin(id(30, 0)));
        for request in &requests {
            holder.asked(request).expect("well-formed");
        }
        assert!(holder.asked(&payload(9, &[id(59, 0)])).expect_err("too many").contains("more requests"));
        let mut holder = Held::default();
        assert!(holder.begin(id(0, 0)));
        for unanswered in [id(0, 0), id(1, 0)] {
            holder.asked(&payload(7, &[unanswered])).expect("well-formed");
            assert!(holder.asked(&payload(7, &[id(2, 0)])).expect_err("its serial").contains("the serial of another"));
            assert!(holder.begin(id(2, 0)), "what is refused revokes nothing");
            holder.end(id(0, 0));
            while holder.answer().is_some() {}
        }
        let mut holder = Held::default();
        for broken in [&[][..], &[0; 8], &[0; 15], &[0; 9], &[0xff; 16]] {
            assert!(holder.asked(broken).is_err(), "{broken:?}");
        }
        let reserved = [&[0, 0, 0, 0, 1, 0, 0, 0][..], &[0; 8]].concat();
        assert!(holder.asked(&reserved).expect_err("reserved").contains("reserved"));
        assert!(owner.agreed(&[9; 8]).is_err() && owner.agreed(&[0; 7]).is_err());
        assert!(owner.agreed(&payload(0, &[id(59, 0)])).is_err(), "it was not asked for that yet");
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
                        while let Some((_, request)) = owner.request(CONTROL_PAYLOAD) {
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
                        while let Some(answer) = holder.answer() {
                            to_owner.push_back(answer);
                        }
                        prop_assert!(to_owner.len() <= ANSWERS * REQUESTS);
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
