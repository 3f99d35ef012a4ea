//! Memory regions.

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::fork::Creator;
use super::{Access, Context, Error, OnDemandPagingCapabilities, ProtectionDomain, Registrable, Result, limits};

/// A registered range (`ibv_reg_mr(3)`). It holds its memory and its domain; dropping it deregisters,
/// after which the device refuses every access with its keys.
///
/// ```
/// use std::sync::Arc;
/// use zcmi::verbs::{Access, Device, MemoryRegion, ProtectionDomain, SharedBytes};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let domain = ProtectionDomain::allocate(&device.open()?)?;
/// let bytes = SharedBytes::new(b"for any peer to read".to_vec());
/// let region = MemoryRegion::register(&domain, bytes, 4..7, Access::REMOTE_READ)?;
/// println!("read {} bytes at {:#x} with key {:#x}", region.length(), region.address(), region.remote_key());
/// # Ok(())
/// # }
/// ```
pub struct MemoryRegion {
    raw: NonNull<ffi::ibv_mr>,
    pub(super) start: u64,
    pub(super) length: usize,
    pub(super) access: Access,
    registered: bool,
    creator: Creator,
    // Dropped after `Drop::drop` has deregistered: the domain and the memory outlive the region.
    pub(super) domain: Arc<ProtectionDomain>,
    pub(super) backing: Backing,
}

/// What the bytes of a region are.
pub(super) enum Backing {
    DmaBuf(#[allow(dead_code, reason = "held")] OwnedFd),
    Memory(Arc<dyn Registrable>),
}

// SAFETY: a region is an immutable handle; deregistration is thread-safe.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for MemoryRegion {}

impl MemoryRegion {
    /// Registers exactly `range` (bytes within `memory`), which pins its pages unless `access` says
    /// [`ON_DEMAND`](Access::ON_DEMAND).
    ///
    /// # Errors
    /// `ENOMEM` if RLIMIT_MEMLOCK is too low (the detail names it), `EINVAL` if the range is empty or leaves the
    /// memory, `EACCES` if writing is asked of memory that is [only read](Registrable::is_writable), `EFAULT` if
    /// writing or windows are asked of memory mapped read-only, `EOPNOTSUPP` if the device lacks what `access` asks.
    pub fn register(
        domain: &Arc<ProtectionDomain>,
        memory: Arc<dyn Registrable>,
        range: Range<usize>,
        access: Access,
    ) -> Result<Self> {
        let start = if access.contains(Access::ZERO_BASED) {
            0
        } else {
            memory.address().addr().wrapping_add(range.start) as u64
        };
        Self::register_at(domain, memory, range, start, access)
    }

    /// As [`register`](Self::register), but requests name the first byte by `start` instead of its address in this
    /// process (`ibv_reg_mr_iova(3)`). Both must lie equally far from the beginning of a page.
    ///
    /// # Errors
    /// As [`register`](Self::register); `EINVAL` too if `start` lies otherwise in its page or the range would pass
    /// the end of the address space.
    pub fn register_at(
        domain: &Arc<ProtectionDomain>,
        memory: Arc<dyn Registrable>,
        range: Range<usize>,
        start: u64,
        access: Access,
    ) -> Result<Self> {
        const CALL: &str = "ibv_reg_mr";
        let address = check(CALL, &*memory, &range, access)?;
        check_start(CALL, address, range.len(), start, access)?;
        if access.contains(Access::ON_DEMAND) && !Self::supports_on_demand(domain.context()) {
            let device = domain.context().name();
            let detail = format!("{device} has no on-demand paging: register without ON_DEMAND, which pins the pages");
            return Err(Error::returned(CALL, libc::EOPNOTSUPP).with_detail(detail));
        }
        if access.contains(Access::ON_DEMAND)
            && !address.addr().is_multiple_of(rustix::param::page_size())
            && domain.context().is_soft_roce()
        {
            let detail = "Soft-RoCE ignores where in its page an access on demand begins (seen in Linux 7.3), so it would write \
                          before memory that does not begin at a page";
            return Err(Error::invalid(CALL, detail));
        }
        // What drivers make of the flag differs; addresses that begin at 0 are the same everywhere.
        let flags = access.without(Access::ZERO_BASED).raw();
        // This form leaves out optional flags that the kernel does not know.
        // SAFETY: the range was checked to lie within the memory, which `Registrable` keeps mapped and
        // which this region keeps alive until it is deregistered.
        let raw = unsafe { ffi::ibv_reg_mr_iova2(domain.raw(), address.cast(), range.len(), start, flags) };
        let raw = NonNull::new(raw).ok_or_else(|| explain(Error::last(CALL), domain.context(), range.len(), access))?;
        Ok(Self::of(raw, start, range.len(), access, domain, Backing::Memory(memory)))
    }

