//! A registration that is being made.

use std::sync::PoisonError;

use super::wanted::Wanted;
use crate::sync::locks::{Condvar, Mutex};

/// Lets those who want the same wait for the one who registers it.
pub(super) struct Pending {
    pub(super) range: Wanted,
    done: Mutex<bool>,
    wake: Condvar,
}

impl Pending {
    pub(super) fn new(range: Wanted) -> Self {
        Self { range, done: Mutex::new(false), wake: Condvar::new() }
    }

    /// Waits until the registration was made or has failed. That takes no longer than to register it oneself would: the
    /// other is in that very call, and tells the end of it even if it panics.
    pub(super) fn wait(&self) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.wake.wait_while(done, |done| !*done).unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn finish(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }
}
