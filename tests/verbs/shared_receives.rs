//! Receives that several queue pairs share.

use std::time::Instant;

use zcmi::verbs::{
    Access, AsyncEvent, AsyncEventKind, AsyncEventObject, CompletionQueue, CompletionStatus, ExposedRegion, Local,
    OwningQueue, ProtectionDomain, QueuePairKey, QueuePairState, Remote, SendFlags, SendOperation, SendRequest,
    SharedReceiveQueue,
};

use crate::common::pattern;
use crate::pair::{
    Ends, Memory, PATIENCE, Settings, build, connect, everything, kernel_is_at_least, segment, status, wait_raw,
};
use crate::support::{Fixture, with_device};

fn sharing(fixture: &Fixture, receives: u32) -> Ends {
    Ends::new(fixture, Settings { shared_receives: Some(receives), ..Settings::default() })
}

/// Posts a shared receive of a poisoned buffer that must be taken.
fn share(ends: &mut Ends, token: u64, length: usize) {
    let memory = Memory::Buffer(ends.poisoned(length));
    ends.queue.post_shared_receive(token, memory).expect("takes it");
}

#[test]
fn two_queue_pairs_take_from_one_queue() {
    with_device(|fixture| {
        let mut ends = sharing(fixture, 16);
        for token in 0..16 {
            share(&mut ends, token, 100);
        }
        // Each is the other's peer: both receive.
        for index in 0..8 {
            let (a, b) = (ends.a, ends.b);
            ends.post_inline(a, 100, SendOperation::SendWithImmediate(index), &pattern(1, index.into(), 50));
            ends.post_inline(b, 101, SendOperation::SendWithImmediate(index), &pattern(2, index.into(), 60));
        }
        let mut tokens = Vec::new();
        for done in ends.wait(32) {
            if done.is_receive {
                let (seed, length) = if done.queue_pair == ends.b { (1, 50) } else { (2, 60) };
                assert!(done.queue_pair == ends.a || done.queue_pair == ends.b);
                assert_eq!(done.result, Ok(length as u32));
                let index = done.arrival.immediate.expect("an immediate");
                let bytes = done.memory.expect("its buffer").buffer();
                assert_eq!(bytes[..length], pattern(seed, index.into(), length));
                tokens.push(done.token);
            }
        }
        tokens.sort_unstable();
        assert_eq!(tokens, (0..16).collect::<Vec<_>>(), "each receive once");
    });
}

#[test]
fn an_owned_queue_that_is_full_or_not_there_gives_the_memory_back() {
    with_device(|fixture| {
        let mut ends = sharing(fixture, 4);
        let most = ends.queue.shared_receives().expect("a shared queue").receives();
        assert!(most >= 4);
        for token in 0..most {
            share(&mut ends, token.into(), 8);
        }
        let refused = ends.queue.post_shared_receive(99, Memory::Buffer(ends.poisoned(8))).expect_err("full");
        assert!(refused.error.is_none() && refused.memory.is_some(), "{refused:?}");
        // Nor has a queue pair receives of its own.
        let refused = ends.queue.post_receive(ends.a, 99, Memory::Buffer(ends.poisoned(8))).expect_err("shared");
        assert_eq!(refused.error.expect("a reason").errno(), Some(libc::EINVAL));
        assert!(refused.memory.is_some());
        // A message makes room for one.
        ends.post_inline(ends.a, 1, SendOperation::Send, b"x");
        ends.both();
        share(&mut ends, 99, 8);
        // A queue without.
        let mut plain = Ends::reliable(fixture);
        let refused = plain.queue.post_shared_receive(1, Memory::Buffer(plain.poisoned(8))).expect_err("none");
        assert_eq!(refused.error.expect("a reason").errno(), Some(libc::EINVAL));
        assert!(refused.memory.is_some());
    });
}

