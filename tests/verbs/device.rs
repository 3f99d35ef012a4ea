//! Devices, their attributes and their ports, beside what rdma-core's and iproute2's programs say of them.

use std::collections::HashMap;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;

use zcmi::verbs::{
    AtomicCapability, Context, Device, DeviceCapabilities, Guid, LinkLayer, Mtu, NodeType, OnDemandPagingCapabilities,
    PagedOperations, PartitionKey, PhysicalState, PortState, TransportType,
};

use crate::spare_device::{SpareDevice, kernel_has};
use crate::support::with_device;

#[test]
fn the_device_is_listed_and_opens_by_name() {
    with_device(|fixture| {
        let name = fixture.context.name();
        let listed = Device::list().expect("devices").into_iter().find(|device| device.name() == name);
        let device = listed.expect("the device is listed");
        assert_eq!(Context::open(name).expect("opens").name(), name);
        assert_eq!(&device, fixture.context.device());
        assert_eq!(device.open().expect("opens").device(), &device);
    });
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_names_those_that_are() {
    with_device(|fixture| {
        let error = Context::open("no_such_device").expect_err("there is none");
        assert_eq!(error.errno(), Some(libc::ENODEV));
        assert!(error.to_string().contains(fixture.context.name()), "{error}");
        // Not a prefix either.
        Context::open("").expect_err("no name");
        Context::open(&format!("{} ", fixture.context.name())).expect_err("another name");
    });
}

#[test]
fn a_listed_device_tells_what_the_kernel_tells() {
    with_device(|fixture| {
        let device = fixture.context.device();
        let guid = read(device, "node_guid");
        assert_eq!(device.guid().expect("rxe has one").to_string(), guid);
        // 0: rxe0: node_type ca …
        let output = Command::new("rdma").args(["dev", "show", device.name()]).output().expect("iproute2");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let index = text.split(':').next().expect("an index");
        assert_eq!(device.index().map(|index| index.to_string()).as_deref(), Some(index));
        assert_eq!((device.node_type(), device.transport()), (NodeType::ChannelAdapter, TransportType::InfiniBand));
        let kind = std::fs::metadata(device.path()).expect("the device's file").file_type();
        assert!(kind.is_char_device(), "{:?}", device.path());
    });
}

#[test]
fn attributes_are_those_that_ibv_devinfo_shows() {
    with_device(|fixture| {
        let shown = devinfo(fixture.context.name());
        let ours = fixture.context.attributes().expect("attributes");
        assert_eq!(ours.firmware_version, shown["fw_ver"]);
        assert_eq!(ours.node_guid.to_string(), shown["node_guid"]);
        assert_ne!(ours.node_guid, Guid(0));
        assert_eq!(ours.system_image_guid.to_string(), shown["sys_image_guid"]);
        assert_eq!(ours.atomics, AtomicCapability::Device);
        assert!(shown["atomic_cap"].starts_with("ATOMIC_HCA "));
        let numbers: [(&str, u64); 35] = [
            ("vendor_id", ours.vendor_id.into()),
            ("vendor_part_id", ours.vendor_part_id.into()),
            ("hw_ver", ours.hardware_version.into()),
            ("phys_port_cnt", ours.ports.into()),
            ("max_mr_size", ours.max_memory_region_size),
            ("page_size_cap", ours.page_sizes),
            ("max_qp", ours.max_queue_pairs.into()),
            ("max_qp_wr", ours.max_queue_pair_requests.into()),
            ("max_sge", ours.max_segments.into()),
            ("max_sge_rd", ours.max_read_segments.into()),
            ("max_cq", ours.max_completion_queues.into()),
            ("max_cqe", ours.max_completions.into()),
            ("max_mr", ours.max_memory_regions.into()),
            ("max_pd", ours.max_protection_domains.into()),
            ("max_qp_rd_atom", ours.max_reads_as_target.into()),
            ("max_ee_rd_atom", ours.max_end_to_end_reads_as_target.into()),
            ("max_res_rd_atom", ours.max_reads_of_device.into()),
            ("max_qp_init_rd_atom", ours.max_reads_as_initiator.into()),
            ("max_ee_init_rd_atom", ours.max_end_to_end_reads_as_initiator.into()),
            ("max_ee", ours.max_end_to_end_contexts.into()),
            ("max_rdd", ours.max_reliable_datagram_domains.into()),
            ("max_mw", ours.max_memory_windows.into()),
            ("max_raw_ipv6_qp", ours.max_raw_ipv6_queue_pairs.into()),
            ("max_raw_ethy_qp", ours.max_raw_ethertype_queue_pairs.into()),
            ("max_mcast_grp", ours.max_multicast_groups.into()),
            ("max_mcast_qp_attach", ours.max_queue_pairs_of_multicast_group.into()),
            ("max_total_mcast_qp_attach", ours.max_multicast_attachments.into()),
            ("max_ah", ours.max_address_handles.into()),
            ("max_fmr", ours.max_fast_memory_regions.into()),
            ("max_srq", ours.max_shared_receive_queues.into()),
            ("max_srq_wr", ours.max_shared_receives.into()),
            ("max_srq_sge", ours.max_shared_receive_segments.into()),
            ("max_pkeys", ours.max_partition_keys.into()),
            ("local_ca_ack_delay", ours.ack_delay.into()),
            ("num_comp_vectors", fixture.context.completion_vectors().into()),
        ];
        for (name, value) in numbers {
            assert_eq!(value, number(&shown[name]), "{name}");
        }
        assert!(ours.max_queue_pairs > 0 && ours.max_completions > 0, "the comparison compared something");
    });
}

#[test]
fn extended_attributes_are_there_and_say_what_the_kernel_can_do() {
    with_device(|fixture| {
        let shown = devinfo(fixture.context.name());
        let ours = fixture.context.attributes().expect("attributes");
        let extended = ours.extended.expect("rxe answers the extended query");
        assert_eq!(ours.capabilities.bits(), number(&shown["device_cap_flags_ex"]));
        assert_eq!(ours.capabilities.bits() & 0xffff_ffff, number(&shown["device_cap_flags"]));
        assert!(ours.capabilities.contains(DeviceCapabilities::MEMORY_WINDOW | DeviceCapabilities::RNR_NAK));
        assert!(!ours.capabilities.contains(DeviceCapabilities::XRC));
        let atomic_write = ours.capabilities.contains(DeviceCapabilities::ATOMIC_WRITE);
        assert!(kernel_has((6, 1), (6, 12)).is_none_or(|has| has == atomic_write), "{:?}", ours.capabilities);
        let paging = extended.on_demand_paging;
        let pages = paging.general.contains(OnDemandPagingCapabilities::EXPLICIT);
        assert!(kernel_has((6, 12), (7, 0)).is_none_or(|has| has == pages), "{paging:?}");
        assert_eq!(paging.reliable.contains(PagedOperations::READ | PagedOperations::WRITE), pages, "{paging:?}");
        assert_eq!(u32::from(ours.ports), extended.ports);
        for (name, value) in [
            ("max_tso", extended.segmentation.max_bytes),
            ("max_wq_type_rq", extended.max_receive_work_queues),
            ("max_rwq_indirection_tables", extended.receive_side_scaling.max_indirection_tables),
        ] {
            assert_eq!(u64::from(value), number(&shown[name]), "{name}");
        }
    });
}

#[test]
fn the_port_is_what_ibv_devinfo_and_sysfs_show() {
    with_device(|fixture| {
        let shown = devinfo(fixture.context.name());
        let ours = fixture.context.port(1).expect("port 1");
        assert_eq!((ours.state, ours.physical_state), (PortState::Active, PhysicalState::LinkUp));
        assert!(shown["state"].starts_with("PORT_ACTIVE ") && shown["phys_state"].starts_with("LINK_UP "));
        assert_eq!(ours.link_layer, LinkLayer::Ethernet);
        assert_eq!(shown["link_layer"], "Ethernet");
        assert!(ours.needs_global_route, "RoCE");
        for (name, mtu) in [("max_mtu", ours.max_mtu), ("active_mtu", ours.active_mtu)] {
            assert_eq!(mtu.bytes().map(u64::from), Some(number(&shown[name])), "{name}");
        }
        let numbers: [(&str, u64); 13] = [
            ("max_msg_sz", ours.max_message_size.into()),
            ("port_lid", ours.lid.into()),
            ("port_lmc", ours.lid_mask.into()),
            ("sm_lid", ours.subnet_manager.into()),
            ("sm_sl", ours.subnet_manager_service_level.into()),
            ("port_cap_flags", ours.capabilities.bits().into()),
            ("port_cap_flags2", ours.capabilities2.bits().into()),
            ("bad_pkey_cntr", ours.bad_partition_keys.into()),
            ("qkey_viol_cntr", ours.bad_queue_keys.into()),
            ("pkey_tbl_len", ours.partition_table_length.into()),
            ("gid_tbl_len", ours.gid_table_length.into()),
            ("subnet_timeout", ours.subnet_timeout.into()),
            ("init_type_reply", ours.initialization_type.into()),
        ];
        for (name, value) in numbers {
            assert_eq!(value, number(&shown[name]), "{name}");
        }
        // 2.5 Gb/sec (1X SDR)
        let rate = read(fixture.context.device(), "ports/1/rate");
        let gigabits: f64 = rate.split(' ').next().and_then(|word| word.parse().ok()).expect("a rate");
        assert_eq!(ours.rate_megabits() as f64, gigabits * 1000.0, "{rate}");
        let lanes = ours.width.lanes().expect("known").to_string();
        assert!(rate.contains(&format!("({lanes}X ")), "{rate}");
    });
}

#[test]
fn the_path_mtu_follows_the_netdev() {
    with_device(|_| {
        let Some(spare) = SpareDevice::create() else { return };
        let context = spare.open();
        // A dummy netdev starts with 1500 bytes, which hold 1024 and the headers.
        assert_eq!(context.port(1).expect("port 1").active_mtu, Mtu::Bytes1024);
        for (bytes, mtu) in [(9000, Mtu::Bytes4096), (2200, Mtu::Bytes2048), (600, Mtu::Bytes512)] {
            spare.ip(&format!("link set {} mtu {bytes}", spare.netdev()));
            spare.until("the MTU changes", || context.port(1).expect("port 1").active_mtu == mtu);
        }
    });
}

#[test]
fn a_port_that_is_not_there_is_an_error_that_names_it() {
    with_device(|fixture| {
        for port in [0, 2, 255] {
            let error = fixture.context.port(port).expect_err("there is one port, 1");
            assert_eq!(error.errno(), Some(libc::EINVAL));
            assert!(error.to_string().contains(&format!("port {port} of {}", fixture.context.name())), "{error}");
        }
    });
}

#[test]
fn partition_keys_are_read_up_to_the_end_of_the_table() {
    with_device(|fixture| {
        let length = fixture.context.port(1).expect("port 1").partition_table_length;
        assert_eq!(fixture.context.partition_key(1, 0).expect("entry 0"), PartitionKey::DEFAULT);
        let error = fixture.context.partition_key(1, length).expect_err("past the end");
        assert!(error.to_string().contains(&format!("entry {length} of port 1")), "{error}");
        fixture.context.partition_key(1, u16::MAX).expect_err("past the end");
        fixture.context.partition_key(9, 0).expect_err("no such port");
    });
}

/// An attribute of the device in sysfs.
fn read(device: &Device, file: &str) -> String {
    let path = device.sysfs_path().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// What `ibv_devinfo -v` shows: names and values.
fn devinfo(device: &str) -> HashMap<String, String> {
    let output = Command::new("ibv_devinfo").args(["-v", "-d", device]).output().expect("ibverbs-utils");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// The number that a value begins with: `32`, `0x20`, `4096 (5)`.
fn number(value: &str) -> u64 {
    let word = value.split([' ', '(']).next().unwrap_or_default();
    let parsed = word.strip_prefix("0x").map_or_else(|| word.parse(), |hex| u64::from_str_radix(hex, 16));
    parsed.unwrap_or_else(|error| panic!("{value}: {error}"))
}
