//! What the requests of an owning queue own, from post to completion.

use std::sync::Arc;

use super::AddressHandle;
use super::memory_window::WindowRequest;

/// Entries by index. `wr_id` carries the index and a generation, so that a stale one names nothing.
pub(super) struct OperationTable<B> {
    entries: Vec<Entry<B>>,
    free: Vec<u32>,
}

/// One request.
pub(super) struct Entry<B> {
    generation: u32,
    pub(super) owner: Owner,
    pub(super) operation: Operation<B>,
}

/// Which queue an entry waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The receive queue of a queue pair.
    Receives(u32),
    /// The send queue of a queue pair.
    Sends(u32),
    /// The shared receive queue, which it was posted to as the so many-th.
    Shared(u32),
    /// The shared receive queue, but it is not expected to complete any more.
    WrittenOff,
    /// None: the entry is free.
    Nobody,
}

/// What is kept until the completion.
pub(super) struct Operation<B> {
    pub(super) token: u64,
    pub(super) memory: Option<B>,
    pub(super) address: Option<Arc<AddressHandle>>,
    pub(super) window: Option<WindowRequest>,
}

impl<B> OperationTable<B> {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    /// Makes room, so that entering and leaving do not allocate.
    pub(super) fn reserve(&mut self, more: usize) {
        self.entries.reserve(more);
        self.free.reserve(self.entries.capacity());
    }

    /// Takes an operation in; answers its index and `wr_id`.
    pub(super) fn enter(&mut self, owner: Owner, operation: Operation<B>) -> (u32, u64) {
        let index = match self.free.pop() {
            Some(index) => {
                let entry = &mut self.entries[index as usize];
                entry.owner = owner;
                entry.operation = operation;
                index
            }
            None => {
                self.entries.push(Entry { generation: 0, owner, operation });
                (self.entries.len() - 1) as u32
            }
        };
        (index, u64::from(self.entries[index as usize].generation) << 32 | u64::from(index))
    }

    /// Index and owner of the request `wr_id`; `None` if it is stale.
    pub(super) fn find(&self, wr_id: u64) -> Option<(u32, Owner)> {
        let (generation, index) = ((wr_id >> 32) as u32, wr_id as u32);
        let entry = self.entries.get(index as usize)?;
        (entry.generation == generation && entry.owner != Owner::Nobody).then_some((index, entry.owner))
    }

    pub(super) fn owner(&self, index: u32) -> Owner {
        self.entries[index as usize].owner
    }

    /// All entries whose owner is such.
    pub(super) fn all_of(&self, is_such: impl Fn(Owner) -> bool) -> impl Iterator<Item = u32> {
        (0..self.entries.len() as u32).filter(move |&index| is_such(self.owner(index)))
    }

    /// Puts an entry into another queue.
    pub(super) fn set_owner(&mut self, index: u32, owner: Owner) {
        self.entries[index as usize].owner = owner;
    }

    /// The memory of the request at `index`.
    pub(super) fn memory(&self, index: u32) -> Option<&B> {
        self.entries[index as usize].operation.memory.as_ref()
    }

    /// Takes out the address handle of the request at `index`.
    pub(super) fn take_address(&mut self, index: u32) -> Option<Arc<AddressHandle>> {
        self.entries[index as usize].operation.address.take()
    }

    /// Gives the operation back; its `wr_id` names nothing from here on.
    pub(super) fn leave(&mut self, index: u32) -> Operation<B> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.owner = Owner::Nobody;
        let (memory, address) = (entry.operation.memory.take(), entry.operation.address.take());
        let (token, window) = (entry.operation.token, entry.operation.window.take());
        self.free.push(index);
        Operation { token, memory, address, window }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(token: u64) -> Operation<&'static str> {
        Operation { token, memory: Some("memory"), address: None, window: None }
    }

    #[test]
    fn a_stale_id_names_nothing_even_when_the_entry_is_used_again() {
        let mut table = OperationTable::new();
        let (index, first) = table.enter(Owner::Sends(3), operation(1));
        assert_eq!(table.find(first), Some((index, Owner::Sends(3))));
        let left = table.leave(index);
        assert_eq!((left.token, left.memory), (1, Some("memory")));
        assert_eq!(table.find(first), None);
        let (again, second) = table.enter(Owner::Shared(9), operation(2));
        assert_eq!(again, index);
        assert_eq!((table.find(first), table.find(second)), (None, Some((index, Owner::Shared(9)))));
        assert_eq!(table.find(u64::MAX), None);
    }
}
