//! Memory that is allocated and registered together, for the safe tier.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use super::{Access, Error, InFlight, MemoryRegion, ProtectionDomain, Result, Segment};
use crate::memory::Mapping;

/// Zeroed pages registered for this process' own requests. They deref to `[u8]`: a queue owns them while a device uses them,
/// and no peer has a key.
///
/// ```
/// use zcmi::verbs::{Device, ProtectionDomain, RegisteredBuffer};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let domain = ProtectionDomain::allocate(&device.open()?)?;
/// let mut buffer = RegisteredBuffer::allocate(&domain, 4096)?;
/// buffer[..5].copy_from_slice(b"hello");
/// // What a request is to carry of it.
/// buffer.set_used(0..5);
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
pub struct RegisteredBuffer {
    region: Arc<MemoryRegion>,
    mapping: Arc<Mapping>,
    start: usize,
    length: usize,
    used: Range<usize>,
}

impl RegisteredBuffer {
    /// Allocates and registers `length` bytes, at least one.
    ///
    /// # Errors
    /// `ENOMEM` if there is no memory or RLIMIT_MEMLOCK is too low, `EINVAL` if `length` is 0.
    pub fn allocate(domain: &Arc<ProtectionDomain>, length: usize) -> Result<Self> {
        let mapping = map(length)?;
        let region = MemoryRegion::register(domain, Arc::clone(&mapping) as _, 0..length, Access::LOCAL_WRITE)?;
        Ok(Self { region: Arc::new(region), mapping, start: 0, length, used: 0..length.min(MOST_USED) })
    }

    /// Allocates `count` buffers of `length` bytes with one registration.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate); `EINVAL` also if `count` is 0.
    pub fn allocate_many(domain: &Arc<ProtectionDomain>, count: usize, length: usize) -> Result<Vec<Self>> {
        // A cache line apart, so that neighbours do not share one.
        let stride = length.checked_next_multiple_of(64).ok_or_else(no_memory)?;
        let whole = Self::allocate(domain, stride.checked_mul(count).ok_or_else(no_memory)?)?;
        let cut = |index| Self {
            region: Arc::clone(&whole.region),
            mapping: Arc::clone(&whole.mapping),
            start: index * stride,
            length,
            used: 0..length.min(MOST_USED),
        };
        Ok((0..count).map(cut).collect())
    }

    /// Sets the part that requests use from now on; all of it at first, or as much of it as a segment can name.
    ///
    /// # Panics
    /// If the range leaves the buffer or is longer than `u32::MAX` bytes.
    pub fn set_used(&mut self, range: Range<usize>) {
        assert!(range.len() <= MOST_USED, "{range:?} is more than a segment can name");
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} of {} bytes", self.length);
        self.used = range;
    }

    /// The part that requests use.
    pub fn used(&self) -> Range<usize> {
        self.used.clone()
    }

    /// The region that holds it, perhaps with others.
    pub fn region(&self) -> &MemoryRegion {
        &self.region
    }

    fn address(&self) -> *mut u8 {
        self.mapping.base().wrapping_add(self.start)
    }
}

impl Deref for RegisteredBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in a live mapping and belongs to this buffer alone: neither a request nor a peer has it.
        unsafe { std::slice::from_raw_parts(self.address(), self.length) }
    }
}

impl DerefMut for RegisteredBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` excludes every other slice of it.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.length) }
    }
}

// SAFETY: the used part was checked to lie in the buffer, whose mapping and region it holds, and to be no longer than a
// segment can name; the range belongs to this value alone.
unsafe impl InFlight for RegisteredBuffer {
    fn segment(&self) -> Segment {
        Segment {
            address: self.address() as u64 + self.used.start as u64,
            length: self.used.len() as u32,
            local_key: self.region.local_key(),
        }
    }
}

impl fmt::Debug for RegisteredBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredBuffer").field("length", &self.length).field("used", &self.used).finish()
    }
}

/// Several pieces of memory in one request, scattered or gathered in order.
///
/// ```
/// use zcmi::verbs::{Device, Pieces, ProtectionDomain, RegisteredBuffer};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let domain = ProtectionDomain::allocate(&device.open()?)?;
/// let [header, body] = [64, 4096].map(|length| RegisteredBuffer::allocate(&domain, length));
/// let pieces = Pieces::new(vec![header?, body?]);
/// assert_eq!(pieces.into_inner().len(), 2);
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
#[derive(Debug)]
pub struct Pieces<B> {
    pieces: Vec<B>,
    segments: Vec<Segment>,
}

impl<B: InFlight> Pieces<B> {
    /// Puts pieces together.
    pub fn new(pieces: Vec<B>) -> Self {
        let mut segments = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            segments.push(piece.segment());
            segments.extend_from_slice(piece.more_segments());
        }
        Self { pieces, segments }
    }

    /// The pieces again.
    pub fn into_inner(self) -> Vec<B> {
        self.pieces
    }
}

// SAFETY: the pieces keep what they promise while they are owned here, and they are not changed.
unsafe impl<B: InFlight> InFlight for Pieces<B> {
    fn segment(&self) -> Segment {
        self.segments.first().copied().unwrap_or_default()
    }

    fn more_segments(&self) -> &[Segment] {
        self.segments.get(1..).unwrap_or_default()
    }
}

/// Bytes that a segment can name.
const MOST_USED: usize = u32::MAX as usize;

pub(super) fn map(length: usize) -> Result<Arc<Mapping>> {
    if length == 0 {
        return Err(Error::invalid("ibv_reg_mr", "a region has at least one byte"));
    }
    let mapping = Mapping::new(length).map_err(|error| {
        Error::returned("mmap", error.raw_os_error().unwrap_or(libc::ENOMEM)).with_detail(format!("{length} bytes"))
    })?;
    Ok(Arc::new(mapping))
}

fn no_memory() -> Error {
    Error::returned("mmap", libc::ENOMEM).with_detail("more bytes than an address can name")
}