#[test]
fn the_unsafe_tier_posts_singly_and_in_lists_until_it_is_full() {
    with_device(|fixture| {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let shared = SharedReceiveQueue::create(&domain, 7, 2).expect("a shared queue");
        let settings = Settings::default();
        let [a, b] = [(); 2].map(|()| build(&domain, &completions, Some(&shared), &settings));
        connect(fixture, &a, &b, everything(), &settings.tuning);
        let memory = zcmi::verbs::RegisteredBuffer::allocate_many(&domain, 2, 64).expect("memory");
        let both = [segment(&memory[0]), segment(&memory[1])];
        // SAFETY: the buffers live, and nobody touches them, until the queue pairs and the queue are destroyed.
        unsafe { shared.post_receive(0, &both) }.expect("posts");
        // SAFETY: as above.
        let error = unsafe { shared.post_receive(1, &[both[0]; 33]) }.expect_err("more segments than there are");
        assert_eq!(error.errno(), Some(libc::EINVAL));
        let most = shared.receives();
        let list: Vec<(u64, &[zcmi::verbs::Segment])> = (1..u64::from(most) + 3).map(|id| (id, &both[..])).collect();
        // SAFETY: as above.
        let (error, posted) = unsafe { shared.post_receives(&list) }.expect_err("more than fit");
        assert_eq!((error.errno(), posted), (Some(libc::ENOMEM), most as usize - 1));
        // SAFETY: as above.
        let error = unsafe { shared.post_receive(99, &both) }.expect_err("full");
        assert_eq!(error.errno(), Some(libc::ENOMEM));
        // SAFETY: as above.
        let error = unsafe { a.post_receive(99, &both) }.expect_err("its receives are shared");
        assert_eq!(error.errno(), Some(libc::EINVAL));
        // SAFETY: as above.
        let (error, posted) = unsafe { a.post_receives(&list) }.expect_err("its receives are shared");
        assert_eq!((error.errno(), posted), (Some(libc::EINVAL), 0));
        // What was posted is taken in order, by whichever queue pair.
        for (index, pair) in [&a, &b, &a].into_iter().enumerate() {
            // SAFETY: nothing is named.
            unsafe { pair.post_send(1000, SendOperation::Send, &[], SendFlags::SIGNALED) }.expect("posts");
            let mut seen = wait_raw(&completions, 2);
            seen.sort_by_key(|seen| seen.wr_id);
            assert_eq!((seen[0].wr_id, seen[1].wr_id), (index as u64, 1000));
        }
        drop((a, b, shared));
        drop(memory);
    });
}

#[test]
fn a_limit_makes_one_event_when_receives_run_low() {
    with_device(|fixture| {
        let mut ends = sharing(fixture, 16);
        for token in 0..8 {
            share(&mut ends, token, 8);
        }
        let queue = ends.queue.shared_receives().expect("a shared queue").clone();
        queue.arm_limit(6).expect("arms");
        assert_eq!(queue.attributes().expect("attributes").limit, 6);
        assert!(queue.attributes().expect("attributes").receives >= queue.receives());
        let limits = |fixture: &Fixture| {
            let events = std::iter::from_fn(|| fixture.context.next_async_event().expect("reads"));
            let expected = AsyncEventObject::SharedReceiveQueue(queue.key());
            let is_limit = |event: &AsyncEvent| event.kind == AsyncEventKind::SharedReceiveQueueLimit;
            events.filter(is_limit).inspect(|event| assert_eq!(event.object, expected)).count()
        };
        // 8, 7, 6 are no fewer than 6.
        for _ in 0..2 {
            ends.post_inline(ends.a, 1, SendOperation::Send, b"x");
            ends.both();
        }
        assert_eq!(limits(fixture), 0);
        ends.post_inline(ends.a, 1, SendOperation::Send, b"x");
        ends.both();
        let begun = Instant::now();
        while limits(fixture) == 0 {
            assert!(begun.elapsed() < PATIENCE, "5 are fewer than 6");
            std::thread::yield_now();
        }
        assert_eq!(queue.attributes().expect("attributes").limit, 0, "once");
        ends.post_inline(ends.a, 1, SendOperation::Send, b"x");
        ends.both();
        assert_eq!(limits(fixture), 0);
        // Taken back before it is reached.
        queue.arm_limit(4).expect("arms");
        queue.arm_limit(0).expect("disarms");
        ends.post_inline(ends.a, 1, SendOperation::Send, b"x");
        ends.both();
        assert_eq!(limits(fixture), 0);
        let error = queue.arm_limit(queue.receives() + 1).expect_err("more than fit");
        assert!(error.detail().is_some_and(|detail| detail.contains("fit")), "{error}");
        drop(queue);
    });
}

