//! Who runs what cannot wait for the application: the process' one service thread, or a simulation.

mod thread;
mod timers;

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::Result;
use crate::clock::Clock;
use crate::sync::locks::Mutex;

use thread::Thread;
pub(crate) use timers::TimerId;

pub(crate) type Job = Box<dyn FnOnce() + Send>;
/// Called when its descriptor is readable, or its time has come; answers whether to go on.
pub(crate) type Watch = Box<dyn FnMut() -> bool + Send>;

/// Runs jobs. None of them waits: each job handles what is there and returns.
pub(crate) struct Service {
    runner: Runner,
    clock: Clock,
}

enum Runner {
    Thread(Thread),
    #[cfg(any(test, feature = "internals"))]
    Simulated(Box<dyn Simulated>),
}

/// Runs jobs on the thread of a simulation, in its time and order.
#[cfg(any(test, feature = "internals"))]
pub(crate) trait Simulated: Send + Sync {
    fn run_job(&self, job: Job);
    fn run_at(&self, when: Instant, job: Job);
    fn run_every(&self, interval: Duration, tick: Watch);
}

/// Names a watch, to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatchId(u64);

static SERVICE: Mutex<Option<Arc<Service>>> = Mutex::new(None);

impl Service {
    /// The service of this process, started on first use. A forked child starts its own.
    pub(crate) fn of_process() -> Result<Arc<Self>> {
        let mut current = SERVICE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = current.as_ref().filter(|service| service.is_ours()) {
            return Ok(Arc::clone(service));
        }
        let thread = Thread::start()?;
        let service = Arc::new(Self { runner: Runner::Thread(thread), clock: Clock::real() });
        if let Some(parents) = current.replace(Arc::clone(&service)) {
            // Its objects are the parent process' to destroy.
            std::mem::forget(parents);
        }
        Ok(service)
    }

    /// A service whose jobs run when the simulation lets them.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn simulated(runner: impl Simulated + 'static, clock: Clock) -> Arc<Self> {
        Arc::new(Self { runner: Runner::Simulated(Box::new(runner)), clock })
    }

    /// The clock that its timers go by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What the time is.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Runs `job` soon.
    pub(crate) fn run_job(&self, job: impl FnOnce() + Send + 'static) {
        match &self.runner {
            Runner::Thread(thread) => thread.run_job(Box::new(job)),
            #[cfg(any(test, feature = "internals"))]
            Runner::Simulated(simulated) => simulated.run_job(Box::new(job)),
        }
    }

    /// Runs `job` at `when` or soon after, unless it is cancelled.
    pub(crate) fn run_at(&self, when: Instant, job: impl FnOnce() + Send + 'static) -> TimerId {
        match &self.runner {
            Runner::Thread(thread) => thread.run_at(when, Box::new(job)),
            #[cfg(any(test, feature = "internals"))]
            Runner::Simulated(simulated) => {
                simulated.run_at(when, Box::new(job));
                TimerId(u64::MAX)
            }
        }
    }

    /// Drops a job whose time has not come: nothing is left of it. In a simulation, which ends soon, it comes all the same.
    pub(crate) fn cancel(&self, timer: TimerId) {
        match &self.runner {
            Runner::Thread(thread) => thread.cancel(timer),
            #[cfg(any(test, feature = "internals"))]
            Runner::Simulated(_) => {}
        }
    }

    /// Room that its timers take, in timers.
    #[cfg(test)]
    pub(crate) fn timers(&self) -> usize {
        match &self.runner {
            Runner::Thread(thread) => thread.timers(),
            Runner::Simulated(_) => 0,
        }
    }

    /// Calls `waker` at `when` or soon after; it allocates nothing.
    pub(crate) fn wake_at(&self, when: Instant, waker: Waker) {
        match &self.runner {
            Runner::Thread(thread) => thread.wake_at(when, waker),
            #[cfg(any(test, feature = "internals"))]
            Runner::Simulated(simulated) => simulated.run_at(when, Box::new(move || waker.wake())),
        }
    }

    /// Calls `tick` every `interval`, until it answers `false`. Once it is there it allocates nothing.
    pub(crate) fn run_every(&self, interval: Duration, tick: impl FnMut() -> bool + Send + 'static) {
        match &self.runner {
            Runner::Thread(thread) => thread.run_every(interval, Box::new(tick)),
            #[cfg(any(test, feature = "internals"))]
            Runner::Simulated(simulated) => simulated.run_every(interval, Box::new(tick)),
        }
    }

    /// Calls `ready` whenever `fd` is readable, until it answers `false`. A simulation has no descriptors: there nobody calls it.
    pub(crate) fn watch(&self, fd: OwnedFd, ready: impl FnMut() -> bool + Send + 'static) -> WatchId {
        match &self.runner {
            Runner::Thread(thread) => thread.watch(fd, Box::new(ready)),
            #[cfg(any(test, feature = "internals"))]
            Runner::Simulated(_) => {
                tracing::error!("a simulation was given a descriptor to watch");
                WatchId(u64::MAX)
            }
        }
    }

    /// Ends a watch soon, and closes its descriptor.
    pub(crate) fn unwatch(&self, id: WatchId) {
        match &self.runner {
            Runner::Thread(thread) => thread.unwatch(id),
            #[cfg(any(test, feature = "internals"))]
            Runner::Simulated(_) => {}
        }
    }

    /// Whether this process made it.
    pub(crate) fn is_ours(&self) -> bool {
        match &self.runner {
            Runner::Thread(thread) => thread.is_ours(),
            #[cfg(any(test, feature = "internals"))]
            Runner::Simulated(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job, and when it is to run if not soon.
    type Timed = (Option<Instant>, Job);

    /// Keeps what it is given; ticks go on at once.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Timed>>>);

    impl Simulated for Kept {
        fn run_job(&self, job: Job) {
            self.0.lock().expect("no panic").push((None, job));
        }

        fn run_at(&self, when: Instant, job: Job) {
            self.0.lock().expect("no panic").push((Some(when), job));
        }

        fn run_every(&self, _: Duration, mut tick: Watch) {
            while tick() {}
        }
    }

    #[test]
    fn a_simulated_service_gives_all_to_the_simulation_and_has_its_time() {
        let (kept, clock) = (Kept::default(), Clock::of_simulation());
        let service = Service::simulated(kept.clone(), clock.clone());
        let later = service.now() + Duration::from_secs(1);
        let ran = Arc::new(Mutex::new(Vec::new()));
        for (name, when) in [("job", None), ("timer", Some(later))] {
            let ran = Arc::clone(&ran);
            let job = move || ran.lock().expect("no panic").push(name);
            match when {
                None => service.run_job(job),
                Some(when) => drop(service.run_at(when, job)),
            }
        }
        let mut ticks = 0;
        let counted = Arc::clone(&ran);
        service.run_every(Duration::ZERO, move || {
            counted.lock().expect("no panic").push("tick");
            ticks += 1;
            ticks < 2
        });
        clock.advance_to(7);
        assert!(service.clock().is_virtual() && service.now() < later);
        let kept = std::mem::take(&mut *kept.0.lock().expect("no panic"));
        assert_eq!(kept.iter().map(|(when, _)| *when).collect::<Vec<_>>(), [None, Some(later)]);
        kept.into_iter().for_each(|(_, job)| job());
        assert_eq!(*ran.lock().expect("no panic"), ["tick", "tick", "job", "timer"]);
    }
}
