//! What the device does with requests.

use super::net::{Net, SIZES, bytes, ends};
use crate::memory::RegionAccess;
use crate::transport::{Operation, Queue, Request, Source};
use crate::{Access, ErrorKind};

use super::super::settings::Settings;

fn net(seed: u64) -> Net {
    Net::new(Settings::new(seed))
}

#[test]
fn a_message_comes_into_the_receive_that_was_posted_first() {
    let mut net = net(1);
    (1..=2).for_each(|token| net.b.receive(token, 8));
    let memory = net.a.memory(b"abc");
    net.a.post(7, Operation::Send, memory);
    net.a.post_with(8, Operation::Send, Source::Inline(b"defg"), true, false);
    net.settle();
    let done = net.b.poll();
    assert!(done.iter().all(|known| known.is_receive && known.channel == net.b.channel && known.immediate.is_none()));
    assert_eq!(done.iter().map(|known| *known.result.as_ref().expect("received")).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(
        done.into_iter().map(bytes).collect::<Vec<_>>(),
        [*b"abc\xee\xee\xee\xee\xee", *b"defg\xee\xee\xee\xee"]
    );
    assert_eq!(ends(&net.a.poll()), [(7, "done"), (8, "done")]);
}

#[test]
fn requests_complete_in_order_and_unsignaled_ones_with_the_next() {
    for seed in 0..50 {
        let mut net = net(seed);
        (0..16).for_each(|token| net.b.receive(token, 8));
        for token in 0..3 {
            net.a.post_with(token, Operation::Send, Source::Inline(b"x"), false, false);
        }
        net.settle();
        assert!(net.a.poll().is_empty() && net.a.queue.room(net.a.channel) == SIZES.sends as usize - 3);
        net.a.post_with(3, Operation::Probe, Source::Inline(&[]), true, false);
        net.settle();
        assert_eq!(ends(&net.a.poll()), [(0, "done"), (1, "done"), (2, "done"), (3, "done")]);
        // What fills the queue completes.
        for token in 0..16 {
            net.a.post_with(token, Operation::Probe, Source::Inline(&[]), false, false);
        }
        let request = Request {
            token: 99,
            operation: Operation::Probe,
            source: Source::Inline(&[]),
            signaled: true,
            fence: false,
        };
        let refused = net.a.queue.stage(net.a.channel, request).expect_err("it is full");
        assert!(refused.error.is_none() && net.a.queue.room(net.a.channel) == 0);
        net.settle();
        assert_eq!(net.a.poll().len(), 16);
    }
}

#[test]
fn key_bounds_and_right_are_checked_and_a_refusal_breaks_both_ends() {
    let read = |address, key| Operation::Read { address, key };
    let write = |address, key| Operation::Write { address, key };
    let add = |address, key| Operation::FetchAdd { address, key, add: 1 };
    for (access, offset, length, key, operation, is_allowed) in [
        (Access::READ, 0, 8, 0, &read as &dyn Fn(u64, u32) -> Operation, true),
        (Access::READ, 56, 8, 0, &read, true),
        (Access::READ, 57, 8, 0, &read, false),
        (Access::READ, 0, 8, 1, &read, false),
        (Access::READ, 0, 8, 0, &write, false),
        (Access::READ_WRITE, 0, 8, 0, &add, false),
        (Access::WRITE, 0, 64, 0, &write, true),
        (Access::WRITE, 0, 8, 0, &read, false),
        (Access::WRITE, 64, 8, 0, &write, false),
        (Access::ALL, 8, 8, 0, &add, true),
        (Access::ALL, 4, 8, 0, &add, false),
    ] {
        for seed in 0..4 {
            let mut net = net(seed);
            let exposed = net.b.exposed(&[5; 64], access);
            let operation = operation(exposed.address() + offset, exposed.key() + key * 1000);
            let case = format!("{operation:?} of {length} bytes at {offset} with {access}");
            let memory = net.a.memory(&vec![9; length]);
            net.a.post(1, operation, memory);
            net.a.post_with(2, Operation::Probe, Source::Inline(&[]), true, false);
            net.settle();
            let done = net.a.poll();
            let after = exposed.bytes(64);
            if is_allowed {
                assert_eq!(ends(&done), [(1, "done"), (2, "done")], "{case}");
                continue;
            }
            let misaligned = offset % 8 != 0 && matches!(operation, Operation::FetchAdd { .. });
            let how = if misaligned { "broken" } else { "remote access" };
            assert_eq!(ends(&done), [(1, how), (2, "flushed")], "{case}");
            assert_eq!(after, [5; 64], "{case}: nothing is done of what is refused");
            // The other end has nothing outstanding that could tell it; looking does, once.
            assert!(net.b.poll().is_empty());
            net.b.queue.tend(std::time::Instant::now());
            let found = net.b.poll();
            assert!(found.len() == 1 && found[0].is_receive && found[0].memory.is_none(), "{case}");
            assert_eq!(found[0].channel, net.b.channel);
            net.b.queue.tend(std::time::Instant::now());
            assert!(net.b.poll().is_empty(), "told once");
        }
    }
}

#[test]
fn reads_writes_and_atomics_do_what_they_say() {
    let mut net = net(3);
    let exposed = net.b.exposed(&[0; 32], Access::ALL);
    let (address, key) = (exposed.address(), exposed.key());
    let memory = net.a.memory(&[1, 2, 3]);
    net.a.post(0, Operation::Write { address: address + 8, key }, memory);
    let memory = net.a.memory(&[0xee; 4]);
    net.a.post_with(1, Operation::Read { address: address + 8, key }, Source::Owned(memory), true, false);
    let memory = net.a.memory(&[0xee; 8]);
    net.a.post(2, Operation::FetchAdd { address: address + 16, key, add: 5 }, memory);
    for (token, compare) in [(3, 5), (4, 5)] {
        let memory = net.a.memory(&[0xee; 8]);
        net.a.post(token, Operation::CompareSwap { address: address + 16, key, compare, swap: 7 }, memory);
    }
    net.settle();
    let done: Vec<_> = net.a.poll().into_iter().map(bytes).collect();
    let word = |value: u64| value.to_ne_bytes().to_vec();
    assert_eq!(done, [vec![1, 2, 3], vec![1, 2, 3, 0], word(0), word(5), word(7)]);
    assert_eq!(exposed.bytes(32)[16..24], word(7));
}

#[test]
fn a_notice_takes_a_receive_and_leaves_its_memory_alone() {
    let mut net = net(4);
    let exposed = net.b.exposed(&[0; 8], Access::WRITE);
    net.b.receive(5, 8);
    let memory = net.a.memory(b"abc");
    net.a.post(1, Operation::WriteNotify { address: exposed.address(), key: exposed.key(), value: 77 }, memory);
    net.settle();
    let mut done = net.b.poll();
    assert_eq!(done.len(), 1);
    let completion = done.remove(0);
    assert_eq!((completion.token, completion.immediate, completion.result.as_ref().ok()), (5, Some(77), Some(&3)));
    assert_eq!((bytes(completion), exposed.bytes(3)), (vec![0xee; 8], b"abc".to_vec()));
    // Without a receive nothing is written.
    let memory = net.a.memory(b"xyz");
    net.a.post(2, Operation::WriteNotify { address: exposed.address(), key: exposed.key(), value: 78 }, memory);
    net.settle();
    assert_eq!((ends(&net.a.poll()), exposed.bytes(3)), (vec![(1, "done"), (2, "protocol")], b"abc".to_vec()));
}

#[test]
fn a_write_may_overtake_a_read_unless_it_is_fenced() {
    let overtakes = |fence| {
        (0..200).any(|seed| {
            let mut net = net(seed);
            let exposed = net.b.exposed(&[0], Access::READ_WRITE);
            let (address, key) = (exposed.address(), exposed.key());
            let memory = net.a.memory(&[0xee]);
            net.a.post(0, Operation::Read { address, key }, memory);
            net.a.post_with(1, Operation::Write { address, key }, Source::Inline(&[1]), true, fence);
            net.settle();
            let mut done = net.a.poll();
            assert_eq!(ends(&done), [(0, "done"), (1, "done")]);
            bytes(done.remove(0)) == [1]
        })
    };
    assert!(overtakes(false) && !overtakes(true));
}

#[test]
fn a_window_opens_for_its_channel_alone_until_it_is_invalidated() {
    for case in ["its own", "not yet", "another channel", "another right", "invalidated"] {
        let mut net = net(5);
        let exposed = net.b.registered(&[5; 16], RegionAccess::Windows { write: true });
        let (window, key) = net.b.bind(1, &exposed, Access::READ);
        if case != "not yet" {
            net.settle();
            assert_eq!(ends(&net.b.poll()), [(1, "done")]);
        }
        if case == "invalidated" {
            net.b.queue.invalidate(net.b.channel, 2, window).expect("room");
            net.settle();
            assert_eq!(ends(&net.b.poll()), [(2, "done")]);
        }
        if case == "another channel" {
            let (theirs, mine) = (net.b.queue.create(SIZES).expect("room"), net.a.queue.create(SIZES).expect("room"));
            net.connect(mine.1, theirs.1);
            net.a.channel = mine.0;
        }
        let address = exposed.address();
        let operation = match case {
            "another right" => Operation::Write { address, key },
            _ => Operation::Read { address, key },
        };
        let memory = net.a.memory(&[0xee; 16]);
        net.a.post(1, operation, memory);
        net.settle();
        let how = match case {
            // The bind is carried out long before a request arrives.
            "its own" | "not yet" => "done",
            _ => "remote access",
        };
        assert_eq!(ends(&net.a.poll()), [(1, how)], "{case}");
        assert_eq!(net.bugs(), [""; 0], "{case}");
    }
}

#[test]
fn a_message_without_a_receive_is_tried_again_and_counted() {
    let mut net = net(6);
    net.a.post_with(1, Operation::Send, Source::Inline(b"x"), true, false);
    net.executor.world().with(|state| (0..4).for_each(|_| state.happen()));
    net.b.receive(1, 8);
    net.settle();
    assert_eq!((ends(&net.a.poll()), ends(&net.b.poll())), (vec![(1, "done")], vec![(1, "done")]));
    let before = net.executor.statistics().rnr;
    assert!(before > 0 && before < 7);
    net.a.post_with(2, Operation::Send, Source::Inline(b"x"), true, false);
    net.settle();
    assert_eq!(ends(&net.a.poll()), [(2, "protocol")]);
    assert_eq!(net.executor.statistics().rnr, before + 7);
}

#[test]
fn a_message_that_is_too_long_breaks_both_ends() {
    let mut net = net(7);
    net.b.receive(1, 2);
    net.a.post_with(1, Operation::Send, Source::Inline(b"abc"), true, false);
    net.settle();
    assert_eq!((ends(&net.a.poll()), ends(&net.b.poll())), (vec![(1, "broken")], vec![(1, "protocol")]));
}

#[test]
fn what_is_closed_gives_back_what_it_had_and_its_number_is_used_again() {
    let mut net = net(8);
    net.b.receive(1, 8);
    for token in 0..3 {
        let memory = net.a.memory(b"abc");
        net.a.post(token, Operation::Send, memory);
    }
    let end = net.a.queue.close(net.a.channel).expect("it is there");
    let (again, _) = net.a.queue.create(SIZES).expect("room");
    assert_eq!(again, net.a.channel);
    let back = end();
    assert_eq!(ends(&back), [(0, "flushed"), (1, "flushed"), (2, "flushed")]);
    assert!(back.iter().all(|completion| completion.memory.is_some()));
    net.settle();
    assert!(net.a.poll().is_empty(), "of what is closed nothing more is told");
    // A message that came before its channel was closed.
    let mut net = self::net(9);
    net.b.receive(1, 8);
    net.a.post_with(1, Operation::Send, Source::Inline(b"x"), true, false);
    net.settle();
    drop(net.b.queue.close(net.b.channel));
    let done = net.b.poll();
    assert_eq!((ends(&done), done[0].channel.0), (vec![(1, "done")], u32::MAX));
}

#[test]
fn a_peer_that_is_gone_is_noticed_after_a_second() {
    let mut net = net(10);
    drop(net.b.queue.close(net.b.channel));
    net.a.post_with(1, Operation::Probe, Source::Inline(&[]), true, false);
    net.settle();
    let seconds = net.executor.time() as f64 / 1e9;
    assert_eq!(ends(&net.a.poll()), [(1, "unreachable")]);
    assert!((0.5..2.0).contains(&seconds), "{seconds}");
}

#[test]
fn a_request_that_is_too_much_for_a_channel_is_refused_with_its_memory() {
    let mut net = net(11);
    let inline = Request {
        token: 1,
        operation: Operation::Send,
        source: Source::Inline(&[0; 65]),
        signaled: true,
        fence: false,
    };
    let refused = net.a.queue.stage(net.a.channel, inline).expect_err("64 fit");
    assert_eq!(refused.error.expect("not for want of room").kind(), ErrorKind::Other);
    drop(net.a.queue.close(net.a.channel));
    let memory = net.a.memory(b"abc");
    let source = Source::Owned(memory);
    let gone = Request { token: 1, operation: Operation::Send, source, signaled: true, fence: false };
    let refused = net.a.queue.stage(net.a.channel, gone).expect_err("it is closed");
    assert!(refused.memory.is_some() && refused.error.is_some());
}
