//! One worker on one device: its lock, and how those who wait drive it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::core::{Core, LinkKey, ToDeregister};

use super::idle::Idle;
use super::link_grants::{OwnedGrant, Phase};
use super::liveness;
use super::reactors::Reactors;
use super::seats::Seats;
use super::spans::{Identity, Trace};
use crate::config::Config;
use crate::memory::{Domain, Epoch, Place, RegistrationCache, Revocation};
use crate::service::Service;
use crate::telemetry::{Count, Meters};
use crate::transport::{Device, Kind, Queue, Transport};
use crate::{Error, ErrorKind, Result, failpoint};

/// How often the service thread looks after an engine that nobody drives.
const TICK: Duration = Duration::from_millis(25);

/// How long frames wait for others when nobody waits for anything.
const CORKED: Duration = Duration::from_micros(200);

/// How often the service thread looks after a connection that ends.
const LINGER_STEP: Duration = Duration::from_millis(1);

pub(super) struct Engine<T: Transport> {
    pub(super) transport: Kind,
    pub(super) device: String,
    pub(super) domain: Arc<dyn Domain>,
    pub(super) cache: Arc<RegistrationCache>,
    pub(super) service: Arc<Service>,
    pub(super) config: Config,
    pub(super) meters: Arc<Meters>,
    pub(super) seats: Seats,
    epoch: Epoch,
    core: Mutex<Core<T::Queue>>,
    pub(super) reactors: Mutex<Reactors>,
    /// `None` where the queue calls instead.
    pub(super) events: Option<OwnedFd>,
    /// Where no device serves the peers: has the service thread do it while the application does not poll.
    pub(super) idle: Idle,
    is_looked_after: AtomicBool,
    /// Whether leases and deadlines are to be looked after by who has the lock.
    is_tending_due: AtomicBool,
    /// Whether the service thread is about to post what waits for other frames.
    is_uncorking: AtomicBool,
    uncork: OnceLock<Waker>,
}

/// Posts what waits for other frames.
struct Uncork<T: Transport>(Weak<Engine<T>>);

impl<T: Transport> Wake for Uncork<T> {
    fn wake(self: Arc<Self>) {
        if let Some(engine) = self.0.upgrade() {
            engine.is_uncorking.store(false, Ordering::Relaxed);
            engine.with(|core| {
                engine.run_dry(core);
                core.uncork();
            });
        }
    }
}

impl<T: Transport> Engine<T> {
    pub(super) fn open(device: &Device, config: &Config, seats: &Seats) -> Result<Arc<Self>> {
        // The most a device gives is used: a queue cannot grow later everywhere.
        let (domain, mut queue) = T::open(device, 32_767)?;
        if let Some(patience) = liveness::patience(config) {
            queue.give_up_after(patience);
        }
        let service = T::service(device)?;
        let (events, idle) = (queue.event_descriptor()?, queue.idle_descriptor()?);
        let engine = Arc::new(Self {
            transport: device.transport,
            device: device.name.clone(),
            cache: RegistrationCache::of_domain(&*domain, config.cache),
            domain: Arc::clone(&domain),
            core: Mutex::new(Core::new(queue, domain, service.clock().clone(), config.frame_size.into())),
            service,
            config: config.clone(),
            meters: Meters::of(device.transport.name(), &device.name),
            seats: seats.clone(),
            epoch: Epoch::current(),
            events,
            idle: Idle::default(),
            reactors: Mutex::default(),
            is_looked_after: AtomicBool::new(false),
            is_tending_due: AtomicBool::new(false),
            is_uncorking: AtomicBool::new(false),
            uncork: OnceLock::new(),
        });
        let _ = engine.uncork.set(Waker::from(Arc::new(Uncork(Arc::downgrade(&engine)))));
        if engine.events.is_none() {
            let called = Arc::downgrade(&engine);
            let on_event = move || {
                if let Some(engine) = called.upgrade() {
                    engine.on_event();
                }
            };
            engine.lock().queue.call_on_event(Box::new(on_event));
        }
        if let Some(idle) = idle {
            engine.watch_while_idle(idle);
        }
        #[cfg(feature = "metrics")]
        if !config.metrics_interval.is_zero() {
            let (alive, interval) = (Arc::downgrade(&engine), config.metrics_interval);
            engine.service.run_every(interval, move || {
                let is_alive = alive.strong_count() > 0;
                if is_alive {
                    crate::telemetry::publish_every(interval);
                }
                is_alive
            });
        }
        Ok(engine)
    }

