//! The devices that the kernel offers.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use rdma_sys as ffi;

use super::limits::explain_descriptors;
use super::{Context, Error, Result};

/// An RDMA device that the kernel offers, not yet opened: what is known of it without opening it.
///
/// ```
/// use zcmi::verbs::Device;
///
/// # fn main() -> zcmi::verbs::Result<()> {
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// println!("{} is of kind {:?}, GUID {:?}", device.name(), device.transport(), device.guid());
/// let context = device.open()?;
/// println!("{} queue pairs", context.attributes()?.max_queue_pairs);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    name: String,
    guid: Option<Guid>,
    index: Option<u32>,
    node: NodeType,
    transport: TransportType,
    uverbs: String,
    sysfs: PathBuf,
}

impl Device {
    /// All devices, in the order of `ibv_get_device_list(3)`. Empty where the kernel has none.
    ///
    /// # Errors
    /// Fails where libibverbs is missing ([`Error::is_not_installed`]), sysfs cannot be read, or no descriptor is left.
    pub fn list() -> Result<Vec<Device>> {
        let list = DeviceList::read()?;
        // SAFETY: the pointers are of the list, which lives to the end of this function.
        Ok(list.iter().map(|device| unsafe { Device::read(device) }).collect())
    }

    /// The name, for instance `rxe0`. It can be changed while the device exists; the [`index`](Self::index) cannot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's globally unique identifier (`ibv_get_device_guid(3)`); `None` if the device has none.
    pub fn guid(&self) -> Option<Guid> {
        self.guid
    }

    /// The kernel's number of the device, never reused while the kernel runs (`ibv_get_device_index(3)`). `None` where
    /// libibverbs or the kernel does not tell.
    pub fn index(&self) -> Option<u32> {
        self.index
    }

    /// What the device is on its network.
    pub fn node_type(&self) -> NodeType {
        self.node
    }

    /// The protocol family it speaks. RoCE devices say [`InfiniBand`](TransportType::InfiniBand): their ports' link
    /// layer tells the difference.
    pub fn transport(&self) -> TransportType {
        self.transport
    }

    /// The character device that is opened, for instance `/dev/infiniband/uverbs0`.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev/infiniband").join(&self.uverbs)
    }

    /// The folder of its attributes, for instance `/sys/class/infiniband/rxe0`.
    pub fn sysfs_path(&self) -> &Path {
        &self.sysfs
    }

    /// Opens the device. It is looked up again by name, so one that has gone answers `ENODEV`.
    pub fn open(&self) -> Result<Arc<Context>> {
        Context::open(&self.name)
    }

    /// Copies what libibverbs knows of a device.
    ///
    /// # Safety
    /// `raw` is of a list that is not yet freed.
    pub(super) unsafe fn read(raw: *mut ffi::ibv_device) -> Self {
        // SAFETY: the caller promises a live device.
        let guid = u64::from_be(unsafe { ffi::ibv_get_device_guid(raw) });
        // SAFETY: as above.
        let node = unsafe { (*raw).node_type };
        // SAFETY: as above.
        let transport = unsafe { (*raw).transport_type };
        // SAFETY: as above; libibverbs writes the field once, when it finds the device.
        let uverbs = text(unsafe { &(*raw).dev_name });
        // SAFETY: as above.
        let sysfs = text(unsafe { &(*raw).ibdev_path });
        Self {
            name: name_of(raw),
            guid: (guid != 0).then_some(Guid(guid)),
            index: index_of(raw),
            node: NodeType::from_raw(node),
            transport: TransportType::from_raw(transport),
            uverbs,
            sysfs: sysfs.into(),
        }
    }
}

/// A globally unique identifier: an EUI-64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub u64);

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Guid {
    /// As sysfs writes it: `5054:00ff:fe12:3456`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = [48, 32, 16, 0].map(|shift| (self.0 >> shift) as u16);
        write!(f, "{a:04x}:{b:04x}:{c:04x}:{d:04x}")
    }
}

/// What a device is on its network (`enum ibv_node_type`). An unknown type is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeType {
    /// A host's adapter, InfiniBand or RoCE.
    ChannelAdapter,
    /// An iWARP adapter.
    Rnic,
    /// An InfiniBand router.
    Router,
    /// An InfiniBand switch.
    Switch,
    /// The driver names none.
    Unspecified,
    /// A Cisco usNIC.
    Usnic,
    /// A Cisco usNIC over UDP.
    UsnicUdp,
    /// A value this version does not name; -1 is libibverbs' own "unknown".
    Other(i32),
}

