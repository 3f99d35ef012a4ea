//! Datagrams with rdma-core's `ibv_ud_pingpong` as the other end. It has one buffer, so what it sends is what it received
//! before.

use std::sync::Arc;
use std::time::Duration;

use zcmi::verbs::{
    AddressHandle, AddressVector, CompletionStatus, Destination, Endpoint, InFlight, QueuePairKind, ROUTE_HEADER,
    Segment, SendFlags, SendOperation,
};

use crate::common::pattern;
use crate::end::{End, bytes};
use crate::pingpong::{Program, as_client, as_server, assert_content, free_port, listen};
use crate::plain_end::PlainEnd;
use crate::support::{Fixture, with_device};

const NAME: &str = "ibv_ud_pingpong";
/// The program's.
const QUEUE_KEY: u32 = 0x1111_1111;
const SEED: u64 = 0xdd;
const ROUNDS: u64 = 50;
/// How long we wait for what will not come.
const OWN_DEADLINE: Duration = Duration::from_millis(500);

/// Our queue pair, with two receives of messages of `length` bytes.
fn open(fixture: &Fixture, queue_key: u32, length: usize) -> End {
    let mut end = End::new(fixture, QueuePairKind::Ud, 1024);
    end.queue_pair().open_for_datagrams(1, queue_key).expect("RTS");
    end.post_receives(2, ROUTE_HEADER + length);
    end
}

/// The way to the program.
struct Way {
    handle: Arc<AddressHandle>,
    queue_pair: u32,
}

impl Way {
    fn to(end: &End, peer: &Endpoint) -> Self {
        let vector = AddressVector::to(1, end.local.gid_index, peer.gid);
        let handle = AddressHandle::create(&end.domain, &vector).expect("a handle");
        Self { handle, queue_pair: peer.queue_pair }
    }

    fn send(&self, end: &mut End, token: u64, message: &[u8]) {
        let memory = end.buffer(message);
        let to = Destination { address: &self.handle, queue_pair: self.queue_pair, queue_key: QUEUE_KEY };
        end.post(token, SendOperation::Datagram(to), memory);
    }
}

/// We are the client of a program that runs.
fn client(fixture: &Fixture, port: u16, length: usize) -> (End, Way) {
    let end = open(fixture, QUEUE_KEY, length);
    let mut way = None;
    as_client(port, &end.endpoint(), |theirs| way = Some(Way::to(&end, theirs))).expect("exchanges");
    (end, way.expect("the program has told its end"))
}

/// A message that the program's own check accepts.
fn message(round: u64, length: usize) -> Vec<u8> {
    let mut bytes = pattern(SEED, round, length);
    bytes[0] = 0;
    bytes
}

/// Sends a message and receives it again.
fn round_trip(end: &mut End, way: &Way, round: u64, length: usize) {
    let message = message(round, length);
    way.send(end, round, &message);
    let received = end.sent_and_received();
    assert!(received.arrival.has_route_header);
    assert_eq!(received.arrival.source_queue_pair, way.queue_pair);
    assert!(bytes(&received)[ROUTE_HEADER..] == message, "round {round} of {length} bytes");
    end.post_again(received.memory.expect("a receive has memory"));
}

#[test]
fn as_client_of_the_program() {
    for (length, event) in [(1, false), (1024, true), (4096, false)] {
        with_device(|fixture| {
            let (length_word, rounds) = (length.to_string(), ROUNDS.to_string());
            let mut options = vec!["-c", "-s", &length_word, "-n", &rounds];
            options.extend(event.then_some("-e"));
            let port = free_port();
            let program = Program::start(fixture, NAME, port, false, &options);
            let (mut end, way) = client(fixture, port, length);
            for round in 0..ROUNDS {
                round_trip(&mut end, &way, round, length);
            }
            assert_content(&program.finish());
        });
    }
}

