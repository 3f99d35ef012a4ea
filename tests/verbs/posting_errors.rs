//! Requests that cannot be, on reliable connections: each fails in its own way, touches nothing, and tells.

use std::time::{Duration, Instant};

use zcmi::verbs::{
    Access, CompletionBatch, CompletionStatus as Status, ExposedRegion, InFlight, Local, Mtu, Pieces, ProtectionDomain,
    QueuePairKey, QueuePairState, RegisteredBuffer, Remote, Segment, SendFlags, SendList, SendOperation, SendRequest,
    Tuning,
};

use crate::pair::{Ends, Memory, PATIENCE, POISON, RawEnds, RawMemory, Settings, everything, segment, status};
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

#[test]
fn a_request_that_is_too_large_is_refused_with_its_memory() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let sizes = ends.pair(ends.a).capabilities();
        let bytes = vec![0; sizes.inline as usize + 1];
        let local = Local::Inline(&bytes[..]);
        let request = SendRequest { token: 1, operation: SendOperation::Send, local, flags: SendFlags::SIGNALED };
        let error = ends.queue.post(ends.a, request).expect_err("too long").error.expect("a reason");
        assert_eq!(error.errno(), Some(libc::EINVAL));
        let detail = error.detail().expect("a detail");
        assert!(detail.contains(&bytes.len().to_string()) && detail.contains(&sizes.inline.to_string()), "{detail}");
        let pieces =
            |ends: &Ends| Memory::Pieces(Pieces::new((0..=sizes.segments).map(|_| ends.filled(1, 8)).collect()));
        let local = Local::Owned(pieces(&ends));
        let request = SendRequest { token: 1, operation: SendOperation::Send, local, flags: SendFlags::SIGNALED };
        let refused = ends.queue.post(ends.a, request).expect_err("too many");
        let error = refused.error.expect("a reason");
        assert!(
            error.detail().is_some_and(|detail| detail.contains(&format!("{} segments", sizes.segments + 1))),
            "{error}"
        );
        assert_eq!(refused.memory.expect("its pieces").pieces().len(), sizes.segments as usize + 1);
        let memory = pieces(&ends);
        let refused = ends.queue.post_receive(ends.a, 1, memory).expect_err("too many");
        assert_eq!(refused.error.expect("a reason").errno(), Some(libc::EINVAL));
        assert_eq!(refused.memory.expect("its pieces").pieces().len(), sizes.segments as usize + 1);
        assert_eq!(ends.queue.outstanding(ends.a), 0);
        ends.still_works();
    });
}

#[test]
fn full_queues_give_the_memory_back_without_an_error_and_polling_mends_it() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let sizes = ends.pair(ends.a).capabilities();
        for token in 0..sizes.receives {
            let sink = ends.poisoned(8);
            ends.receive(ends.b, token.into(), sink);
        }
        let refused = ends.queue.post_receive(ends.b, 99, Memory::Buffer(ends.poisoned(8))).expect_err("full");
        assert!(refused.error.is_none() && refused.memory.is_some(), "{refused:?}");
        for token in 0..sizes.sends {
            assert_eq!(ends.queue.room(ends.a), (sizes.sends - token) as usize);
            let local = Local::Owned(Memory::Buffer(ends.filled(1, 8)));
            // None is signaled: the one that fills the queue completes all the same.
            let request =
                SendRequest { token: token.into(), operation: SendOperation::Send, local, flags: SendFlags::NONE };
            ends.queue.stage(ends.a, request).expect("fits");
        }
        assert_eq!(ends.queue.room(ends.a), 0);
        let local = Local::Owned(Memory::Buffer(ends.filled(1, 8)));
        let request = SendRequest { token: 99, operation: SendOperation::Send, local, flags: SendFlags::SIGNALED };
        let refused = ends.queue.stage(ends.a, request).expect_err("full");
        assert!(refused.error.is_none() && refused.memory.is_some(), "{refused:?}");
        ends.queue.flush().expect("posts");
        assert_eq!(ends.queue.outstanding(ends.a), sizes.sends as usize);
        let done = ends.wait((sizes.sends + sizes.receives) as usize);
        assert!(done.iter().all(|done| done.result.is_ok()), "{done:?}");
        assert_eq!(ends.queue.room(ends.a), sizes.sends as usize);
        ends.still_works();
    });
}

