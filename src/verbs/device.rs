//! Devices, their open contexts, ports and GIDs.

use std::ffi::CStr;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::event::AsyncEvent;
use super::fork::{self, Creator};
use super::limits::explain_descriptors;
use super::{Error, Result};

/// An RDMA device that the kernel offers, not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    name: String,
}

impl Device {
    /// All devices, in the order of `ibv_get_device_list(3)`. Empty where the kernel has none.
    ///
    /// # Errors
    /// Fails where libibverbs is missing ([`Error::is_not_installed`]), sysfs cannot be read, or no descriptor is left.
    pub fn list() -> Result<Vec<Device>> {
        let list = DeviceList::read()?;
        Ok(list.iter().map(|device| Device { name: name_of(device) }).collect())
    }

    /// The name, for instance `rxe0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens the device. It is looked up again by name, so one that has gone answers `ENODEV`.
    pub fn open(&self) -> Result<Arc<Context>> {
        Context::open(&self.name)
    }
}

/// An open device (`ibv_open_device(3)`); closed when the last owner goes.
pub struct Context {
    raw: NonNull<ffi::ibv_context>,
    name: String,
    creator: Creator,
}

// SAFETY: libibverbs is thread-safe for every call made on a context (ibverbs documentation, "Threading").
unsafe impl Send for Context {}
// SAFETY: as above; the context itself is never written by this crate.
unsafe impl Sync for Context {}

impl Context {
    /// Opens the device called `name`.
    ///
    /// # Errors
    /// `ENODEV` if there is none of that name, `EACCES` or `EPERM` if `/dev/infiniband/uverbs*` may not be opened,
    /// `EMFILE` or `ENODEV` if no descriptor is left, which the detail then says.
    pub fn open(name: &str) -> Result<Arc<Self>> {
        let list = DeviceList::read()?;
        let device = list
            .iter()
            .find(|&device| name_of(device) == name)
            .ok_or_else(|| explain_descriptors(Error::returned("ibv_get_device_list", libc::ENODEV)))?;
        // SAFETY: the device belongs to the list, which lives to the end of this function.
        let raw = unsafe { ffi::ibv_open_device(device) };
        let raw = NonNull::new(raw).ok_or_else(|| explain_descriptors(Error::last("ibv_open_device")))?;
        let context = Self { raw, name: name.to_owned(), creator: Creator::here() };
        context.set_nonblocking()?;
        Ok(Arc::new(context))
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's limits (`ibv_query_device(3)`).
    pub fn attributes(&self) -> Result<DeviceAttributes> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut raw: ffi::ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open and `raw` is writable for the call.
        let answer = unsafe { ffi::ibv_query_device(self.raw(), &mut raw) };
        Error::check("ibv_query_device", answer)?;
        Ok(DeviceAttributes {
            max_queue_pair_requests: clamp(raw.max_qp_wr),
            max_completions: clamp(raw.max_cqe),
            max_memory_region_size: raw.max_mr_size,
            max_segments: clamp(raw.max_sge),
            max_reads_as_target: raw.max_qp_rd_atom.clamp(0, 255) as u8,
            max_reads_as_initiator: raw.max_qp_init_rd_atom.clamp(0, 255) as u8,
            ports: raw.phys_port_cnt,
        })
    }

    /// The state of a port, counted from 1 (`ibv_query_port(3)`).
    pub fn port(&self, port: u8) -> Result<PortAttributes> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut raw: ffi::ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open and `raw` is writable for the call.
        let answer = unsafe { ffi::ibv_query_port(self.raw(), port, &mut raw) };
        Error::check("ibv_query_port", answer)?;
        Ok(PortAttributes {
            state: PortState::from_raw(raw.state),
            max_message_size: raw.max_msg_sz,
            active_mtu: 128u32 << raw.active_mtu.min(5),
            gid_table_length: clamp(raw.gid_tbl_len),
            lid: raw.lid,
        })
    }

    /// The entry of a port's GID table at `index` (`ibv_query_gid(3)`).
    pub fn gid(&self, port: u8, index: u32) -> Result<Gid> {
        let mut raw = ffi::ibv_gid { raw: [0; 16] };
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        // SAFETY: the context is open and `raw` is writable for the call.
        let answer = unsafe { ffi::ibv_query_gid(self.raw(), port, index, &mut raw) };
        Error::check("ibv_query_gid", answer)?;
        // SAFETY: every bit pattern is a valid array of bytes.
        Ok(Gid(unsafe { raw.raw }))
    }

    /// The next asynchronous event (`ibv_get_async_event(3)`), or `None` if there is none yet. The
    /// event is acknowledged before it is returned, so no destructor waits for it.
    pub fn next_async_event(&self) -> Result<Option<AsyncEvent>> {
        AsyncEvent::read(self)
    }

    pub(super) fn raw(&self) -> *mut ffi::ibv_context {
        self.raw.as_ptr()
    }

    fn set_nonblocking(&self) -> Result<()> {
        rustix::io::ioctl_fionbio(self.as_fd(), true).map_err(|errno| Error::returned("ioctl", errno.raw_os_error()))
    }
}