#[test]
fn a_message_finds_no_receive_and_then_one() {
    with_device(|fixture| {
        let mut ends = sharing(fixture, 4);
        ends.post_inline(ends.a, 1, SendOperation::Send, b"nobody");
        assert_eq!(status(ends.one().result), CompletionStatus::ReceiverNotReady);
    });
}

#[test]
fn a_queue_that_cannot_be_is_an_error() {
    with_device(|fixture| {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        for (receives, segments) in [(u32::MAX, 1), (1 << 24, 1), (4, u32::MAX), (4, 1000), (0, 1)] {
            let error = SharedReceiveQueue::create(&domain, receives, segments).expect_err("impossible");
            assert!(error.detail().is_some_and(|detail| detail.contains(&receives.to_string())), "{error}");
        }
        // Nor can there be more receives than completions.
        let completions = CompletionQueue::create(&fixture.context, 16).expect("a queue");
        let error = OwningQueue::<Memory>::with_shared_receives(completions, &domain, 4000, 1).map(drop);
        assert_eq!(error.expect_err("too many").errno(), Some(libc::ENOMEM));
    });
}

#[test]
fn a_queue_pair_of_another_or_no_shared_queue_is_not_taken_in() {
    with_device(|fixture| {
        let mut ends = sharing(fixture, 4);
        let other = SharedReceiveQueue::create(&ends.domain, 4, 1).expect("a shared queue");
        let pair = build(&ends.domain, ends.queue.completions(), Some(&other), &ends.settings);
        assert_eq!(ends.queue.add(pair).expect_err("another's").errno(), Some(libc::EINVAL));
        // One with receives of its own is welcome.
        let pair = build(&ends.domain, ends.queue.completions(), None, &ends.settings);
        let key = ends.queue.add(pair).expect("its own");
        assert!(ends.queue.queue_pair(key).expect("there").shared_receives().is_none());
        let mut plain = Ends::reliable(fixture);
        let shared = SharedReceiveQueue::create(&plain.domain, 4, 1).expect("a shared queue");
        let pair = build(&plain.domain, plain.queue.completions(), Some(&shared), &plain.settings);
        assert_eq!(plain.queue.add(pair).expect_err("a shared queue").errno(), Some(libc::EINVAL));
    });
}

#[test]
fn a_receive_whose_queue_pair_was_taken_out_still_comes_back() {
    with_device(|fixture| {
        let mut ends = sharing(fixture, 4);
        share(&mut ends, 7, 8);
        ends.post_inline(ends.a, 1, SendOperation::Send, b"late");
        // It completes, but nobody polls before its queue pair is taken out.
        let begun = Instant::now();
        let mut done = Vec::new();
        let detached = ends.queue.detach(ends.b).expect("it is there");
        while done.len() < 2 {
            assert!(begun.elapsed() < PATIENCE, "{done:?}");
            ends.queue.poll(&mut done).expect("polls");
        }
        assert!(detached.destroy().is_empty());
        let receive = done.iter().find(|done| done.is_receive).expect("the receive");
        assert_eq!((receive.token, receive.queue_pair, receive.result), (7, QueuePairKey::NONE, Ok(4)));
        // And its place is free again.
        for token in 0..4 {
            share(&mut ends, token, 8);
        }
    });
}

