//! Grants to every connection of a domain.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Active;
use super::engine::Engine;
use super::grant::check_alignment;
use super::grants::MOST_PATIENCE;
use super::spans::{self, Trace};
use crate::memory::{
    Domain, Epoch, Exposure, GrantControl, GrantRecord, GrantState, RegionAccess, Registration, Revocation,
};
use crate::protocol::{GrantId, GrantSlots, MOST_GRANTS, Scope};
use crate::service::Service;
use crate::telemetry::GrantName;
use crate::{Access, Error, ErrorKind, Grant, Isolation, RemoteBuffer, Result};

/// The engines of this process, and the names of grants in their domains.
#[derive(Default)]
struct Registry {
    /// With the number of their domains, so that nobody holds an engine that is not its own.
    engines: Vec<(u64, Weak<Engine<Active>>)>,
    slots: HashMap<u64, GrantSlots>,
}

static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);

/// Makes an engine known: grants to its domain are grants to its connections.
pub(super) fn add_engine(engine: &Arc<Engine<Active>>) {
    with_registry(|registry| {
        registry.engines.retain(|(_, known)| known.strong_count() > 0);
        registry.engines.push((engine.domain.id(), Arc::downgrade(engine)));
    });
}

/// Grants `range` to every connection in the domain of `engine`.
pub(super) fn grant(
    exposure: &Exposure,
    engine: &Arc<Engine<Active>>,
    range: Range<usize>,
    access: Access,
) -> Result<Grant> {
    let domain = &*engine.domain;
    let failed = |error: Error| error.within("grant").with_device(&engine.device);
    let length = range.len() as u64;
    let remote = RegionAccess::Remote { access, on_demand: exposure.memory().is_on_demand() };
    let (region, address) =
        engine.place().make_room(|domain| exposure.grant_region(domain, range.clone(), remote)).map_err(failed)?;
    check_alignment(address, access).map_err(failed)?;
    let id = with_registry(|registry| registry.slots.entry(domain.id()).or_default().take(Scope::Domain));
    let id = id.ok_or_else(|| {
        let detail = format!("{MOST_GRANTS} grants in one domain");
        failed(Error::new(ErrorKind::ResourceExhausted, "grant").with_detail(detail))
    })?;
    let handle = RemoteBuffer::new(address, length, region.remote_key(), access, domain.nonce(), id);
    let state = Arc::new(GrantState::default());
    state.opened();
    let control = Arc::new(OfDomain {
        domain: Arc::clone(&engine.domain),
        service: Arc::clone(&engine.service),
        id,
        epoch: Epoch::current(),
        patience: engine.config.revoke_timeout,
        state: Arc::clone(&state),
        region: Mutex::new(Some(region)),
        device: engine.device.clone(),
        length,
        has_begun: Mutex::new(false),
    });
    let record = GrantRecord { state, control };
    exposure.add(&record);
    Ok(Grant::new(record, handle, Isolation::Domain))
}

/// A region, and the span of its end.
type Traced = (Arc<dyn Registration>, Trace);

/// Takes a grant to a domain back: asks every peer, then deregisters.
#[derive(Clone)]
struct Ending {
    state: Arc<GrantState>,
    region: Arc<Mutex<Option<Traced>>>,
}

struct OfDomain {
    domain: Arc<dyn Domain>,
    service: Arc<Service>,
    id: GrantId,
    epoch: Epoch,
    patience: Duration,
    state: Arc<GrantState>,
    region: Mutex<Option<Arc<dyn Registration>>>,
    device: String,
    length: u64,
    has_begun: Mutex<bool>,
}

impl GrantControl for OfDomain {
    fn begin(&self, patience: Option<Duration>) {
        if !self.epoch.is_current() || std::mem::replace(&mut *lock(&self.has_begun), true) {
            return;
        }
        self.state.ending();
        let trace = spans::revoke_for_domain(&self.device, GrantName::of(self.id), self.length);
        let region = lock(&self.region).take().map(|region| (region, trace));
        let ending = Ending { state: Arc::clone(&self.state), region: Arc::new(Mutex::new(region)) };
        let deadline = self.service.now() + patience.unwrap_or(self.patience).min(MOST_PATIENCE);
        let forced = ending.clone();
        self.service.run_at(deadline, move || forced.end(Revocation::Forced));
        // Dropped when the last peer has answered or gone.
        let answers: Arc<Answers> = Arc::new(Answers {
            service: Arc::clone(&self.service),
            domain: self.domain.id(),
            id: self.id,
            ending: Some(ending),
        });
        for engine in engines_of(self.domain.id()) {
            engine.with(|core| {
                for key in core.keys() {
                    core.ask_for_domain(key, self.id, Arc::clone(&answers) as _);
                }
            });
        }
    }

    fn is_ours(&self) -> bool {
        self.epoch.is_current()
    }

    fn poll(&self, context: &mut Context<'_>, state: &GrantState) {
        // The answers come to any of the domain's engines.
        for engine in engines_of(self.domain.id()) {
            let driven: Poll<()> = engine.drive(context, |core, waker| {
                if state.has_ended() {
                    return Poll::Ready(());
                }
                if let Some(waker) = waker {
                    core.wait_on_all(waker);
                }
                Poll::Pending
            });
            if driven.is_ready() {
                return;
            }
        }
    }
}

/// Told by its drop that no peer has still to answer.
struct Answers {
    service: Arc<Service>,
    domain: u64,
    id: GrantId,
    ending: Option<Ending>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        let Some(ending) = self.ending.take() else { return };
        let (domain, id) = (self.domain, self.id);
        // Deregistering may block, and this may be dropped anywhere.
        self.service.run_job(move || {
            ending.end(Revocation::Agreed);
            with_registry(|registry| {
                if let Some(slots) = registry.slots.get_mut(&domain) {
                    slots.release(id);
                }
            });
        });
    }
}

impl Ending {
    /// Deregisters, unless that was done; on the service thread.
    fn end(&self, how: Revocation) {
        let Some((region, trace)) = lock(&self.region).take() else { return };
        let result = region.end().map(|()| how).map_err(|error| error.within("revoke"));
        match &result {
            Ok(Revocation::Agreed) => trace.end("agreed"),
            Ok(_) => trace.end("forced"),
            Err(error) => trace.fail(error),
        }
        self.state.end(result).into_iter().for_each(Waker::wake);
    }
}

/// All engines of this process.
#[cfg(feature = "metrics")]
pub(super) fn engines() -> Vec<Arc<Engine<Active>>> {
    let all: Vec<_> =
        with_registry(|registry| registry.engines.iter().filter_map(|(_, engine)| engine.upgrade()).collect());
    all.into_iter().filter(|engine| engine.is_ours()).collect()
}

fn engines_of(domain: u64) -> Vec<Arc<Engine<Active>>> {
    let of_domain = |(of, engine): &(u64, Weak<Engine<Active>>)| (*of == domain).then(|| engine.upgrade()).flatten();
    let all: Vec<_> = with_registry(|registry| registry.engines.iter().filter_map(of_domain).collect());
    all.into_iter().filter(|engine| engine.is_ours()).collect()
}

fn with_registry<R>(act: impl FnOnce(&mut Registry) -> R) -> R {
    act(lock(&REGISTRY).get_or_insert_default())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
