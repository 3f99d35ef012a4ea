//! A timer for many deadlines: it rings for the earliest.

use std::time::Instant;

use crate::background::Background;
use crate::sync::lock;
use crate::sync::locks::Mutex;

/// Deadlines that nearly always pass unused cost a look at a number: the service is asked only for one that is
/// earlier than what it was asked for before.
pub(super) struct Alarm {
    background: Background,
    set: Mutex<Option<Instant>>,
}

impl Alarm {
    pub(super) fn new(background: Background) -> Self {
        Self { background, set: Mutex::default() }
    }

    /// Has the service call `ring` at `when`, unless it will be called before. It tells that it
    /// [has](Self::has_rung), and sets the alarm for what is next.
    pub(super) fn set(&self, when: Instant, ring: impl FnOnce() + Send + 'static) {
        let mut set = lock(&self.set);
        if set.is_none_or(|set| when < set) {
            *set = Some(when);
            self.background.run_at(when, ring);
        }
    }

    pub(super) fn has_rung(&self) {
        *lock(&self.set) = None;
    }
}
