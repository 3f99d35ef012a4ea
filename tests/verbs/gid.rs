//! The GID table and the right entry of it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use zcmi::verbs::{Context, GidEntry, GidKind};

use crate::spare_device::{SpareDevice, address};
use crate::support::with_device;

#[test]
fn the_table_is_the_one_of_sysfs() {
    with_device(|fixture| {
        let table = fixture.context.gid_table().expect("the table");
        let length = fixture.context.port(1).expect("port 1").gid_table_length;
        let expected: Vec<_> = (0..length).filter_map(|index| sysfs_entry(&fixture.context, index)).collect();
        let ours: Vec<_> = table.entries().iter().map(described).collect();
        assert_eq!(ours, expected);
        assert!(ours.len() >= 2, "the comparison compared something");
    });
}

#[test]
fn an_entry_is_what_its_index_answers() {
    with_device(|fixture| {
        for entry in fixture.context.gid_table().expect("the table").entries() {
            assert_eq!(fixture.context.gid(entry.port, entry.index).expect("the entry"), entry.gid);
        }
        fixture.context.gid(9, 0).expect_err("no such port");
        fixture.context.gid(1, u32::MAX).expect_err("no such entry");
    });
}

#[test]
fn our_address_and_a_peer_beside_it_lead_to_the_same_entry() {
    with_device(|fixture| {
        let own = address(&fixture.address);
        let entry = fixture.context.gid_for(own).expect("our address");
        assert_eq!((entry.gid.ip(), entry.kind, entry.port), (Some(own), GidKind::RoceV2, 1));
        let IpAddr::V4(own) = own else { panic!("the set-up gives an IPv4 address") };
        let beside = std::net::Ipv4Addr::from_bits(own.to_bits() ^ 0x40);
        assert_eq!(fixture.context.gid_toward(beside).expect("a neighbour"), entry);
        assert_eq!(fixture.context.gid_toward(SocketAddr::from((beside, 7471))).expect("a neighbour"), entry);
        assert_eq!(fixture.context.gid_toward(own).expect("ourselves"), entry);
        assert_eq!(fixture.context.gid_for(own.to_ipv6_mapped()).expect("the same address"), entry);
    });
}

#[test]
fn each_peer_is_reached_from_its_own_subnet_and_family() {
    with_device(|_| {
        let Some(spare) = SpareDevice::create() else { return };
        let context = spare.open();
        spare.ip(&format!("addr add 198.51.100.1/24 dev {}", spare.netdev()));
        spare.ip(&format!("addr add 2001:db8:6::1/64 dev {} nodad", spare.netdev()));
        let added = ["198.51.100.1", "2001:db8:6::1"].map(address);
        spare.until("the new addresses are in the table", || added.iter().all(|&ip| context.gid_for(ip).is_ok()));
        for (peer, from) in [
            ("203.0.113.9", SpareDevice::V4),
            ("198.51.100.9", "198.51.100.1"),
            ("2001:db8:5::9", SpareDevice::V6),
            ("2001:db8:6::9", "2001:db8:6::1"),
            ("::ffff:198.51.100.9", "198.51.100.1"),
        ] {
            let entry = context.gid_toward(address(peer)).expect("on the link");
            assert_eq!(entry.gid.ip(), Some(address(from)), "toward {peer}");
            assert_eq!((entry.kind, entry.netdev_name.as_deref()), (GidKind::RoceV2, Some(spare.netdev())));
        }
    });
}

#[test]
fn an_address_that_goes_takes_its_entry_along() {
    with_device(|_| {
        let Some(spare) = SpareDevice::create() else { return };
        let context = spare.open();
        let index = context.gid_for(address(SpareDevice::V4)).expect("in the table").index;
        spare.ip(&format!("addr del {}/24 dev {}", SpareDevice::V4, spare.netdev()));
        spare.until("the address is gone", || context.gid_for(address(SpareDevice::V4)).is_err());
        // A hole is left, and the table is of IPv6 only.
        let table = context.gid_table().expect("the table");
        assert!(table.entries().iter().all(|entry| entry.index != index));
        let later = context.gid_for(address(SpareDevice::V6)).expect("still there").index;
        assert!(later > index, "behind the hole");
        let error = context.gid_toward(address("203.0.113.9")).expect_err("no IPv4 address is left");
        assert_eq!(error.errno(), Some(libc::EADDRNOTAVAIL));
        assert!(error.to_string().contains(SpareDevice::V6), "it names what there is: {error}");
    });
}

