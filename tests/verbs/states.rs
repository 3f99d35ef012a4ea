//! States of queue pairs: every transition, for every kind.

use zcmi::verbs::{
    Access, AddressVector, ConnectionId, Context, Endpoint, EventChannel, LocalEnd, Mtu, ProtectionDomain, Psn,
    QueuePair, QueuePairChange, QueuePairKind, QueuePairState as State, Tuning,
};

use crate::pair::{Ends, PATIENCE, Settings, gid_index, local_end};
use crate::support::{Fixture, with_device};

const KINDS: [QueuePairKind; 3] = [QueuePairKind::Rc, QueuePairKind::Uc, QueuePairKind::Ud];
/// Those that a queue pair can be brought to by will.
const STATES: [State; 6] = [
    State::Reset,
    State::Initialized,
    State::ReadyToReceive,
    State::ReadyToSend,
    State::SendQueueDrained,
    State::Error,
];

/// The change from one state to another with the attributes that it needs.
fn change(fixture: &Fixture, kind: QueuePairKind, from: State, to: State, peer: u32) -> QueuePairChange {
    let change = QueuePairChange::to(to);
    let index = gid_index(fixture);
    let address = AddressVector::to(1, index, fixture.context.gid(1, index).expect("a GID"));
    let psn = Psn::from(77);
    match (from, to, kind) {
        (State::Reset, State::Initialized, QueuePairKind::Ud) => change.port(1).partition_key_index(0).queue_key(1),
        (State::Reset, State::Initialized, _) => change.port(1).partition_key_index(0).access(Access::REMOTE_READ),
        (State::Initialized, State::ReadyToReceive, QueuePairKind::Rc) => {
            let change = change.address(&address).path_mtu(Mtu::Bytes1024).destination(peer).receive_psn(psn);
            change.reads_as_target(1).min_rnr_timer(12)
        }
        (State::Initialized, State::ReadyToReceive, QueuePairKind::Uc) => {
            change.address(&address).path_mtu(Mtu::Bytes1024).destination(peer).receive_psn(psn)
        }
        (State::ReadyToReceive, State::ReadyToSend, QueuePairKind::Rc) => {
            change.send_psn(psn).ack_timeout(14).retry_count(7).rnr_retry_count(7).reads_as_initiator(1)
        }
        (State::ReadyToReceive, State::ReadyToSend, _) => change.send_psn(psn),
        _ => change,
    }
}

/// Waits until the queue pair is in the state.
fn wait_for(pair: &QueuePair, state: State) {
    let begun = std::time::Instant::now();
    // As long as SQD drains, it is left by nothing but ERROR.
    while pair.state().expect("a state") != state || pair.attributes().expect("attributes").is_draining {
        assert!(begun.elapsed() < PATIENCE, "it is in {:?}, not in {state:?}", pair.state());
        std::thread::yield_now();
    }
}

/// Brings a new queue pair to a state.
fn bring(fixture: &Fixture, ends: &Ends, kind: QueuePairKind, to: State) -> QueuePair {
    let pair = crate::pair::build(&ends.domain, ends.queue.completions(), None, &ends.settings);
    let way = match to {
        State::Reset => &STATES[..1],
        State::Error => &[State::Reset, State::Initialized, State::Error][..],
        _ => &STATES[..=STATES.iter().position(|&state| state == to).expect("one of them")],
    };
    for step in way.windows(2) {
        pair.modify(change(fixture, kind, step[0], step[1], pair.number())).expect("a step of the way");
        wait_for(&pair, step[1]);
    }
    pair
}

#[test]
fn every_transition_is_made_or_refused_as_the_specification_says() {
    with_device(|fixture| {
        for kind in KINDS {
            let ends = Ends::unconnected(fixture, Settings { kind, ..Settings::default() });
            for from in STATES {
                for to in STATES {
                    let pair = bring(fixture, &ends, kind, from);
                    let is_transition = match (from, to) {
                        // The specification has it; Linux has not.
                        (State::Reset, State::Error) => false,
                        (_, State::Reset | State::Error) => true,
                        (State::Error, _) => false,
                        (State::SendQueueDrained, State::ReadyToSend) => true,
                        (from, to) if from == to => from != State::ReadyToReceive,
                        (from, to) => {
                            let place = |state| STATES.iter().position(|&each| each == state).expect("one of them");
                            place(to) == place(from) + 1
                        }
                    };
                    let result = pair.modify(change(fixture, kind, from, to, pair.number()));
                    match (is_transition, result) {
                        (true, Ok(())) => wait_for(&pair, to),
                        (false, Err(error)) => {
                            let detail = error.detail().expect("our own check says why");
                            assert!(detail.contains(&format!("{from:?} to {to:?}")), "{error}");
                            assert_eq!(pair.state().expect("a state"), from);
                        }
                        (true, Err(error)) => panic!("{kind:?} {from:?} to {to:?}: {error}"),
                        (false, Ok(())) => panic!("{kind:?} {from:?} to {to:?} went well"),
                    }
                }
            }
        }
    });
}

