//! Ports of a device.

use std::fmt;

use rdma_sys as ffi;

use super::context::count;
use super::flags::flags;
use super::{Context, Error, LinkLayer, LinkSpeed, LinkWidth, Mtu, PhysicalState, Result};

impl Context {
    /// The state of a port, counted from 1 (`ibv_query_port(3)`).
    ///
    /// # Errors
    /// `EINVAL` if the device has no such port.
    pub fn port(&self, port: u8) -> Result<PortAttributes> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut raw: ffi::ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open and `raw` is writable for the call.
        let answer = unsafe { ffi::ibv_query_port(self.raw(), port, &mut raw) };
        Error::check("ibv_query_port", answer)
            .map_err(|error| error.with_detail(format!("port {port} of {}", self.name())))?;
        Ok(PortAttributes::from_raw(&raw))
    }

    /// The entry of a port's table of partition keys at `index` (`ibv_query_pkey(3)`). On RoCE there is one entry, the
    /// default partition.
    ///
    /// # Errors
    /// `EINVAL`, `ENOENT` or another number, by version of libibverbs, if there is no such port or entry.
    pub fn partition_key(&self, port: u8, index: u16) -> Result<PartitionKey> {
        let mut key = 0u16;
        // SAFETY: the context is open and `key` is writable for the call.
        let answer = unsafe { ffi::ibv_query_pkey(self.raw(), port, index.into(), &mut key) };
        Error::check("ibv_query_pkey", answer).map_err(|error| {
            let length = self.port(port).map_or(0, |attributes| attributes.partition_table_length);
            error.with_detail(format!("entry {index} of port {port} of {}, which has {length}", self.name()))
        })?;
        Ok(PartitionKey(u16::from_be(key)))
    }
}

/// State of a port (`struct ibv_port_attr`).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PortAttributes {
    /// Logical state.
    pub state: PortState,
    /// State of the link below.
    pub physical_state: PhysicalState,
    /// What the link below is.
    pub link_layer: LinkLayer,
    /// The MTU that the port could have.
    pub max_mtu: Mtu,
    /// The MTU that the port has; a path over it uses no more.
    pub active_mtu: Mtu,
    /// Bytes that one request can carry.
    pub max_message_size: u32,
    /// Lanes of the link.
    pub width: LinkWidth,
    /// Speed of one lane.
    pub speed: LinkSpeed,
    /// What the port can do.
    pub capabilities: PortCapabilities,
    /// What more the port can do.
    pub capabilities2: PortCapabilities2,
    /// Whether every packet needs a global route header, and so every path a GID: so it is on RoCE.
    pub needs_global_route: bool,
    /// Entries of the GID table, also empty ones.
    pub gid_table_length: u32,
    /// Entries of the table of partition keys.
    pub partition_table_length: u16,
    /// Packets with a wrong partition key so far.
    pub bad_partition_keys: u32,
    /// Packets with a wrong queue key so far.
    pub bad_queue_keys: u32,
    /// Base local identifier (LID), given by the subnet manager; 0 on RoCE.
    pub lid: u16,
    /// The port answers to 2 to this power local identifiers (LMC).
    pub lid_mask: u8,
    /// Local identifier of the subnet manager.
    pub subnet_manager: u16,
    /// Service level of the subnet manager.
    pub subnet_manager_service_level: u8,
    /// The longest that the subnet takes to carry a packet: 4.096 µs times 2 to this power.
    pub subnet_timeout: u8,
    /// Virtual lanes, as a code: 1 is one, 2 two, 3 four, 4 eight, 5 fifteen.
    pub max_virtual_lanes: u8,
    /// The subnet manager's answer to the initialisation type that was asked for.
    pub initialization_type: u8,
}

impl PortAttributes {
    /// Nominal rate of the link in Mb/s: lanes times speed. 0 if either is unknown.
    pub fn rate_megabits(&self) -> u64 {
        let lanes = self.width.lanes().unwrap_or(0);
        u64::from(lanes) * u64::from(self.speed.lane_megabits().unwrap_or(0))
    }

    fn from_raw(raw: &ffi::ibv_port_attr) -> Self {
        // The wider field is there since XDR, and 0 from a libibverbs before that.
        let speed = if raw.active_speed_ex != 0 { raw.active_speed_ex } else { raw.active_speed.into() };
        Self {
            state: PortState::from_raw(raw.state),
            physical_state: PhysicalState::from_raw(raw.phys_state),
            link_layer: LinkLayer::from_raw(raw.link_layer),
            max_mtu: Mtu::from_raw(raw.max_mtu),
            active_mtu: Mtu::from_raw(raw.active_mtu),
            max_message_size: raw.max_msg_sz,
            width: LinkWidth::from_raw(raw.active_width),
            speed: LinkSpeed::from_raw(speed),
            capabilities: PortCapabilities::from_bits(raw.port_cap_flags),
            capabilities2: PortCapabilities2::from_bits(raw.port_cap_flags2),
            needs_global_route: raw.flags & GRH_REQUIRED != 0,
            gid_table_length: count(raw.gid_tbl_len),
            partition_table_length: raw.pkey_tbl_len,
            bad_partition_keys: raw.bad_pkey_cntr,
            bad_queue_keys: raw.qkey_viol_cntr,
            lid: raw.lid,
            lid_mask: raw.lmc,
            subnet_manager: raw.sm_lid,
            subnet_manager_service_level: raw.sm_sl,
            subnet_timeout: raw.subnet_timeout,
            max_virtual_lanes: raw.max_vl_num,
            initialization_type: raw.init_type_reply,
        }
    }
}

