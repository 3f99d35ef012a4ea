//! A reliable connection with rdma-core's `ibv_rc_pingpong` as the other end. It has one buffer, so what it sends is
//! what it received before.

use std::time::Duration;

use zcmi::verbs::{CompletionStatus, QueuePairKind, SendOperation};

use crate::common::pattern;
use crate::end::{End, LONG_HERE, LONG_THERE, bytes};
use crate::pingpong::{Program, as_client, as_server, assert_content, free_port, listen};
use crate::support::{Fixture, with_device};

const NAME: &str = "ibv_rc_pingpong";
const SEED: u64 = 0x5c;
const ROUNDS: u64 = 50;
/// The program's page size; with `-c` it wants the first byte of each page to be 0.
const PAGE: usize = 4096;

/// A message that the program's own check accepts.
fn message(round: u64, length: usize) -> Vec<u8> {
    let mut bytes = pattern(SEED, round, length);
    bytes.iter_mut().step_by(PAGE).for_each(|byte| *byte = 0);
    bytes
}

fn options<'a>(length: &'a str, mtu: &'a str, rounds: &'a str) -> Vec<&'a str> {
    vec!["-c", "-s", length, "-m", mtu, "-n", rounds]
}

/// We are the client of a program that runs; answers our end.
fn client(fixture: &Fixture, port: u16, mtu: u32, length: usize) -> End {
    let end = End::prepared(fixture, QueuePairKind::Rc, mtu, 2, length);
    as_client(port, &end.endpoint(), |theirs| end.connect(theirs)).expect("exchanges");
    end
}

/// Sends a message and receives it again.
fn round_trip(end: &mut End, round: u64, length: usize) {
    let message = message(round, length);
    let memory = end.buffer(&message);
    end.post(round, SendOperation::Send, memory);
    let received = end.sent_and_received();
    assert!(bytes(&received) == message, "round {round} of {length} bytes");
    end.post_again(received.memory.expect("a receive has memory"));
}

#[test]
fn as_client_of_the_program() {
    for (length, mtu, event) in [(1, 1024, false), (4096, 1024, true), (65_536, 4096, false)] {
        with_device(|fixture| {
            let (length_word, mtu_word, rounds) = (length.to_string(), mtu.to_string(), ROUNDS.to_string());
            let mut options = options(&length_word, &mtu_word, &rounds);
            options.extend(event.then_some("-e"));
            let port = free_port();
            let program = Program::start(fixture, NAME, port, false, &options);
            let mut end = client(fixture, port, mtu, length);
            for round in 0..ROUNDS {
                round_trip(&mut end, round, length);
            }
            assert_content(&program.finish());
        });
    }
}

#[test]
fn as_server_of_the_program() {
    for (length, mtu, event) in [(1, 1024, true), (4096, 1024, false), (65_536, 4096, false)] {
        with_device(|fixture| {
            let (length_word, mtu_word, rounds) = (length.to_string(), mtu.to_string(), ROUNDS.to_string());
            let mut options = options(&length_word, &mtu_word, &rounds);
            options.extend(event.then_some("-e"));
            let listener = listen();
            let port = listener.local_addr().expect("an address").port();
            let program = Program::start(fixture, NAME, port, true, &options);
            let mut end = End::prepared(fixture, QueuePairKind::Rc, mtu, 2, length);
            as_server(&listener, &end.endpoint(), |theirs| end.connect(theirs)).expect("exchanges");
            // Its buffer's first content.
            let mut expected = vec![0x7b; length];
            expected.iter_mut().step_by(PAGE).for_each(|byte| *byte = 0);
            let mut received = end.next();
            for round in 0..ROUNDS {
                assert!(bytes(&received) == expected, "round {round} of {length} bytes");
                end.post_again(received.memory.expect("a receive has memory"));
                expected = message(round, length);
                let memory = end.buffer(&expected);
                end.post(round, SendOperation::Send, memory);
                if round + 1 == ROUNDS {
                    end.next().result.expect("sent");
                    break;
                }
                received = end.sent_and_received();
            }
            assert_content(&program.finish());
        });
    }
}

#[test]
fn a_program_that_is_killed_ends_our_requests_in_time() {
    with_device(|fixture| {
        let length = 4096;
        let port = free_port();
        let program = Program::start(fixture, NAME, port, false, &["-s", "4096", "-n", "1000000"]);
        let mut end = client(fixture, port, 1024, length);
        for round in 0..10 {
            round_trip(&mut end, round, length);
        }
        program.kill();
        let memory = end.buffer(&message(10, length));
        end.post(10, SendOperation::Send, memory);
        let completed = end.next();
        let error = completed.result.expect_err("nobody is there");
        assert_eq!((completed.token, error.status), (10, CompletionStatus::RetryExceeded));
        assert!(completed.memory.is_some(), "the buffer comes back");
        // Both receives come back too: flushed, or by the end of the queue pair where the driver withholds them.
        let flushed = std::iter::from_fn(|| end.next_within(Duration::from_millis(100))).collect::<Vec<_>>();
        let rest = end.take_apart();
        assert_eq!(flushed.len() + rest.len(), 2);
        assert!(flushed.iter().chain(&rest).all(|completed| completed.is_receive && completed.memory.is_some()));
        for completed in flushed.into_iter().chain(rest) {
            assert_eq!(completed.result.expect_err("flushed").status, CompletionStatus::Flushed);
        }
        // The device has taken no harm.
        let program = Program::start(fixture, NAME, port, false, &["-s", "64", "-n", "1", "-c"]);
        let mut end = client(fixture, port, 1024, 64);
        round_trip(&mut end, 0, 64);
        assert_content(&program.finish());
    });
}

#[test]
fn a_message_longer_than_the_receive_fails_at_both_ends() {
    with_device(|fixture| {
        let listener = listen();
        let port = listener.local_addr().expect("an address").port();
        let program = Program::start(fixture, NAME, port, true, &["-s", "8192"]);
        let mut end = End::prepared(fixture, QueuePairKind::Rc, 1024, 1, 4096);
        as_server(&listener, &end.endpoint(), |theirs| end.connect(theirs)).expect("exchanges");
        let completed = end.next();
        let status = completed.result.expect_err("too long").status;
        assert!(completed.is_receive && LONG_HERE.contains(&status), "{status:?}");
        let output = program.finish();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_told = LONG_THERE.iter().any(|(_, name)| said.contains(&format!("Failed status {name}")));
        assert!(!output.status.success() && is_told, "{said}");
    });
}