/// By the unsafe tier, with answers that go where the datagrams say they came from.
#[test]
fn as_server_of_the_program() {
    for length in [1, 2048] {
        with_device(|fixture| {
            let (length_word, rounds) = (length.to_string(), ROUNDS.to_string());
            let listener = listen();
            let port = listener.local_addr().expect("an address").port();
            let program = Program::start(fixture, NAME, port, true, &["-c", "-s", &length_word, "-n", &rounds]);
            let mut end = PlainEnd::new(fixture, QueuePairKind::Ud, 1024, ROUTE_HEADER + length);
            end.pair.open_for_datagrams(1, QUEUE_KEY).expect("RTS");
            end.post_receive(ROUTE_HEADER + length);
            as_server(&listener, &end.endpoint(), |_| ()).expect("exchanges");
            // Its buffer's first content.
            let mut expected = vec![0x7b; length];
            expected[0] = 0;
            for round in 0..ROUNDS {
                let (handle, sender) = end.received(|completion| {
                    assert_eq!(completion.result(), Ok((ROUTE_HEADER + length) as u32));
                    let header = end.received[..ROUTE_HEADER].try_into().expect("40 bytes");
                    let handle = AddressHandle::to_sender(end.pair.domain(), 1, &completion, header);
                    (handle.expect("a way back"), completion.arrival().source_queue_pair)
                });
                assert!(end.received[ROUTE_HEADER..] == expected, "round {round} of {length} bytes");
                end.post_receive(ROUTE_HEADER + length);
                expected = message(round, length);
                end.sent[..length].copy_from_slice(&expected);
                let to = Destination { address: &handle, queue_pair: sender, queue_key: QUEUE_KEY };
                let segment = Segment { length: length as u32, ..end.sent.segment() };
                // SAFETY: the buffer is not written and the handle is held until `sent` has polled the completion, or
                // the queue pair is gone.
                unsafe { end.pair.post_send(2, SendOperation::Datagram(to), &[segment], SendFlags::SIGNALED) }
                    .expect("posts");
                end.sent(2);
            }
            assert_content(&program.finish());
        });
    }
}

#[test]
fn a_program_that_is_killed_is_noticed_by_our_own_deadline() {
    with_device(|fixture| {
        let length = 512;
        let port = free_port();
        let program = Program::start(fixture, NAME, port, false, &["-s", "512", "-n", "1000000"]);
        let (mut end, way) = client(fixture, port, length);
        for round in 0..10 {
            round_trip(&mut end, &way, round, length);
        }
        program.kill();
        way.send(&mut end, 10, &message(10, length));
        let sent = end.next();
        assert!(!sent.is_receive && sent.result.is_ok(), "a datagram to nobody is sent all the same: {sent:?}");
        assert!(end.next_within(OWN_DEADLINE).is_none(), "nobody answers");
        let rest = end.take_apart();
        assert_eq!(rest.len(), 2, "both receives come back");
        for completed in rest {
            assert!(completed.is_receive && completed.memory.is_some());
            assert_eq!(completed.result.expect_err("flushed").status, CompletionStatus::Flushed);
        }
        // The device has taken no harm.
        let program = Program::start(fixture, NAME, port, false, &["-s", "64", "-n", "1", "-c"]);
        let (mut end, way) = client(fixture, port, 64);
        round_trip(&mut end, &way, 0, 64);
        assert_content(&program.finish());
    });
}

#[test]
fn datagrams_with_another_queue_key_do_not_arrive() {
    with_device(|fixture| {
        let listener = listen();
        let port = listener.local_addr().expect("an address").port();
        let program = Program::start(fixture, NAME, port, true, &["-s", "64"]);
        let mut end = open(fixture, QUEUE_KEY + 1, 64);
        as_server(&listener, &end.endpoint(), |_| ()).expect("exchanges");
        // The program has sent its first one as soon as the exchange was over.
        assert!(end.next_within(OWN_DEADLINE).is_none(), "the key does not fit");
        program.kill();
    });
}
