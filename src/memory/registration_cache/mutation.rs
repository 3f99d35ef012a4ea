//! Bugs planted on purpose, to see that the tests find them.

use std::cell::Cell;
use std::sync::PoisonError;

use super::entry::Record;
use crate::sync::locks::Mutex;

/// What is broken on this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    /// A hit does not look at what the entry was registered for.
    AccessNotChecked,
    /// Removal forgets to deregister.
    NotDeregistered,
    /// Eviction takes entries that are in use.
    PinNotChecked,
    /// An entry does not own the memory.
    TokenNotHeld,
}

thread_local! {
    static ON: Cell<Option<Mutation>> = const { Cell::new(None) };
}

impl Mutation {
    pub(super) fn is_on(self) -> bool {
        ON.get() == Some(self)
    }

    /// Runs `body` with the bug in place.
    pub(super) fn during<T>(self, body: impl FnOnce() -> T) -> T {
        let before = ON.replace(Some(self));
        let result = body();
        ON.set(before);
        result
    }
}

/// Forgets to deregister. The record stays reachable, so that AddressSanitizer tells it from a leak.
pub(super) fn leave_behind(record: Record) {
    static LEFT: Mutex<Vec<Record>> = Mutex::new(Vec::new());
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(record);
}