/// `IBV_QPF_GRH_REQUIRED`, which the binding lacks.
const GRH_REQUIRED: u8 = 1;

/// Logical state of a port (IBTA 1.4, 7.2.7). An unknown state is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PortState {
    /// Ready for traffic.
    Active,
    /// Ready for traffic, with the link below in trouble.
    ActiveDeferred,
    /// Link is up, not yet ready.
    Armed,
    /// No link.
    Down,
    /// Link is coming up.
    Initialize,
    /// No change, as a request to the port says it; no state of its own.
    NoChange,
    /// A value this version does not name.
    Other(u32),
}

impl PortState {
    fn from_raw(raw: ffi::ibv_port_state::Type) -> Self {
        match raw {
            ffi::ibv_port_state::IBV_PORT_ACTIVE => Self::Active,
            ffi::ibv_port_state::IBV_PORT_ACTIVE_DEFER => Self::ActiveDeferred,
            ffi::ibv_port_state::IBV_PORT_ARMED => Self::Armed,
            ffi::ibv_port_state::IBV_PORT_DOWN => Self::Down,
            ffi::ibv_port_state::IBV_PORT_INIT => Self::Initialize,
            ffi::ibv_port_state::IBV_PORT_NOP => Self::NoChange,
            other => Self::Other(other),
        }
    }
}

use ffi::ibv_port_cap_flags as cap;

flags! {
    /// What a port can do (`enum ibv_port_cap_flags`; IBTA 1.4, 14.2.5.6).
    pub struct PortCapabilities(u32) {
        /// Automatic path migration.
        AUTOMATIC_MIGRATION = cap::IBV_PORT_AUTO_MIGR_SUP.0,
        /// Boot management.
        BOOT_MANAGEMENT = cap::IBV_PORT_BOOT_MGMT_SUP.0,
        /// [`PortCapabilities2`] holds.
        CAPABILITIES2 = cap::IBV_PORT_CAP_MASK2_SUP.0,
        /// Notices of a change of capabilities.
        CAPABILITY_NOTICE = cap::IBV_PORT_CAP_MASK_NOTICE_SUP.0,
        /// Reregistration of clients.
        CLIENT_REREGISTRATION = cap::IBV_PORT_CLIENT_REG_SUP.0,
        /// Connection management.
        CONNECTION_MANAGEMENT = cap::IBV_PORT_CM_SUP.0,
        /// Device management.
        DEVICE_MANAGEMENT = cap::IBV_PORT_DEVICE_MGMT_SUP.0,
        /// Notices by directed route.
        DIRECTED_ROUTE_NOTICE = cap::IBV_PORT_DR_NOTICE_SUP.0,
        /// Speeds above QDR.
        EXTENDED_SPEEDS = cap::IBV_PORT_EXTENDED_SPEEDS_SUP.0,
        /// GIDs are made of IP addresses: RoCE.
        IP_BASED_GIDS = cap::IBV_PORT_IP_BASED_GIDS.0,
        /// Tells its light-emitting diodes.
        LED_INFO = cap::IBV_PORT_LED_INFO_SUP.0,
        /// Measures the latency of the link.
        LINK_LATENCY = cap::IBV_PORT_LINK_LATENCY_SUP.0,
        /// Keeps the management key over a restart.
        MANAGEMENT_KEY_KEPT = cap::IBV_PORT_MKEY_NVRAM.0,
        /// Notices.
        NOTICE = cap::IBV_PORT_NOTICE_SUP.0,
        /// Sets the delay between packets.
        OPTIONAL_PACKET_DELAY = cap::IBV_PORT_OPT_IPD_SUP.0,
        /// Keeps the partition keys over a restart.
        PARTITION_KEY_KEPT = cap::IBV_PORT_PKEY_NVRAM.0,
        /// Traps of switches on external ports with a wrong partition key.
        PARTITION_KEY_TRAP = cap::IBV_PORT_PKEY_SW_EXT_PORT_TRAP_SUP.0,
        /// Reinitialisation.
        REINITIALIZATION = cap::IBV_PORT_REINIT_SUP.0,
        /// Maps service levels to virtual lanes.
        SERVICE_LEVEL_MAP = cap::IBV_PORT_SL_MAP_SUP.0,
        /// Tunnels SNMP.
        SNMP_TUNNEL = cap::IBV_PORT_SNMP_TUNNEL_SUP.0,
        /// A subnet manager runs here.
        SUBNET_MANAGER = cap::IBV_PORT_SM.0,
        /// Has the identifier of its chassis.
        SYSTEM_IMAGE_GUID = cap::IBV_PORT_SYS_IMAGE_GUID_SUP.0,
        /// Traps.
        TRAP = cap::IBV_PORT_TRAP_SUP.0,
        /// Vendor classes of management.
        VENDOR_CLASS = cap::IBV_PORT_VENDOR_CLASS_SUP.0,
    }
}

