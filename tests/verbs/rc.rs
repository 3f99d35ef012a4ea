//! Reliable connections, in good flow.

use zcmi::verbs::{
    Access, CompletionStatus, ExposedRegion, Local, Pieces, QueuePairCapabilities, QueuePairState, Remote, SendFlags,
    SendList, SendOperation, SendRequest,
};

use crate::common::pattern;
use crate::pair::{Ends, Memory, POISON, RawEnds, Seen, Settings, everything, segment, status, wait_raw};
use crate::support::with_device;

#[test]
fn messages_of_every_size_arrive_whole() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        for (seed, length) in [0, 1, 7, 8, 255, 1023, 1024, 1025, 4096, 65_536, 1 << 20].into_iter().enumerate() {
            let (source, sink) = (ends.filled(seed as u64, length), ends.poisoned(length + 64));
            ends.receive(ends.b, 1, sink);
            ends.post(ends.a, 2, SendOperation::Send, Memory::Buffer(source));
            let (sent, received) = ends.both();
            assert_eq!((sent.token, sent.queue_pair, sent.result), (2, ends.a, Ok(0)));
            assert_eq!((received.token, received.queue_pair, received.result), (1, ends.b, Ok(length as u32)));
            assert_eq!(received.arrival.immediate, None);
            let sink = received.memory.expect("its buffer").buffer();
            assert!(sink[..length] == pattern(seed as u64, 0, length), "{length} bytes");
            assert!(sink[length..].iter().all(|&byte| byte == POISON), "nothing behind {length} bytes");
            assert!(sent.memory.expect("its buffer").buffer()[..length] == pattern(seed as u64, 0, length));
        }
    });
}

#[test]
fn an_immediate_is_the_same_number_at_both_ends() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        for immediate in [0, 1, 0x0102_0304, u32::MAX] {
            let (source, sink) = (ends.filled(1, 100), ends.poisoned(100));
            ends.receive(ends.b, 1, sink);
            ends.post(ends.a, 2, SendOperation::SendWithImmediate(immediate), Memory::Buffer(source));
            let (sent, received) = ends.both();
            assert_eq!((sent.result, received.result), (Ok(0), Ok(100)));
            assert_eq!((sent.arrival.immediate, received.arrival.immediate), (None, Some(immediate)));
        }
    });
}

#[test]
fn inline_data_up_to_the_capability_arrives_and_needs_no_memory() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let most = ends.pair(ends.a).capabilities().inline as usize;
        assert!(most >= 64, "asked for 64, given {most}");
        for length in [0, 1, 63, most] {
            let sink = ends.poisoned(most);
            ends.receive(ends.b, 1, sink);
            ends.post_inline(ends.a, 2, SendOperation::Send, &pattern(3, 0, length));
            let (sent, received) = ends.both();
            assert_eq!((sent.result, received.result), (Ok(0), Ok(length as u32)));
            assert!(sent.memory.is_none());
            let sink = received.memory.expect("its buffer").buffer();
            assert!(sink[..length] == pattern(3, 0, length) && sink[length..].iter().all(|&byte| byte == POISON));
        }
    });
}

#[test]
fn a_write_changes_what_it_names_and_nothing_else() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let target = ExposedRegion::allocate(&ends.domain, 8192, Access::REMOTE_WRITE).expect("memory");
        for (seed, (offset, length)) in [(0, 0), (3, 1), (1000, 3001), (0, 8192)].into_iter().enumerate() {
            target.store(0, &[POISON; 8192]);
            let remote = Remote { address: target.remote().address + offset as u64, ..target.remote() };
            let source = ends.filled(seed as u64, length);
            ends.post(ends.a, 1, SendOperation::Write(remote), Memory::Buffer(source));
            assert_eq!(ends.one().result, Ok(0));
            let mut seen = vec![0; 8192];
            target.load(0, &mut seen);
            let mut expected = vec![POISON; 8192];
            expected[offset..offset + length].copy_from_slice(&pattern(seed as u64, 0, length));
            assert!(seen == expected, "{length} bytes at {offset}");
        }
        // Inline too.
        ends.post_inline(ends.a, 1, SendOperation::Write(target.remote()), b"inline");
        assert_eq!(ends.one().result, Ok(0));
        let mut seen = [0; 6];
        target.load(0, &mut seen);
        assert_eq!(&seen, b"inline");
    });
}