    /// What the time is for all of its connections.
    pub(super) fn now(&self) -> Instant {
        self.service.now()
    }

    /// Where memory of its connections is registered.
    pub(super) fn place(&self) -> Place<'_> {
        Place { domain: &*self.domain, cache: &self.cache }
    }

    /// Ends the conversation in the background: says that it is over, waits for all that was sent, disconnects. The
    /// service thread looks after it until `deadline`, then ends it anyway.
    pub(super) fn linger(self: Arc<Self>, key: LinkKey, control: Arc<T::Link>, deadline: Instant, trace: Trace) {
        let is_delivered = self.with(|core| {
            self.run_dry(core);
            core.is_delivered(key)
        });
        if is_delivered || self.now() >= deadline {
            trace.end(if is_delivered { "ok" } else { "not all was taken in time" });
            return self.end(key, control);
        }
        let service = Arc::clone(&self.service);
        service.run_at(service.now() + LINGER_STEP, move || self.linger(key, control, deadline, trace));
    }

    /// Ends a connection now and forgets it.
    fn end(self: Arc<Self>, key: LinkKey, control: Arc<T::Link>) {
        self.with(|core| core.fail(key, Error::new(ErrorKind::Closed, "connection")));
        let service = Arc::clone(&self.service);
        // Behind the job that closes the channel: the queue pair goes before the identifier.
        service.run_job(move || {
            drop(control);
            self.forget(key);
        });
    }

    fn forget(self: &Arc<Self>, key: LinkKey) {
        if let Some(mut link) = self.with(|core| core.remove(key)) {
            self.meters.take(&mut link.tally);
        }
    }

    /// The transport says that the connection has ended: what arrived before is handled first.
    pub(super) fn lost(self: &Arc<Self>, key: LinkKey, error: Error) {
        self.with(|core| {
            self.run_dry(core);
            let finished = core.link(key).is_some_and(|link| link.peer_finished());
            let error = match error.kind() {
                ErrorKind::PeerClosed if !finished => error
                    .into_kind(ErrorKind::ConnectionBroken)
                    .with_detail("the peer disconnected without finishing: its process died or it lost the connection"),
                _ => error,
            };
            core.fail(key, error);
        });
    }

    /// Takes back a connection that was not set up to the end.
    pub(super) fn abandon(self: &Arc<Self>, key: LinkKey) {
        self.with(|core| core.fail(key, Error::new(ErrorKind::Closed, "connection")));
        let engine = Arc::clone(self);
        self.service.run_job(move || engine.forget(key));
    }

    /// Has the service thread look after the engine's connections as long as there are some: what the peer asks for
    /// is answered though the application waits for nothing, leases end, deadlines pass.
    pub(super) fn look_after(self: &Arc<Self>) {
        if self.is_looked_after.swap(true, Ordering::Relaxed) {
            return;
        }
        let engine = Arc::downgrade(self);
        self.service.run_every(TICK, move || engine.upgrade().is_some_and(|engine| engine.tick()));
    }

    fn tick(self: &Arc<Self>) -> bool {
        let mut core = match self.core.try_lock() {
            Ok(core) => core,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody drives it, and tends it too.
            Err(TryLockError::WouldBlock) => {
                self.is_tending_due.store(true, Ordering::Relaxed);
                return true;
            }
        };
        core.uncork();
        let (was_polled, somebody_sleeps) = (core.was_polled, core.waiting > 0);
        if !was_polled || self.idle.is_needed() {
            let happened = self.run_dry(&mut core);
            if self.idle.is_wanted(happened, was_polled, somebody_sleeps) {
                self.serve_while_idle(&mut core);
            }
        }
        core.was_polled = false;
        self.tend(&mut core);
        self.settle(core);
        true
    }

    /// Handles what is there, once; answers whether there was something. If somebody else is at it, there is nothing to do.
    pub(super) fn round(self: &Arc<Self>) -> bool {
        let mut core = match self.core.try_lock() {
            Ok(core) => core,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        core.uncork();
        let happened = self.progress(&mut core);
        self.settle(core);
        happened
    }

    /// Does what the time asks for.
    fn tend(&self, core: &mut Core<T::Queue>) {
        let now = self.now();
        core.stamp = now;
        core.queue.tend(now);
        if core.is_any_due() {
            core.tend_all(now);
        }
        core.watch_all(now);
        core.collect_all_returns();
    }

    /// Whether this process made the engine. A forked child must leave it alone: its lock may be held for ever, its
    /// queue pairs are the parent's.
    pub(super) fn is_ours(&self) -> bool {
        self.epoch.is_current()
    }

    /// Calls `act` with the core, then closes what broke and wakes whom it made ready.
    pub(super) fn with<R>(self: &Arc<Self>, act: impl FnOnce(&mut Core<T::Queue>) -> R) -> R {
        let mut core = self.lock();
        let result = act(&mut core);
        self.settle(core);
        result
    }

    pub(super) fn try_lock(&self) -> std::sync::TryLockResult<MutexGuard<'_, Core<T::Queue>>> {
        self.core.try_lock()
    }

    /// Has who has the lock do what the time asks for, too.
    pub(super) fn must_tend(&self) {
        self.is_tending_due.store(true, Ordering::Relaxed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core<T::Queue>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the lock back, closes what broke and calls the wakers: they are foreign code.
    #[inline]
    pub(super) fn settle(self: &Arc<Self>, core: MutexGuard<'_, Core<T::Queue>>) {
        if core.leaves_something() || self.is_tending_due.load(Ordering::Relaxed) || self.must_uncork_later(&core) {
            self.settle_all(core);
        }
    }

    fn settle_all(self: &Arc<Self>, mut core: MutexGuard<'_, Core<T::Queue>>) {
        if self.is_tending_due.load(Ordering::Relaxed) {
            self.is_tending_due.store(false, Ordering::Relaxed);
            self.tend(&mut core);
        }
        for grant in core.to_deregister.drain(..) {
            self.deregister_later(grant);
        }
        if self.must_uncork_later(&core) {
            self.uncork_later();
        }
        // Before the lock is free: whoever sees the failure may at once queue the job that forgets the link.
        while let Some(key) = core.broken.pop() {
            self.close_later(key);
        }
        let (mut garbage, ended) = (std::mem::take(&mut core.garbage), std::mem::take(&mut core.ended));
        let woken = (!core.woken.is_empty()).then(|| std::mem::take(&mut core.woken));
        drop(core);
        // Foreign code: what panics there must not keep anybody else from being told.
        let had_garbage = !garbage.is_empty();
        garbage.drain(..).for_each(|garbage| guarded(|| drop(garbage)));
        ended.into_iter().for_each(|grant| guarded(|| grant.tell()));
        if woken.is_none() && !had_garbage {
            return;
        }
        let mut woken = woken.unwrap_or_default();
        woken.drain(..).for_each(|waker| guarded(|| waker.wake()));
        let mut core = self.lock();
        // Their room is kept, so that nothing is allocated for the next.
        keep_room(&mut core.woken, woken);
        keep_room(&mut core.garbage, garbage);
        drop(core);
    }

    /// Whether frames wait for others, nobody waits for anything who would post them, and the service thread does not know.
    fn must_uncork_later(&self, core: &Core<T::Queue>) -> bool {
        !core.corked.is_empty() && !core.armed && !self.is_uncorking.load(Ordering::Relaxed)
    }

    fn uncork_later(&self) {
        self.is_uncorking.store(true, Ordering::Relaxed);
        if let Some(waker) = self.uncork.get() {
            self.service.wake_at(self.now() + CORKED, waker.clone());
        }
    }

    /// Closes the channel of a failed link on the service thread, where destroying it may block.
    fn close_later(self: &Arc<Self>, key: LinkKey) {
        let engine = Arc::clone(self);
        self.service.run_job(move || engine.close_channel(key));
    }

    /// Ends a grant that is a region on the service thread, since that may block.
    fn deregister_later(self: &Arc<Self>, grant: ToDeregister) {
        let engine = Arc::clone(self);
        self.service.run_job(move || {
            let ToDeregister { link, id, region, state, how } = grant;
            let ended = region.end().map(|()| how).map_err(|error| error.within("revoke"));
            state.end(ended).into_iter().for_each(Waker::wake);
            engine.with(|core| core.grant_deregistered(link, id));
        });
    }

    /// The channel is gone, and the windows with it: all grants end.
    fn end_grants(self: &Arc<Self>, key: LinkKey) {
        let (grants, detached, questions) = self.with(|core| {
            let Some(link) = core.link(key) else { return Default::default() };
            let grants = link.grants.drain();
            let is_lost =
                |grant: &&OwnedGrant| !grant.is_offer && !matches!(grant.phase, Phase::Deregistering | Phase::Over);
            link.tally.add(Count::GrantsLost, grants.iter().filter(is_lost).count() as u64);
            (grants, std::mem::take(&mut link.detached), link.grants.forget_questions())
        });
        for mut grant in grants {
            if grant.phase == Phase::Deregistering {
                // Its job tells.
                continue;
            }
            // A window's region is dropped; it is the exposure's to end.
            let ended = match grant.region.take() {
                Some(region) if grant.window.is_none() => region.end().map_err(|error| error.within("revoke")),
                _ => Ok(()),
            };
            // A message that was taken is none that was lost.
            let how = if grant.is_offer && grant.is_agreed { Revocation::Agreed } else { Revocation::ConnectionLost };
            let woken = grant.state.end(ended.map(|()| how));
            woken.into_iter().for_each(Waker::wake);
        }
        drop(detached);
        drop(questions);
        self.with(|core| core.wake_senders(key));
    }

    fn tell_ending(self: &Arc<Self>, key: LinkKey) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let known = self.with(|core| {
            let link = core.link(key)?;
            Some((link.identity.clone()?, Arc::clone(&link.ending)))
        });
        if let Some((identity, ending)) = known
            && let Some(error) = ending.get()
        {
            let Identity { connection, peer, transport, device, .. } = &*identity;
            tracing::debug!(%connection, peer, transport = transport.name(), device, kind = ?error.kind(), %error, "ended");
        }
    }

    fn close_channel(self: &Arc<Self>, key: LinkKey) {
        self.tell_ending(key);
        // Not before the failure is handled here: a refused access breaks the peer's end, which may not notice by itself.
        if let Some(hang_up) = self.with(|core| core.link(key).and_then(|link| link.hang_up.take())) {
            // It was a connection.
            let kind = self.with(|core| core.link(key)?.ending.get().map(Error::kind));
            kind.into_iter().for_each(|kind| self.meters.ended(kind));
            hang_up();
            failpoint::reach("close.hung_up");
        }
        let mut core = self.lock();
        self.run_dry(&mut core);
        let Some(channel) = core.take_channel(key) else { return self.settle(core) };
        let destroy = core.queue.close(channel);
        // The lock is free while the channel is destroyed; its memory comes back only after that.
        self.settle(core);
        let flushed = destroy.map(|destroy| destroy()).unwrap_or_default();
        failpoint::reach("close.destroyed");
        self.with(|core| {
            flushed.into_iter().for_each(|mut completion| core.dispatch_to(key, &mut completion));
        });
        self.end_grants(key);
        // Unmapped, and the peer's pages with the last buffer in them.
        let pages = self.with(|core| core.link(key).and_then(|link| link.pages.take()));
        drop(pages);
    }
}

/// Has `list` go on in the room of `larger`, which is empty.
fn keep_room<T>(list: &mut Vec<T>, mut larger: Vec<T>) {
    if list.capacity() < larger.capacity() {
        larger.append(list);
        *list = larger;
    }
}

fn guarded(foreign: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(foreign)).is_err() {
        tracing::error!("an owner of memory or a waker panicked");
    }
}

impl<T: Transport> Drop for Engine<T> {
    fn drop(&mut self) {
        if !self.epoch.is_current() {
            return;
        }
        self.reactors.get_mut().unwrap_or_else(PoisonError::into_inner).end(&self.service);
        if let Some(watch) = self.idle.watch() {
            self.service.unwatch(watch);
        }
    }
}
