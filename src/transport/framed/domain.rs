//! What this process has registered, by key.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::memory::{Domain, Epoch, RegionAccess, Registrable, Registration};
use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::{Access, Error, ErrorKind, Result};

/// One for the process, whatever the carriers, as a device's.
pub(super) struct SoftwareDomain {
    id: u64,
    /// Itself, for its registrations.
    this: Weak<SoftwareDomain>,
    nonce: u64,
    epoch: Epoch,
    books: Mutex<Books>,
}

/// Regions that peers may reach by their own keys.
struct Books {
    regions: HashMap<u32, Arc<Region>>,
    /// Keys are numbers in a random order, of which none comes twice before all have come.
    next: u32,
    factor: u32,
    mask: u32,
}

/// Registered memory, until it is deregistered.
pub(super) struct Region {
    memory: RwLock<Option<Arc<dyn Registrable>>>,
    /// Address of the memory's first byte.
    base: u64,
    range: Range<usize>,
    access: RegionAccess,
}

static DOMAIN: Mutex<Option<Arc<SoftwareDomain>>> = Mutex::new(None);

/// Domains of other transports count from 1; no process has so many.
const FIRST_ID: u64 = 1 << 62;

impl SoftwareDomain {
    pub(super) fn of_process() -> Arc<Self> {
        let mut domain = lock(&DOMAIN);
        if let Some(domain) = domain.as_ref().filter(|domain| domain.epoch.is_current()) {
            return Arc::clone(domain);
        }
        let id = domain.as_ref().map_or(FIRST_ID, |parents| parents.id + 1);
        let (next, factor, mask) = (rand::random(), rand::random::<u32>() | 1, rand::random());
        let books = Mutex::new(Books { regions: HashMap::new(), next, factor, mask });
        let new = Arc::new_cyclic(|this| Self {
            id,
            this: Weak::clone(this),
            nonce: rand::random(),
            epoch: Epoch::current(),
            books,
        });
        if let Some(parents) = domain.replace(Arc::clone(&new)) {
            std::mem::forget(parents);
        }
        new
    }

    /// A key that opens nothing yet.
    pub(super) fn new_key(&self) -> u32 {
        lock(&self.books).new_key()
    }

    /// The region that peers reach by `key`, if it allows `right`.
    pub(super) fn find(&self, key: u32, right: Access) -> Option<Arc<Region>> {
        let books = lock(&self.books);
        let region = books.regions.get(&key)?;
        region.allows(right).then(|| Arc::clone(region))
    }
}

impl Books {
    fn new_key(&mut self) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1);
            let key = self.next.wrapping_mul(self.factor) ^ self.mask;
            if key != 0 && !self.regions.contains_key(&key) {
                return key;
            }
        }
    }
}

impl Region {
    fn allows(&self, right: Access) -> bool {
        matches!(self.access, RegionAccess::Remote { access, .. } if access.contains(right))
    }

    /// Does `act` with the memory and the place in it of `length` bytes at `address`, if all are registered: it stays so meanwhile.
    pub(super) fn with<R>(
        &self,
        address: u64,
        length: usize,
        act: impl FnOnce(&dyn Registrable, usize) -> R,
    ) -> Option<R> {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        let memory = memory.as_deref()?;
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let end = offset.checked_add(length)?;
        (self.range.start <= offset && end <= self.range.end).then(|| act(memory, offset))
    }

    /// From now on nobody reaches the memory.
    fn close(&self) -> Option<Arc<dyn Registrable>> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Domain for SoftwareDomain {
    fn id(&self) -> u64 {
        self.id
    }

    fn nonce(&self) -> u64 {
        self.nonce
    }

    fn has_windows(&self) -> bool {
        true
    }

    fn pages_on_demand(&self) -> bool {
        true
    }

    fn takes_pages_of_peers(&self) -> bool {
        true
    }

    fn register(
        &self,
        memory: &Arc<dyn Registrable>,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<Arc<dyn Registration>> {
        if access.is_writing() && !memory.is_writable() {
            let detail = "the memory may only be read";
            return Err(Error::new(ErrorKind::Unsupported, "register memory").with_detail(detail));
        }
        if range.is_empty() || range.end > memory.length() {
            let detail = format!("bytes {range:?} of a memory of {}", memory.length());
            return Err(Error::new(ErrorKind::OutOfBounds, "register memory").with_detail(detail));
        }
        let base = memory.address().addr() as u64;
        let region = Region { memory: RwLock::new(Some(Arc::clone(memory))), base, range, access };
        let region = Arc::new(region);
        let key = matches!(access, RegionAccess::Remote { .. }).then(|| {
            let mut books = lock(&self.books);
            let key = books.new_key();
            books.regions.insert(key, Arc::clone(&region));
            key
        });
        Ok(Arc::new(SoftwareRegistration { domain: Weak::clone(&self.this), region, key }))
    }

    fn register_dma_buf(&self, _: OwnedFd, _: u64, _: usize, _: RegionAccess) -> Result<Arc<dyn Registration>> {
        let detail = "memory of devices needs a device that reaches it: use RDMA";
        Err(Error::new(ErrorKind::Unsupported, "register memory").with_detail(detail))
    }
}

/// Dropping it deregisters.
pub(super) struct SoftwareRegistration {
    domain: Weak<SoftwareDomain>,
    pub(super) region: Arc<Region>,
    /// What peers call it, if they may.
    key: Option<u32>,
}

impl Registration for SoftwareRegistration {
    /// Nobody looks at it: who may use the memory is decided where an operation takes it.
    fn local_key(&self) -> u32 {
        0
    }

    fn remote_key(&self) -> u32 {
        self.key.unwrap_or_default()
    }

    fn end(self: Arc<Self>) -> Result<()> {
        let held = |_| Error::new(ErrorKind::Other, "deregister memory").with_detail("something still uses the region");
        Arc::try_unwrap(self).map(drop).map_err(held)
    }
}

impl Drop for SoftwareRegistration {
    fn drop(&mut self) {
        // In a forked child its locks may be held for ever, and nobody reaches anything.
        let Some(domain) = self.domain.upgrade().filter(|domain| domain.epoch.is_current()) else { return };
        if let Some(key) = self.key {
            let removed = lock(&domain.books).regions.remove(&key);
            drop(removed);
        }
        // Waits for an access that goes on, which never waits itself.
        drop(self.region.close());
    }
}