#[test]
fn what_nobody_can_take_any_more_comes_back_from_a_queue_that_is_made_anew() {
    with_device(|fixture| {
        let mut ends = sharing(fixture, 16);
        for token in 0..8 {
            share(&mut ends, token, 8);
        }
        ends.post_inline(ends.a, 1, SendOperation::Send, b"x");
        ends.both();
        ends.post_inline(ends.a, 1, SendOperation::Send, b"y");
        std::thread::sleep(std::time::Duration::from_millis(100));
        let mut done = Vec::new();
        let error = ends.queue.renew_shared_receives(&mut done).expect_err("two queue pairs take from it");
        assert_eq!(error.errno(), Some(libc::EBUSY));
        let detached = [ends.a, ends.b].map(|key| ends.queue.detach(key).expect("it is there"));
        let error = ends.queue.renew_shared_receives(&mut done).expect_err("they still may");
        assert_eq!(error.errno(), Some(libc::EBUSY));
        assert!(done.is_empty());
        for detached in detached {
            detached.destroy();
        }
        let before = ends.queue.shared_receives().expect("a queue").key();
        ends.queue.renew_shared_receives(&mut done).expect("nobody takes from it");
        assert_ne!(ends.queue.shared_receives().expect("a queue").key(), before);
        let tokens: Vec<_> = done.iter().map(|done| (done.token, done.result.is_ok())).collect();
        let expected: Vec<_> = (1..8).map(|token| (token, token == 1)).collect();
        assert_eq!(tokens, expected, "what has completed first, each once");
        assert!(
            done.iter().all(|done| done.is_receive && done.queue_pair == QueuePairKey::NONE && done.memory.is_some())
        );
        // It works as before, for others.
        let [a, b] = [(); 2].map(|()| {
            let pair = build(&ends.domain, ends.queue.completions(), ends.queue.shared_receives(), &ends.settings);
            ends.queue.add(pair).expect("fits")
        });
        connect(fixture, ends.pair(a), ends.pair(b), everything(), &ends.settings.tuning);
        for token in 0..ends.queue.receive_room() as u64 {
            share(&mut ends, token, 8);
        }
        ends.post_inline(a, 100, SendOperation::Send, b"z");
        let (_, received) = ends.both();
        assert_eq!((received.token, received.queue_pair, received.result), (0, b, Ok(1)));
        let mut plain = Ends::reliable(fixture);
        let error = plain.queue.renew_shared_receives(&mut Vec::new()).expect_err("there is none");
        assert_eq!(error.errno(), Some(libc::EINVAL));
    });
}

/// rxe drops the receive of a queue pair that fails in the middle of a message, since Linux 6.12 at the latest.
#[test]
fn a_receive_that_is_lost_with_its_queue_pair_is_written_off() {
    with_device(|fixture| {
        const LENGTH: usize = 8 << 20;
        let mut ends = sharing(fixture, 16);
        let region = ExposedRegion::allocate(&ends.domain, LENGTH, Access::LOCAL_WRITE).expect("memory");
        let part = Memory::Part(region.part(0..LENGTH).expect("inside"));
        ends.queue.post_shared_receive(0, part).expect("takes it");
        for token in 1..8 {
            share(&mut ends, token, 8);
        }
        let room = ends.queue.receive_room();
        let source = ends.filled(1, LENGTH);
        ends.post(ends.a, 1, SendOperation::Send, Memory::Buffer(source));
        let (begun, first) = (Instant::now(), pattern(1, 0, 64));
        let mut seen = vec![0; 64];
        while seen != first {
            assert!(begun.elapsed() < PATIENCE, "the message does not come");
            region.load(0, &mut seen);
        }
        ends.pair(ends.b).fail().expect("fails");
        let mut done = Vec::new();
        for key in [ends.a, ends.b] {
            done.extend(ends.queue.detach(key).expect("it is there").destroy());
        }
        // Some completes by the end of its queue pair, some comes by itself.
        while ends.queue.poll(&mut done).expect("polls") > 0 {}
        let is_lost = !done.iter().any(|done| done.is_receive);
        eprintln!("lost: {is_lost}");
        assert!(is_lost || !kernel_is_at_least(6, 12), "it completed: {done:?}");
        // Others go on.
        let [a, b] = [(); 2].map(|()| {
            let pair = build(&ends.domain, ends.queue.completions(), ends.queue.shared_receives(), &ends.settings);
            ends.queue.add(pair).expect("fits")
        });
        connect(fixture, ends.pair(a), ends.pair(b), everything(), &ends.settings.tuning);
        assert_eq!(ends.queue.write_off_receives(), 0, "nothing has overtaken it");
        for token in 1..3 {
            ends.post_inline(a, 100, SendOperation::Send, b"x");
            assert_eq!(ends.both().1.token, token);
        }
        assert_eq!(ends.queue.write_off_receives(), 0, "it may only take its time");
        assert_eq!(ends.queue.receive_room(), room + 2 + usize::from(!is_lost));
        assert_eq!(ends.queue.write_off_receives(), usize::from(is_lost));
        assert_eq!(ends.queue.write_off_receives(), 0, "once");
        assert_eq!(ends.queue.receive_room(), room + 3);
        for token in 0..ends.queue.receive_room() as u64 {
            share(&mut ends, 200 + token, 8);
        }
        for token in 3..8 {
            ends.post_inline(a, 100, SendOperation::Send, b"x");
            assert_eq!(ends.both().1.token, token);
        }
        // Its memory is there until the queue is gone.
        for key in [a, b] {
            ends.queue.detach(key).expect("it is there").destroy();
        }
        let mut done = Vec::new();
        ends.queue.renew_shared_receives(&mut done).expect("nobody takes from it");
        let mut tokens: Vec<_> = done.iter().map(|done| done.token).filter(|token| *token < 200).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, if is_lost { vec![0] } else { vec![] });
        assert!(done.iter().all(|done| done.memory.is_some()));
        // It works as before.
        let room = ends.queue.receive_room();
        for token in 0..room as u64 {
            share(&mut ends, token, 8);
        }
    });
}

