//! rdma_cm identifiers: addresses, routes and options.

use std::time::{Duration, Instant};

use zcmi::verbs::{ConnectionEventKind as Kind, ConnectionId, PortSpace};

use crate::connection_support::{
    Ends, SOON, Undo, netdev, next, parameters, refused, resolve_address, resolve_route, run, with_ends,
};
use crate::support::with_device;

#[test]
fn an_identifier_knows_where_it_leads() {
    with_ends(|ends| {
        let fresh = ends.id();
        assert_eq!((fresh.local_address(), fresh.peer_address()), (None, None));
        assert_eq!((fresh.device(), fresh.route(), fresh.paths()), (None, None, vec![]));

        let listener = ends.listener(4);
        let address = listener.local_address().expect("bound");
        assert_eq!(address.ip(), ends.at(0).ip());
        assert_ne!(address.port(), 0);
        let connected = ends.connect(&listener);
        let device = listener.device().expect("bound to a device");
        for id in [&connected.active, &connected.passive] {
            assert_eq!(id.device().as_ref(), Some(&device));
            let paths = id.paths();
            assert_eq!(paths.len(), 1);
            assert_eq!(paths[0].source.ip(), Some(address.ip()));
            assert_eq!(paths[0].destination.ip(), Some(address.ip()));
            assert!([256, 512, 1024, 2048, 4096].contains(&paths[0].mtu), "{}", paths[0].mtu);
        }
        let (active, passive) = (&connected.active, &connected.passive);
        assert_eq!(active.peer_address(), Some(address));
        assert_eq!(passive.local_address(), Some(address));
        assert_eq!(active.local_address(), passive.peer_address());
        assert_eq!(connected.request.route, passive.route());
        assert_eq!(active.route().expect("resolved").port, 1);
        assert_eq!(active.port_space(), PortSpace::Tcp);
        assert!(connected.response.route.is_none());

        let anywhere = ends.id();
        anywhere.bind("0.0.0.0:0".parse().expect("an address")).expect("binds");
        assert_eq!(anywhere.device(), None);
        assert!(anywhere.local_address().expect("bound").port() > 0);
    });
}

#[test]
fn an_address_is_bound_once() {
    with_ends(|ends| {
        let first = ends.id();
        first.bind(ends.at(0)).expect("binds");
        let address = first.local_address().expect("bound");
        let detail = refused(ends.id().bind(address), libc::EADDRINUSE);
        assert!(detail.contains(&address.to_string()), "{detail}");
        // The other port space is another matter.
        let datagrams = ConnectionId::create_in(PortSpace::Udp, &ends.active).expect("an identifier");
        datagrams.bind(address).expect("binds");
        drop(first);
        ends.id().bind(address).expect("is free again");

        refused(ends.id().bind("198.51.100.77:0".parse().expect("an address")), libc::EADDRNOTAVAIL);
    });
}

#[test]
fn addresses_are_shared_by_those_that_allow_it() {
    with_ends(|ends| {
        let [first, second, third] = [ends.id(), ends.id(), ends.id()];
        first.set_reuse_address(true).expect("may be set");
        first.bind(ends.at(0)).expect("binds");
        let address = first.local_address().expect("bound");
        refused(third.bind(address), libc::EADDRINUSE);
        second.set_reuse_address(true).expect("may be set");
        second.bind(address).expect("shares");
        refused(second.listen(1), libc::EADDRINUSE);
        drop(first);
        second.listen(1).expect("is alone there");
        third.set_reuse_address(true).expect("may be set");
        refused(third.bind(address), libc::EADDRINUSE);
        refused(second.set_reuse_address(true), libc::EINVAL);
    });
}

#[test]
fn what_cannot_be_resolved_says_why() {
    with_ends(|ends| {
        // No route: said at once or by an event, as the kernel likes.
        let id = ends.id();
        let error = resolve_address(&id, "198.51.100.1:1".parse().expect("an address")).expect_err("no route");
        assert!(matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)), "{error}");
        // A route by a netdev that has no device.
        run("ip link add zcmitest type dummy");
        let _undo = Undo("ip link del zcmitest".into());
        run("ip link set zcmitest up");
        run("ip addr add 198.51.100.1/24 dev zcmitest");
        let error = resolve_address(&ends.id(), "198.51.100.2:1".parse().expect("an address")).expect_err("no device");
        assert_eq!(error.errno(), Some(libc::ENODEV), "{error}");
        let error = ends.id().bind("198.51.100.1:0".parse().expect("an address"));
        let detail = refused(error, libc::ENODEV);
        assert!(detail.contains("198.51.100.1"), "{detail}");
        // Two families.
        let six = "[2001:db8::1]:1".parse().expect("an address");
        refused(ends.id().resolve_address_from(ends.at(0), six, SOON), libc::EINVAL);
        // A source that this host does not have.
        let foreign = "198.51.100.77:0".parse().expect("an address");
        refused(ends.id().resolve_address_from(foreign, ends.at(1), SOON), libc::EADDRNOTAVAIL);
        // After all that the same identifier can still be resolved.
        resolve_address(&id, ends.at(1)).expect("resolves");
        resolve_route(&id);
    });
}