impl AsFd for Context {
    /// The descriptor that becomes readable with an asynchronous event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the context is open, so its structure may be read.
        let fd = unsafe { (*self.raw()).async_fd };
        // SAFETY: the descriptor is open as long as the context, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.creator.may_destroy("context") {
            // SAFETY: every child object holds an `Arc` of this context, so none is left.
            fork::destroyed("ibv_close_device", unsafe { ffi::ibv_close_device(self.raw()) });
        }
    }
}

/// Limits of a device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceAttributes {
    /// Requests that fit one queue of a queue pair.
    pub max_queue_pair_requests: u32,
    /// Entries of one completion queue.
    pub max_completions: u32,
    /// Bytes of one memory region.
    pub max_memory_region_size: u64,
    /// Segments of one request.
    pub max_segments: u32,
    /// RDMA reads and atomics that a queue pair serves at once.
    pub max_reads_as_target: u8,
    /// RDMA reads and atomics that a queue pair has outstanding at once.
    pub max_reads_as_initiator: u8,
    /// Physical ports, counted from 1.
    pub ports: u8,
}

/// State of a port.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PortAttributes {
    /// Logical state.
    pub state: PortState,
    /// Path MTU in bytes: 256 to 4096.
    pub active_mtu: u32,
    /// Bytes that one request can carry.
    pub max_message_size: u32,
    /// Entries of the GID table.
    pub gid_table_length: u32,
    /// Local id; 0 on RoCE.
    pub lid: u16,
}

/// Logical state of a port (IBTA 1.4, 7.2.7). An unknown state is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortState {
    /// Ready for traffic.
    Active,
    /// Link is up, not yet ready.
    Armed,
    /// No link.
    Down,
    /// Link is coming up.
    Initialize,
    /// A value this version does not name.
    Other(u32),
}

impl PortState {
    fn from_raw(raw: ffi::ibv_port_state::Type) -> Self {
        match raw {
            ffi::ibv_port_state::IBV_PORT_ACTIVE => Self::Active,
            ffi::ibv_port_state::IBV_PORT_ARMED => Self::Armed,
            ffi::ibv_port_state::IBV_PORT_DOWN => Self::Down,
            ffi::ibv_port_state::IBV_PORT_INIT => Self::Initialize,
            other => Self::Other(other),
        }
    }
}

/// A global identifier, 16 bytes in network order. On RoCE v2 it is the IP address of the netdev.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// The IP address that the GID stands for; `None` if the entry is empty.
    pub fn ip(&self) -> Option<IpAddr> {
        (self.0 != [0; 16]).then(|| Ipv6Addr::from(self.0).to_canonical())
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv6Addr::from(self.0), f)
    }
}

/// The list of `ibv_get_device_list(3)`, freed on drop.
struct DeviceList {
    raw: NonNull<*mut ffi::ibv_device>,
    length: usize,
}

impl DeviceList {
    fn read() -> Result<Self> {
        let mut count = 0;
        // SAFETY: `count` is writable for the call.
        let raw = unsafe { ffi::ibv_get_device_list(&mut count) };
        let raw = NonNull::new(raw).ok_or_else(|| explain_descriptors(Error::last("ibv_get_device_list")))?;
        Ok(Self { raw, length: usize::try_from(count).unwrap_or(0) })
    }

    fn iter(&self) -> impl Iterator<Item = *mut ffi::ibv_device> + '_ {
        // SAFETY: libibverbs answered an array of `length` pointers, ours until it is freed.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr(), self.length) }.iter().copied()
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        // SAFETY: the list came from ibv_get_device_list and is freed once.
        unsafe { ffi::ibv_free_device_list(self.raw.as_ptr()) }
    }
}

/// The name of the device of `raw`, which must be a valid pointer to an open context.
///
/// # Safety
/// `raw` points to an open context for the duration of the call.
pub(super) unsafe fn context_name(raw: *mut ffi::ibv_context) -> String {
    // SAFETY: the caller promises an open context.
    let device = unsafe { (*raw).device };
    name_of(device)
}

fn name_of(device: *mut ffi::ibv_device) -> String {
    // SAFETY: the pointer is of a live list or an open context, as every caller here has it.
    let name = unsafe { ffi::ibv_get_device_name(device) };
    if name.is_null() {
        return String::new();
    }
    // SAFETY: libibverbs answers a string that ends in zero and lives as long as the device.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

fn clamp(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}
