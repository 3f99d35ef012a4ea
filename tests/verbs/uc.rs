//! Unreliable connections: what arrives arrives whole; what is wrong is lost silently.

use zcmi::verbs::{Access, ExposedRegion, QueuePairKind, Remote, SendOperation};

use crate::common::pattern;
use crate::pair::{Ends, Memory, POISON, Settings};
use crate::support::with_device;

fn settings() -> Settings {
    Settings { kind: QueuePairKind::Uc, ..Settings::default() }
}

#[test]
fn messages_and_immediates_arrive() {
    with_device(|fixture| {
        let mut ends = Ends::new(fixture, settings());
        for (seed, length) in [0, 1, 1024, 1025, 50_000].into_iter().enumerate() {
            for immediate in [None, Some(0x0a0b_0c0d)] {
                let (source, sink) = (ends.filled(seed as u64, length), ends.poisoned(length + 10));
                ends.receive(ends.b, 1, sink);
                let operation = immediate.map_or(SendOperation::Send, SendOperation::SendWithImmediate);
                ends.post(ends.a, 2, operation, Memory::Buffer(source));
                let (sent, received) = ends.both();
                assert_eq!((sent.result, received.result), (Ok(0), Ok(length as u32)));
                assert_eq!(received.arrival.immediate, immediate);
                let sink = received.memory.expect("its buffer").buffer();
                assert!(sink[..length] == pattern(seed as u64, 0, length));
                assert!(sink[length..].iter().all(|&byte| byte == POISON));
            }
        }
    });
}

#[test]
fn writes_arrive_with_and_without_immediate() {
    with_device(|fixture| {
        let mut ends = Ends::new(fixture, settings());
        let target = ExposedRegion::allocate(&ends.domain, 8192, Access::REMOTE_WRITE).expect("memory");
        let place = Remote { address: target.remote().address + 100, ..target.remote() };
        // A message behind the write tells that it has arrived: the completion does not.
        let (source, sink) = (ends.filled(1, 3000), ends.poisoned(8));
        ends.receive(ends.b, 1, sink);
        ends.post(ends.a, 2, SendOperation::Write(place), Memory::Buffer(source));
        ends.post_inline(ends.a, 3, SendOperation::Send, b"written");
        let done = ends.wait(3);
        assert!(done.iter().all(|completed| completed.result.is_ok()), "{done:?}");
        let mut seen = vec![0; 3000];
        target.load(100, &mut seen);
        assert!(seen == pattern(1, 0, 3000));
        // With an immediate the receive tells it.
        let (source, sink) = (ends.filled(2, 3000), ends.poisoned(8));
        ends.receive(ends.b, 1, sink);
        ends.post(ends.a, 2, SendOperation::WriteWithImmediate(place, 99), Memory::Buffer(source));
        let (_, received) = ends.both();
        assert_eq!((received.result, received.arrival.immediate), (Ok(3000), Some(99)));
        target.load(100, &mut seen);
        assert!(seen == pattern(2, 0, 3000));
    });
}

#[test]
fn what_only_reliable_connections_do_is_refused_with_its_memory() {
    with_device(|fixture| {
        let mut ends = Ends::new(fixture, settings());
        let remote = Remote::default();
        for operation in [
            SendOperation::Read(remote),
            SendOperation::FetchAdd { remote, add: 1 },
            SendOperation::CompareSwap { remote, compare: 0, swap: 1 },
            SendOperation::SendWithInvalidate(1),
            SendOperation::LocalInvalidate(1),
        ] {
            let local = zcmi::verbs::Local::Owned(Memory::Buffer(ends.poisoned(8)));
            let request =
                zcmi::verbs::SendRequest { token: 1, operation, local, flags: zcmi::verbs::SendFlags::SIGNALED };
            let refused = ends.queue.post(ends.a, request).expect_err("refused");
            assert_eq!(refused.error.expect("a reason").errno(), Some(libc::EINVAL));
            assert!(refused.memory.is_some());
        }
        ends.still_works();
    });
}

#[test]
fn a_write_with_a_wrong_key_is_lost_and_the_connection_goes_on() {
    with_device(|fixture| {
        let mut ends = Ends::new(fixture, settings());
        let target = ExposedRegion::allocate(&ends.domain, 4096, Access::REMOTE_WRITE).expect("memory");
        let wrong = Remote { key: target.remote().key ^ 0xff, ..target.remote() };
        let source = ends.filled(1, 64);
        ends.post(ends.a, 1, SendOperation::Write(wrong), Memory::Buffer(source));
        assert_eq!(ends.one().result, Ok(0), "the sender does not learn of it");
        let mut seen = [0xff; 64];
        ends.still_works();
        target.load(0, &mut seen);
        assert_eq!(seen, [0; 64]);
    });
}

#[test]
fn a_message_without_a_receive_is_lost_and_the_next_arrives() {
    with_device(|fixture| {
        let mut ends = Ends::new(fixture, settings());
        ends.post_inline(ends.a, 1, SendOperation::Send, b"lost");
        assert_eq!(ends.one().result, Ok(0));
        ends.still_works();
    });
}
