//! rdma_cm identifiers in port space TCP: set-up, refusal, end.

use std::time::{Duration, Instant};

use zcmi::verbs::{
    ConnectionEventKind as Kind, ConnectionId, ConnectionParameters, Ece, EventChannel, PortSpace, QueuePairNotice,
    RejectReason,
};

use crate::connection_support::{
    Ends, QUIET, SOON, bounded, next, nothing, parameters, refused, resolve_address, resolve_route, with_ends,
};
use crate::support::with_device;

#[test]
fn both_ends_learn_what_the_other_said() {
    with_ends(|ends| {
        let listener = ends.listener(4);
        let (asked, answered) = ([0xa5; 56], [0x5a; 196]);
        let ours = ConnectionParameters {
            private_data: &asked,
            responder_resources: 3,
            initiator_depth: 5,
            retry_count: 2,
            rnr_retry_count: 4,
            ..parameters()
        };
        let active = ends.connecting(&listener, &ours);
        let (request, passive) = ends.request();
        assert_eq!(request.key, listener.key());
        assert_ne!(passive.key(), listener.key());
        assert_eq!(request.private_data[..56], asked);
        assert_eq!(request.queue_pair, ours.queue_pair);
        // What one may have outstanding the other serves.
        assert_eq!((request.responder_resources, request.initiator_depth), (5, 3));
        assert_eq!((request.retry_count, request.rnr_retry_count), (2, 4));
        assert!(request.datagram.is_none());

        let theirs = ConnectionParameters {
            private_data: &answered,
            responder_resources: 2,
            initiator_depth: 1,
            ..parameters()
        };
        passive.accept(&theirs).expect("accepts");
        let response = next(&ends.active, Kind::ConnectResponse);
        assert_eq!(response.key, active.key());
        assert_eq!(response.private_data[..196], answered);
        assert_eq!(response.queue_pair, theirs.queue_pair);
        assert_eq!((response.responder_resources, response.initiator_depth), (1, 2));

        active.establish().expect("establishes");
        assert_eq!(next(&ends.passive, Kind::Established).key, passive.key());
        active.disconnect().expect("disconnects");
        assert_eq!(next(&ends.passive, Kind::Disconnected).key, passive.key());
        nothing(&ends.active);
        passive.disconnect().expect("answers");
        assert_eq!(next(&ends.active, Kind::Disconnected).key, active.key());
        active.disconnect().expect("again does nothing");
    });
}

#[test]
fn the_end_of_the_wait_after_a_disconnect_is_told() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        let active = ends.id();
        // The wait depends on how long packets may be under way.
        active.set_ack_timeout(8).expect("may be set");
        resolve_address(&active, listener.local_address().expect("bound")).expect("resolves");
        resolve_route(&active);
        active.connect(&parameters()).expect("asks");
        let (_, passive) = ends.request();
        passive.accept(&parameters()).expect("accepts");
        next(&ends.active, Kind::ConnectResponse);
        active.establish().expect("establishes");
        next(&ends.passive, Kind::Established);
        passive.disconnect().expect("disconnects");
        next(&ends.active, Kind::Disconnected);
        active.disconnect().expect("answers");
        assert_eq!(next(&ends.active, Kind::TimewaitExit).key, active.key());
        next(&ends.passive, Kind::Disconnected);
        assert_eq!(next(&ends.passive, Kind::TimewaitExit).key, passive.key());
    });
}

#[test]
fn a_refusal_comes_with_reason_and_data() {
    with_ends(|ends| {
        let listener = ends.listener(4);
        let active = ends.connecting(&listener, &parameters());
        let (_, passive) = ends.request();
        let data = [7; 148];
        passive.reject(&data).expect("rejects");
        let event = ends.active.wait(SOON).expect("readable").expect("an event");
        assert_eq!((event.kind, event.key), (Kind::Rejected, active.key()));
        assert_eq!(event.reject_reason(), Some(RejectReason::Consumer));
        assert_eq!(event.private_data[..148], data);
        // What was refused cannot be accepted any more.
        refused(passive.accept(&parameters()), libc::EINVAL);

        let _active = ends.connecting(&listener, &parameters());
        let (_, passive) = ends.request();
        passive.reject_vendor_option(b"no").expect("rejects");
        let event = ends.active.wait(SOON).expect("readable").expect("an event");
        assert_eq!(event.reject_reason(), Some(RejectReason::VendorOptionNotSupported));
        assert_eq!(&event.private_data[..2], b"no");
        // And then somebody is accepted.
        ends.connect(&listener);
    });
}

