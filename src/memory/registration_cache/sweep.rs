//! Finding, from time to time, what only the cache keeps alive.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::core::Inner;
use super::core::{Core, Removed};
use super::entry::is_foreign;
use super::hints::Hints;
use crate::service::Service;

/// Between two turns.
const PAUSE: Duration = Duration::from_millis(100);
/// How many entries are examined under the lock at once.
const BATCH: usize = 64;

impl Core {
    /// Has a turn run soon, and another after it for as long as there are entries.
    pub(super) fn schedule_sweep(&self) {
        let this = Weak::clone(&self.this);
        let turn = move || {
            if let Some(core) = this.upgrade().filter(|core| !is_foreign(core.epoch)) {
                core.turn();
            }
        };
        match self.service.as_ref().map_or_else(Service::of_process, |service| Ok(Arc::clone(service))) {
            Ok(service) => drop(service.run_at(service.now() + PAUSE, turn)),
            Err(error) => {
                tracing::warn!(%error, "memory that nobody uses stays registered until there is a miss");
                self.lock().sweeping = false;
            }
        }
    }

    /// Examines an eighth of the entries, within bounds: of up to 32,768, each about once a second.
    pub(super) fn sweep(&self, now: Instant) {
        let entries = self.lock().index.len();
        let mut left = (entries / 8).clamp(256, 4096).min(entries);
        while left > 0 {
            let count = left.min(BATCH);
            let removed = self.lock().drop_ownerless(&self.hints, count, now);
            self.release(removed);
            left -= count;
        }
        // Leases that have ended may have left more than the limits allow.
        self.trim();
    }

    fn turn(&self) {
        self.sweep(self.now());
        let again = {
            let mut inner = self.lock();
            inner.sweeping = inner.index.len() > 0;
            inner.sweeping
        };
        if again {
            self.schedule_sweep();
        }
    }
}

impl Inner {
    /// Takes out those of the next `count` entries that nobody uses or owns.
    pub(super) fn drop_ownerless(&mut self, hints: &Hints, count: usize, now: Instant) -> Removed {
        let closed = self.index.close_ownerless(count, now);
        self.counts.dropped += closed.len() as u64;
        self.remove(hints, closed)
    }
}
