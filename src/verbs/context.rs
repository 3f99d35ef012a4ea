//! Open devices.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::device::{DeviceList, name_of};
use super::fork::{self, Creator};
use super::limits::explain_descriptors;
use super::{Device, Error, Result};

/// An open device (`ibv_open_device(3)`); closed when the last owner goes.
///
/// ```
/// use zcmi::verbs::{Device, PortState};
///
/// # fn main() -> zcmi::verbs::Result<()> {
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let context = device.open()?;
/// for port in 1..=context.attributes()?.ports {
///     let attributes = context.port(port)?;
///     if attributes.state == PortState::Active {
///         println!("port {port}: {} Mb/s, packets of {}", attributes.rate_megabits(), attributes.active_mtu);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Context {
    raw: NonNull<ffi::ibv_context>,
    device: Device,
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
    /// `EMFILE` if no descriptor is left, which the detail then says.
    pub fn open(name: &str) -> Result<Arc<Self>> {
        let list = DeviceList::read()?;
        let Some(found) = list.iter().find(|&device| name_of(device) == name) else {
            let names = list.iter().map(name_of).collect::<Vec<_>>().join(", ");
            let there = if names.is_empty() { "there is none".to_owned() } else { format!("there is {names}") };
            let error = Error::returned("ibv_get_device_list", libc::ENODEV);
            return Err(explain_descriptors(error.with_detail(format!("no device is called {name}: {there}"))));
        };
        // SAFETY: the device belongs to the list, which lives to the end of this function.
        let device = unsafe { Device::read(found) };
        // SAFETY: as above.
        let raw = unsafe { ffi::ibv_open_device(found) };
        let raw = NonNull::new(raw).ok_or_else(|| explain_descriptors(Error::last("ibv_open_device")))?;
        let context = Self { raw, device, creator: Creator::here() };
        context.set_nonblocking()?;
        Ok(Arc::new(context))
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// The device, as it was when it was opened.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Completion vectors: interrupts that completion queues can be spread over.
    pub fn completion_vectors(&self) -> u32 {
        // SAFETY: the context is open, so its structure may be read.
        count(unsafe { (*self.raw()).num_comp_vectors })
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
        f.debug_struct("Context").field("name", &self.name()).finish_non_exhaustive()
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

/// A count that C keeps in an `int`: a negative one is none.
pub(super) fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}