#[test]
fn nobody_listening_is_a_refusal_of_the_kernel() {
    with_ends(|ends| {
        let listener = ends.listener(1);
        let address = listener.local_address().expect("bound");
        drop(listener);
        let active = ends.resolved(address);
        active.connect(&parameters()).expect("asks");
        let event = ends.active.wait(SOON).expect("readable").expect("an event");
        assert_eq!(event.reject_reason(), Some(RejectReason::InvalidServiceId));
        let error = event.expect(Kind::ConnectResponse).expect_err("a refusal");
        assert_eq!(error.errno(), Some(libc::ECONNREFUSED));
    });
}

#[test]
fn a_queue_pair_that_is_connected_already_is_stale() {
    with_ends(|ends| {
        let listener = ends.listener(4);
        let first = ends.connect(&listener);
        let again = ConnectionParameters { queue_pair: first.request.queue_pair, ..parameters() };
        let _second = ends.connecting(&listener, &again);
        let event = ends.active.wait(SOON).expect("readable").expect("an event");
        assert_eq!(event.reject_reason(), Some(RejectReason::StaleConnection), "{event:?}");
    });
}

#[test]
fn private_data_beyond_the_limit_is_refused_at_each_step() {
    with_ends(|ends| {
        let listener = ends.listener(4);
        let data = [0; 300];
        let with = |private_data| ConnectionParameters { private_data, ..parameters() };
        let active = ends.resolved(listener.local_address().expect("bound"));
        for length in [57, 256, 300] {
            let detail = refused(active.connect(&with(&data[..length])), libc::EINVAL);
            assert!(detail.contains("56"), "{detail}");
        }
        active.connect(&with(&data[..56])).expect("asks");
        let (_, passive) = ends.request();
        for length in [197, 256] {
            let detail = refused(passive.accept(&with(&data[..length])), libc::EINVAL);
            assert!(detail.contains("196"), "{detail}");
            let detail = refused(passive.reject(&data[..length - 48]), libc::EINVAL);
            assert!(detail.contains("148"), "{detail}");
            refused(passive.reject_vendor_option(&data[..length]), libc::EINVAL);
        }
        // None of that has harmed the request.
        passive.accept(&with(&data[..196])).expect("accepts");
        next(&ends.active, Kind::ConnectResponse);
    });
}

#[test]
fn counts_beyond_the_limit_are_refused() {
    with_ends(|ends| {
        let listener = ends.listener(4);
        let active = ends.resolved(listener.local_address().expect("bound"));
        let base = parameters();
        refused(active.connect(&ConnectionParameters { retry_count: 8, ..base }), libc::EINVAL);
        refused(active.connect(&ConnectionParameters { rnr_retry_count: 8, ..base }), libc::EINVAL);
        refused(active.connect(&ConnectionParameters { queue_pair: 1 << 24, ..base }), libc::EINVAL);
        // rxe serves 128 reads.
        refused(active.connect(&ConnectionParameters { responder_resources: 254, ..base }), libc::EINVAL);
        refused(active.connect(&ConnectionParameters { initiator_depth: 254, ..base }), libc::EINVAL);
        let most = ConnectionParameters { responder_resources: 255, initiator_depth: 255, ..base };
        active.connect(&most).expect("255 stands for what the device has");
        let (request, _passive) = ends.request();
        assert_eq!((request.responder_resources, request.initiator_depth), (128, 128));
    });
}

