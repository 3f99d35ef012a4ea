//! A domain without a device, that notices what goes wrong.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; it makes a memory that breaks its promise, for a test")]

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Domain, RegionAccess, Registrable, Registration, volatile};
use crate::sync::locks::{Mutex, MutexGuard};
use crate::{Error, ErrorKind, Result};

/// Registers memory with nobody, and keeps the books: what is registered, and which bytes it had then. A device
/// goes on to see the pages that it was given, so that is what [`dma_read`](Self::dma_read) answers.
pub(crate) struct FakeDomain {
    id: u64,
    books: Arc<Mutex<Books>>,
    snapshots: bool,
}

/// What is registered, and what is to go wrong.
#[derive(Default)]
struct Books {
    live: HashMap<u32, Region>,
    next_key: u32,
    registered: u64,
    deregistered: u64,
    quarantined: usize,
    faults: Faults,
}

/// What is to go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The next so many registrations fail for want of memory.
    pub(crate) refuse: usize,
    /// Registrations beyond so many bytes fail; 0 is no limit.
    pub(crate) byte_limit: usize,
    /// The next so many deregistrations fail.
    pub(crate) stuck: usize,
    /// How long it takes to register.
    pub(crate) slowness: Duration,
}

/// A live registration.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub(crate) address: usize,
    pub(crate) length: usize,
    pub(crate) access: RegionAccess,
    bytes: Option<Arc<[u8]>>,
}

impl FakeDomain {
    /// A domain that remembers the bytes of what it registers.
    pub(crate) fn new() -> Self {
        Self::with(true)
    }

    /// A domain that does not read what it registers.
    pub(crate) fn without_snapshots() -> Self {
        Self::with(false)
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        lock(&self.books).faults = faults;
    }

    pub(crate) fn faults(&self) -> Faults {
        lock(&self.books).faults
    }

    /// What a device that was given `key` sees at `address`.
    ///
    /// # Errors
    /// If the key is unknown, or opens something else.
    pub(crate) fn dma_read(&self, key: u32, address: usize, length: usize) -> std::result::Result<Vec<u8>, String> {
        let region = self.region(key).ok_or_else(|| format!("key {key} is not registered"))?;
        let start = address.checked_sub(region.address).filter(|start| start + length <= region.length);
        let start = start.ok_or_else(|| format!("key {key} does not open {length} bytes at {address:#x}"))?;
        let bytes = region.bytes.ok_or("a domain without snapshots")?;
        Ok(bytes[start..start + length].to_vec())
    }

    /// What `key` opens.
    pub(crate) fn region(&self, key: u32) -> Option<Region> {
        lock(&self.books).live.get(&key).cloned()
    }

    /// How many registrations live.
    pub(crate) fn live(&self) -> usize {
        lock(&self.books).live.len()
    }

    /// The bytes of the registrations that live.
    pub(crate) fn live_bytes(&self) -> usize {
        lock(&self.books).live.values().map(|region| region.length).sum()
    }

    /// How many registrations were ever made.
    pub(crate) fn registered(&self) -> u64 {
        lock(&self.books).registered
    }

    /// How many deregistrations failed.
    pub(crate) fn quarantined(&self) -> usize {
        lock(&self.books).quarantined
    }

    fn with(snapshots: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), books: Arc::default(), snapshots }
    }
}

impl Domain for FakeDomain {
    fn id(&self) -> u64 {
        self.id
    }

    fn nonce(&self) -> u64 {
        self.id
    }

    fn has_windows(&self) -> bool {
        false
    }

    fn pages_on_demand(&self) -> bool {
        false
    }

    fn register_dma_buf(&self, _: OwnedFd, _: u64, _: usize, _: RegionAccess) -> Result<Arc<dyn Registration>> {
        Err(Error::new(ErrorKind::Unsupported, "register memory"))
    }

    fn register(
        &self,
        memory: &Arc<dyn Registrable>,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<Arc<dyn Registration>> {
        assert!(range.start < range.end && range.end <= memory.length(), "{range:?} of {} bytes", memory.length());
        let slowness = self.faults().slowness;
        if !slowness.is_zero() {
            std::thread::sleep(slowness);
        }
        let mut books = lock(&self.books);
        let no_memory = || Error::new(ErrorKind::MemoryLimit, "register memory");
        if books.faults.refuse > 0 {
            books.faults.refuse -= 1;
            return Err(no_memory());
        }
        let bytes = |books: &Books| books.live.values().map(|region| region.length).sum::<usize>();
        if books.faults.byte_limit > 0 && bytes(&books) + range.len() > books.faults.byte_limit {
            return Err(no_memory());
        }
        let snapshot = self.snapshots.then(|| {
            let mut bytes = vec![0; range.len()];
            volatile::load(&**memory, range.start, &mut bytes);
            bytes.into()
        });
        books.next_key += 1;
        books.registered += 1;
        let key = books.next_key;
        let address = memory.address().addr() + range.start;
        books.live.insert(key, Region { address, length: range.len(), access, bytes: snapshot });
        Ok(Arc::new(FakeRegistration { key, memory: Some(Arc::clone(memory)), books: Arc::clone(&self.books) }))
    }
}

/// Keeps what a device does not let go of. It stays reachable, so that AddressSanitizer tells it from a leak.
pub(crate) fn keep(memory: Arc<dyn Registrable>) {
    static KEPT: Mutex<Vec<Arc<dyn Registrable>>> = Mutex::new(Vec::new());
    lock(&KEPT).push(memory);
}

struct FakeRegistration {
    key: u32,
    // Taken when deregistered.
    memory: Option<Arc<dyn Registrable>>,
    books: Arc<Mutex<Books>>,
}

impl FakeRegistration {
    fn deregister(&mut self) -> Result<()> {
        let Some(memory) = self.memory.take() else { return Ok(()) };
        let mut books = lock(&self.books);
        assert!(books.live.contains_key(&self.key), "key {} was deregistered already", self.key);
        if books.faults.stuck > 0 {
            books.faults.stuck -= 1;
            books.quarantined += 1;
            keep(memory);
            return Err(Error::new(ErrorKind::Other, "deregister memory"));
        }
        books.live.remove(&self.key);
        books.deregistered += 1;
        drop(books);
        // Foreign code may run.
        drop(memory);
        Ok(())
    }
}

impl Registration for FakeRegistration {
    fn local_key(&self) -> u32 {
        self.key
    }

    fn remote_key(&self) -> u32 {
        self.key
    }

    fn end(self: Arc<Self>) -> Result<()> {
        let mut this = Arc::try_unwrap(self).map_err(|_| Error::new(ErrorKind::Other, "deregister memory"))?;
        this.deregister()
    }
}

impl Drop for FakeRegistration {
    fn drop(&mut self) {
        let _ = self.deregister();
    }
}

/// The addresses of some memory without what keeps it there.
#[cfg(test)]
pub(crate) struct Unowned {
    address: usize,
    length: usize,
}

#[cfg(test)]
impl Unowned {
    pub(crate) fn of(memory: &dyn Registrable) -> Arc<dyn Registrable> {
        Arc::new(Self { address: memory.address().expose_provenance(), length: memory.length() })
    }
}

#[cfg(test)]
// SAFETY: none: it breaks the promise that the range stays mapped, which is the bug that tests are to find. The fake
// domain reads it only while it is being registered, and the caller has the memory then.
unsafe impl Registrable for Unowned {
    fn address(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.address)
    }

    fn length(&self) -> usize {
        self.length
    }

    fn is_writable(&self) -> bool {
        false
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
