//! Memory that peers may access.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use super::registered_buffer::map;
use super::{Access, Error, InFlight, MemoryRegion, ProtectionDomain, Remote, Result, Segment};
use crate::memory::{Mapping, volatile};

/// Zeroed pages registered for peers. There is no slice of them: [`load`](Self::load) and [`store`](Self::store) copy by atomic
/// words, since a peer may be writing.
///
/// ```
/// use zcmi::verbs::{Access, Device, ExposedRegion, ProtectionDomain};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let domain = ProtectionDomain::allocate(&device.open()?)?;
/// let region = ExposedRegion::allocate(&domain, 4096, Access::REMOTE_READ | Access::REMOTE_WRITE)?;
/// region.store(8, b"hello");
/// // To be sent to a peer, which may from then on read and write all of it.
/// let place = region.remote();
/// # drop(place);
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
pub struct ExposedRegion {
    region: Arc<MemoryRegion>,
    memory: Arc<Shared>,
    length: usize,
}

struct Shared {
    mapping: Arc<Mapping>,
    /// Our own threads take turns: words and bytes of one place must not be accessed at once within a process.
    turns: RwLock<()>,
}

impl ExposedRegion {
    /// Allocates and registers `length` bytes.
    ///
    /// # Errors
    /// As [`RegisteredBuffer::allocate`](super::RegisteredBuffer::allocate) and [`MemoryRegion::register`].
    pub fn allocate(domain: &Arc<ProtectionDomain>, length: usize, access: Access) -> Result<Self> {
        let mapping = map(length)?;
        let region = MemoryRegion::register(domain, Arc::clone(&mapping) as _, 0..length, access)?;
        let memory = Arc::new(Shared { mapping, turns: RwLock::default() });
        Ok(Self { region: Arc::new(region), memory, length })
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The region; windows are bound to it.
    pub fn region(&self) -> &Arc<MemoryRegion> {
        &self.region
    }

    /// Where peers find the first byte, and the key to all of them.
    pub fn remote(&self) -> Remote {
        Remote { address: self.region.address(), key: self.region.remote_key() }
    }

    /// Copies bytes from `offset` on into `destination`. Aligned 8-byte words are read whole.
    ///
    /// # Panics
    /// If the range leaves the region.
    pub fn load(&self, offset: usize, destination: &mut [u8]) {
        self.check(offset, destination.len());
        let _turn = self.memory.turns.read().unwrap_or_else(PoisonError::into_inner);
        volatile::load(&*self.memory.mapping, offset, destination);
    }

    /// Copies `source` to `offset` on. Aligned 8-byte words are written whole.
    ///
    /// # Panics
    /// If the range leaves the region.
    pub fn store(&self, offset: usize, source: &[u8]) {
        self.check(offset, source.len());
        let _turn = self.memory.turns.write().unwrap_or_else(PoisonError::into_inner);
        volatile::store(&*self.memory.mapping, offset, source);
    }

    /// A part of it for a request of this process, which a device may read or write like a peer would.
    ///
    /// # Errors
    /// `EINVAL` if the range leaves the region.
    pub fn part(&self, range: Range<usize>) -> Result<ExposedPart> {
        if range.start > range.end || range.end > self.length {
            return Err(Error::invalid("ibv_post_send", format!("bytes {range:?} of a region of {}", self.length)));
        }
        let length = u32::try_from(range.len())
            .map_err(|_| Error::invalid("ibv_post_send", "a segment is shorter than 4 GiB"))?;
        let address = self.region.address() + range.start as u64;
        let segment = Segment { address, length, local_key: self.region.local_key() };
        Ok(ExposedPart { segment, _region: Arc::clone(&self.region) })
    }

    fn check(&self, offset: usize, length: usize) {
        let end = offset.checked_add(length).expect("a range within the region");
        assert!(end <= self.length, "bytes {offset}..{end} leave an exposed region of {} bytes", self.length);
    }
}

impl fmt::Debug for ExposedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExposedRegion").field("length", &self.length).finish_non_exhaustive()
    }
}

/// A part of an [`ExposedRegion`] in a request. Several may overlap: what then ends up there is the devices' matter.
pub struct ExposedPart {
    segment: Segment,
    _region: Arc<MemoryRegion>,
}

// SAFETY: the segment was checked to lie in the region, which is held; nobody has a reference to its bytes: they are
// accessed by atomic words only.
unsafe impl InFlight for ExposedPart {
    fn segment(&self) -> Segment {
        self.segment
    }
}

impl fmt::Debug for ExposedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExposedPart").field("length", &self.segment.length).finish_non_exhaustive()
    }
}
