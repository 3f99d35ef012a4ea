//! Requests that fail on reliable connections: each in its own way, touching nothing, and telling what probably happened.

use std::time::{Duration, Instant};

use zcmi::verbs::{
    Access, CompletionStatus as Status, ExposedRegion, InFlight, Local, ProtectionDomain, QueuePairState,
    RegisteredBuffer, Remote, Segment, SendFlags, SendOperation, SendRequest, Tuning,
};

use crate::pair::{Ends, Memory, PATIENCE, POISON, RawMemory, Settings, everything, status};
use crate::support::{Fixture, with_device};

/// A request that names memory wrongly, and what its completion is to say.
fn fails_locally(
    fixture: &Fixture,
    operation: fn(Remote) -> SendOperation<'static>,
    wrong: impl Fn(&Ends) -> RawMemory,
) {
    let mut ends = Ends::reliable(fixture);
    let target = ExposedRegion::allocate(&ends.domain, 4096, everything()).expect("memory");
    target.store(0, &[POISON; 4096]);
    let sink = ends.poisoned(4096);
    ends.receive(ends.b, 1, sink);
    let memory = Memory::Raw(wrong(&ends));
    ends.post(ends.a, 2, operation(target.remote()), memory);
    let done = ends.one();
    assert_eq!((done.token, done.is_receive), (2, false));
    let told = status(done.result);
    // Of a request that has sent nothing yet, rxe says something else (6.1), or that it was flushed (6.12).
    let sends_it = matches!(operation(Remote::default()), SendOperation::Send | SendOperation::Write(_));
    let other = sends_it && matches!(told, Status::Flushed | Status::LocalQueuePairOperation);
    assert!(told == Status::LocalProtection || other, "{told:?}");
    assert!(done.memory.is_some(), "the memory is back");
    let mut seen = vec![0; 4096];
    target.load(0, &mut seen);
    // An atomic has been done; only its answer finds no place.
    let untouched = if is_atomic(operation) { &seen[8..] } else { &seen };
    assert!(untouched.iter().all(|&byte| byte == POISON), "nothing arrived");
    // The receive comes back untouched.
    let receives = give_back(&mut ends);
    assert!(receives.iter().all(|buffer| buffer.iter().all(|&byte| byte == POISON)));
}

fn is_atomic(operation: fn(Remote) -> SendOperation<'static>) -> bool {
    matches!(operation(Remote::default()), SendOperation::FetchAdd { .. })
}

/// Ends both queue pairs; answers the buffers of their receives.
fn give_back(ends: &mut Ends) -> Vec<RegisteredBuffer> {
    let mut buffers = Vec::new();
    for key in [ends.a, ends.b] {
        for done in ends.queue.detach(key).expect("it is there").destroy() {
            assert_eq!(status(done.result), Status::Flushed);
            if done.is_receive {
                buffers.push(done.memory.expect("its buffer").buffer());
            }
        }
    }
    buffers
}

const LOCAL_OPERATIONS: [fn(Remote) -> SendOperation<'static>; 4] = [
    |_| SendOperation::Send,
    SendOperation::Write,
    SendOperation::Read,
    |remote| SendOperation::FetchAdd { remote, add: 1 },
];

/// A buffer with a segment made of its right one.
fn bent(ends: &Ends, bend: impl FnOnce(Segment) -> Segment) -> RawMemory {
    let buffer = ends.filled(1, 8);
    RawMemory { segment: bend(buffer.segment()), keep: vec![buffer] }
}

#[test]
fn a_wrong_local_key_is_a_local_protection_error() {
    with_device(|fixture| {
        for operation in LOCAL_OPERATIONS {
            fails_locally(fixture, operation, |ends| {
                bent(ends, |right| Segment { local_key: right.local_key ^ 0x55, ..right })
            });
        }
    });
}

#[test]
fn memory_of_another_protection_domain_is_a_local_protection_error() {
    with_device(|fixture| {
        let other = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        for operation in LOCAL_OPERATIONS {
            fails_locally(fixture, operation, |_| {
                let mut buffer = RegisteredBuffer::allocate(&other, 4096).expect("memory");
                buffer.set_used(0..8);
                RawMemory { segment: buffer.segment(), keep: vec![buffer] }
            });
        }
    });
}

#[test]
fn one_byte_outside_the_local_region_is_a_local_protection_error() {
    with_device(|fixture| {
        for operation in LOCAL_OPERATIONS {
            // The region is 8 bytes, in a page of its own.
            if !is_atomic(operation) {
                // Which uses 8 bytes only.
                fails_locally(fixture, operation, |ends| bent(ends, |right| Segment { length: 9, ..right }));
            }
            fails_locally(fixture, operation, |ends| {
                bent(ends, |right| Segment { address: right.address - 1, ..right })
            });
            fails_locally(fixture, operation, |ends| {
                bent(ends, |right| Segment { address: right.address + 1, ..right })
            });
        }
    });
}

