//! Exposure: what peers may be granted access to, and all that must end before its owner has it back.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::grant::GrantRecord;
use super::{Domain, GrantState, RegionAccess, Registration, SharedMemory, Slab, Tether};
use crate::sync::locks::{Mutex, MutexGuard};
use crate::{Error, ErrorKind, Result};

/// Regions that no grant uses and that are kept for the next one, for each exposure.
const MOST_IDLE: usize = 4;

/// Memory that can be registered for peers, part by part.
pub(crate) trait Grantable: Send + Sync + 'static {
    fn length(&self) -> usize;
    /// Whether peers may change it.
    fn is_writable(&self) -> bool;
    /// Whether it is registered without being pinned.
    fn is_on_demand(&self) -> bool;
    /// Whether windows can be bound over it.
    fn takes_windows(&self) -> bool;
    /// The slab that peers may be given in which it lies, and where it begins there.
    fn shareable(&self) -> Option<(&Arc<Slab>, usize)> {
        None
    }
    /// A peer is about to be given access that only the peer itself can end: until `state` says that it has agreed, or the tether is
    /// cut, it may access the memory.
    fn open_to(&self, tether: &Arc<Tether>, state: &Arc<GrantState>) {
        let _ = (tether, state);
    }
    /// The same bytes for the registration cache, where nobody ever changes them.
    fn shared(&self) -> Option<SharedMemory>;
    /// Registers exactly `range`; answers the address of its first byte too, as peers name it. The registration holds the
    /// memory until it is gone for certain.
    fn register(
        self: Arc<Self>,
        domain: &dyn Domain,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<(Arc<dyn Registration>, u64)>;
}

/// The regions and grants of exposed memory.
pub(crate) struct Exposure {
    memory: Arc<dyn Grantable>,
    regions: Mutex<Vec<Region>>,
    grants: Mutex<Vec<GrantRecord>>,
}

/// Grants of the same range use the same region.
struct Region {
    domain: u64,
    range: Range<usize>,
    access: RegionAccess,
    address: u64,
    registration: Arc<dyn Registration>,
}

impl Exposure {
    pub(crate) fn new(memory: Arc<dyn Grantable>) -> Self {
        Self { memory, regions: Mutex::default(), grants: Mutex::default() }
    }

    pub(crate) fn memory(&self) -> &dyn Grantable {
        &*self.memory
    }

    /// A region of exactly `range` in `domain` whose own key opens it, and the address of its first byte.
    ///
    /// # Errors
    /// What registering answers.
    pub(crate) fn grant_region(
        &self,
        domain: &dyn Domain,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<(Arc<dyn Registration>, u64)> {
        Arc::clone(&self.memory).register(domain, range, access)
    }

    /// A region of exactly `range` in `domain` for windows, which others of the same range share, and the address of its
    /// first byte.
    ///
    /// # Errors
    /// What registering answers.
    pub(crate) fn window_region(
        &self,
        domain: &dyn Domain,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<(Arc<dyn Registration>, u64)> {
        let is_wanted =
            |region: &&Region| (region.domain, &region.range, region.access) == (domain.id(), &range, access);
        if let Some(known) = lock(&self.regions).iter().find(is_wanted) {
            return Ok((Arc::clone(&known.registration), known.address));
        }
        let (registration, address) = Arc::clone(&self.memory).register(domain, range.clone(), access)?;
        let answer = (Arc::clone(&registration), address);
        lock(&self.regions).push(Region { domain: domain.id(), range, access, address, registration });
        self.trim();
        Ok(answer)
    }

    pub(crate) fn add(&self, grant: &GrantRecord) {
        let mut grants = lock(&self.grants);
        // When it is full only, so that a grant costs the same however many there are.
        if grants.len() == grants.capacity() {
            grants.retain(|grant| !grant.state.has_ended());
            let live = grants.len();
            grants.reserve(live.max(8));
        }
        grants.push(grant.clone());
    }

    /// Grants that have not ended.
    pub(crate) fn live_grants(&self) -> usize {
        lock(&self.grants).iter().filter(|grant| !grant.state.has_ended()).count()
    }

    /// Ends all grants and all regions: then no device reaches the memory through this any more.
    ///
    /// # Errors
    /// If a device does not let go.
    pub(crate) async fn end(self) -> Result<()> {
        let grants = std::mem::take(&mut *lock(&self.grants));
        grants.iter().for_each(|grant| grant.control.begin(None));
        let mut result = Ok(());
        for grant in grants {
            result = result.and(grant.ended().await.map(drop));
        }
        let regions = std::mem::take(&mut *lock(&self.regions));
        let regions = regions.into_iter().map(|region| end(region.registration)).fold(Ok(()), Result::and);
        result.and(regions)
    }

    /// Deregisters what has long not been used.
    fn trim(&self) {
        let unused: Vec<_> = {
            let mut regions = lock(&self.regions);
            let idle = |region: &Region| Arc::strong_count(&region.registration) == 1;
            let excess = regions.iter().filter(|region| idle(region)).count().saturating_sub(MOST_IDLE);
            regions.extract_if(.., |region| idle(region)).take(excess).collect()
        };
        for region in unused {
            // It was logged where it failed, and the memory is set aside.
            let _ = end(region.registration);
        }
    }
}

impl Drop for Exposure {
    fn drop(&mut self) {
        // Each grant's region holds the memory until its end, which comes in the background.
        lock(&self.grants).iter().for_each(|grant| grant.control.begin(None));
    }
}

/// Ends a registration that nobody else uses.
fn end(registration: Arc<dyn Registration>) -> Result<()> {
    registration.end().map_err(|error| error.within("revoke"))
}

/// What is granted of a memory of `length` bytes.
///
/// # Errors
/// [`OutOfBounds`](ErrorKind::OutOfBounds) if the range is empty or leaves the memory.
pub(crate) fn check_range(range: &Range<usize>, length: usize) -> Result<()> {
    if range.start < range.end && range.end <= length {
        return Ok(());
    }
    let detail = format!("bytes {range:?} of an exposed memory of {length}");
    Err(Error::new(ErrorKind::OutOfBounds, "grant").with_detail(detail))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
