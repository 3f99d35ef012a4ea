//! What a handle calls the grant that it comes from.

/// Grants that an owner can have at once on a connection, and in a domain: bounds what a peer must remember.
pub(crate) const MOST_GRANTS: u32 = 1 << 16;

/// Whom a grant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// One connection.
    Connection,
    /// Every connection of the owner's domain.
    Domain,
}

/// Names a grant of one owner. A slot is used again under the next generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GrantId {
    pub(crate) scope: Scope,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The slots of one owner's grants: which is free, and under which generation it is used next.
#[derive(Debug, Default)]
pub(crate) struct GrantSlots {
    /// The next generation of each slot that was ever used.
    generations: Vec<u32>,
    free: Vec<u32>,
}

impl GrantSlots {
    /// A name that no grant of this owner and scope had before; none if all slots are in use or used up.
    pub(crate) fn take(&mut self, scope: Scope) -> Option<GrantId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if (self.generations.len() as u32) < MOST_GRANTS => {
                self.generations.push(0);
                self.generations.len() as u32 - 1
            }
            None => return None,
        };
        Some(GrantId { scope, slot, generation: self.generations[slot as usize] })
    }

    /// Takes back a name that nobody was told.
    pub(crate) fn give_back(&mut self, id: GrantId) {
        self.free.push(id.slot);
    }

    /// The grant has ended, and the peer has said that it knows: its slot can be used again.
    pub(crate) fn release(&mut self, id: GrantId) {
        let next = &mut self.generations[id.slot as usize];
        debug_assert_eq!(*next, id.generation);
        // A slot that has gone through all generations is retired: an old handle would come to life.
        if let Some(generation) = next.checked_add(1) {
            *next = generation;
            self.free.push(id.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_back_under_another_generation_and_is_retired_after_the_last() {
        let mut slots = GrantSlots::default();
        let first = slots.take(Scope::Connection).expect("a slot");
        let second = slots.take(Scope::Connection).expect("a slot");
        assert_ne!(first.slot, second.slot);
        slots.release(first);
        let again = slots.take(Scope::Connection).expect("a slot");
        assert_eq!((again.slot, again.generation), (first.slot, 1));
        slots.generations[again.slot as usize] = u32::MAX;
        slots.release(GrantId { generation: u32::MAX, ..again });
        assert_ne!(slots.take(Scope::Connection).expect("a slot").slot, first.slot);
    }

    #[test]
    fn there_is_a_bound() {
        let mut slots = GrantSlots::default();
        for _ in 0..MOST_GRANTS {
            slots.take(Scope::Domain).expect("a slot");
        }
        assert!(slots.take(Scope::Domain).is_none());
    }
}