#[test]
fn a_neighbour_that_does_not_answer_times_out() {
    with_ends(|ends| {
        let netdev = netdev();
        run(&format!("ip link set dev {netdev} arp on"));
        let _undo = Undo(format!("ip link set dev {netdev} arp off"));
        let id = ends.id();
        id.resolve_address("192.0.2.77:1".parse().expect("an address"), Duration::from_millis(100)).expect("begins");
        let event = ends.active.wait(SOON).expect("readable").expect("an event");
        assert_eq!((event.kind, event.status), (Kind::AddressError, -libc::ETIMEDOUT));
        resolve_address(&id, ends.at(1)).expect("resolves");
    });
}

#[test]
fn a_source_can_be_chosen() {
    with_ends(|ends| {
        let netdev = netdev();
        run(&format!("ip addr add 192.0.2.9/24 dev {netdev}"));
        let _undo = Undo(format!("ip addr del 192.0.2.9/24 dev {netdev}"));
        let listener = ends.listener(4);
        let address = listener.local_address().expect("bound");
        let source = "192.0.2.9:0".parse().expect("an address");
        let id = ends.id();
        // The device learns of the address a moment later.
        let begun = Instant::now();
        while let Err(error) = id.resolve_address_from(source, address, Duration::from_secs(1)) {
            assert!(begun.elapsed() < SOON && error.errno() == Some(libc::ENODEV), "{error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        next(&ends.active, Kind::AddressResolved);
        assert_eq!(id.local_address().expect("resolved").ip(), source.ip());
        resolve_route(&id);
        id.connect(&parameters()).expect("asks");
        let (request, _passive) = ends.request();
        assert_eq!(request.route.expect("known").peer.expect("known").ip(), source.ip());
    });
}

#[test]
fn ipv6_works_as_ipv4_does() {
    with_device(|fixture| {
        let netdev = netdev();
        run(&format!("ip -6 addr add 2001:db8::7/64 dev {netdev} nodad"));
        let _undo = Undo(format!("ip -6 addr del 2001:db8::7/64 dev {netdev}"));
        let ends = Ends::new("2001:db8::7", PortSpace::Tcp);
        // The device learns of the address a moment later.
        let begun = Instant::now();
        while ends.id().bind(ends.at(0)).is_err() {
            assert!(begun.elapsed() < SOON, "the device does not learn of the address");
            std::thread::sleep(Duration::from_millis(20));
        }
        let connected = ends.connect(&ends.listener(2));
        let address = connected.active.peer_address().expect("known");
        assert!(address.is_ipv6());
        assert_eq!(connected.active.paths()[0].destination.ip(), Some(address.ip()));
        drop(connected);

        // All IPv6 addresses, with or without IPv4's.
        let any = |port| format!("[::]:{port}").parse().expect("an address");
        let four = |port| std::net::SocketAddr::new(fixture.address.parse().expect("an address"), port);
        let only = ends.id();
        only.set_ipv6_only(true).expect("may be set");
        only.bind(any(0)).expect("binds");
        only.listen(1).expect("listens");
        let port = only.local_address().expect("bound").port();
        ends.id().bind(four(port)).expect("IPv4 is free");
        refused(only.set_ipv6_only(false), libc::EINVAL);
        let both = ends.id();
        both.set_ipv6_only(false).expect("may be set");
        both.bind(any(0)).expect("binds");
        let port = both.local_address().expect("bound").port();
        refused(ends.id().bind(four(port)), libc::EADDRNOTAVAIL);
    });
}

#[test]
fn options_take_effect_or_are_refused() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        let address = listener.local_address().expect("bound");
        let id = ends.id();
        id.set_type_of_service(0x60).expect("may be set");
        id.set_ack_timeout(15).expect("may be set");
        let detail = refused(id.set_ack_timeout(32), libc::EINVAL);
        assert!(detail.contains("31"), "{detail}");
        resolve_address(&id, address).expect("resolves");
        resolve_route(&id);
        let path = id.paths()[0];
        assert_eq!(path.traffic_class, 0x60);
        // Half of the time to an acknowledgement.
        assert_eq!(path.packet_life_time, 14);
        // Another one has not got them.
        let other = ends.resolved(address).paths()[0];
        assert_ne!((other.traffic_class, other.packet_life_time), (path.traffic_class, path.packet_life_time));
        let datagrams = ConnectionId::create_in(PortSpace::Udp, &ends.active).expect("an identifier");
        refused(datagrams.set_ack_timeout(15), libc::EINVAL);
    });
}
