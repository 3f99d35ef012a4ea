//! What has been done, each from begin to end.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;

use zcmi::ErrorKind;

use crate::world::note_progress;

/// Every operation of a world, from begin to end.
#[derive(Default)]
pub(crate) struct Ledger {
    open: RefCell<BTreeMap<&'static str, u64>>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
    /// Bytes that messages, reads and writes had.
    sizes: Cell<Moved>,
    errors: RefCell<BTreeMap<String, u64>>,
}

impl Ledger {
    /// An operation begins. What is answered must end once, well or not.
    pub(crate) fn begin(&self, name: &'static str) -> Begun<'_> {
        *self.open.borrow_mut().entry(name).or_default() += 1;
        Begun { ledger: self, name, has_ended: false }
    }

    /// Something of no length.
    pub(crate) fn count(&self, name: &'static str) {
        *self.counts.borrow_mut().entry(name).or_default() += 1;
    }

    /// A message, a read or a write had so many bytes.
    pub(crate) fn moved(&self, bytes: usize) {
        self.sizes.set(self.sizes.get().and(Moved {
            operations: 1,
            long: u64::from(bytes > 1 << 20),
            bytes,
            longest: bytes,
        }));
    }

    pub(crate) fn moved_in_all(&self) -> Moved {
        self.sizes.get()
    }

    pub(crate) fn error(&self, kind: ErrorKind) {
        *self.errors.borrow_mut().entry(format!("{kind:?}")).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> Ref<'_, BTreeMap<&'static str, u64>> {
        self.counts.borrow()
    }

    pub(crate) fn errors(&self) -> Ref<'_, BTreeMap<String, u64>> {
        self.errors.borrow()
    }

    /// Operations that have begun and not ended.
    pub(crate) fn open(&self) -> Vec<&'static str> {
        self.open.borrow().iter().filter(|(_, count)| **count > 0).map(|(name, _)| *name).collect()
    }
}

/// What was moved in all.
#[derive(Clone, Copy, Default)]
pub(crate) struct Moved {
    pub(crate) operations: u64,
    /// Those above 1 MiB.
    pub(crate) long: u64,
    pub(crate) bytes: usize,
    pub(crate) longest: usize,
}

impl Moved {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            long: self.long + other.long,
            bytes: self.bytes + other.bytes,
            longest: self.longest.max(other.longest),
        }
    }
}

/// An operation that has begun.
pub(crate) struct Begun<'a> {
    ledger: &'a Ledger,
    name: &'static str,
    has_ended: bool,
}

impl Begun<'_> {
    /// It has ended.
    pub(crate) fn end(mut self) {
        self.has_ended = true;
        self.ledger.count(self.name);
        note_progress();
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // Also one whose node has died with it.
        *self.ledger.open.borrow_mut().entry(self.name).or_default() -= 1;
    }
}