#[test]
fn the_send_queue_error_state_cannot_be_entered_by_will() {
    with_device(|fixture| {
        for kind in KINDS {
            let ends = Ends::unconnected(fixture, Settings { kind, ..Settings::default() });
            for from in STATES {
                let pair = bring(fixture, &ends, kind, from);
                for to in [State::SendQueueError, State::Other(12)] {
                    let error = pair.modify(QueuePairChange::to(to)).expect_err("no such transition");
                    assert!(error.detail().is_some(), "{error}");
                }
                assert_eq!(pair.state().expect("a state"), from);
            }
        }
    });
}

#[test]
fn an_attribute_that_is_missing_or_too_much_is_named_and_changes_nothing() {
    with_device(|fixture| {
        let ends = Ends::unconnected(fixture, Settings::default());
        let pair = ends.pair(ends.a);
        let error = pair.modify(QueuePairChange::to(State::Initialized).port(1)).expect_err("incomplete");
        let detail = error.detail().expect("a detail").to_owned();
        assert!(detail.contains("partition_key_index") && detail.contains("access"), "{detail}");
        let error = pair.modify(QueuePairChange::to(State::Reset).queue_key(1)).expect_err("RESET takes nothing");
        assert!(error.detail().is_some_and(|detail| detail.contains("queue_key")), "{error}");
        assert_eq!(pair.state().expect("a state"), State::Reset);
        assert_eq!(pair.fail().expect_err("there is no such way").errno(), Some(libc::EINVAL));
        // An identifier that knows no device yet.
        let id = ConnectionId::create(&EventChannel::create().expect("a channel")).expect("an identifier");
        assert_eq!(pair.initialize(&id).expect_err("no address").errno(), Some(libc::EINVAL));
        assert_eq!(pair.connect(&id, &Tuning::default()).expect_err("no address").errno(), Some(libc::EINVAL));
        let error = pair.connect(&id, &Tuning { retry_count: 8, ..Tuning::default() }).expect_err("8 retries");
        assert!(error.detail().is_some_and(|detail| detail.contains("at most 7")), "{error}");
        // What only the device knows to be wrong is its error.
        let to = QueuePairChange::to(State::Initialized);
        let error = pair.modify(to.port(77).partition_key_index(0).access(Access::LOCAL_READ)).expect_err("port 77");
        assert!(error.detail().is_none(), "{error}");
        assert_eq!(pair.state().expect("a state"), State::Reset);
    });
}

#[test]
fn the_device_tells_what_a_queue_pair_was_set_to() {
    with_device(|fixture| {
        let ends = Ends::reliable(fixture);
        let (a, b) = (ends.pair(ends.a), ends.pair(ends.b));
        let (here, there) = (a.attributes().expect("attributes"), b.attributes().expect("attributes"));
        let tuning = ends.settings.tuning;
        assert_eq!((here.state, here.is_draining), (State::ReadyToSend, false));
        assert_eq!((here.destination, there.destination), (b.number(), a.number()));
        assert_eq!((here.send_psn, there.send_psn), (there.receive_psn, here.receive_psn));
        assert_eq!((here.path_mtu, here.port, here.partition_key_index), (Mtu::Bytes1024, 1, 0));
        assert!(here.access.contains(Access::REMOTE_ATOMIC) && here.access.contains(Access::REMOTE_READ));
        assert_eq!((here.ack_timeout, here.retry_count), (tuning.ack_timeout, tuning.retry_count));
        assert_eq!((here.rnr_retry_count, here.min_rnr_timer), (tuning.rnr_retry_count, tuning.min_rnr_timer));
        assert_eq!(here.capabilities, a.capabilities());
        let index = gid_index(fixture);
        let address = here.address.expect("a way to the peer");
        assert_eq!((address.gid, address.gid_index), (fixture.context.gid(1, index).expect("a GID"), index));
        // In RTS, what may be changed can be.
        let change = QueuePairChange::to(State::ReadyToSend).access(Access::LOCAL_READ).min_rnr_timer(20);
        a.modify(change).expect("changes");
        let now = a.attributes().expect("attributes");
        assert_eq!((now.min_rnr_timer, now.access.contains(Access::REMOTE_READ)), (20, false));
        let datagrams = Ends::new(fixture, Settings { kind: QueuePairKind::Ud, ..Settings::default() });
        let attributes = datagrams.pair(datagrams.a).attributes().expect("attributes");
        assert_eq!(attributes.queue_key, crate::pair::QUEUE_KEY);
    });
}

#[test]
fn a_reset_queue_pair_can_be_connected_again() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        for _ in 0..3 {
            ends.still_works();
            ends.pair(ends.a).reset().expect("resets");
            ends.pair(ends.b).reset().expect("resets");
            crate::pair::connect(fixture, ends.pair(ends.a), ends.pair(ends.b), Access::LOCAL_READ, &Tuning::default());
        }
        ends.still_works();
    });
}