    /// Imports `length` bytes at `offset` of a dma-buf, for instance of a GPU (`ibv_reg_dmabuf_mr(3)`). Requests name
    /// the first one by `start`, which must lie as far from the beginning of a page as `offset`.
    ///
    /// # Errors
    /// `EINVAL` if `file` is no dma-buf, or the range is empty or too large; `EOPNOTSUPP` if the device, its kernel
    /// driver or its library cannot import one.
    pub fn register_dma_buf(
        domain: &Arc<ProtectionDomain>,
        file: OwnedFd,
        offset: u64,
        length: usize,
        start: u64,
        access: Access,
    ) -> Result<Self> {
        const CALL: &str = "ibv_reg_dmabuf_mr";
        /// File system of dma-bufs (`linux/magic.h`).
        const DMA_BUF_MAGIC: i64 = 0x444d_4142;
        let system = rustix::fs::fstatfs(&file).map_err(|errno| Error::returned("fstatfs", errno.raw_os_error()))?;
        if system.f_type as i64 != DMA_BUF_MAGIC {
            return Err(Error::invalid(CALL, "the descriptor is not of a dma-buf"));
        }
        if length == 0 || offset.checked_add(length as u64).is_none() {
            return Err(Error::invalid(CALL, format!("{length} bytes at offset {offset} are no range")));
        }
        check_start(CALL, std::ptr::without_provenance_mut(offset as usize), length, start, access)?;
        let flags = access.without(Access::ZERO_BASED).raw() as i32;
        // SAFETY: the domain exists; the kernel checks the range against the dma-buf, which it keeps.
        let raw = unsafe { ffi::ibv_reg_dmabuf_mr(domain.raw(), offset, length, start, file.as_raw_fd(), flags) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let error = Error::last(CALL);
            match error.errno() {
                Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPROTONOSUPPORT) => {
                    let device = domain.context().name();
                    Error::returned(CALL, libc::EOPNOTSUPP)
                        .with_detail(format!("{device} cannot import a dma-buf, with this kernel and rdma-core"))
                }
                _ => explain(error, domain.context(), length, access),
            }
        })?;
        Ok(Self::of(raw, start, length, access, domain, Backing::DmaBuf(file)))
    }

    /// Whether the device registers memory on demand ([`Access::ON_DEMAND`]); its attributes
    /// ([`OnDemandPaging`](super::OnDemandPaging)) tell for which operations. False if it cannot be asked.
    pub fn supports_on_demand(context: &Context) -> bool {
        let extended = context.attributes().ok().and_then(|attributes| attributes.extended);
        extended
            .is_some_and(|extended| extended.on_demand_paging.general.contains(OnDemandPagingCapabilities::EXPLICIT))
    }

    /// Deregisters, and tells whether that worked: only then can no peer reach the memory any more.
    ///
    /// # Errors
    /// The device's error, for instance where a window is still bound to the region. The memory then stays mapped
    /// for ever, since the device may still reach it.
    pub fn deregister(mut self) -> Result<()> {
        self.end()
    }

    /// Address of the first registered byte, as requests name it.
    pub fn address(&self) -> u64 {
        self.start
    }

    /// Registered bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// What it may be used for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Its protection domain.
    pub fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// The key for this process' own requests.
    pub fn local_key(&self) -> u32 {
        // SAFETY: the region is registered, so its structure may be read.
        unsafe { (*self.raw.as_ptr()).lkey }
    }

    /// The key that a peer presents. Whoever has it can use the region.
    pub fn remote_key(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw.as_ptr()).rkey }
    }

    pub(super) fn raw(&self) -> *mut ffi::ibv_mr {
        self.raw.as_ptr()
    }

    fn of(
        raw: NonNull<ffi::ibv_mr>,
        start: u64,
        length: usize,
        access: Access,
        domain: &Arc<ProtectionDomain>,
        backing: Backing,
    ) -> Self {
        let (domain, creator) = (Arc::clone(domain), Creator::here());
        Self { raw, start, length, access, registered: true, creator, domain, backing }
    }

    pub(super) fn end(&mut self) -> Result<()> {
        self.registered = false;
        if !self.creator.may_destroy("memory region") {
            // The region is the parent's. The range is not mapped in this child (MADV_DONTFORK).
            return Ok(());
        }
        // SAFETY: the region is deregistered once; its domain and memory are still held.
        let answer = unsafe { ffi::ibv_dereg_mr(self.raw.as_ptr()) };
        Error::check("ibv_dereg_mr", answer).inspect_err(|error| {
            tracing::error!(%error, "a memory region could not be deregistered; its memory is set aside");
            if let Backing::Memory(memory) = &self.backing {
                // The device may still reach the pages: they are never given back.
                std::mem::forget(Arc::clone(memory));
            }
        })
    }
}

