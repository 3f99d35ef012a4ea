//! Where no device serves the peers: the service thread does, while the application does not poll.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::core::Core;
use super::engine::Engine;
use crate::service::WatchId;
use crate::transport::{Queue, Transport};

/// How often in a row the service thread looks for what somebody else has handled, before it leaves all to them.
const MOST_FOR_NOTHING: u32 = 16;

/// Who looks after an engine that nobody polls.
#[derive(Default)]
pub(super) struct Idle {
    watch: OnceLock<WatchId>,
    /// Times in a row that there was nothing left to do.
    for_nothing: AtomicU32,
}

impl Idle {
    /// Whether there is no device that does it.
    pub(super) fn is_needed(&self) -> bool {
        self.watch.get().is_some()
    }

    pub(super) fn watch(&self) -> Option<WatchId> {
        self.watch.get().copied()
    }

    /// There was something to do, or not; answers whether to go on with it.
    fn was_of_use(&self, it_was: bool) -> bool {
        let for_nothing = if it_was { 0 } else { self.for_nothing.load(Ordering::Relaxed) + 1 };
        self.for_nothing.store(for_nothing, Ordering::Relaxed);
        for_nothing < MOST_FOR_NOTHING
    }
}

impl<T: Transport> Engine<T> {
    pub(super) fn watch_while_idle(self: &Arc<Self>, descriptor: OwnedFd) {
        let watched = Arc::downgrade(self);
        let on_event = move || watched.upgrade().is_some_and(|engine| engine.on_idle_event());
        let _ = self.idle.watch.set(self.service.watch(descriptor, on_event));
    }

    /// From now on the service thread handles at once what peers ask for, if no device does.
    pub(super) fn serve_while_idle(&self, core: &mut Core<T::Queue>) {
        if self.idle.is_needed()
            && let Err(error) = core.queue.watch_idle()
        {
            core.fail_all(&error.with_device(&self.device));
        }
    }

    /// A peer may have asked for something while the application did not poll.
    fn on_idle_event(self: &Arc<Self>) -> bool {
        let mut core = self.lock();
        let was_polled = core.was_polled;
        if let Err(error) = core.queue.drain_idle() {
            core.fail_all(&error.with_device(&self.device));
        }
        let happened = self.progress(&mut core);
        while happened && self.progress(&mut core) {}
        core.was_polled = was_polled;
        if self.idle.was_of_use(happened) {
            self.serve_while_idle(&mut core);
        }
        self.settle(core);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_for_long_ends_until_it_is_again() {
        let idle = Idle::default();
        assert!(!idle.is_needed());
        assert!((1..MOST_FOR_NOTHING).all(|_| idle.was_of_use(false)));
        assert!(!idle.was_of_use(false) && !idle.was_of_use(false));
        assert!(idle.was_of_use(true) && idle.was_of_use(false));
    }
}
