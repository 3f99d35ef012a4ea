//! Registering what is not in the cache.

use std::ops::Range;
use std::sync::{Arc, Weak};

use super::Lease;
use super::core::{Charge, Core, Removed};
use super::entry::{Graves, Record};
use super::pending::Pending;
use super::wanted::Wanted;
use crate::memory::{Domain, RegionAccess, Registrable, Registration, SharedMemory};
use crate::telemetry::{Meters, Phase, Timer};
use crate::{Error, ErrorKind, Result};

/// How many entries a miss examines for a last owner.
const OWNERS_A_MISS: usize = 4;

/// What to do about a miss, decided under the lock.
enum Plan<'a> {
    Found(Lease),
    /// Register it, once what was evicted for it is gone; without a reservation it is not to be kept.
    Register {
        removed: Removed,
        reservation: Option<Reservation<'a>>,
    },
    Wait(Arc<Pending>),
}

/// Room in the cache for a registration that others may be waiting for.
struct Reservation<'a> {
    core: &'a Core,
    pending: Arc<Pending>,
    /// What to give back in the end: all of it unless the registration is kept.
    charge: Charge,
}

impl Core {
    #[cold]
    pub(super) fn miss(
        &self,
        wanted: &Wanted,
        memory: &SharedMemory,
        range: Range<usize>,
        domain: &dyn Domain,
        access: RegionAccess,
    ) -> Result<Lease> {
        if access.is_writing() && !memory.is_writable() {
            let detail = "the memory may only be read";
            return Err(Error::new(ErrorKind::AccessDenied, "register memory").with_detail(detail));
        }
        let mut may_wait = true;
        let (removed, reservation) = loop {
            match self.plan(wanted, may_wait) {
                Plan::Found(lease) => return Ok(lease),
                Plan::Register { removed, reservation } => break (removed, reservation),
                Plan::Wait(pending) => {
                    pending.wait();
                    // Whoever was waited for once in vain does not hold us up again.
                    may_wait = false;
                }
            }
        };
        let kept = reservation.as_ref().map_or_else(Charge::default, |reserved| reserved.charge);
        // Their owners go last: dropping those can want the same range, and then it must not be pending.
        let mut graves = self.deregister(removed, kept);
        let memory = Arc::new(memory.clone());
        let lease = match (self.register(&memory, range, domain, access, &mut graves), reservation) {
            (Ok(registration), Some(reservation)) => Ok(self.keep(wanted, registration, memory, reservation)),
            (Ok(registration), None) => Ok(Lease::uncached(registration, memory, self.epoch)),
            (Err(error), reservation) => {
                drop(reservation);
                Err(error)
            }
        };
        drop(graves);
        lease
    }

    /// A registration of all of `memory` that is not kept.
    pub(super) fn register_uncached(
        &self,
        memory: &SharedMemory,
        domain: &dyn Domain,
        access: RegionAccess,
    ) -> Result<Lease> {
        let mut inner = self.lock();
        inner.counts.misses += 1;
        inner.counts.uncached += 1;
        drop(inner);
        let (memory, mut graves) = (Arc::new(memory.clone()), Graves::default());
        let registration = self.register(&memory, 0..memory.length(), domain, access, &mut graves)?;
        Ok(Lease::uncached(registration, memory, self.epoch))
    }

    fn plan(&self, wanted: &Wanted, may_wait: bool) -> Plan<'_> {
        let mut inner = self.lock();
        let period = self.next_period();
        if let Some(entry) = inner.find(&self.hints, wanted)
            && let Some(key) = entry.lease(wanted, period)
        {
            return Plan::Found(Lease::cached(entry, key));
        }
        if may_wait && let Some(pending) = inner.pending.iter().find(|pending| pending.range.contains(wanted)) {
            return Plan::Wait(Arc::clone(pending));
        }
        inner.counts.misses += 1;
        let mut removed = inner.drop_ownerless(&self.hints, OWNERS_A_MISS, self.now());
        let charge = Charge { bytes: wanted.pinned(), entries: 1 };
        let reserved = charge.bytes <= inner.limits.bytes && !inner.limits.keep_nothing() && {
            let mut total = inner.charged.beyond(removed.charge);
            total.add(charge);
            let (evicted, fits) = inner.evict(&self.hints, period, total, false);
            removed.append(evicted);
            fits
        };
        if !reserved {
            inner.counts.uncached += 1;
            return Plan::Register { removed, reservation: None };
        }
        // What was removed stays charged until it is gone, and its room is then ours.
        let more = charge.beyond(removed.charge);
        inner.charged.add(more);
        let pending = Arc::new(Pending::new(*wanted));
        inner.pending.push(Arc::clone(&pending));
        Plan::Register { removed, reservation: Some(Reservation { core: self, pending, charge }) }
    }

    /// Registers; where there is no room for it, once more when nothing idle takes room.
    fn register(
        &self,
        memory: &Arc<SharedMemory>,
        range: Range<usize>,
        domain: &dyn Domain,
        access: RegionAccess,
        graves: &mut Graves,
    ) -> Result<Arc<dyn Registration>> {
        let memory = Arc::clone(memory) as Arc<dyn Registrable>;
        #[cfg(test)]
        let memory = if super::mutation::Mutation::TokenNotHeld.is_on() {
            crate::memory::fake_domain::Unowned::of(&*memory)
        } else {
            memory
        };
        let mut timer = Timer::begin(&Meters::of_process(), Phase::Register);
        let registered = domain.register(&memory, range.clone(), access).or_else(|error| match error.kind() {
            ErrorKind::MemoryLimit | ErrorKind::ResourceExhausted => {
                graves.append(self.flush_registrations(false));
                domain.register(&memory, range, access)
            }
            _ => Err(error),
        });
        if registered.is_ok() {
            timer.end();
        }
        registered
    }

    /// Puts a registration into the cache, if it is still of use there.
    fn keep(
        &self,
        wanted: &Wanted,
        registration: Arc<dyn Registration>,
        memory: Arc<SharedMemory>,
        mut reservation: Reservation<'_>,
    ) -> Lease {
        let mut inner = self.lock();
        let mut removed = Removed::default();
        // Meanwhile the cache may have been disabled, or a larger range come in.
        let kept = if inner.limits.keep_nothing() || inner.index.find(wanted).is_some() {
            Err((registration, memory))
        } else {
            let contained = inner.index.contained(wanted);
            inner.give_up(&self.hints, contained, &mut removed);
            #[cfg(test)]
            let token = (!super::mutation::Mutation::TokenNotHeld.is_on()).then(|| Arc::clone(&memory));
            #[cfg(not(test))]
            let token = Some(Arc::clone(&memory));
            let core = Weak::clone(&self.this);
            let record =
                Record { registration, memory: token, core, pinned: reservation.charge.bytes, epoch: self.epoch };
            inner.add(self, wanted, record).map_err(|record| (record.registration, memory))
        };
        let lease = match kept {
            Ok(entry) => {
                reservation.charge = Charge::default();
                Lease::cached(entry, entry.key())
            }
            Err((registration, memory)) => {
                inner.counts.uncached += 1;
                Lease::uncached(registration, memory, self.epoch)
            }
        };
        let start = inner.index.len() > 0 && !std::mem::replace(&mut inner.sweeping, true);
        drop(inner);
        drop(reservation);
        self.release(removed);
        if start {
            self.schedule_sweep();
        }
        lease
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut inner = self.core.lock();
        inner.pending.retain(|pending| !Arc::ptr_eq(pending, &self.pending));
        inner.refund(self.charge);
        drop(inner);
        self.pending.finish();
    }
}
