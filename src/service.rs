//! The process' one service thread: events of the control plane, timers, and destructors that may block.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use crate::sync::locks::{Mutex, MutexGuard, OnceLock};
use crate::{Error, ErrorKind, Result};

type Job = Box<dyn FnOnce() + Send>;
/// Called when its descriptor is readable, or its time has come; answers whether to go on.
type Watch = Box<dyn FnMut() -> bool + Send>;

/// Event data of the wake-up, which no watch has.
const WAKE: u64 = u64::MAX;
/// Descriptors that are handled before the jobs get their turn.
const EVENTS: usize = 64;

/// Runs jobs on the service thread. None of them waits: each job handles what is there and returns.
pub(crate) struct Service {
    wake: OwnedFd,
    epoll: OwnedFd,
    inbox: Mutex<Inbox>,
    runner: OnceLock<ThreadId>,
    process: u32,
}

#[derive(Default)]
struct Inbox {
    jobs: Vec<Job>,
    timers: Vec<(Instant, Job)>,
    ticks: Vec<Tick>,
    watches: Vec<(WatchId, OwnedFd, Watch)>,
    unwatched: Vec<WatchId>,
    next_watch: u64,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty()
            && self.timers.is_empty()
            && self.ticks.is_empty()
            && self.watches.is_empty()
            && self.unwatched.is_empty()
    }
}

/// What is done again and again.
struct Tick {
    next: Instant,
    interval: Duration,
    tick: Watch,
}

/// Names a watch, to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatchId(u64);

static SERVICE: Mutex<Option<Arc<Service>>> = Mutex::new(None);