#[test]
fn requests_with_a_shared_queue_can_be_refused_like_others() {
    with_device(|fixture| {
        let mut ends = sharing(fixture, 4);
        let long = vec![0; 100_000];
        let local = Local::Inline(&long[..]);
        let request = SendRequest { token: 1, operation: SendOperation::Send, local, flags: SendFlags::SIGNALED };
        let error = ends.queue.post(ends.a, request).expect_err("too long").error.expect("a reason");
        assert!(error.detail().is_some_and(|detail| detail.contains("100000 bytes inline")), "{error}");
    });
}

/// Nothing is flushed when receives are shared: the state of the queue pair tells, and an event where the kernel makes one.
#[test]
fn a_queue_pair_whose_peer_was_refused_is_in_error_and_takes_no_receive_with_it() {
    with_device(|fixture| {
        for is_read in [false, true] {
            let mut ends = sharing(fixture, 16);
            for token in 0..8 {
                share(&mut ends, token, 8);
            }
            let nowhere = Remote { address: 0x1000, key: 0x0bad_0bad };
            if is_read {
                let sink = Memory::Buffer(ends.poisoned(8));
                ends.post(ends.a, 1, SendOperation::Read(nowhere), sink);
            } else {
                ends.post_inline(ends.a, 1, SendOperation::Write(nowhere), b"evil");
            }
            let refused = ends.one();
            assert_eq!((refused.queue_pair, status(refused.result)), (ends.a, CompletionStatus::RemoteAccess));
            let (begun, number) = (Instant::now(), ends.pair(ends.b).number());
            while ends.pair(ends.b).state().expect("a state") != QueuePairState::Error {
                assert!(begun.elapsed() < PATIENCE, "it does not fail");
            }
            // Linux 6.1 has none; 6.12 the first, 7.3 the second too.
            let kinds = [AsyncEventKind::LastWorkRequestReached, AsyncEventKind::QueuePairAccessError];
            let mut is_told = !kernel_is_at_least(6, 12);
            while !is_told {
                assert!(begun.elapsed() < PATIENCE, "no event");
                let event = fixture.context.next_async_event().expect("reads");
                is_told = event.is_some_and(|event| {
                    event.object == AsyncEventObject::QueuePair(number) && kinds.contains(&event.kind)
                });
            }
            // The receives are still there, for others.
            assert_eq!(ends.queue.receive_room(), ends.queue.shared_receives().expect("some").receives() as usize - 8);
            assert_eq!(ends.queue.poll(&mut Vec::new()).expect("polls"), 0);
        }
    });
}
