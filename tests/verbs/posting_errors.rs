//! Requests that cannot be posted: each is refused with its memory, and tells why; and queues that are full.

use std::time::{Duration, Instant};

use zcmi::verbs::{
    CompletionBatch, CompletionStatus as Status, ExposedRegion, Local, Mtu, Pieces, QueuePairKey, QueuePairState,
    RegisteredBuffer, Remote, Segment, SendFlags, SendList, SendOperation, SendRequest,
};

use crate::pair::{Ends, Memory, PATIENCE, RawEnds, Settings, everything, segment};
use crate::support::with_device;

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