#[test]
fn steps_out_of_order_are_refused() {
    with_ends(|ends| {
        let fresh = ends.id();
        let detail = refused(fresh.resolve_route(SOON), libc::EINVAL);
        assert!(detail.contains("no device"), "{detail}");
        refused(fresh.connect(&parameters()), libc::EINVAL);
        let all = ConnectionParameters { responder_resources: 255, initiator_depth: 255, ..parameters() };
        refused(fresh.connect(&all), libc::EINVAL);
        refused(fresh.accept(&parameters()), libc::EINVAL);
        refused(fresh.accept(&all), libc::EINVAL);
        refused(fresh.establish(), libc::EINVAL);
        refused(fresh.disconnect(), libc::EINVAL);
        refused(fresh.reject(b""), libc::EINVAL);
        refused(fresh.reject_vendor_option(b""), libc::EINVAL);
        refused(fresh.notify(QueuePairNotice::CommunicationEstablished), libc::EINVAL);

        let listener = ends.listener(4);
        refused(listener.bind(ends.at(0)), libc::EINVAL);
        refused(listener.resolve_address(ends.at(1), SOON), libc::EINVAL);
        refused(listener.connect(&parameters()), libc::EINVAL);
        refused(listener.accept(&parameters()), libc::EINVAL);
        let resolved = ends.resolved(listener.local_address().expect("bound"));
        refused(resolved.disconnect(), libc::EINVAL);
        refused(resolved.accept(&parameters()), libc::EINVAL);
        refused(resolved.establish(), libc::EINVAL);
        refused(resolved.listen(1), libc::EINVAL);

        let connected = ends.connect(&listener);
        for id in [&connected.active, &connected.passive] {
            refused(id.bind(ends.at(0)), libc::EINVAL);
            refused(id.listen(1), libc::EINVAL);
            refused(id.resolve_address(ends.at(1), SOON), libc::EINVAL);
            refused(id.resolve_route(SOON), libc::EINVAL);
            refused(id.connect(&parameters()), libc::EINVAL);
        }
        connected.active.disconnect().expect("is still connected");
        next(&ends.passive, Kind::Disconnected);
    });
}

#[test]
fn requests_beyond_the_backlog_wait_to_be_asked_again() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        let clients = [(); 3].map(|()| ends.connecting(&listener, &parameters()));
        // All three have arrived, two were kept, and nobody is refused.
        nothing(&ends.active);
        let first = [ends.request(), ends.request()];
        nothing(&ends.passive);
        // The third one's kernel asks again after some seconds.
        let third = ends.request();
        for (_, passive) in first.iter().chain([&third]) {
            passive.accept(&parameters()).expect("accepts");
        }
        let mut keys = [(); 3].map(|()| next(&ends.active, Kind::ConnectResponse).key);
        keys.sort_unstable();
        assert_eq!(keys, clients.each_ref().map(ConnectionId::key));
    });
}

#[test]
fn dropping_does_not_wait_for_unread_events() {
    with_device(|fixture| {
        let ends = Ends::new(&fixture.address, PortSpace::Tcp);
        let listener = ends.listener(8);
        let address = listener.local_address().expect("bound");
        let active = ends.resolved(address);
        active.connect(&parameters()).expect("asks");
        let waiting = ends.resolved(address);
        waiting.connect(&parameters()).expect("asks");
        let (_, passive) = ends.request();
        // Unread: the response at the active end, and at the listener the second request.
        passive.accept(&parameters()).expect("accepts");
        nothing_is_read_within(QUIET);
        bounded(move || drop(listener));
        // The request that nobody read is refused.
        let mut kinds = vec![];
        for _ in 0..2 {
            let event = ends.active.wait(SOON).expect("readable").expect("an event");
            kinds.push((event.key, event.kind));
        }
        assert!(kinds.contains(&(active.key(), Kind::ConnectResponse)), "{kinds:?}");
        assert!(kinds.contains(&(waiting.key(), Kind::Rejected)), "{kinds:?}");
        active.establish().expect("establishes");
        // Now the passive end has an unread event, and so have both after the disconnect.
        active.disconnect().expect("disconnects");
        bounded(move || drop((passive, active, waiting)));
        nothing(&ends.active);
        nothing(&ends.passive);
    });
}

