//! Where no device serves the peers: the service thread does, while the application does not poll.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
    /// Whether those who wait for the device were seen not to come when it had something.
    are_late: AtomicBool,
}

impl Idle {
    /// Whether there is no device that does it.
    pub(super) fn is_needed(&self) -> bool {
        self.watch.get().is_some()
    }

    pub(super) fn watch(&self) -> Option<WatchId> {
        self.watch.get().copied()
    }

    /// A look of the service thread: whether there was something, whether others have polled since the last one, and whether
    /// somebody sleeps until there is something. Answers whether to look at once from now on.
    pub(super) fn is_wanted(&self, happened: bool, was_polled: bool, somebody_sleeps: bool) -> bool {
        if was_polled {
            self.are_late.store(false, Ordering::Relaxed);
        } else if happened && somebody_sleeps {
            // They were called, and their thread does something else.
            self.are_late.store(true, Ordering::Relaxed);
        }
        (happened || !was_polled) && (!somebody_sleeps || self.are_late.load(Ordering::Relaxed))
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
        let (was_polled, somebody_sleeps) = (core.was_polled, core.waiting > 0);
        if was_polled {
            self.idle.are_late.store(false, Ordering::Relaxed);
        }
        if let Err(error) = core.queue.drain_idle() {
            core.fail_all(&error.with_device(&self.device));
        }
        let happened = self.run_dry(&mut core);
        core.was_polled = was_polled;
        // Who sleeps is called too, and serves the peers then.
        let is_left_to_them = somebody_sleeps && !self.idle.are_late.load(Ordering::Relaxed);
        if self.idle.was_of_use(happened) && !is_left_to_them {
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

    #[test]
    fn peers_are_left_to_those_who_sleep_unless_they_do_not_come() {
        let idle = Idle::default();
        assert!(idle.is_wanted(false, false, false), "nobody polls");
        assert!(!idle.is_wanted(false, true, false), "somebody does");
        assert!(idle.is_wanted(true, true, false), "somebody does, and not often enough");
        assert!(!idle.is_wanted(false, false, true), "they are called");
        assert!(idle.is_wanted(true, false, true), "they were, and did not come");
        assert!(idle.is_wanted(false, false, true), "nor do they now");
        assert!(!idle.is_wanted(false, true, true), "they have come");
    }
}