#[test]
fn the_unsafe_tier_tells_what_is_full_or_too_large_and_how_far_it_came() {
    with_device(|fixture| {
        // An unreachable peer, so that the send queue stays full.
        let ends = RawEnds::new(fixture, &Settings::default(), 256);
        let sizes = ends.a.capabilities();
        let buffer = RegisteredBuffer::allocate(&ends.domain, 64).expect("memory");
        let whole = segment(&buffer);
        let many = vec![whole; sizes.segments as usize + 1];
        // SAFETY: the buffer outlives the queue pairs and nobody touches it.
        let error = unsafe { ends.a.post_send(1, SendOperation::Send, &many, SendFlags::NONE) }.expect_err("too many");
        assert_eq!(error.errno(), Some(libc::EINVAL));
        // SAFETY: as above.
        let error = unsafe { ends.a.post_receive(1, &many) }.expect_err("too many");
        assert_eq!(error.errno(), Some(libc::EINVAL));
        let long = vec![0_u8; sizes.inline as usize + 1];
        let inline = Segment { address: long.as_ptr() as u64, length: long.len() as u32, local_key: 0 };
        // SAFETY: the data is readable for the call.
        let posted = unsafe { ends.a.post_send(1, SendOperation::Send, &[inline], SendFlags::INLINE) };
        assert_eq!(posted.expect_err("too long").errno(), Some(libc::EINVAL));
        // Receives until full.
        let list: Vec<(u64, &[Segment])> = (1000..1300).map(|id| (id, std::slice::from_ref(&whole))).collect();
        // SAFETY: as above.
        let (error, posted) = unsafe { ends.a.post_receives(&list) }.expect_err("more than fit");
        assert_eq!(error.errno(), Some(libc::ENOMEM));
        assert!((sizes.receives as usize..300).contains(&posted), "{posted}");
        // SAFETY: as above.
        assert_eq!(unsafe { ends.a.post_receive(9, &[whole]) }.expect_err("full").errno(), Some(libc::ENOMEM));
        // Sends until full: nobody has posted a receive at the other end, so the first stays.
        let mut list = SendList::new();
        for id in 0..300 {
            list.push(id, SendOperation::Send, &[whole], SendFlags::SIGNALED);
        }
        // SAFETY: as above.
        let error = unsafe { ends.a.post_send_list(&mut list) }.expect_err("more than fit");
        assert_eq!(error.errno(), Some(libc::ENOMEM));
        let posted = 300 - list.len();
        assert!((sizes.sends as usize..300).contains(&posted), "what was not posted is still in the list: {list:?}");
        // The receives are flushed too.
        let (begun, mut seen, mut batch) = (Instant::now(), Vec::new(), CompletionBatch::new());
        while seen.len() < posted {
            assert!(begun.elapsed() < PATIENCE, "{seen:?}");
            let completions =
                ends.completions.poll(&mut batch).expect("polls").map(|done| (done.wr_id(), done.status()));
            seen.extend(completions.filter(|(wr_id, _)| *wr_id < 1000));
        }
        assert_eq!(seen[0].1, Status::ReceiverNotReady);
        assert!(seen[1..].iter().all(|seen| seen.1 == Status::Flushed), "{seen:?}");
        assert!(seen.iter().map(|seen| seen.0).eq(0..posted as u64), "{seen:?}");
        drop(ends.a);
        drop(buffer);
    });
}