#[test]
fn memory_that_may_not_be_written_takes_no_read_and_no_message() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let target = ExposedRegion::allocate(&ends.domain, 4096, everything()).expect("memory");
        let fixed = ExposedRegion::allocate(&ends.domain, 64, Access::REMOTE_READ).expect("memory");
        fixed.store(0, &[POISON; 64]);
        let untouched = |fixed: &ExposedRegion| {
            let mut seen = [0; 64];
            fixed.load(0, &mut seen);
            seen == [POISON; 64]
        };
        ends.post(ends.a, 1, SendOperation::Read(target.remote()), Memory::Part(fixed.part(0..64).expect("inside")));
        assert_eq!(status(ends.one().result), Status::LocalProtection);
        assert!(untouched(&fixed));
        // A receive: both ends learn of it.
        let mut ends = Ends::reliable(fixture);
        let fixed = ExposedRegion::allocate(&ends.domain, 64, Access::REMOTE_READ).expect("memory");
        fixed.store(0, &[POISON; 64]);
        ends.queue.post_receive(ends.b, 1, Memory::Part(fixed.part(0..64).expect("inside"))).expect("takes it");
        ends.post_inline(ends.a, 2, SendOperation::Send, b"not for you");
        let (sent, received) = ends.both();
        // rxe (6.12) names it differently.
        let told = status(received.result);
        assert!(matches!(told, Status::LocalProtection | Status::LocalQueuePairOperation), "{told:?}");
        let told = status(sent.result);
        assert!(matches!(told, Status::RemoteOperation | Status::RemoteInvalidRequest), "{told:?}");
        assert!(untouched(&fixed));
    });
}

/// A request that names the peer's memory wrongly.
fn fails_remotely(
    fixture: &Fixture,
    settings: &Settings,
    access: Access,
    is_read: bool,
    bend: impl Fn(Remote) -> Remote,
) {
    let mut ends = Ends::new(fixture, settings.clone());
    let target = ExposedRegion::allocate(&ends.domain, 64, access).expect("memory");
    target.store(0, &[POISON; 64]);
    let mut buffer = ends.filled(1, 64);
    buffer.fill(0x11);
    let remote = bend(target.remote());
    let operation = if is_read { SendOperation::Read(remote) } else { SendOperation::Write(remote) };
    ends.post(ends.a, 1, operation, Memory::Buffer(buffer));
    let done = ends.one();
    let told = status(done.result);
    assert_eq!(told, Status::RemoteAccess);
    assert!(done.memory.expect("its buffer").buffer().iter().all(|&byte| byte == 0x11), "nothing was read");
    let mut seen = [0; 64];
    target.load(0, &mut seen);
    assert_eq!(seen, [POISON; 64], "nothing was written");
    assert_eq!(ends.pair(ends.a).state().expect("a state"), QueuePairState::Error);
    // Further requests are flushed.
    ends.post_inline(ends.a, 2, SendOperation::Send, b"after");
    assert_eq!(status(ends.one().result), Status::Flushed);
}

#[test]
fn a_wrong_remote_key_is_a_remote_access_error() {
    with_device(|fixture| {
        for is_read in [false, true] {
            for flip in [1, 0x100, 0x8000_0000] {
                fails_remotely(fixture, &Settings::default(), everything(), is_read, |right| Remote {
                    key: right.key ^ flip,
                    ..right
                });
            }
        }
    });
}

#[test]
fn a_remote_key_of_another_protection_domain_is_a_remote_access_error() {
    with_device(|fixture| {
        let other = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let foreign = ExposedRegion::allocate(&other, 64, everything()).expect("memory");
        for is_read in [false, true] {
            fails_remotely(fixture, &Settings::default(), everything(), is_read, |_| foreign.remote());
        }
        let mut seen = [0xff; 64];
        foreign.load(0, &mut seen);
        assert_eq!(seen, [0; 64]);
    });
}

#[test]
fn one_byte_outside_the_remote_region_is_a_remote_access_error() {
    with_device(|fixture| {
        for is_read in [false, true] {
            for shift in [1, u64::MAX] {
                fails_remotely(fixture, &Settings::default(), everything(), is_read, |right| Remote {
                    address: right.address.wrapping_add(shift),
                    ..right
                });
            }
        }
    });
}