#[test]
fn connecting_out_of_turn_or_with_impossible_values_is_an_error() {
    with_device(|fixture| {
        let ends = Ends::unconnected(fixture, Settings::default());
        let (a, b) = (ends.pair(ends.a), ends.pair(ends.b));
        let here = local_end(fixture, Access::LOCAL_READ);
        let peer = b.endpoint(&here).expect("an endpoint");
        let tuning = Tuning::default();
        let error = a.connect_to(&here, &peer, &tuning).expect_err("it is not prepared");
        assert!(error.detail().is_some_and(|detail| detail.contains("Reset")), "{error}");
        a.prepare(&here).expect("INIT");
        a.prepare(&here).expect("INIT to INIT is a transition");
        for (what, local, peer, tuning) in [
            ("mtu", LocalEnd { path_mtu: Mtu::Other(9), ..here }, peer, tuning),
            ("destination", here, Endpoint { queue_pair: 1 << 24, ..peer }, tuning),
            ("min_rnr_timer", here, peer, Tuning { min_rnr_timer: 32, ..tuning }),
            ("GID index", LocalEnd { gid_index: 256, ..here }, peer, tuning),
        ] {
            let error = a.connect_to(&local, &peer, &tuning).expect_err(what);
            assert!(error.detail().is_some_and(|detail| detail.contains(what)), "{what}: {error}");
            assert_eq!(a.state().expect("a state"), State::Initialized);
        }
        // Half-way: it can be reset.
        let error = a.connect_to(&here, &peer, &Tuning { retry_count: 8, ..tuning }).expect_err("retry_count");
        assert!(error.detail().is_some_and(|detail| detail.contains("retry_count")), "{error}");
        assert_eq!(a.state().expect("a state"), State::ReadyToReceive);
        a.reset().expect("resets");
        a.prepare(&here).expect("INIT");
        a.connect_to(&here, &peer, &tuning).expect("connects");
        let error = a.connect_to(&here, &peer, &tuning).expect_err("it is connected");
        assert!(error.detail().is_some_and(|detail| detail.contains("ReadyToSend")), "{error}");
        // What is not there.
        b.endpoint(&LocalEnd { port: 7, ..here }).expect_err("no port 7");
        b.endpoint(&LocalEnd { gid_index: 100_000, ..here }).expect_err("no such GID");
        b.prepare(&LocalEnd { port: 7, ..here }).expect_err("no port 7");
        let datagrams = Ends::unconnected(fixture, Settings { kind: QueuePairKind::Ud, ..Settings::default() });
        let error = datagrams.pair(datagrams.a).prepare(&here).expect_err("UD has no access flags");
        assert!(error.detail().is_some_and(|detail| detail.contains("queue_key")), "{error}");
    });
}

#[test]
fn sizes_that_the_device_cannot_give_are_named() {
    with_device(|fixture| {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = zcmi::verbs::CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let limits = fixture.context.attributes().expect("attributes");
        let sizes = zcmi::verbs::QueuePairCapabilities::default();
        for (what, sizes) in [
            ("sends", zcmi::verbs::QueuePairCapabilities { sends: limits.max_queue_pair_requests + 1, ..sizes }),
            ("receives", zcmi::verbs::QueuePairCapabilities { receives: u32::MAX, ..sizes }),
            ("segments", zcmi::verbs::QueuePairCapabilities { segments: limits.max_segments + 1, ..sizes }),
        ] {
            let error = QueuePair::builder(&domain, &completions).capabilities(sizes).create().expect_err(what);
            let detail = error.detail().expect("a detail").to_owned();
            assert!(detail.contains(what) && detail.contains("at most"), "{detail}");
        }
        // Too much inline is given up.
        let sizes = zcmi::verbs::QueuePairCapabilities { inline: 1 << 20, ..sizes };
        let pair = QueuePair::builder(&domain, &completions).capabilities(sizes).create().expect("without inline");
        assert_eq!(pair.capabilities().inline, 0);
        // Queues of another opening of the device.
        let again = Context::open(fixture.context.name()).expect("opens");
        let foreign = zcmi::verbs::CompletionQueue::create(&again, 64).expect("a queue");
        for builder in [
            QueuePair::builder(&domain, &foreign),
            QueuePair::builder(&domain, &completions).receive_completions(&foreign),
        ] {
            let error = builder.create().expect_err("of another context");
            assert!(error.detail().is_some_and(|detail| detail.contains("one device")), "{error}");
        }
        let other_domain = ProtectionDomain::allocate(&again).expect("a domain");
        let shared = zcmi::verbs::SharedReceiveQueue::create(&other_domain, 4, 1).expect("a shared queue");
        let error = QueuePair::builder(&domain, &completions).shared_receives(&shared).create().expect_err("foreign");
        assert!(error.detail().is_some_and(|detail| detail.contains("one device")), "{error}");
    });
}