#[test]
fn the_route_chooses_between_addresses_of_one_subnet() {
    with_device(|_| {
        let Some(spare) = SpareDevice::create() else { return };
        let context = spare.open();
        let netdev = spare.netdev();
        spare.ip(&format!("addr add 203.0.113.2/24 dev {netdev}"));
        let second = address("203.0.113.2");
        spare.until("the second address is in the table", || context.gid_for(second).is_ok());
        spare.ip(&format!("route add 203.0.113.9/32 dev {netdev} src 203.0.113.2"));
        let toward = |peer| context.gid_toward(address(peer)).expect("on the link").gid.ip();
        assert_eq!(toward("203.0.113.9"), Some(second));
        assert_eq!(toward("203.0.113.8"), Some(address(SpareDevice::V4)));
        // No route, but the subnet is there.
        spare.ip("route add unreachable 203.0.113.7/32");
        let without_route = context.gid_toward(address("203.0.113.7"));
        spare.ip("route del unreachable 203.0.113.7/32");
        assert_eq!(without_route.expect("in the subnet").gid.ip(), Some(address(SpareDevice::V4)));
    });
}

#[test]
fn a_link_local_address_is_found_by_its_scope() {
    with_device(|_| {
        let Some(spare) = SpareDevice::create() else { return };
        let context = spare.open();
        let entries = context.gid_table().expect("the table").entries().to_vec();
        let is_local = |entry: &&GidEntry| matches!(entry.gid.ip(), Some(IpAddr::V6(ip)) if ip.is_unicast_link_local());
        let entry = entries.iter().find(is_local).expect("every netdev has one");
        let Some(IpAddr::V6(own)) = entry.gid.ip() else { panic!("it is of IPv6") };
        let netdev = entry.netdev.expect("RoCE");
        let scoped = |ip, scope| SocketAddr::from(SocketAddrV6::new(ip, 0, 0, scope));
        assert_eq!(&context.gid_for(scoped(own, netdev)).expect("ours"), entry);
        assert_eq!(&context.gid_for(own).expect("on one netdev only"), entry);
        context.gid_for(scoped(own, netdev + 1000)).expect_err("on another netdev");
        let peer: Ipv6Addr = "fe80::1234".parse().expect("an address");
        assert_eq!(&context.gid_toward(scoped(peer, netdev)).expect("on the link"), entry);
        context.gid_toward(scoped(peer, netdev + 1000)).expect_err("there is no such netdev");
    });
}

#[test]
fn addresses_that_are_not_the_devices_are_errors_that_say_so() {
    with_device(|fixture| {
        for (peer, text) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            let error = fixture.context.gid_toward(address(peer)).expect_err("lo is not the device's");
            assert_eq!(error.errno(), Some(libc::EADDRNOTAVAIL));
            assert!(error.to_string().contains(&format!("the route to it is from {text}")), "{error}");
        }
        let error = fixture.context.gid_for(address("198.51.100.77")).expect_err("not an address of this host");
        assert!(error.to_string().contains(&fixture.address), "it names what there is: {error}");
        fixture.context.gid_for(address("0.0.0.0")).expect_err("any address");
    });
}

type Described = (u8, u32, String, String, Option<String>);

fn described(entry: &GidEntry) -> Described {
    (entry.port, entry.index, entry.gid.to_string(), entry.kind.to_string(), entry.netdev_name.clone())
}

/// Entry `index` of port 1 by sysfs; `None` if it is empty.
fn sysfs_entry(context: &Context, index: u32) -> Option<Described> {
    let read = |file: &str| {
        let path = context.device().sysfs_path().join("ports/1").join(file).join(index.to_string());
        Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
    };
    let gid: Ipv6Addr = read("gids")?.parse().expect("a GID");
    (!gid.is_unspecified())
        .then(|| (1, index, gid.to_string(), read("gid_attrs/types").expect("a type"), read("gid_attrs/ndevs")))
}