#[test]
fn a_read_brings_what_it_names_and_nothing_else() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let source = ExposedRegion::allocate(&ends.domain, 8192, Access::REMOTE_READ).expect("memory");
        let bytes = pattern(7, 0, 8192);
        source.store(0, &bytes);
        for (offset, length) in [(0, 0), (3, 1), (1000, 3001), (0, 8192)] {
            let mut sink = ends.poisoned(8192);
            sink.set_used(0..length);
            let remote = Remote { address: source.remote().address + offset as u64, ..source.remote() };
            ends.post(ends.a, 1, SendOperation::Read(remote), Memory::Buffer(sink));
            let read = ends.one();
            assert_eq!(read.result, Ok(0), "only receives tell a length");
            let sink = read.memory.expect("its buffer").buffer();
            assert!(sink[..length] == bytes[offset..offset + length], "{length} bytes at {offset}");
            assert!(sink[length..].iter().all(|&byte| byte == POISON));
        }
    });
}

#[test]
fn a_write_with_immediate_completes_a_receive_without_touching_its_memory() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let target = ExposedRegion::allocate(&ends.domain, 4096, Access::REMOTE_WRITE).expect("memory");
        for length in [0, 4096] {
            let (source, sink) = (ends.filled(5, length), ends.poisoned(4096));
            ends.receive(ends.b, 1, sink);
            let operation = SendOperation::WriteWithImmediate(target.remote(), 0xfeed_f00d);
            ends.post(ends.a, 2, operation, Memory::Buffer(source));
            let (sent, received) = ends.both();
            assert_eq!((sent.result, received.result), (Ok(0), Ok(length as u32)));
            assert_eq!(received.arrival.immediate, Some(0xfeed_f00d));
            let mut seen = vec![0; length];
            target.load(0, &mut seen);
            assert!(seen == pattern(5, 0, length));
            let sink = received.memory.expect("its buffer").buffer();
            assert!(sink.iter().all(|&byte| byte == POISON), "the receive's own memory is not used");
        }
    });
}

/// So it can ask whether the peer's device answers.
#[test]
fn a_write_of_nothing_needs_no_key_and_no_memory() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        for remote in [Remote::default(), Remote { address: 0x1000, key: 0x0bad_0bad }] {
            ends.post_inline(ends.a, 1, SendOperation::Write(remote), b"");
            let done = ends.one();
            assert_eq!((done.token, done.result), (1, Ok(0)));
        }
        ends.still_works();
        // Where nobody answers, it says so.
        ends.pair(ends.b).fail().expect("fails");
        ends.post_inline(ends.a, 1, SendOperation::Write(Remote::default()), b"");
        assert_eq!(status(ends.one().result), CompletionStatus::RetryExceeded);
    });
}

