//! Event channels of rdma_cm: moving identifiers between them, and reading them from several threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use zcmi::verbs::{ConnectionEventKind as Kind, ConnectionId, EventChannel, PortSpace};

use crate::connection_support::{Ends, SOON, bounded, next, nothing, parameters, with_ends};
use crate::support::with_device;

fn channel() -> Arc<EventChannel> {
    EventChannel::create().expect("a channel")
}

#[test]
fn a_connection_that_moves_reports_to_its_new_channel_alone() {
    with_ends(|ends| {
        let mut connected = ends.connect(&ends.listener(2));
        let new = channel();
        connected.passive.migrate(&new).expect("moves");
        assert!(Arc::ptr_eq(connected.passive.channel(), &new));
        connected.active.disconnect().expect("disconnects");
        let event = next(&new, Kind::Disconnected);
        assert_eq!(event.key, connected.passive.key());
        nothing(&ends.passive);
        // To where it is already it moves without ado.
        connected.passive.migrate(&new).expect("is there");
        connected.passive.disconnect().expect("answers");
        next(&ends.active, Kind::Disconnected);
    });
}

#[test]
fn unread_events_move_along() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        let active = ends.connecting(&listener, &parameters());
        let (_, mut passive) = ends.request();
        let (old, new) = (channel(), channel());
        // A request moves before it is accepted, and again with events that nobody has read.
        passive.migrate(&old).expect("moves");
        passive.accept(&parameters()).expect("accepts");
        next(&ends.active, Kind::ConnectResponse);
        active.establish().expect("establishes");
        active.disconnect().expect("disconnects");
        wait_readable(&old);
        passive.migrate(&new).expect("moves");
        nothing(&old);
        nothing(&ends.passive);
        drop(old);
        assert_eq!(next(&new, Kind::Established).key, passive.key());
        assert_eq!(next(&new, Kind::Disconnected).key, passive.key());
    });
}

#[test]
fn a_listener_does_not_move() {
    with_ends(|ends| {
        let mut listener = ends.listener(2);
        let address = listener.local_address().expect("bound");
        let active = ends.resolved(address);
        active.connect(&parameters()).expect("asks");
        let error = listener.migrate(&channel()).expect_err("would lose the request");
        assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error}");
        assert!(error.detail().is_some_and(|detail| detail.contains("lose")), "{error}");
        let (request, _kept) = ends.request();
        assert_eq!(request.key, listener.key());
        // Before it listens, it may.
        let mut bound = ends.id();
        bound.bind(ends.at(0)).expect("binds");
        bound.migrate(&ends.passive).expect("moves");
        bound.listen(1).expect("listens");
        let address = bound.local_address().expect("bound");
        let client = ends.resolved(address);
        client.connect(&parameters()).expect("asks");
        let (request, _kept) = ends.request();
        assert_eq!(request.key, bound.key());
    });
}

#[test]
fn a_step_that_is_under_way_ends_on_the_new_channel() {
    with_ends(|ends| {
        let listener = ends.listener(2);
        let mut id = ends.id();
        let old = Arc::clone(id.channel());
        // At each step it moves, before its event has been read.
        let moved = |id: &mut ConnectionId, kind| {
            let new = channel();
            id.migrate(&new).expect("moves");
            assert_eq!(next(&new, kind).key, id.key());
        };
        id.resolve_address(listener.local_address().expect("bound"), SOON).expect("begins");
        moved(&mut id, Kind::AddressResolved);
        id.resolve_route(SOON).expect("begins");
        moved(&mut id, Kind::RouteResolved);
        id.connect(&parameters()).expect("asks");
        let (_, passive) = ends.request();
        passive.accept(&parameters()).expect("accepts");
        moved(&mut id, Kind::ConnectResponse);
        nothing(&old);
    });
}

#[test]
fn identifiers_move_while_both_channels_are_read() {
    with_device(|fixture| {
        let ends = Ends::new(&fixture.address, PortSpace::Tcp);
        let channels = [channel(), channel()];
        let stop = Arc::new(AtomicBool::new(false));
        let readers = channels.clone().map(|channel| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut keys = vec![];
                while !stop.load(Ordering::Relaxed) {
                    if let Some(event) = channel.next_event().expect("readable") {
                        keys.push(event.expect(Kind::AddressResolved).expect("resolves").key);
                    }
                }
                keys
            })
        });
        let count = 100;
        let mut ids: Vec<_> = (0..count).map(|_| ConnectionId::create(&channels[0]).expect("an identifier")).collect();
        for (turn, id) in ids.iter_mut().enumerate() {
            // Moved while its event is on its way: it is read once, here or there.
            id.resolve_address(ends.at(1), SOON).expect("begins");
            id.migrate(&channels[(turn + 1) % 2]).expect("moves");
        }
        let begun = Instant::now();
        while !ids.iter().all(|id| id.device().is_some()) {
            assert!(begun.elapsed() < SOON, "an event is lost");
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        let mut read = bounded(move || readers.map(|reader| reader.join().expect("no panic")).concat());
        read.sort_unstable();
        assert_eq!(read, ids.iter().map(ConnectionId::key).collect::<Vec<_>>());
    });
}

#[test]
fn identifiers_end_while_their_events_are_read() {
    with_device(|fixture| {
        let ends = Ends::new(&fixture.address, PortSpace::Tcp);
        let stop = Arc::new(AtomicBool::new(false));
        let reader = std::thread::spawn({
            let (stop, channel) = (Arc::clone(&stop), Arc::clone(&ends.active));
            move || {
                let mut events = 0;
                while !stop.load(Ordering::Relaxed) {
                    events += usize::from(channel.next_event().expect("readable").is_some());
                }
                events
            }
        });
        let address = ends.at(1);
        let events = bounded(move || {
            for turn in 0..200 {
                let id = ConnectionId::create(&ends.active).expect("an identifier");
                id.resolve_address(address, SOON).expect("begins");
                // What is looked at meanwhile is there or not, and never half.
                while turn % 2 == 0 && id.route().is_none() {
                    assert!(id.local_address().is_none_or(|local| local.ip() == address.ip() || local.port() == 0));
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
            reader.join().expect("no panic")
        });
        assert!(events >= 100, "{events}");
    });
}

fn wait_readable(channel: &EventChannel) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let time = Timespec::try_from(SOON).expect("a time");
    assert_eq!(poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&time)).expect("polls"), 1);
}