impl NodeType {
    fn from_raw(raw: ffi::ibv_node_type::Type) -> Self {
        match raw {
            ffi::ibv_node_type::IBV_NODE_CA => Self::ChannelAdapter,
            ffi::ibv_node_type::IBV_NODE_RNIC => Self::Rnic,
            ffi::ibv_node_type::IBV_NODE_ROUTER => Self::Router,
            ffi::ibv_node_type::IBV_NODE_SWITCH => Self::Switch,
            ffi::ibv_node_type::IBV_NODE_UNSPECIFIED => Self::Unspecified,
            ffi::ibv_node_type::IBV_NODE_USNIC => Self::Usnic,
            ffi::ibv_node_type::IBV_NODE_USNIC_UDP => Self::UsnicUdp,
            other => Self::Other(other),
        }
    }
}

/// The protocol family of a device (`enum ibv_transport_type`). An unknown type is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportType {
    /// InfiniBand, also over Ethernet (RoCE).
    InfiniBand,
    /// RDMA over TCP (RFC 5040).
    Iwarp,
    /// The driver names none.
    Unspecified,
    /// Cisco's usNIC.
    Usnic,
    /// Cisco's usNIC over UDP.
    UsnicUdp,
    /// A value this version does not name; -1 is libibverbs' own "unknown".
    Other(i32),
}

impl TransportType {
    fn from_raw(raw: ffi::ibv_transport_type::Type) -> Self {
        match raw {
            ffi::ibv_transport_type::IBV_TRANSPORT_IB => Self::InfiniBand,
            ffi::ibv_transport_type::IBV_TRANSPORT_IWARP => Self::Iwarp,
            ffi::ibv_transport_type::IBV_TRANSPORT_UNSPECIFIED => Self::Unspecified,
            ffi::ibv_transport_type::IBV_TRANSPORT_USNIC => Self::Usnic,
            ffi::ibv_transport_type::IBV_TRANSPORT_USNIC_UDP => Self::UsnicUdp,
            other => Self::Other(other),
        }
    }
}

/// The list of `ibv_get_device_list(3)`, freed on drop.
pub(super) struct DeviceList {
    raw: NonNull<*mut ffi::ibv_device>,
    length: usize,
}

impl DeviceList {
    pub(super) fn read() -> Result<Self> {
        let mut count = 0;
        // SAFETY: `count` is writable for the call.
        let raw = unsafe { ffi::ibv_get_device_list(&mut count) };
        let raw = NonNull::new(raw).ok_or_else(|| explain_descriptors(Error::last("ibv_get_device_list")))?;
        Ok(Self { raw, length: usize::try_from(count).unwrap_or(0) })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = *mut ffi::ibv_device> + '_ {
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

pub(super) fn name_of(device: *mut ffi::ibv_device) -> String {
    // SAFETY: the pointer is of a live list or an open context, as every caller here has it.
    let name = unsafe { ffi::ibv_get_device_name(device) };
    if name.is_null() {
        return String::new();
    }
    // SAFETY: libibverbs answers a string that ends in zero and lives as long as the device.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// The kernel's number of a live device.
fn index_of(device: *mut ffi::ibv_device) -> Option<u32> {
    type IndexOf = unsafe extern "C" fn(*mut ffi::ibv_device) -> c_int;
    static FOUND: OnceLock<Option<IndexOf>> = OnceLock::new();
    let index_of = (*FOUND.get_or_init(|| {
        // The binding declares the function, but its run-time stubs lack it.
        // SAFETY: the name ends in zero; NOLOAD only finds what the stubs have opened.
        let library = unsafe { libc::dlopen(c"libibverbs.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if library.is_null() {
            return None;
        }
        // SAFETY: the handle is open, and is never closed; the name ends in zero.
        let symbol = unsafe { libc::dlsym(library, c"ibv_get_device_index".as_ptr()) };
        // SAFETY: null is `None`; the symbol has had this one signature ever since it exists (rdma-core 30).
        unsafe { std::mem::transmute::<*mut libc::c_void, Option<IndexOf>>(symbol) }
    }))?;
    // SAFETY: the device is of a live list, as the caller has it.
    u32::try_from(unsafe { index_of(device) }).ok()
}

/// The text in a fixed array of C: up to the first zero.
pub(super) fn text(array: &[c_char]) -> String {
    let bytes: Vec<u8> = array.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_the_first_zero_or_with_the_array() {
        assert_eq!(text(&[b'a' as c_char, 0, b'b' as c_char]), "a");
        assert_eq!(text(&[b'a' as c_char, b'b' as c_char]), "ab");
        assert_eq!(text(&[-1]), "\u{fffd}");
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn a_guid_reads_as_in_sysfs() {
        assert_eq!(Guid(0x5054_00ff_fe12_0006).to_string(), "5054:00ff:fe12:0006");
    }

    #[test]
    fn unknown_types_are_values() {
        assert_eq!(NodeType::from_raw(77), NodeType::Other(77));
        assert_eq!(NodeType::from_raw(-1), NodeType::Other(-1));
        assert_eq!(TransportType::from_raw(-1), TransportType::Other(-1));
        assert_eq!(TransportType::from_raw(0), TransportType::InfiniBand);
    }
}