#[test]
fn two_to_the_most_segments_are_gathered_and_scattered_in_order() {
    with_device(|fixture| {
        let most = fixture.context.attributes().expect("attributes").max_segments;
        let sizes = QueuePairCapabilities { inline: 0, receives: 4, segments: most, sends: 4 };
        let mut ends = Ends::new(fixture, Settings { sizes, ..Settings::default() });
        let target = ExposedRegion::allocate(&ends.domain, 1 << 16, everything()).expect("memory");
        for count in [2, 3, most as usize] {
            // Pieces of different lengths, cut differently at the two ends.
            let gather = |ends: &Ends| {
                let pieces = (0..count).map(|index| ends.filled(index as u64, 10 + 7 * index));
                Memory::Pieces(Pieces::new(pieces.collect()))
            };
            let whole: Vec<u8> = (0..count).flat_map(|index| pattern(index as u64, 0, 10 + 7 * index)).collect();
            let scatter = |ends: &Ends| {
                let share = whole.len().div_ceil(count);
                Memory::Pieces(Pieces::new((0..count).map(|_| ends.poisoned(share)).collect()))
            };
            let together = |memory: Memory| memory.pieces().iter().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>();
            // A message.
            let (source, sink) = (gather(&ends), scatter(&ends));
            ends.queue.post_receive(ends.b, 1, sink).expect("takes it");
            ends.post(ends.a, 2, SendOperation::Send, source);
            let (sent, received) = ends.both();
            assert_eq!((sent.result, received.result), (Ok(0), Ok(whole.len() as u32)));
            let seen = together(received.memory.expect("its pieces"));
            assert!(seen[..whole.len()] == whole && seen[whole.len()..].iter().all(|&byte| byte == POISON));
            assert_eq!(sent.memory.expect("its pieces").pieces().len(), count);
            // A write, and a read of what was written.
            let source = gather(&ends);
            ends.post(ends.a, 3, SendOperation::Write(target.remote()), source);
            assert_eq!(ends.one().result, Ok(0));
            let Memory::Pieces(pieces) = scatter(&ends) else { unreachable!() };
            let mut pieces = pieces.into_inner();
            let surplus = pieces.iter().map(|piece| piece.len()).sum::<usize>() - whole.len();
            let last = pieces.last_mut().expect("some");
            last.set_used(0..last.len() - surplus);
            ends.post(ends.a, 4, SendOperation::Read(target.remote()), Memory::Pieces(Pieces::new(pieces)));
            let read = ends.one();
            assert_eq!(read.result, Ok(0));
            assert!(together(read.memory.expect("its pieces"))[..whole.len()] == whole, "{count} pieces");
        }
    });
}

#[test]
fn a_fenced_request_waits_for_the_read_before_it() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let far = ExposedRegion::allocate(&ends.domain, 1 << 18, everything()).expect("memory");
        let here = ExposedRegion::allocate(&ends.domain, 1 << 18, Access::LOCAL_WRITE).expect("memory");
        let bytes = pattern(9, 0, 1 << 17);
        for _ in 0..10 {
            far.store(0, &bytes);
            far.store(1 << 17, &[POISON; 1 << 17]);
            here.store(0, &[POISON; 1 << 17]);
            // The read brings the bytes here, the fenced write takes them from here to the far end's other half. Without the
            // fence the write may take what was here before.
            let part = |ends: &mut Ends| {
                let _ = ends;
                Local::Owned(Memory::Part(here.part(0..1 << 17).expect("inside")))
            };
            let back = Remote { address: far.remote().address + (1 << 17), ..far.remote() };
            let requests = [
                (SendOperation::Read(far.remote()), SendFlags::NONE),
                (SendOperation::Write(back), SendFlags::FENCE | SendFlags::SIGNALED),
            ];
            for (token, (operation, flags)) in requests.into_iter().enumerate() {
                let local = part(&mut ends);
                let request = SendRequest { token: token as u64, operation, local, flags };
                ends.queue.stage(ends.a, request).expect("takes it");
            }
            ends.queue.flush().expect("posts");
            let done = ends.wait(2);
            assert!(done.iter().all(|completed| completed.result == Ok(0)), "{done:?}");
            let mut seen = vec![0; 1 << 17];
            far.load(1 << 17, &mut seen);
            assert!(seen == bytes, "the write carried what the read had brought");
        }
    });
}