/// The first byte of `range`, if it may be registered so.
pub(super) fn check(
    call: &'static str,
    memory: &dyn Registrable,
    range: &Range<usize>,
    access: Access,
) -> Result<*mut u8> {
    let length = memory.length();
    if range.start >= range.end || range.end > length {
        let Range { start, end } = range;
        return Err(Error::invalid(call, format!("{start}..{end} is no range of bytes in a memory of {length}")));
    }
    if access.is_writing() && !memory.is_writable() {
        let detail = format!("the memory may only be read, and {access} asks for more");
        return Err(Error::returned(call, libc::EACCES).with_detail(detail));
    }
    Ok(memory.address().wrapping_add(range.start))
}

/// Whether the device can call what lies at `address` by `start`.
fn check_start(call: &'static str, address: *mut u8, length: usize, start: u64, access: Access) -> Result<()> {
    let page = rustix::param::page_size() as u64;
    if access.contains(Access::ZERO_BASED) && start != 0 {
        return Err(Error::invalid(call, format!("ZERO_BASED begins at 0, not at {start:#x}")));
    }
    if !(address.addr() as u64 ^ start).is_multiple_of(page) {
        let (is, wanted) = (address.addr() as u64 % page, start % page);
        let detail = format!(
            "the first byte lies {is} bytes into its page, the start address {start:#x} {wanted} bytes: they must agree"
        );
        return Err(Error::invalid(call, detail));
    }
    if start.checked_add(length as u64).is_none() {
        return Err(Error::invalid(call, format!("{length} bytes from {start:#x} pass the end of the address space")));
    }
    Ok(())
}

/// Tells of a refused registration what the number may mean.
fn explain(error: Error, context: &Context, length: usize, access: Access) -> Error {
    match error.errno() {
        Some(libc::EFAULT) => error.with_detail(format!(
            "some of the {length} bytes are not mapped, or are mapped read-only, which {access} does not allow"
        )),
        Some(libc::EINVAL | libc::EOPNOTSUPP) => {
            let device = context.name();
            error.with_detail(format!("{device} takes no region of {length} bytes for {access}"))
        }
        _ => limits::explain_locked_memory(error, length),
    }
}

impl fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegion")
            .field("length", &self.length)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        if self.registered {
            let _ = self.end();
        }
    }
}
