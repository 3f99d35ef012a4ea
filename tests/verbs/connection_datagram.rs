//! rdma_cm in port space UDP: who has which queue pair, and multicast groups.

use std::net::SocketAddr;

use zcmi::verbs::{
    ConnectionEventKind as Kind, ConnectionId, ConnectionParameters, Membership, PortSpace, ResolutionRefusal,
};

use crate::connection_support::{Ends, SOON, bounded, next, nothing, parameters, resolve_address, resolve_route};
use crate::support::with_device;

/// The key of every queue pair that rdma_cm names (`RDMA_UDP_QKEY`).
const QUEUE_KEY: u32 = 0x0123_4567;
/// Where multicast goes.
const EVERYBODY: u32 = 0xff_ffff;

fn with_ends(test: impl FnOnce(&Ends)) {
    with_device(|fixture| test(&Ends::new(&fixture.address, PortSpace::Udp)));
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: zcmi::verbs::Result<T>, errno: i32) -> String {
    let error = answer.expect_err("must be refused");
    assert_eq!(error.errno(), Some(errno), "{error}");
    error.detail().unwrap_or_default().to_owned()
}

#[test]
fn the_peers_queue_pair_is_found() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        assert_eq!(listener.port_space(), PortSpace::Udp);
        let (asked, answered) = ([0xa5; 180], [0x5a; 136]);
        let active = ends.connecting(&listener, &ConnectionParameters { private_data: &asked, ..parameters() });
        let (request, passive) = ends.request();
        assert_eq!(passive.port_space(), PortSpace::Udp);
        assert_eq!(request.key, listener.key());
        assert_eq!(request.private_data[..180], asked);
        assert_eq!(request.queue_pair, 0);
        assert!(request.datagram.is_none());
        assert_eq!(request.route.expect("known").local, listener.local_address());

        passive
            .accept(&ConnectionParameters { private_data: &answered, queue_pair: 0x1234, ..Default::default() })
            .expect("accepts");
        let established = next(&ends.active, Kind::Established);
        assert_eq!(established.key, active.key());
        assert_eq!(established.private_data[..136], answered);
        let peer = established.datagram.expect("a peer");
        assert_eq!((peer.queue_pair, peer.queue_key), (0x1234, QUEUE_KEY));
        assert_eq!(peer.address.gid.ip(), Some(ends.at(0).ip()));
        assert_eq!(peer.address.port, 1);
        nothing(&ends.passive);
    });
}

#[test]
fn a_refusal_comes_with_status_and_data() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        let _active = ends.connecting(&listener, &parameters());
        let (_, passive) = ends.request();
        let data = [7; 136];
        passive.reject(&data).expect("rejects");
        let event = ends.active.wait(SOON).expect("readable").expect("an event");
        assert_eq!((event.kind, event.resolution_refusal()), (Kind::Unreachable, Some(ResolutionRefusal::Rejected)));
        assert_eq!(event.reject_reason(), None);
        assert_eq!(event.private_data[..136], data);
        assert!(event.datagram.is_none());
        let error = event.expect(Kind::Established).expect_err("a refusal");
        assert_eq!(error.errno(), Some(libc::ECONNREFUSED));
    });
}

#[test]
fn nobody_listening_is_a_refusal_of_the_kernel() {
    with_ends(|ends| {
        let address = ends.listener(1).local_address().expect("bound");
        let active = ends.resolved(address);
        active.connect(&parameters()).expect("asks");
        let event = ends.active.wait(SOON).expect("readable").expect("an event");
        assert_eq!(event.resolution_refusal(), Some(ResolutionRefusal::ServiceNotSupported), "{event:?}");
    });
}

#[test]
fn private_data_has_limits_of_its_own() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        let data = [0; 200];
        let with = |length| ConnectionParameters { private_data: &data[..length], ..parameters() };
        let active = ends.resolved(listener.local_address().expect("bound"));
        assert!(refused(active.connect(&with(181)), libc::EINVAL).contains("180"));
        active.connect(&with(180)).expect("asks");
        let (_, passive) = ends.request();
        assert!(refused(passive.accept(&with(137)), libc::EINVAL).contains("136"));
        assert!(refused(passive.reject(&data[..137]), libc::EINVAL).contains("136"));
        passive.accept(&with(136)).expect("accepts");
        next(&ends.active, Kind::Established);
    });
}