#[test]
fn a_batch_is_posted_in_one_call_and_completes_in_order() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        for token in 0..16 {
            let sink = ends.poisoned(64);
            ends.receive(ends.b, token, sink);
        }
        let sources: Vec<_> = (0..16).map(|seed| ends.filled(seed, 64)).collect();
        let mut batch = ends.queue.batch(ends.a);
        for (token, source) in sources.into_iter().enumerate() {
            // Inline and owned by turns.
            let bytes = pattern(token as u64, 0, 64);
            let local = if token % 2 == 0 { Local::Inline(&bytes[..]) } else { Local::Owned(Memory::Buffer(source)) };
            let operation = SendOperation::SendWithImmediate(token as u32);
            batch
                .push(SendRequest { token: token as u64, operation, local, flags: SendFlags::SIGNALED })
                .expect("fits");
        }
        batch.post().expect("posts");
        let done = ends.wait(32);
        for is_receive in [false, true] {
            let tokens: Vec<_> =
                done.iter().filter(|done| done.is_receive == is_receive).map(|done| done.token).collect();
            assert_eq!(tokens, (0..16).collect::<Vec<_>>());
        }
        for completed in done {
            let (token, is_receive) = (completed.token, completed.is_receive);
            assert_eq!(completed.memory.is_some(), is_receive || token % 2 == 1);
            if is_receive {
                assert_eq!(completed.arrival.immediate, Some(token as u32));
                assert!(completed.memory.expect("its buffer").buffer()[..] == pattern(token, 0, 64));
            }
        }
    });
}

#[test]
fn a_batch_that_is_dropped_or_forgotten_is_posted_all_the_same() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        for token in 0..3 {
            let sink = ends.poisoned(8);
            ends.receive(ends.b, token, sink);
        }
        let request = |token| {
            let local = Local::Inline(&b"x"[..]);
            SendRequest { token, operation: SendOperation::Send, local, flags: SendFlags::SIGNALED }
        };
        let mut batch = ends.queue.batch(ends.a);
        batch.push(request(10)).expect("fits");
        drop(batch);
        assert_eq!(ends.wait(2).len(), 2);
        let mut batch = ends.queue.batch(ends.a);
        batch.push(request(11)).expect("fits");
        // It stays staged, and owned, until the queue is next used for posting.
        std::mem::forget(batch);
        assert_eq!(ends.queue.outstanding(ends.a), 0);
        ends.queue.post(ends.a, request(12)).expect("takes it");
        let mut tokens: Vec<_> = ends.wait(4).iter().map(|completed| completed.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [1, 2, 11, 12]);
    });
}

#[test]
fn staging_for_another_queue_pair_posts_what_was_staged_before() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        for key in [ends.a, ends.b] {
            let sink = ends.poisoned(8);
            ends.receive(key, 1, sink);
        }
        for key in [ends.a, ends.b] {
            let local = Local::Inline(&b"x"[..]);
            let request = SendRequest { token: 2, operation: SendOperation::Send, local, flags: SendFlags::SIGNALED };
            ends.queue.stage(key, request).expect("takes it");
        }
        assert_eq!((ends.queue.room(ends.a), ends.queue.room(ends.b)), {
            let sends = ends.pair(ends.a).capabilities().sends as usize;
            (sends - 1, sends - 1)
        });
        ends.queue.flush().expect("posts");
        assert_eq!(ends.wait(4).iter().filter(|completed| completed.result.is_ok()).count(), 4);
    });
}