fn nothing_is_read_within(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn a_request_outlives_its_listener_and_its_channel_handle() {
    with_ends(|ends| {
        let passive_channel = EventChannel::create().expect("a channel");
        let listener = ConnectionId::create(&passive_channel).expect("an identifier");
        listener.bind(ends.at(0)).expect("binds");
        listener.listen(2).expect("listens");
        let active = ends.connecting(&listener, &parameters());
        let request = next(&passive_channel, Kind::ConnectRequest).request.expect("an identifier");
        drop((listener, passive_channel));
        request.accept(&parameters()).expect("accepts");
        next(&ends.active, Kind::ConnectResponse);
        active.establish().expect("establishes");
        assert_eq!(next(request.channel(), Kind::Established).key, request.key());
    });
}

#[test]
fn dropping_a_request_refuses_it() {
    with_ends(|ends| {
        let listener = ends.listener(4);
        let _active = ends.connecting(&listener, &parameters());
        drop(next(&ends.passive, Kind::ConnectRequest));
        let event = ends.active.wait(SOON).expect("readable").expect("an event");
        assert_eq!(event.reject_reason(), Some(RejectReason::Consumer));
        ends.connect(&listener);
    });
}

#[test]
fn waiting_for_an_event_is_bounded() {
    with_ends(|ends| {
        let begun = Instant::now();
        assert!(ends.active.wait(QUIET).expect("readable").is_none());
        assert!(begun.elapsed() >= QUIET);
        assert!(ends.active.wait(Duration::ZERO).expect("readable").is_none());
        // An answer that never comes: nobody reads the request.
        let listener = ends.listener(4);
        let active = ends.connecting(&listener, &parameters());
        nothing(&ends.active);
        bounded(move || drop(active));
        let (_, passive) = ends.request();
        // The peer has gone: accepting may still work, but no connection comes of it.
        let _ = passive.accept(&parameters());
        let event = ends.passive.wait(Duration::from_secs(2)).expect("readable");
        assert!(event.is_none_or(|event| event.kind != Kind::Established));
        // A wait ends with the event.
        let waiting = std::thread::spawn({
            let channel = ends.active.clone();
            move || channel.wait(Duration::MAX).expect("readable").expect("an event").key
        });
        let id = ends.id();
        id.resolve_address(ends.at(1), SOON).expect("begins");
        assert_eq!(bounded(move || waiting.join().expect("no panic")), id.key());
    });
}

#[test]
fn extensions_are_passed_to_the_peer() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        let id = ends.resolved(listener.local_address().expect("bound"));
        refused(id.set_ece(Ece { vendor_id: 0, options: 1 }), libc::EINVAL);
        let (ours, theirs) = (Ece { vendor_id: 0xabc, options: 0x11 }, Ece { vendor_id: 0xabc, options: 0x10 });
        id.set_ece(ours).expect("may be set");
        id.connect(&parameters()).expect("asks");
        let (_, passive) = ends.request();
        assert_eq!(passive.peer_ece().expect("known"), ours);
        passive.set_ece(theirs).expect("may be set");
        passive.accept(&parameters()).expect("accepts");
        next(&ends.active, Kind::ConnectResponse);
        assert_eq!(id.peer_ece().expect("known"), theirs);
    });
}

#[test]
fn a_first_message_can_establish_the_connection() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        let active = ends.connecting(&listener, &parameters());
        let (_, passive) = ends.request();
        refused(passive.notify(QueuePairNotice::CommunicationEstablished), libc::EINVAL);
        passive.accept(&parameters()).expect("accepts");
        next(&ends.active, Kind::ConnectResponse);
        // The active end says nothing more; the passive end's queue pair has received something.
        nothing(&ends.passive);
        passive.notify(QueuePairNotice::CommunicationEstablished).expect("is told");
        assert_eq!(next(&ends.passive, Kind::Established).key, passive.key());
        refused(passive.notify(QueuePairNotice::CommunicationEstablished), libc::EISCONN);
        active.establish().expect("establishes");
        nothing(&ends.passive);
    });
}
