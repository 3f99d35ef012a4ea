//! Bugs planted on purpose, so that a test can prove that they would be found.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// A block comes back with one piece of it still in use.
    ReturnedEarly,
    /// A released block is put on the lists twice.
    ReturnedTwice,
    /// The class of a length is one too small.
    ClassTooSmall,
    /// Used blocks are taken for fresh ones.
    NotZeroed,
    /// A block is carved from memory that was carved before.
    CarvedTwice,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

pub(super) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Runs `test` with `bug` in this thread.
pub(super) fn with<R>(bug: Bug, test: impl FnOnce() -> R) -> R {
    PLANTED.set(Some(bug));
    let result = test();
    PLANTED.set(None);
    result
}