#[test]
fn steps_out_of_order_are_refused() {
    with_ends(|ends| {
        let fresh = ends.id();
        let all = ConnectionParameters { responder_resources: 255, initiator_depth: 255, ..parameters() };
        for parameters in [all, parameters()] {
            refused(fresh.connect(&parameters), libc::EINVAL);
            refused(fresh.accept(&parameters), libc::EINVAL);
        }
        refused(fresh.resolve_route(SOON), libc::EINVAL);
        refused(fresh.reject(b""), libc::EINVAL);
        resolve_address(&fresh, ends.at(1)).expect("resolves");
        refused(fresh.connect(&parameters()), libc::EINVAL);
        resolve_route(&fresh);
        refused(fresh.accept(&parameters()), libc::EINVAL);
    });
}

fn group(last: u8) -> SocketAddr {
    SocketAddr::from(([239, 1, 2, last], 0))
}

fn member(ends: &Ends) -> ConnectionId {
    let id = ends.id();
    id.bind(ends.at(0)).expect("binds");
    id
}

#[test]
fn a_group_is_joined_and_left() {
    with_ends(|ends| {
        let id = member(ends);
        id.join_multicast(group(3), Membership::Full).expect("begins");
        let joined = next(&ends.active, Kind::MulticastJoin);
        assert_eq!((joined.key, joined.group), (id.key(), Some(group(3))));
        assert!(joined.private_data.is_empty());
        let peer = joined.datagram.expect("a group");
        assert_eq!((peer.queue_pair, peer.queue_key), (EVERYBODY, QUEUE_KEY));
        assert_eq!(peer.address.gid.ip(), Some(group(3).ip()));
        // A second group, at the same time.
        id.join_multicast(group(4), Membership::SendOnly).expect("begins");
        let joined = next(&ends.active, Kind::MulticastJoin);
        assert_eq!(
            (joined.group, joined.datagram.map(|peer| peer.address.gid.ip())),
            (Some(group(4)), Some(Some(group(4).ip())))
        );
        id.leave_multicast(group(3)).expect("leaves");
        refused(id.leave_multicast(group(3)), libc::EADDRNOTAVAIL);
        id.join_multicast(group(3), Membership::Full).expect("may come back");
        assert_eq!(next(&ends.active, Kind::MulticastJoin).group, Some(group(3)));
        // The rest is left when it is dropped, unread events or not.
        id.join_multicast(group(5), Membership::Full).expect("begins");
        bounded(move || drop(id));
        nothing(&ends.active);
    });
}

#[test]
fn what_cannot_be_joined_is_refused() {
    with_ends(|ends| {
        let no_device = ends.id();
        assert!(refused(no_device.join_multicast(group(3), Membership::Full), libc::EINVAL).contains("no device"));
        let id = member(ends);
        refused(id.join_multicast(ends.at(0), Membership::Full), libc::EINVAL);
        refused(id.leave_multicast(group(3)), libc::EADDRNOTAVAIL);
        let connected = ConnectionId::create(&ends.active).expect("an identifier");
        connected.bind(ends.at(0)).expect("binds");
        assert!(refused(connected.join_multicast(group(3), Membership::Full), libc::EINVAL).contains("Tcp"));
        id.join_multicast(group(3), Membership::Full).expect("begins");
        assert!(refused(id.join_multicast(group(3), Membership::Full), libc::EINVAL).contains("already"));
        next(&ends.active, Kind::MulticastJoin);
    });
}

#[test]
fn a_member_that_moves_hears_of_its_groups_there() {
    with_ends(|ends| {
        let mut id = member(ends);
        id.join_multicast(group(3), Membership::Full).expect("begins");
        id.migrate(&ends.passive).expect("moves");
        assert_eq!(next(&ends.passive, Kind::MulticastJoin).group, Some(group(3)));
        nothing(&ends.active);
        id.leave_multicast(group(3)).expect("leaves");
    });
}
