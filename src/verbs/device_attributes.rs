//! What a device has and how much of it.

use rdma_sys as ffi;

use super::context::count;
use super::device::text;
use super::flags::flags;
use super::{Context, Error, ExtendedAttributes, Guid, Result};

impl Context {
    /// The device's identity, limits and capabilities (`ibv_query_device_ex(3)`, or `ibv_query_device(3)` where the driver
    /// has no more than that).
    pub fn attributes(&self) -> Result<DeviceAttributes> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut raw: ffi::ibv_device_attr_ex = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open and `raw` is writable for the call; no input is allowed.
        let answer = unsafe { ffi::ibv_query_device_ex(self.raw(), std::ptr::null(), &mut raw) };
        match answer.abs() {
            libc::EOPNOTSUPP | libc::ENOSYS => {
                // SAFETY: as above.
                raw = unsafe { std::mem::zeroed() };
                // SAFETY: the context is open and `raw` is writable for the call.
                let answer = unsafe { ffi::ibv_query_device(self.raw(), &mut raw.orig_attr) };
                Error::check("ibv_query_device", answer)?;
            }
            _ => Error::check("ibv_query_device_ex", answer)?,
        }
        Ok(DeviceAttributes::from_raw(&raw))
    }

    /// Whether the device is Soft-RoCE; no, if it cannot be asked.
    pub(crate) fn is_soft_roce(&self) -> bool {
        // `RXE_VENDOR_ID` of the kernel's driver; no vendor has it.
        self.attributes().is_ok_and(|attributes| (attributes.vendor_id, attributes.vendor_part_id) == (0x00ff_ffff, 0))
    }
}

/// Identity, limits and capabilities of a device. A limit is what the device allows at most; memory, cgroups and
/// RLIMIT_MEMLOCK can allow less.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceAttributes {
    /// Version of the firmware, in the vendor's words; often empty for devices in software.
    pub firmware_version: String,
    /// The node's globally unique identifier; zero if it has none.
    pub node_guid: Guid,
    /// Identifier that all nodes of one chassis share.
    pub system_image_guid: Guid,
    /// The vendor's identifier: an IEEE OUI.
    pub vendor_id: u32,
    /// The vendor's number of the part.
    pub vendor_part_id: u32,
    /// The vendor's version of the hardware.
    pub hardware_version: u32,
    /// What the device can do.
    pub capabilities: DeviceCapabilities,
    /// What its atomics are atomic with.
    pub atomics: AtomicCapability,
    /// Page sizes that memory regions can be made of: bit n stands for 2ⁿ bytes.
    pub page_sizes: u64,
    /// Physical ports, counted from 1. 255 or more are in [`ExtendedAttributes::ports`].
    pub ports: u8,
    /// Partition keys of each port.
    pub max_partition_keys: u16,
    /// Its usual delay before it acknowledges: 4.096 µs times 2 to this power, at most 31.
    pub ack_delay: u8,

    /// Queue pairs.
    pub max_queue_pairs: u32,
    /// Requests that fit one queue of a queue pair.
    pub max_queue_pair_requests: u32,
    /// Segments of one request, unless it is an RDMA read of [`max_read_segments`](Self::max_read_segments).
    pub max_segments: u32,
    /// Segments of one RDMA read, where the device (iWARP) tells it apart; 0 where it does not.
    pub max_read_segments: u32,
    /// RDMA reads and atomics that a queue pair serves at once.
    pub max_reads_as_target: u8,
    /// RDMA reads and atomics that a queue pair has outstanding at once.
    pub max_reads_as_initiator: u8,
    /// RDMA reads and atomics that all queue pairs together serve at once.
    pub max_reads_of_device: u32,
    /// Shared receive queues.
    pub max_shared_receive_queues: u32,
    /// Receives that fit one shared receive queue.
    pub max_shared_receives: u32,
    /// Segments of one receive of a shared receive queue.
    pub max_shared_receive_segments: u32,
    /// Completion queues.
    pub max_completion_queues: u32,
    /// Entries of one completion queue.
    pub max_completions: u32,
    /// Protection domains.
    pub max_protection_domains: u32,
    /// Memory regions.
    pub max_memory_regions: u32,
    /// Bytes of one memory region.
    pub max_memory_region_size: u64,
    /// Memory windows.
    pub max_memory_windows: u32,
    /// Address handles.
    pub max_address_handles: u32,
    /// Multicast groups.
    pub max_multicast_groups: u32,
    /// Queue pairs attached to one multicast group.
    pub max_queue_pairs_of_multicast_group: u32,
    /// Attachments of queue pairs to multicast groups, all together.
    pub max_multicast_attachments: u32,

    /// Raw datagram queue pairs for IPv6.
    pub max_raw_ipv6_queue_pairs: u32,
    /// Raw datagram queue pairs for Ethertypes.
    pub max_raw_ethertype_queue_pairs: u32,
    /// Reliable-datagram contexts; libibverbs cannot make them.
    pub max_end_to_end_contexts: u32,
    /// RDMA reads and atomics that a reliable-datagram context serves at once.
    pub max_end_to_end_reads_as_target: u32,
    /// RDMA reads and atomics that a reliable-datagram context has outstanding at once.
    pub max_end_to_end_reads_as_initiator: u32,
    /// Reliable-datagram domains.
    pub max_reliable_datagram_domains: u32,
    /// Fast memory regions; newer kernels have none.
    pub max_fast_memory_regions: u32,
    /// Remaps of a fast memory region before it is flushed.
    pub max_maps_of_fast_memory_region: u32,

    /// What only `ibv_query_device_ex(3)` tells; `None` if the driver or the kernel does not have it.
    pub extended: Option<ExtendedAttributes>,
}