#[test]
fn unsignaled_requests_are_reported_with_the_next_signaled_one() {
    with_device(|fixture| {
        let mut ends = Ends::reliable(fixture);
        let target = ExposedRegion::allocate(&ends.domain, 4096, Access::REMOTE_WRITE).expect("memory");
        for token in 0..5 {
            let source = ends.filled(token, 64);
            let flags = if token == 4 { SendFlags::SIGNALED } else { SendFlags::NONE };
            let remote = Remote { address: target.remote().address + token * 64, ..target.remote() };
            let local = Local::Owned(Memory::Buffer(source));
            ends.queue
                .post(ends.a, SendRequest { token, operation: SendOperation::Write(remote), local, flags })
                .expect("takes it");
        }
        let done = ends.wait(5);
        assert_eq!(done.iter().map(|completed| completed.token).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        for completed in done {
            assert_eq!(completed.result, Ok(0));
            assert_eq!(&completed.memory.expect("its buffer").buffer()[..], pattern(completed.token, 0, 64));
        }
    });
}

#[test]
fn the_unsafe_tier_posts_lists_both_ways() {
    with_device(|fixture| {
        let ends = RawEnds::new(fixture, &Settings::default(), 256);
        let memory = zcmi::verbs::RegisteredBuffer::allocate_many(&ends.domain, 6, 64).expect("memory");
        let [s0, s1, s2, r0, r1, r2] = &memory[..] else { unreachable!() };
        let [s0, s1, s2, r0, r1, r2] = [s0, s1, s2, r0, r1, r2].map(segment);
        let half = |segment: zcmi::verbs::Segment| zcmi::verbs::Segment { length: 32, ..segment };
        let receives: [(u64, &[_]); 3] = [(10, &[half(r0), half(r1)]), (11, &[r1]), (12, &[r2])];
        // SAFETY: the buffers live, untouched, until all completions have been polled below.
        unsafe { ends.b.post_receives(&receives) }.expect("posts three");
        let mut list = SendList::new();
        list.push(1, SendOperation::Send, &[half(s0), half(s1)], SendFlags::NONE);
        list.push(2, SendOperation::SendWithImmediate(7), &[s1], SendFlags::NONE);
        list.push(3, SendOperation::Send, &[s2], SendFlags::SIGNALED);
        // SAFETY: as above; the operations are of this type of queue pair.
        unsafe { ends.a.post_send_list(&mut list) }.expect("posts three");
        assert!(list.is_empty(), "what was posted is taken off");
        let mut seen = wait_raw(&ends.completions, 4);
        seen.sort_by_key(|seen| seen.wr_id);
        let ids: Vec<_> = seen.iter().map(|seen| seen.wr_id).collect();
        assert_eq!(ids, [3, 10, 11, 12]);
        assert_eq!(seen[0].queue_pair, ends.a.number());
        assert!(seen[1..].iter().all(|seen| seen.queue_pair == ends.b.number() && seen.byte_length == 64));
        assert_eq!(seen[2].arrival.immediate, Some(7));
        assert!(seen.iter().all(|Seen { status, .. }| *status == zcmi::verbs::CompletionStatus::Success));
        // Nothing is an empty list.
        // SAFETY: there is no request.
        unsafe { ends.a.post_send_list(&mut list) }.expect("nothing");
        // SAFETY: as above.
        unsafe { ends.b.post_receives(&[]) }.expect("nothing");
    });
}

#[test]
fn a_queue_pair_that_signals_all_completes_what_is_not_flagged() {
    with_device(|fixture| {
        let domain = zcmi::verbs::ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = zcmi::verbs::CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let receives = zcmi::verbs::CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let build = || {
            let builder = zcmi::verbs::QueuePair::builder(&domain, &completions);
            builder.receive_completions(&receives).signal_all().create().expect("a queue pair")
        };
        let (a, b) = (build(), build());
        crate::pair::connect(fixture, &a, &b, everything(), &zcmi::verbs::Tuning::default());
        // SAFETY: nothing is named.
        unsafe { b.post_receive(1, &[]) }.expect("posts");
        // SAFETY: as above.
        unsafe { a.post_send(2, SendOperation::Send, &[], SendFlags::NONE) }.expect("posts");
        let (sent, received) = (wait_raw(&completions, 1)[0], wait_raw(&receives, 1)[0]);
        assert_eq!((sent.wr_id, received.wr_id), (2, 1), "each in its own queue");
        assert_eq!(a.state().expect("a state"), QueuePairState::ReadyToSend);
    });
}