#[test]
fn a_right_that_region_or_queue_pair_lacks_is_a_remote_access_error() {
    with_device(|fixture| {
        for (is_read, lacking) in [(false, Access::REMOTE_READ), (true, Access::REMOTE_WRITE)] {
            fails_remotely(fixture, &Settings::default(), lacking, is_read, |right| right);
        }
        // The queue pair's rights are checked before the key; rxe then names another error.
        for (is_read, lacking) in [(false, Access::REMOTE_READ), (true, Access::REMOTE_WRITE)] {
            let mut ends = Ends::new(fixture, Settings { access: lacking, ..Settings::default() });
            let target = ExposedRegion::allocate(&ends.domain, 64, everything()).expect("memory");
            let buffer = ends.poisoned(64);
            let remote = target.remote();
            let operation = if is_read { SendOperation::Read(remote) } else { SendOperation::Write(remote) };
            ends.post(ends.a, 1, operation, Memory::Buffer(buffer));
            let told = status(ends.one().result);
            assert!(matches!(told, Status::RemoteAccess | Status::RemoteInvalidRequest), "{told:?}");
        }
    });
}

#[test]
fn a_message_longer_than_its_receive_fails_at_both_ends() {
    with_device(|fixture| {
        for surplus in [1, 5000] {
            let mut ends = Ends::reliable(fixture);
            let (source, mut sink) = (ends.filled(1, 100 + surplus), ends.poisoned(200));
            sink.set_used(50..150);
            ends.receive(ends.b, 1, sink);
            ends.post(ends.a, 2, SendOperation::Send, Memory::Buffer(source));
            let (sent, received) = ends.both();
            // rxe (6.12) names it differently.
            let told = status(received.result);
            assert!(matches!(told, Status::LocalLength | Status::LocalQueuePairOperation), "{told:?}");
            let told = status(sent.result);
            assert!(matches!(told, Status::RemoteInvalidRequest | Status::RemoteOperation), "{told:?}");
            let sink = received.memory.expect("its buffer").buffer();
            assert!(sink[..50].iter().chain(&sink[150..]).all(|&byte| byte == POISON), "nothing beside the receive");
        }
    });
}

#[test]
fn a_peer_without_a_receive_is_not_ready() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        ends.post_inline(ends.a, 1, SendOperation::Send, b"nobody listens");
        assert_eq!(status(ends.one().result), Status::ReceiverNotReady);
        // A write needs none.
        let mut ends = Ends::reliable(fixture);
        let target = ExposedRegion::allocate(&ends.domain, 64, everything()).expect("memory");
        ends.post_inline(ends.a, 1, SendOperation::Write(target.remote()), b"x");
        assert_eq!(ends.one().result, Ok(0));
        ends.post_inline(ends.a, 1, SendOperation::WriteWithImmediate(target.remote(), 1), b"x");
        assert_eq!(status(ends.one().result), Status::ReceiverNotReady, "with an immediate it does");
    });
}

#[test]
fn a_receive_that_comes_late_is_waited_for() {
    with_device(|fixture| {
        let tuning = Tuning { rnr_retry_count: 7, ..Settings::default().tuning };
        let mut ends = Ends::new(fixture, Settings { tuning, ..Settings::default() });
        ends.post_inline(ends.a, 1, SendOperation::Send, b"late");
        // It has been turned away at least once: 0.64 ms is how long it then waits.
        std::thread::sleep(Duration::from_millis(20));
        let sink = ends.poisoned(8);
        ends.receive(ends.b, 2, sink);
        let (sent, received) = ends.both();
        assert_eq!((sent.result, received.result), (Ok(0), Ok(4)));
    });
}

#[test]
fn a_peer_that_is_gone_exceeds_the_retries() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        ends.queue.detach(ends.b).expect("it is there");
        ends.post_inline(ends.a, 1, SendOperation::Send, b"hello?");
        assert_eq!(status(ends.one().result), Status::RetryExceeded);
        ends.post_inline(ends.a, 2, SendOperation::Send, b"hello?");
        assert_eq!(status(ends.one().result), Status::Flushed);
    });
}

#[test]
fn what_fails_is_told_even_if_it_is_not_signaled() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        for token in 0..3 {
            let remote = if token == 1 { Remote { address: 8, key: 8 } } else { Remote::default() };
            let bytes = if token == 1 { &b"x"[..] } else { &[] };
            let (operation, local) = (SendOperation::Write(remote), Local::Inline(bytes));
            ends.queue.stage(ends.a, SendRequest { token, operation, local, flags: SendFlags::NONE }).expect("fits");
        }
        ends.queue.flush().expect("posts");
        let (begun, mut done) = (Instant::now(), Vec::new());
        while done.len() < 2 {
            assert!(begun.elapsed() < PATIENCE, "{done:?}");
            ends.queue.poll(&mut done).expect("polls");
        }
        assert_eq!((done[0].token, done[0].result), (0, Ok(0)), "what came before it has succeeded");
        assert_eq!((done[1].token, status(done[1].result)), (1, Status::RemoteAccess));
    });
}