impl DeviceAttributes {
    fn from_raw(raw: &ffi::ibv_device_attr_ex) -> Self {
        let plain = &raw.orig_attr;
        let extended = ExtendedAttributes::from_raw(raw);
        Self {
            firmware_version: text(&plain.fw_ver),
            node_guid: Guid(u64::from_be(plain.node_guid)),
            system_image_guid: Guid(u64::from_be(plain.sys_image_guid)),
            vendor_id: plain.vendor_id,
            vendor_part_id: plain.vendor_part_id,
            hardware_version: plain.hw_ver,
            // The extended word repeats the plain one and goes on.
            capabilities: DeviceCapabilities::from_bits(u64::from(plain.device_cap_flags) | raw.device_cap_flags_ex),
            atomics: AtomicCapability::from_raw(plain.atomic_cap),
            page_sizes: plain.page_size_cap,
            ports: plain.phys_port_cnt,
            max_partition_keys: plain.max_pkeys,
            ack_delay: plain.local_ca_ack_delay,
            max_queue_pairs: count(plain.max_qp),
            max_queue_pair_requests: count(plain.max_qp_wr),
            max_segments: count(plain.max_sge),
            max_read_segments: count(plain.max_sge_rd),
            max_reads_as_target: small(plain.max_qp_rd_atom),
            max_reads_as_initiator: small(plain.max_qp_init_rd_atom),
            max_reads_of_device: count(plain.max_res_rd_atom),
            max_shared_receive_queues: count(plain.max_srq),
            max_shared_receives: count(plain.max_srq_wr),
            max_shared_receive_segments: count(plain.max_srq_sge),
            max_completion_queues: count(plain.max_cq),
            max_completions: count(plain.max_cqe),
            max_protection_domains: count(plain.max_pd),
            max_memory_regions: count(plain.max_mr),
            max_memory_region_size: plain.max_mr_size,
            max_memory_windows: count(plain.max_mw),
            max_address_handles: count(plain.max_ah),
            max_multicast_groups: count(plain.max_mcast_grp),
            max_queue_pairs_of_multicast_group: count(plain.max_mcast_qp_attach),
            max_multicast_attachments: count(plain.max_total_mcast_qp_attach),
            max_raw_ipv6_queue_pairs: count(plain.max_raw_ipv6_qp),
            max_raw_ethertype_queue_pairs: count(plain.max_raw_ethy_qp),
            max_end_to_end_contexts: count(plain.max_ee),
            max_end_to_end_reads_as_target: count(plain.max_ee_rd_atom),
            max_end_to_end_reads_as_initiator: count(plain.max_ee_init_rd_atom),
            max_reliable_datagram_domains: count(plain.max_rdd),
            max_fast_memory_regions: count(plain.max_fmr),
            max_maps_of_fast_memory_region: count(plain.max_map_per_fmr),
            extended,
        }
    }
}

