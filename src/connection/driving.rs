//! How those who wait drive an engine, and its events wake them.

use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::core::Core;
use super::engine::Engine;
use super::hand_over::{self, Driven};
use crate::config::Polling;
use crate::transport::{Kind, Queue, Transport};

/// Polls between two looks at the clock, which may be a system call.
const POLLS_PER_LOOK: u32 = 64;
/// Looks between two polls.
const LOOKS: u32 = 8;
/// Polls that have found something before others get their turn.
const ROUNDS: u32 = 16;
/// How long a waiter polls that is busy, or kept busy, before it lets other tasks of its thread run.
const BUSY_TURN: Duration = Duration::from_millis(1);

impl<T: Transport> Engine<T> {
    /// Polls until `attempt` is ready: at once, then for the time that the configuration gives, then when the device
    /// says that something is there. `attempt` registers the waker that it is given.
    pub(super) fn drive<R>(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Core<T::Queue>, Option<&Waker>) -> Poll<R>,
    ) -> Poll<R> {
        let mut core = self.lock();
        // What is here already is had without a poll.
        if let Poll::Ready(result) = attempt(&mut core, None) {
            self.settle(core);
            return Poll::Ready(result);
        }
        self.drive_on(core, context, attempt)
    }

    /// Drives on after a first attempt that was not ready.
    fn drive_on<'a, R>(
        self: &'a Arc<Self>,
        mut core: MutexGuard<'a, Core<T::Queue>>,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Core<T::Queue>, Option<&Waker>) -> Poll<R>,
    ) -> Poll<R> {
        let budget = match self.config.polling {
            // Time stands still meanwhile.
            _ if self.service.clock().is_virtual() => Duration::ZERO,
            Polling::Busy => BUSY_TURN,
            // Polling here would keep those from running who wait on the same worker.
            Polling::Adaptive { .. } if core.waiting > 0 => Duration::ZERO,
            Polling::Adaptive { spin } => spin,
            Polling::Event => Duration::ZERO,
        };
        let mut begun = None;
        let (mut polls, mut rounds) = (0, 0);
        let (mut kept_busy_since, mut is_kept_busy) = (None, false);
        // Where a message can be received without a poll, mostly nothing else is waited for.
        let looks = if self.transport == Kind::Shm && !budget.is_zero() { LOOKS } else { 0 };
        loop {
            core.uncork();
            for _ in 0..looks {
                if let Poll::Ready(result) = attempt(&mut core, None) {
                    self.settle(core);
                    return Poll::Ready(result);
                }
            }
            let happened = self.progress(&mut core);
            if let Poll::Ready(result) = attempt(&mut core, None) {
                self.settle(core);
                return Poll::Ready(result);
            }
            if happened {
                rounds += 1;
                if rounds >= ROUNDS {
                    rounds = 0;
                    self.settle(core);
                    core = self.lock();
                    let now = self.now();
                    if now.saturating_duration_since(*kept_busy_since.get_or_insert(now)) >= BUSY_TURN {
                        is_kept_busy = true;
                        break;
                    }
                }
            } else {
                (rounds, kept_busy_since) = (0, None);
                polls += 1;
                if polls >= POLLS_PER_LOOK || budget.is_zero() {
                    polls = 0;
                    let now = self.now();
                    if now.saturating_duration_since(*begun.get_or_insert(now)) >= budget {
                        break;
                    }
                }
                self.settle(core);
                std::hint::spin_loop();
                core = self.lock();
            }
        }
        if is_kept_busy || self.config.polling == Polling::Busy {
            self.settle(core);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let result =
            hand_over::sleep(&mut self.driven(&mut core), context.waker(), |driven, waker| attempt(driven.core, waker));
        self.settle(core);
        if result.is_pending() {
            self.watch_events();
        }
        result
    }

    /// Handles completions once; a queue that cannot be polled any more breaks every connection on it.
    pub(super) fn progress(&self, core: &mut Core<T::Queue>) -> bool {
        core.progress().unwrap_or_else(|error| {
            let error = error.with_device(&self.device);
            core.fail_all(&error);
            false
        })
    }

    /// Handles all completions that there are; answers whether something happened. What peers do that completes nothing here can go on
    /// without an end: of that there is a bit, and the descriptor that is armed says that there is more.
    pub(super) fn run_dry(&self, core: &mut Core<T::Queue>) -> bool {
        let (mut happened, mut without) = (false, 0);
        while self.progress(core) {
            happened = true;
            if !core.had_completions {
                without += 1;
                if without >= ROUNDS {
                    break;
                }
            }
        }
        happened
    }

    fn driven<'e>(&'e self, core: &'e mut Core<T::Queue>) -> DrivenCore<'e, T> {
        DrivenCore { engine: self, core }
    }

    /// The event descriptor is readable.
    pub(super) fn on_event(self: &Arc<Self>) {
        let mut core = self.lock();
        hand_over::on_event(&mut self.driven(&mut core));
        self.settle(core);
    }
}

/// An engine, with its lock.
struct DrivenCore<'e, T: Transport> {
    engine: &'e Engine<T>,
    core: &'e mut Core<T::Queue>,
}

impl<T: Transport> Driven for DrivenCore<'_, T> {
    fn run_dry(&mut self) {
        self.engine.run_dry(self.core);
    }

    fn request_notification(&mut self) -> bool {
        let requested = self.core.queue.request_notification();
        requested.map_err(|error| self.core.fail_all(&error.with_device(&self.engine.device))).is_ok()
    }

    fn drain_events(&mut self) {
        if let Err(error) = self.core.queue.drain_events() {
            self.core.fail_all(&error);
        }
    }

    fn armed(&mut self) -> &mut bool {
        &mut self.core.armed
    }

    fn is_waited_for(&self) -> bool {
        self.core.waiting > 0
    }
}