use ffi::ibv_port_cap_flags2 as cap2;

flags! {
    /// What more a port can do (`enum ibv_port_cap_flags2`).
    pub struct PortCapabilities2(u16) {
        /// Extended information about the port.
        INFO_EXTENDED = cap2::IBV_PORT_INFO_EXT_SUP.0,
        /// The description of the node can be set.
        NODE_DESCRIPTION = cap2::IBV_PORT_SET_NODE_DESC_SUP.0,
        /// Lanes at 50 Gb/s.
        SPEED_HDR = cap2::IBV_PORT_LINK_SPEED_HDR_SUP.0,
        /// Lanes at 100 Gb/s.
        SPEED_NDR = cap2::IBV_PORT_LINK_SPEED_NDR_SUP.0,
        /// Lanes at 200 Gb/s.
        SPEED_XDR = cap2::IBV_PORT_LINK_SPEED_XDR_SUP.0,
        /// Tables of the states of a switch's ports.
        SWITCH_PORT_STATES = cap2::IBV_PORT_SWITCH_PORT_STATE_TABLE_SUP.0,
        /// Virtual ports.
        VIRTUALIZATION = cap2::IBV_PORT_VIRT_SUP.0,
        /// Links of two lanes.
        WIDTH_2X = cap2::IBV_PORT_LINK_WIDTH_2X_SUP.0,
    }
}

/// A key that names a partition of the network (IBTA 1.4, 10.9): 15 bits, and one for full members.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartitionKey(pub u16);

impl PartitionKey {
    /// The default partition, as a full member; the only one on RoCE.
    pub const DEFAULT: Self = Self(0xffff);

    /// Whether the port is a full member: limited members reach full members only.
    pub const fn is_full_member(self) -> bool {
        self.0 & 0x8000 != 0
    }
}

impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionKey({:#06x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeroed() -> ffi::ibv_port_attr {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        unsafe { std::mem::zeroed() }
    }

    #[test]
    fn rates_are_those_of_the_kernel() {
        // Width and speed codes, and what the kernel's rate_show() prints for them.
        for (width, speed, megabits) in [
            (1, 1, 2_500),
            (2, 1, 10_000),
            (2, 4, 40_000),
            (2, 8, 40_000),
            (2, 16, 56_000),
            (2, 32, 100_000),
            (2, 64, 200_000),
            (2, 128, 400_000),
            (4, 32, 200_000),
            (8, 2, 60_000),
            (16, 64, 100_000),
            (3, 1, 0),
            (1, 3, 0),
        ] {
            let attributes =
                PortAttributes::from_raw(&ffi::ibv_port_attr { active_width: width, active_speed: speed, ..zeroed() });
            assert_eq!(attributes.rate_megabits(), megabits, "width {width}, speed {speed}");
        }
    }

    #[test]
    fn the_wider_speed_wins_where_it_is_there() {
        let raw = ffi::ibv_port_attr { active_width: 2, active_speed: 128, active_speed_ex: 256, ..zeroed() };
        assert_eq!(PortAttributes::from_raw(&raw).rate_megabits(), 800_000);
    }

    #[test]
    fn unknown_codes_are_values() {
        let raw = ffi::ibv_port_attr {
            state: 77,
            phys_state: 78,
            link_layer: 79,
            active_width: 80,
            active_speed: 81,
            active_mtu: 82,
            gid_tbl_len: -1,
            ..zeroed()
        };
        let attributes = PortAttributes::from_raw(&raw);
        assert_eq!(attributes.state, PortState::Other(77));
        assert_eq!(attributes.physical_state, PhysicalState::Other(78));
        assert_eq!(attributes.link_layer, LinkLayer::Other(79));
        assert_eq!((attributes.width, attributes.speed), (LinkWidth::Other(80), LinkSpeed::Other(81)));
        assert_eq!(attributes.active_mtu, Mtu::Other(82));
        assert_eq!((attributes.gid_table_length, attributes.rate_megabits()), (0, 0));
    }

    #[test]
    fn partition_keys_tell_their_membership() {
        assert!(PartitionKey::DEFAULT.is_full_member());
        assert!(!PartitionKey(0x7fff).is_full_member());
        assert_eq!(format!("{:?}", PartitionKey(0x8001)), "PartitionKey(0x8001)");
    }
}