impl Service {
    /// The service of this process, started on first use. A forked child starts its own.
    pub(crate) fn of_process() -> Result<Arc<Self>> {
        let mut current = SERVICE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = current.as_ref().filter(|service| service.process == std::process::id()) {
            return Ok(Arc::clone(service));
        }
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::ResourceExhausted, "start the service thread").with_source(error)
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| failed(errno.into()))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN).map_err(|errno| failed(errno.into()))?;
        let service = Arc::new(Self {
            wake,
            epoll,
            inbox: Mutex::default(),
            runner: OnceLock::new(),
            process: std::process::id(),
        });
        let runner = Arc::clone(&service);
        std::thread::Builder::new().name("zcmi-service".to_owned()).spawn(move || runner.run()).map_err(failed)?;
        if let Some(parents) = current.replace(Arc::clone(&service)) {
            // Its objects are the parent process' to destroy.
            std::mem::forget(parents);
        }
        Ok(service)
    }

    /// Runs `job` soon.
    pub(crate) fn run_job(&self, job: impl FnOnce() + Send + 'static) {
        self.inbox().jobs.push(Box::new(job));
        self.notify();
    }

    /// Runs `job` at `when` or soon after.
    pub(crate) fn run_at(&self, when: Instant, job: impl FnOnce() + Send + 'static) {
        self.inbox().timers.push((when, Box::new(job)));
        self.notify();
    }

    /// Calls `tick` every `interval`, until it answers `false`. Once it is there it allocates nothing.
    pub(crate) fn run_every(&self, interval: Duration, tick: impl FnMut() -> bool + Send + 'static) {
        let next = Instant::now() + interval;
        self.inbox().ticks.push(Tick { next, interval, tick: Box::new(tick) });
        self.notify();
    }

    /// Calls `ready` whenever `fd` is readable, until it answers `false`.
    pub(crate) fn watch(&self, fd: OwnedFd, ready: impl FnMut() -> bool + Send + 'static) -> WatchId {
        let mut inbox = self.inbox();
        let id = WatchId(inbox.next_watch);
        inbox.next_watch += 1;
        inbox.watches.push((id, fd, Box::new(ready)));
        drop(inbox);
        self.notify();
        id
    }

    /// Ends a watch soon, and closes its descriptor.
    pub(crate) fn unwatch(&self, id: WatchId) {
        self.inbox().unwatched.push(id);
        self.notify();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        if self.runner.get() == Some(&std::thread::current().id()) {
            // It looks before it waits.
            return;
        }
        // A full counter means that a wake-up is pending already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn run(&self) {
        let _ = self.runner.set(std::thread::current().id());
        let mut watches: Vec<(WatchId, OwnedFd, Watch)> = Vec::new();
        let mut timers: Vec<(Instant, Job)> = Vec::new();
        let mut ticks: Vec<Tick> = Vec::new();
        let mut added = Vec::new();
        loop {
            let (jobs, unwatched) = {
                let mut inbox = self.inbox();
                timers.append(&mut inbox.timers);
                ticks.append(&mut inbox.ticks);
                added.append(&mut inbox.watches);
                (std::mem::take(&mut inbox.jobs), std::mem::take(&mut inbox.unwatched))
            };
            for (id, fd, mut watch) in added.drain(..) {
                match epoll::add(&self.epoll, &fd, EventData::new_u64(id.0), EventFlags::IN) {
                    Ok(()) => watches.push((id, fd, watch)),
                    Err(error) => {
                        tracing::error!(%error, "a descriptor cannot be watched");
                        watched(&mut watch);
                    }
                }
            }
            // Closing a descriptor would not do: it may have been duplicated.
            for (_, fd, _) in watches.extract_if(.., |(id, ..)| unwatched.contains(id)) {
                let _ = epoll::delete(&self.epoll, &fd);
            }
            jobs.into_iter().for_each(guarded);
            let now = Instant::now();
            timers.extract_if(.., |(when, _)| *when <= now).map(|(_, job)| job).for_each(guarded);
            ticks.retain_mut(|tick| {
                let is_due = tick.next <= now;
                if is_due {
                    tick.next = now + tick.interval;
                }
                !is_due || watched(&mut tick.tick)
            });
            let due = timers.iter().map(|(when, _)| *when).chain(ticks.iter().map(|tick| tick.next)).min();
            if self.inbox().is_empty() {
                self.wait(&mut watches, due.map(|due| due.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Waits for a wake-up, a descriptor or `timeout`; `None` is for ever, as nothing is due.
    fn wait(&self, watches: &mut Vec<(WatchId, OwnedFd, Watch)>, timeout: Option<Duration>) {
        // Whole milliseconds, rounded up: the oldest call takes no others.
        let timeout = timeout.map(|timeout| Duration::from_millis(timeout.as_micros().div_ceil(1000) as u64));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = [const { std::mem::MaybeUninit::<Event>::uninit() }; EVENTS];
        // Interrupted: the loop comes back.
        let Ok((ready, _)) = epoll::wait(&self.epoll, &mut events, timeout.as_ref()) else { return };
        for event in ready {
            let id = event.data.u64();
            if id == WAKE {
                let mut count = [0; 8];
                let _ = rustix::io::read(&self.wake, &mut count);
                continue;
            }
            let Some(at) = watches.iter().position(|(known, ..)| known.0 == id) else { continue };
            if !watched(&mut watches[at].2) {
                let (_, fd, _) = watches.swap_remove(at);
                let _ = epoll::delete(&self.epoll, &fd);
            }
        }
    }
}

/// Whether to go on; one that panics does not.
fn watched(watch: &mut Watch) -> bool {
    catch_unwind(AssertUnwindSafe(watch)).unwrap_or_else(|_| {
        tracing::error!("a watch of the service thread panicked and is removed");
        false
    })
}

/// A job that panics takes nothing else down.
fn guarded(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a job of the service thread panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn jobs_timers_and_watches_run_and_a_panic_stops_nothing() {
        let service = Service::of_process().expect("a thread");
        let (done, heard) = mpsc::channel();
        service.run_job(|| panic!("on purpose"));
        let sender = done.clone();
        service.run_job(move || sender.send("job").expect("the test listens"));
        assert_eq!(heard.recv_timeout(SOON), Ok("job"));

        let begun = Instant::now();
        let sender = done.clone();
        service.run_at(begun + Duration::from_millis(20), move || sender.send("timer").expect("the test listens"));
        assert_eq!(heard.recv_timeout(SOON), Ok("timer"));
        assert!(begun.elapsed() >= Duration::from_millis(20));

        let fd = eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
        service.watch(fd.try_clone().expect("a descriptor"), move || {
            done.send("watch").expect("the test listens");
            false
        });
        assert!(heard.recv_timeout(Duration::from_millis(50)).is_err(), "nothing is readable yet");
        rustix::io::write(&fd, &1u64.to_ne_bytes()).expect("an eventfd takes a write");
        assert_eq!(heard.recv_timeout(SOON), Ok("watch"));
        assert!(Arc::ptr_eq(&service, &Service::of_process().expect("a thread")));

        let (ticked, heard) = mpsc::channel();
        let mut count = 0;
        service.run_every(Duration::from_millis(5), move || {
            count += 1;
            ticked.send(count).expect("the test listens");
            count < 3
        });
        let seen: Vec<_> = heard.iter().collect();
        assert_eq!(seen, [1, 2, 3], "it ends, and its channel with it");
    }
}
