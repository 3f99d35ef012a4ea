//! The process' service thread: events of the control plane, timers, and destructors that may block.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::timers::{TimerId, Timers};
use super::{Job, Watch, WatchId};
use crate::sync::locks::{Mutex, MutexGuard, OnceLock};
use crate::{Error, ErrorKind, Result};

/// Event data of the wake-up, which no watch has.
const WAKE: u64 = u64::MAX;
/// Descriptors that are handled before the jobs get their turn.
const EVENTS: usize = 64;

/// The thread, as those who give it something to do see it.
pub(super) struct Thread(Arc<Loop>);

/// What it goes round with.
struct Loop {
    wake: OwnedFd,
    epoll: OwnedFd,
    inbox: Mutex<Inbox>,
    runner: OnceLock<ThreadId>,
    process: u32,
}

#[derive(Default)]
struct Inbox {
    jobs: Vec<Job>,
    timers: Timers<Due>,
    next_timer: u64,
    ticks: Vec<Tick>,
    watches: Vec<(WatchId, OwnedFd, Watch)>,
    unwatched: Vec<WatchId>,
    next_watch: u64,
}

impl Inbox {
    /// Whether there is nothing to be done at once.
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.ticks.is_empty() && self.watches.is_empty() && self.unwatched.is_empty()
    }
}

/// What is done again and again.
struct Tick {
    next: Instant,
    interval: Duration,
    tick: Watch,
}

impl Thread {
    pub(super) fn start() -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::ResourceExhausted, "start the service thread").with_source(error)
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| failed(errno.into()))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN).map_err(|errno| failed(errno.into()))?;
        let this = Arc::new(Loop {
            wake,
            epoll,
            inbox: Mutex::default(),
            runner: OnceLock::new(),
            process: std::process::id(),
        });
        let runner = Arc::clone(&this);
        std::thread::Builder::new().name("zcmi-service".to_owned()).spawn(move || runner.run()).map_err(failed)?;
        Ok(Self(this))
    }

    /// Whether it runs in this process.
    pub(super) fn is_ours(&self) -> bool {
        self.0.process == std::process::id()
    }

    pub(super) fn run_job(&self, job: Job) {
        self.0.inbox().jobs.push(job);
        self.0.notify();
    }

    pub(super) fn run_at(&self, when: Instant, job: Job) -> TimerId {
        self.at(when, Due::Job(job))
    }

    pub(super) fn wake_at(&self, when: Instant, waker: Waker) {
        self.at(when, Due::Waker(waker));
    }

    fn at(&self, when: Instant, due: Due) -> TimerId {
        let mut inbox = self.0.inbox();
        let id = TimerId(inbox.next_timer);
        inbox.next_timer += 1;
        // Else it waits no longer than that anyway.
        let is_first = inbox.timers.next_due().is_none_or(|next| when < next);
        inbox.timers.insert(when, id, due);
        drop(inbox);
        if is_first {
            self.0.notify();
        }
        id
    }

    /// In a forked child the lock may be held for ever, and nothing runs.
    pub(super) fn cancel(&self, timer: TimerId) {
        if self.is_ours() {
            let cancelled = self.0.inbox().timers.cancel(timer);
            // It may run foreign code, so without the lock.
            drop(cancelled);
        }
    }

    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.0.inbox().timers.size()
    }

    pub(super) fn run_every(&self, interval: Duration, tick: Watch) {
        let next = Instant::now() + interval;
        self.0.inbox().ticks.push(Tick { next, interval, tick });
        self.0.notify();
    }

    pub(super) fn watch(&self, fd: OwnedFd, ready: Watch) -> WatchId {
        let mut inbox = self.0.inbox();
        let id = WatchId(inbox.next_watch);
        inbox.next_watch += 1;
        inbox.watches.push((id, fd, ready));
        drop(inbox);
        self.0.notify();
        id
    }

    pub(super) fn unwatch(&self, id: WatchId) {
        self.0.inbox().unwatched.push(id);
        self.0.notify();
    }
}

impl Loop {
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
        let mut due_now: Vec<Due> = Vec::new();
        let mut ticks: Vec<Tick> = Vec::new();
        let mut added = Vec::new();
        loop {
            let (jobs, unwatched) = {
                let mut inbox = self.inbox();
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
            {
                // All first: what they set for now comes behind everything else.
                let mut inbox = self.inbox();
                due_now.extend(std::iter::from_fn(|| inbox.timers.pop_due(now)));
            }
            due_now.drain(..).for_each(Due::run);
            ticks.retain_mut(|tick| {
                let is_due = tick.next <= now;
                if is_due {
                    tick.next = now + tick.interval;
                }
                !is_due || watched(&mut tick.tick)
            });
            let next = {
                let mut inbox = self.inbox();
                inbox.is_empty().then(|| inbox.timers.next_due())
            };
            if let Some(timer) = next {
                let due = timer.into_iter().chain(ticks.iter().map(|tick| tick.next)).min();
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

/// What a timer does.
enum Due {
    Job(Job),
    Waker(Waker),
}

impl Due {
    fn run(self) {
        match self {
            Self::Job(job) => guarded(job),
            Self::Waker(waker) => guarded(|| waker.wake()),
        }
    }
}

/// A job that panics takes nothing else down.
fn guarded(job: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a job of the service thread panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Service;
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

        let sender = done.clone();
        let cancelled = service.run_at(Instant::now() + Duration::from_millis(20), move || {
            sender.send("cancelled").expect("the test listens");
        });
        let sender = done.clone();
        service.run_at(Instant::now() + Duration::from_millis(40), move || {
            sender.send("later").expect("the test listens");
        });
        service.cancel(cancelled);
        assert_eq!(heard.recv_timeout(SOON), Ok("later"), "what was cancelled does not come");
        service.cancel(cancelled);

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
