//! rdma_cm in port space UDP: who has which queue pair, and multicast groups.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use zcmi::verbs::{
    AddressHandle, Completed, CompletionQueue, ConnectionEventKind as Kind, ConnectionId, ConnectionParameters,
    DatagramPeer, Destination, Gid, Local, Membership, OwningQueue, PortSpace, ProtectionDomain, QueuePair,
    QueuePairChange, QueuePairKey, QueuePairKind, QueuePairState, ROUTE_HEADER, RegisteredBuffer, ResolutionRefusal,
    SendFlags, SendOperation, SendRequest,
};

use crate::connection_support::{
    Ends, SOON, bounded, next, nothing, parameters, refused, resolve_address, resolve_route,
};
use crate::support::{Fixture, with_device};

/// The key of every queue pair that rdma_cm names (`RDMA_UDP_QKEY`).
const QUEUE_KEY: u32 = 0x0123_4567;
/// Where multicast goes.
const EVERYBODY: u32 = 0xff_ffff;

fn with_ends(test: impl FnOnce(&Ends)) {
    with_device(|fixture| test(&Ends::new(&fixture.address, PortSpace::Udp)));
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

/// Queue pairs of type UD with the key that rdma_cm names.
struct Datagrams {
    domain: Arc<ProtectionDomain>,
    queue: OwningQueue<RegisteredBuffer>,
    done: Vec<Completed<RegisteredBuffer>>,
}

impl Datagrams {
    fn new(fixture: &Fixture) -> Self {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let queue = OwningQueue::new(CompletionQueue::create(&fixture.context, 512).expect("a queue"));
        Self { domain, queue, done: vec![] }
    }

    /// A queue pair that `id` describes, with a receive posted.
    fn pair(&mut self, id: &ConnectionId) -> QueuePairKey {
        let builder = QueuePair::builder(&self.domain, self.queue.completions()).kind(QueuePairKind::Ud);
        let pair = builder.create().expect("a queue pair");
        pair.initialize(id).expect("initializes");
        pair.modify(QueuePairChange::to(QueuePairState::ReadyToReceive)).expect("moves");
        pair.modify(QueuePairChange::to(QueuePairState::ReadyToSend).send_psn(0.into())).expect("moves");
        let key = self.queue.add(pair).expect("there is room");
        self.receive(key);
        key
    }

    fn number(&self, key: QueuePairKey) -> u32 {
        self.get(key).number()
    }

    fn get(&self, key: QueuePairKey) -> &QueuePair {
        self.queue.queue_pair(key).expect("it was added")
    }

    fn receive(&mut self, key: QueuePairKey) {
        let buffer = RegisteredBuffer::allocate(&self.domain, ROUTE_HEADER + 64).expect("memory");
        self.queue.post_receive(key, 1, buffer).expect("there is room");
    }

    /// Sends `text` to `peer` and waits until that is done.
    fn send(&mut self, from: QueuePairKey, peer: &DatagramPeer, text: &[u8]) {
        let address = AddressHandle::create(&self.domain, &peer.address).expect("a handle");
        let there = Destination { address: &address, queue_pair: peer.queue_pair, queue_key: peer.queue_key };
        let mut buffer = RegisteredBuffer::allocate(&self.domain, 64).expect("memory");
        buffer[..text.len()].copy_from_slice(text);
        buffer.set_used(0..text.len());
        let request = SendRequest {
            token: 2,
            operation: SendOperation::Datagram(there),
            local: Local::Owned(buffer),
            flags: SendFlags::SIGNALED,
        };
        self.queue.post(from, request).expect("there is room");
        assert_eq!(self.completion(|completed| !completed.is_receive).result, Ok(0));
    }

    /// What `key` has received; a receive is posted again.
    fn arrived(&mut self, key: QueuePairKey) -> Vec<u8> {
        let completed = self.completion(|completed| completed.is_receive && completed.queue_pair == key);
        let length = completed.result.expect("received") as usize;
        self.receive(key);
        completed.memory.expect("its buffer")[ROUTE_HEADER..length].to_vec()
    }

    fn completion(&mut self, is_wanted: impl Fn(&Completed<RegisteredBuffer>) -> bool) -> Completed<RegisteredBuffer> {
        let begun = Instant::now();
        loop {
            if let Some(index) = self.done.iter().position(&is_wanted) {
                return self.done.remove(index);
            }
            assert!(begun.elapsed() < SOON, "nothing arrives: {:?}", self.done);
            self.queue.poll(&mut self.done).expect("polls");
        }
    }
}

#[test]
fn datagrams_reach_the_peer_that_was_found() {
    with_device(|fixture| {
        let ends = Ends::new(&fixture.address, PortSpace::Udp);
        let mut datagrams = Datagrams::new(fixture);
        let listener = ends.listener(2);
        let active = ends.connecting(&listener, &parameters());
        let (_, passive) = ends.request();
        let [ours, theirs] = [&active, &passive].map(|id| datagrams.pair(id));
        let answer = ConnectionParameters { queue_pair: datagrams.number(theirs), ..Default::default() };
        passive.accept(&answer).expect("accepts");
        let peer = next(&ends.active, Kind::Established).datagram.expect("a peer");
        datagrams.send(ours, &peer, b"to whom rdma_cm has found");
        assert_eq!(datagrams.arrived(theirs), b"to whom rdma_cm has found");
    });
}

#[test]
fn datagrams_to_a_group_reach_its_members_as_long_as_they_are_attached() {
    with_device(|fixture| {
        let ends = Ends::new(&fixture.address, PortSpace::Udp);
        let mut datagrams = Datagrams::new(fixture);
        let id = member(&ends);
        id.join_multicast(group(9), Membership::Full).expect("begins");
        let everybody = next(&ends.active, Kind::MulticastJoin).datagram.expect("a group");
        let (gid, lid) = (everybody.address.gid, everybody.address.lid);
        let [sender, one, two] = [(); 3].map(|()| datagrams.pair(&id));
        datagrams.get(one).attach_multicast(gid, lid).expect("attaches");
        datagrams.get(two).attach_multicast(gid, lid).expect("attaches");
        datagrams.send(sender, &everybody, b"both");
        assert_eq!((datagrams.arrived(one), datagrams.arrived(two)), (b"both".to_vec(), b"both".to_vec()));
        datagrams.get(one).detach_multicast(gid, lid).expect("detaches");
        datagrams.send(sender, &everybody, b"two alone");
        assert_eq!(datagrams.arrived(two), b"two alone");
        // What is for it alone arrives next: the group's has not.
        let myself = DatagramPeer { queue_pair: datagrams.number(one), ..to_ourselves(&ends, &id) };
        datagrams.send(sender, &myself, b"one alone");
        assert_eq!(datagrams.arrived(one), b"one alone");
        refused(datagrams.get(one).detach_multicast(gid, lid), libc::EINVAL);
        // The other is dropped while it is attached.
    });
}

/// The way to a queue pair of this host, as rdma_cm tells it.
fn to_ourselves(ends: &Ends, member: &ConnectionId) -> DatagramPeer {
    let listener = ends.listener(1);
    let active = ends.connecting(&listener, &parameters());
    let (_, passive) = ends.request();
    passive.accept(&ConnectionParameters { queue_pair: 1, ..Default::default() }).expect("accepts");
    let found = next(&ends.active, Kind::Established);
    assert_eq!((found.key, active.device()), (active.key(), member.device()));
    found.datagram.expect("a peer")
}

#[test]
fn what_is_no_group_or_no_datagram_is_not_attached() {
    with_device(|fixture| {
        let ends = Ends::new(&fixture.address, PortSpace::Udp);
        let mut datagrams = Datagrams::new(fixture);
        let key = datagrams.pair(&member(&ends));
        let ours = fixture.context.gid(1, 0).expect("a GID");
        refused(datagrams.get(key).attach_multicast(ours, 0), libc::EINVAL);
        let reliable =
            QueuePair::builder(&datagrams.domain, datagrams.queue.completions()).create().expect("a queue pair");
        let everybody = Gid("ff0e::1".parse::<std::net::Ipv6Addr>().expect("an address").octets());
        let detail = refused(reliable.attach_multicast(everybody, 0), libc::EINVAL);
        assert!(detail.contains("Rc"), "{detail}");
    });
}
