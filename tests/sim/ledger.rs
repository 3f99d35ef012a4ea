//! What has been done, each from begin to end.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;

use zcmi::ErrorKind;

use crate::world::note_progress;

/// Every operation of a world, from begin to end.
#[derive(Default)]
pub(crate) struct Ledger {
    open: RefCell<BTreeMap<&'static str, u64>>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
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