#[test]
fn posting_to_a_queue_pair_that_is_not_ready_or_gone_gives_the_memory_back() {
    with_device(|fixture| {
        let mut ends = Ends::unconnected(fixture, Settings::default());
        let refused = |ends: &mut Ends, key: QueuePairKey| {
            let local = Local::Owned(Memory::Buffer(ends.filled(1, 8)));
            let request = SendRequest { token: 1, operation: SendOperation::Send, local, flags: SendFlags::SIGNALED };
            let refused = ends.queue.post(key, request).expect_err("refused");
            assert!(refused.memory.is_some());
            let atomic = ends.queue.post_atomic_write(key, 1, Remote::default(), [0; 8], SendFlags::SIGNALED);
            assert_eq!(atomic.expect_err("refused").error.expect("a reason").errno(), Some(libc::EINVAL));
            refused.error.expect("a reason")
        };
        for step in 0..3 {
            let key = ends.a;
            let error = refused(&mut ends, key);
            assert!(error.detail().is_some_and(|detail| detail.contains("RTS")), "{error}");
            let pair = ends.pair(ends.a);
            let here = crate::pair::local_end(fixture, everything());
            match step {
                0 => pair.prepare(&here).expect("INIT"),
                1 => {
                    let gid = fixture.context.gid(1, here.gid_index).expect("a GID");
                    let address = zcmi::verbs::AddressVector::to(1, here.gid_index, gid);
                    let change = zcmi::verbs::QueuePairChange::to(QueuePairState::ReadyToReceive).address(&address);
                    let change = change.path_mtu(Mtu::Bytes1024).destination(7).receive_psn(here.psn);
                    pair.modify(change.reads_as_target(1).min_rnr_timer(1)).expect("RTR");
                }
                _ => {}
            }
        }
        assert_eq!(ends.queue.outstanding(ends.a), 0);
        let gone = ends.a;
        ends.queue.detach(gone).expect("it is there");
        for key in [gone, QueuePairKey::NONE, QueuePairKey::from_index(12345)] {
            let error = refused(&mut ends, key);
            assert!(error.detail().is_some_and(|detail| detail.contains("removed")), "{error}");
            let receive = ends.queue.post_receive(key, 1, Memory::Buffer(ends.poisoned(8))).expect_err("refused");
            assert!(receive.error.is_some() && receive.memory.is_some());
            assert!(ends.queue.queue_pair(key).is_none() && ends.queue.detach(key).is_none());
            assert_eq!((ends.queue.room(key), ends.queue.outstanding(key)), (0, 0));
            assert!(ends.queue.drain(key, Duration::ZERO, &mut Vec::new()).expect("nothing to drain"));
        }
    });
}

#[test]
fn a_receive_can_be_posted_as_soon_as_the_device_takes_it() {
    with_device(|fixture| {
        let mut ends = Ends::unconnected(fixture, Settings::default());
        // In RESET: refused, or taken and kept.
        let taken = ends.queue.post_receive(ends.b, 1, Memory::Buffer(ends.poisoned(8)));
        eprintln!("a receive in RESET: {taken:?}");
        let is_taken = taken.is_ok();
        assert_eq!(ends.queue.outstanding(ends.b), usize::from(is_taken));
        if let Err(refused) = taken {
            assert!(refused.error.is_some() && refused.memory.is_some());
        }
        assert_eq!(ends.queue.drain(ends.b, Duration::ZERO, &mut Vec::new()).expect("drains"), !is_taken);
        let flushed = ends.queue.detach(ends.b).expect("it is there").destroy();
        assert_eq!(flushed.len(), usize::from(is_taken));
    });
}

#[test]
fn a_window_is_not_invalidated_by_the_safe_tier() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let operation = SendOperation::LocalInvalidate(0x1234);
        let request = SendRequest { token: 1, operation, local: Local::Inline(&[]), flags: SendFlags::SIGNALED };
        let error = ends.queue.post(ends.a, request).expect_err("refused").error.expect("a reason");
        assert!(error.detail().is_some_and(|detail| detail.contains("window")), "{error}");
        ends.still_works();
    });
}

#[test]
fn an_exposed_region_gives_no_part_beyond_its_end() {
    with_device(|fixture| {
        let ends = Ends::reliable(fixture);
        let region = ExposedRegion::allocate(&ends.domain, 100, everything()).expect("memory");
        region.part(0..100).expect("all of it");
        region.part(100..100).expect("nothing, at its end");
        #[allow(clippy::reversed_empty_ranges, reason = "what is wrong is to be refused")]
        for range in [0..101, 100..101, 50..49, usize::MAX..usize::MAX, 0..usize::MAX] {
            assert_eq!(region.part(range).expect_err("outside").errno(), Some(libc::EINVAL));
        }
        assert_eq!(
            ExposedRegion::allocate(&ends.domain, 0, everything()).expect_err("empty").errno(),
            Some(libc::EINVAL)
        );
        for (count, length) in [(0, 8), (8, 0), (usize::MAX, 8), (8, usize::MAX)] {
            let error = RegisteredBuffer::allocate_many(&ends.domain, count, length).expect_err("impossible");
            assert!(matches!(error.errno(), Some(libc::EINVAL | libc::ENOMEM)), "{error}");
        }
        assert_eq!(RegisteredBuffer::allocate(&ends.domain, 0).expect_err("empty").errno(), Some(libc::EINVAL));
    });
}