/// A depth, which work requests and rdma_cm keep in one byte.
fn small(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

/// What RDMA atomics are atomic with (`enum ibv_atomic_cap`). An unknown value is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AtomicCapability {
    /// With atomics of this device only.
    Device,
    /// With every access, also by the processors and by other devices.
    Global,
    /// There are none.
    None,
    /// A value this version does not name.
    Other(u32),
}

impl AtomicCapability {
    fn from_raw(raw: ffi::ibv_atomic_cap::Type) -> Self {
        match raw {
            ffi::ibv_atomic_cap::IBV_ATOMIC_GLOB => Self::Global,
            ffi::ibv_atomic_cap::IBV_ATOMIC_HCA => Self::Device,
            ffi::ibv_atomic_cap::IBV_ATOMIC_NONE => Self::None,
            other => Self::Other(other),
        }
    }
}

use ffi::ibv_device_cap_flags as cap;

flags! {
    /// What a device can do (`enum ibv_device_cap_flags` and the kernel's extension of it). The bits above 31 are known
    /// only where [`DeviceAttributes::extended`] is there.
    pub struct DeviceCapabilities(u64) {
        /// RDMA atomic write of 8 bytes.
        ATOMIC_WRITE = 1u64 << 40,
        /// Automatic path migration.
        AUTOMATIC_PATH_MIGRATION = cap::IBV_DEVICE_AUTO_PATH_MIG.0,
        /// Counts packets with a wrong partition key.
        BAD_PARTITION_KEY_COUNTER = cap::IBV_DEVICE_BAD_PKEY_CNTR.0,
        /// Counts packets with a wrong queue key.
        BAD_QUEUE_KEY_COUNTER = cap::IBV_DEVICE_BAD_QKEY_CNTR.0,
        /// A queue pair can move to another port.
        CHANGE_PORT = cap::IBV_DEVICE_CHANGE_PHY_PORT.0,
        /// A modification of a queue pair can name the state it expects.
        CURRENT_STATE_MODIFIER = cap::IBV_DEVICE_CURR_QP_STATE_MOD.0,
        /// RDMA flush to where all can see the data.
        FLUSH_GLOBAL = 1u64 << 38,
        /// RDMA flush to memory that survives a power failure.
        FLUSH_PERSISTENT = 1u64 << 39,
        /// The type of node initialisation can be set.
        INIT_TYPE = cap::IBV_DEVICE_INIT_TYPE.0,
        /// Steers packets to queues by flow rules.
        MANAGED_FLOW_STEERING = cap::IBV_DEVICE_MANAGED_FLOW_STEERING.0,
        /// Local invalidate, send with invalidate and fast registration.
        MEMORY_MANAGEMENT_EXTENSIONS = cap::IBV_DEVICE_MEM_MGT_EXTENSIONS.0,
        /// Memory windows of type 1.
        MEMORY_WINDOW = cap::IBV_DEVICE_MEM_WINDOW.0,
        /// Memory windows of type 2A: bound to a queue pair.
        MEMORY_WINDOW_TYPE_2A = cap::IBV_DEVICE_MEM_WINDOW_TYPE_2A.0,
        /// Memory windows of type 2B: bound to a queue pair, with the address of the region.
        MEMORY_WINDOW_TYPE_2B = cap::IBV_DEVICE_MEM_WINDOW_TYPE_2B.0,
        /// Completion queues can ask for an event after some number of completions.
        NOTIFY_AFTER_COUNT = cap::IBV_DEVICE_N_NOTIFY_CQ.0,
        /// Pads writes to a cache line.
        PCI_WRITE_END_PADDING = 1u64 << 36,
        /// Tells when a port becomes active.
        PORT_ACTIVE_EVENT = cap::IBV_DEVICE_PORT_ACTIVE_EVENT.0,
        /// Checks the port of the address handles of unreliable datagrams.
        PORT_ENFORCED_FOR_ADDRESS_HANDLES = cap::IBV_DEVICE_UD_AV_PORT_ENFORCE.0,
        /// Checksums IP packets of raw queue pairs.
        RAW_IP_CHECKSUM = cap::IBV_DEVICE_RAW_IP_CSUM.0,
        /// Multicast with raw queue pairs.
        RAW_MULTICAST = cap::IBV_DEVICE_RAW_MULTI.0,
        /// Leaves the frame check sequence on packets of raw queue pairs.
        RAW_SCATTER_FRAME_CHECK = 1u64 << 34,
        /// Checksums IP packets of reliable connections.
        RELIABLE_IP_CHECKSUM = cap::IBV_DEVICE_RC_IP_CSUM.0,
        /// Work queues can be resized.
        RESIZE_WORK_QUEUES = cap::IBV_DEVICE_RESIZE_MAX_WR.0,
        /// Answers "receiver not ready" to a send that finds no receive.
        RNR_NAK = cap::IBV_DEVICE_RC_RNR_NAK_GEN.0,
        /// Shared receive queues can be resized.
        SHARED_RECEIVE_QUEUE_RESIZE = cap::IBV_DEVICE_SRQ_RESIZE.0,
        /// A port can be shut down.
        SHUTDOWN_PORT = cap::IBV_DEVICE_SHUTDOWN_PORT.0,
        /// Has the identifier of its chassis.
        SYSTEM_IMAGE_GUID = cap::IBV_DEVICE_SYS_IMAGE_GUID.0,
        /// Checksums IP packets of unreliable datagrams.
        UNRELIABLE_IP_CHECKSUM = cap::IBV_DEVICE_UD_IP_CSUM.0,
        /// Extended reliable connections.
        XRC = cap::IBV_DEVICE_XRC.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeroed() -> ffi::ibv_device_attr_ex {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        unsafe { std::mem::zeroed() }
    }

    #[test]
    fn hostile_limits_are_clamped() {
        let mut raw = zeroed();
        raw.orig_attr.max_qp = -5;
        raw.orig_attr.max_qp_rd_atom = 70_000;
        raw.orig_attr.max_qp_init_rd_atom = i32::MIN;
        raw.orig_attr.fw_ver = [b'7' as std::ffi::c_char; 64];
        raw.orig_attr.atomic_cap = 99;
        let attributes = DeviceAttributes::from_raw(&raw);
        assert_eq!(attributes.max_queue_pairs, 0);
        assert_eq!((attributes.max_reads_as_target, attributes.max_reads_as_initiator), (255, 0));
        assert_eq!(attributes.firmware_version, "7".repeat(64));
        assert_eq!(attributes.atomics, AtomicCapability::Other(99));
    }

    #[test]
    fn no_extension_is_none() {
        let mut raw = zeroed();
        raw.orig_attr.device_cap_flags = cap::IBV_DEVICE_XRC.0;
        let attributes = DeviceAttributes::from_raw(&raw);
        assert!(attributes.extended.is_none());
        assert_eq!(attributes.capabilities, DeviceCapabilities::XRC);
    }

    #[test]
    fn capabilities_come_from_both_words() {
        let mut raw = zeroed();
        raw.orig_attr.device_cap_flags = cap::IBV_DEVICE_MEM_WINDOW_TYPE_2B.0;
        raw.device_cap_flags_ex = 1 << 40 | 1 << 63;
        let capabilities = DeviceAttributes::from_raw(&raw).capabilities;
        assert!(capabilities.contains(DeviceCapabilities::MEMORY_WINDOW_TYPE_2B | DeviceCapabilities::ATOMIC_WRITE));
        assert!(!capabilities.contains(DeviceCapabilities::MEMORY_WINDOW_TYPE_2A));
        assert_eq!(
            format!("{capabilities:?}"),
            "DeviceCapabilities(ATOMIC_WRITE | MEMORY_WINDOW_TYPE_2B | 0x8000000000000000)"
        );
    }

    #[test]
    fn identifiers_are_in_host_order() {
        let mut raw = zeroed();
        raw.orig_attr.node_guid = 0x0102_0304_0506_0708_u64.to_be();
        assert_eq!(DeviceAttributes::from_raw(&raw).node_guid, Guid(0x0102_0304_0506_0708));
    }
}
