//! Datagrams.

use std::sync::Arc;

use zcmi::verbs::{
    AddressHandle, AddressVector, CompletionBatch, Destination, Gid, Local, ProtectionDomain, QueuePairKey,
    QueuePairKind, ROUTE_HEADER, SendFlags, SendOperation, SendRequest,
};

use crate::common::pattern;
use crate::pair::{Ends, Memory, PATIENCE, POISON, QUEUE_KEY, Settings, gid_index, segment};
use crate::support::{Fixture, with_device};

fn ends(fixture: &Fixture) -> Ends {
    Ends::new(fixture, Settings { kind: QueuePairKind::Ud, ..Settings::default() })
}

/// The way to ourselves.
fn loopback(fixture: &Fixture, domain: &Arc<ProtectionDomain>) -> Arc<AddressHandle> {
    let index = gid_index(fixture);
    let vector = AddressVector::to(1, index, fixture.context.gid(1, index).expect("a GID"));
    AddressHandle::create(domain, &vector).expect("an address handle")
}

fn to<'a>(ends: &Ends, address: &'a Arc<AddressHandle>, key: QueuePairKey) -> Destination<'a> {
    Destination { address, queue_pair: ends.pair(key).number(), queue_key: QUEUE_KEY }
}

/// Shows that a datagram arrives, and so that none before it is still to come.
fn still_works(ends: &mut Ends, address: &Arc<AddressHandle>) {
    let destination = to(ends, address, ends.b);
    ends.post_inline(ends.a, 9, SendOperation::DatagramWithImmediate(destination, 4711), b"still here");
    let (sent, received) = ends.both();
    assert_eq!((sent.token, sent.result), (9, Ok(0)));
    assert_eq!((received.result, received.arrival.immediate), (Ok(ROUTE_HEADER as u32 + 10), Some(4711)));
}

#[test]
fn a_datagram_arrives_behind_its_header_and_names_its_sender() {
    with_device(|fixture| {
        let mut ends = ends(fixture);
        let address = loopback(fixture, &ends.domain);
        let mtu = fixture.context.port(1).expect("a port").active_mtu.bytes().expect("a known MTU") as usize;
        for (seed, length) in [0, 1, 100, mtu].into_iter().enumerate() {
            for immediate in [None, Some(0x0102_0304)] {
                let (source, sink) = (ends.filled(seed as u64, length), ends.poisoned(ROUTE_HEADER + mtu + 8));
                ends.receive(ends.b, 1, sink);
                let destination = to(&ends, &address, ends.b);
                let operation = match immediate {
                    None => SendOperation::Datagram(destination),
                    Some(immediate) => SendOperation::DatagramWithImmediate(destination, immediate),
                };
                ends.post(ends.a, 2, operation, Memory::Buffer(source));
                let (sent, received) = ends.both();
                assert_eq!(sent.result, Ok(0));
                assert_eq!(received.result, Ok((ROUTE_HEADER + length) as u32));
                assert_eq!(received.arrival.immediate, immediate);
                assert!(received.arrival.has_route_header);
                assert_eq!(received.arrival.source_queue_pair, ends.pair(ends.a).number());
                let sink = received.memory.expect("its buffer").buffer();
                assert!(sink[ROUTE_HEADER..][..length] == pattern(seed as u64, 0, length), "{length} bytes");
                assert!(sink[ROUTE_HEADER + length..].iter().all(|&byte| byte == POISON));
                // On RoCE v2 over IPv4 the last 20 bytes of the header are that of IP; its last 4 the destination.
                let ip: std::net::Ipv4Addr = fixture.address.parse().expect("IPv4");
                assert_eq!(sink[36..40], ip.octets());
            }
        }
    });
}

#[test]
fn a_datagram_is_answered_by_what_its_completion_tells() {
    with_device(|fixture| {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = zcmi::verbs::CompletionQueue::create(&fixture.context, 64).expect("a queue");
        let [asks, answers] = [(); 2].map(|()| {
            let builder = zcmi::verbs::QueuePair::builder(&domain, &completions).kind(QueuePairKind::Ud);
            let pair = builder.create().expect("a queue pair");
            pair.open_for_datagrams(1, QUEUE_KEY).expect("opens");
            pair
        });
        let memory = zcmi::verbs::RegisteredBuffer::allocate_many(&domain, 2, 200).expect("memory");
        let address = loopback(fixture, &domain);
        // SAFETY: the buffers live, untouched, until the completions have been polled.
        unsafe { answers.post_receive(1, &[segment(&memory[0])]) }.expect("posts");
        // SAFETY: as above.
        unsafe { asks.post_receive(2, &[segment(&memory[1])]) }.expect("posts");
        let there = Destination { address: &address, queue_pair: answers.number(), queue_key: QUEUE_KEY };
        // SAFETY: a datagram of nothing on a queue pair of its type; the handle lives.
        unsafe { asks.post_send(3, SendOperation::Datagram(there), &[], SendFlags::SIGNALED) }.expect("posts");
        let begun = std::time::Instant::now();
        let mut batch = CompletionBatch::new();
        let (back, sender) = 'asked: loop {
            assert!(begun.elapsed() < PATIENCE);
            for completion in completions.poll(&mut batch).expect("polls") {
                if completion.wr_id() == 1 {
                    let header = memory[0][..ROUTE_HEADER].try_into().expect("40 bytes");
                    let back = AddressHandle::to_sender(&domain, 1, &completion, header).expect("a way back");
                    break 'asked (back, completion.arrival().source_queue_pair);
                }
            }
        };
        assert_eq!(sender, asks.number());
        let here = Destination { address: &back, queue_pair: sender, queue_key: QUEUE_KEY };
        // SAFETY: as above.
        unsafe { answers.post_send(4, SendOperation::Datagram(here), &[], SendFlags::SIGNALED) }.expect("posts");
        let mut wanted = std::collections::HashSet::from([2, 4]);
        while !wanted.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{wanted:?}");
            for completion in completions.poll(&mut batch).expect("polls") {
                assert_eq!(completion.result().map(drop), Ok(()));
                wanted.remove(&completion.wr_id());
            }
        }
    });
}

#[test]
fn a_completion_that_is_no_datagram_leads_nowhere() {
    with_device(|fixture| {
        let ends = crate::pair::RawEnds::new(fixture, &Settings::default(), 64);
        // SAFETY: nothing is named.
        unsafe { ends.b.post_receive(1, &[]) }.expect("posts");
        // SAFETY: as above.
        unsafe { ends.a.post_send(2, SendOperation::Send, &[], SendFlags::NONE) }.expect("posts");
        let begun = std::time::Instant::now();
        let mut batch = CompletionBatch::new();
        loop {
            assert!(begun.elapsed() < PATIENCE);
            if let Some(completion) = ends.completions.poll(&mut batch).expect("polls").next() {
                // Whether it is the message sent or the one that came in.
                let error = AddressHandle::to_sender(&ends.domain, 1, &completion, &[0; ROUTE_HEADER]);
                let errno = error.expect_err("no datagram").errno();
                assert!(matches!(errno, Some(libc::EINVAL | libc::EPROTONOSUPPORT)), "{errno:?}");
                break;
            }
        }
    });
}

#[test]
fn a_header_that_names_nobody_leads_nowhere() {
    with_device(|fixture| {
        let mut ends = ends(fixture);
        let address = loopback(fixture, &ends.domain);
        let sink = ends.poisoned(200);
        ends.receive(ends.b, 1, sink);
        let destination = to(&ends, &address, ends.b);
        ends.post_inline(ends.a, 2, SendOperation::Datagram(destination), b"x");
        let begun = std::time::Instant::now();
        let mut batch = CompletionBatch::new();
        let mut found = false;
        while !found {
            assert!(begun.elapsed() < PATIENCE);
            for completion in ends.queue.completions().poll(&mut batch).expect("polls") {
                if completion.opcode().is_receive() {
                    // Of hostile making: no IP version, then addresses that are not ours.
                    for header in [[0; ROUTE_HEADER], [0xff; ROUTE_HEADER], [0x45; ROUTE_HEADER], [0x60; ROUTE_HEADER]]
                    {
                        let handle = AddressHandle::to_sender(&ends.domain, 1, &completion, &header);
                        assert!(handle.is_err(), "{:#x}", header[0]);
                    }
                    let handle = AddressHandle::to_sender(&ends.domain, 9, &completion, &[0; ROUTE_HEADER]);
                    assert!(handle.is_err(), "there is no port 9");
                    found = true;
                }
            }
        }
    });
}

#[test]
fn a_wrong_queue_key_or_queue_pair_is_dropped_silently() {
    with_device(|fixture| {
        let mut ends = ends(fixture);
        let address = loopback(fixture, &ends.domain);
        let sink = ends.poisoned(200);
        ends.receive(ends.b, 1, sink);
        let right = to(&ends, &address, ends.b);
        for wrong in [Destination { queue_key: QUEUE_KEY + 1, ..right }, Destination { queue_pair: 0xff_fff0, ..right }]
        {
            ends.post_inline(ends.a, 2, SendOperation::Datagram(wrong), b"lost");
            assert_eq!(ends.one().result, Ok(0), "the sender does not learn of it");
        }
        still_works(&mut ends, &address);
    });
}

#[test]
fn a_datagram_without_a_receive_is_lost_and_the_next_arrives() {
    with_device(|fixture| {
        let mut ends = ends(fixture);
        let address = loopback(fixture, &ends.domain);
        let destination = to(&ends, &address, ends.b);
        ends.post_inline(ends.a, 1, SendOperation::Datagram(destination), b"lost");
        assert_eq!(ends.one().result, Ok(0));
        let sink = ends.poisoned(200);
        ends.receive(ends.b, 2, sink);
        still_works(&mut ends, &address);
    });
}

#[test]
fn a_datagram_longer_than_the_path_takes_does_not_arrive() {
    with_device(|fixture| {
        let mut ends = ends(fixture);
        let address = loopback(fixture, &ends.domain);
        let mtu = fixture.context.port(1).expect("a port").active_mtu.bytes().expect("a known MTU") as usize;
        let (source, sink) = (ends.filled(1, mtu + 1), ends.poisoned(2 * mtu));
        ends.receive(ends.b, 1, sink);
        let destination = to(&ends, &address, ends.b);
        ends.post(ends.a, 2, SendOperation::Datagram(destination), Memory::Buffer(source));
        let done = ends.one();
        eprintln!("too long: {:?}", done.result);
        assert_eq!(done.token, 2);
        still_works(&mut ends, &address);
    });
}

#[test]
fn operations_of_connections_are_refused_with_their_memory() {
    with_device(|fixture| {
        let mut ends = ends(fixture);
        let address = loopback(fixture, &ends.domain);
        let remote = zcmi::verbs::Remote::default();
        for operation in [
            SendOperation::Send,
            SendOperation::SendWithImmediate(1),
            SendOperation::Write(remote),
            SendOperation::WriteWithImmediate(remote, 1),
            SendOperation::Read(remote),
            SendOperation::FetchAdd { remote, add: 1 },
        ] {
            let local = Local::Owned(Memory::Buffer(ends.poisoned(8)));
            let request = SendRequest { token: 1, operation, local, flags: SendFlags::SIGNALED };
            let refused = ends.queue.post(ends.a, request).expect_err("refused");
            assert_eq!(refused.error.expect("a reason").errno(), Some(libc::EINVAL));
            assert!(refused.memory.is_some());
        }
        // And a datagram by a connection.
        let mut connected = Ends::reliable(fixture);
        let own = loopback(fixture, &connected.domain);
        let destination = Destination { address: &own, queue_pair: 1, queue_key: 1 };
        let local = Local::Inline(&b"x"[..]);
        let operation = SendOperation::Datagram(destination);
        let request = SendRequest { token: 1, operation, local, flags: SendFlags::SIGNALED };
        let refused = connected.queue.post(connected.a, request).expect_err("refused");
        assert_eq!(refused.error.expect("a reason").errno(), Some(libc::EINVAL));
        // And a handle of another domain.
        let destination = Destination { address: &own, queue_pair: 1, queue_key: 1 };
        let local = Local::Inline(&b"x"[..]);
        let operation = SendOperation::Datagram(destination);
        let request = SendRequest { token: 1, operation, local, flags: SendFlags::SIGNALED };
        let refused = ends.queue.post(ends.a, request).expect_err("refused");
        let error = refused.error.expect("a reason");
        assert!(error.detail().is_some_and(|detail| detail.contains("protection domain")), "{error}");
        let sink = ends.poisoned(200);
        ends.receive(ends.b, 1, sink);
        still_works(&mut ends, &address);
    });
}

#[test]
fn an_address_handle_lives_until_the_completion() {
    with_device(|fixture| {
        let mut ends = ends(fixture);
        for round in 0..16 {
            let sink = ends.poisoned(200);
            ends.receive(ends.b, round, sink);
        }
        for round in 0..16 {
            let address = loopback(fixture, &ends.domain);
            let watched = Arc::downgrade(&address);
            let destination = to(&ends, &address, ends.b);
            ends.post_inline(ends.a, round, SendOperation::Datagram(destination), b"x");
            drop(address);
            assert!(watched.upgrade().is_some(), "the queue keeps it");
            let done = ends.wait(2);
            assert!(done.iter().all(|completed| completed.result.is_ok()), "{done:?}");
            assert!(watched.upgrade().is_none(), "and lets it go with the completion");
        }
    });
}

#[test]
fn an_address_handle_lives_as_long_as_what_was_taken_out_with_it() {
    with_device(|fixture| {
        let mut ends = ends(fixture);
        let address = loopback(fixture, &ends.domain);
        let watched = Arc::downgrade(&address);
        let destination = to(&ends, &address, ends.b);
        ends.post_inline(ends.a, 1, SendOperation::Datagram(destination), b"x");
        drop(address);
        let detached = ends.queue.detach(ends.a).expect("it is there");
        assert!(watched.upgrade().is_some(), "the device may still read it");
        assert_eq!(detached.destroy().len(), 1);
        assert!(watched.upgrade().is_none());
    });
}

#[test]
fn an_address_handle_to_nowhere_is_an_error() {
    with_device(|fixture| {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let index = gid_index(fixture);
        let gid = fixture.context.gid(1, index).expect("a GID");
        let length = fixture.context.port(1).expect("a port").gid_table_length;
        let other_family = Gid(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
        for (what, vector) in [
            ("a port that is not there", AddressVector::to(9, index, gid)),
            ("port 0", AddressVector::to(0, index, gid)),
            ("an index behind the table", AddressVector::to(1, length, gid)),
            ("an index that C cannot name", AddressVector::to(1, 1 << 20, gid)),
            ("an empty entry", AddressVector::to(1, length - 1, gid)),
            ("another family", AddressVector::to(1, index, other_family)),
        ] {
            let error = AddressHandle::create(&domain, &vector).map(drop).expect_err(what);
            eprintln!("{what}: {error}");
        }
    });
}

#[test]
fn opening_a_connection_for_datagrams_or_twice_is_an_error() {
    with_device(|fixture| {
        let ends = ends(fixture);
        let error = ends.pair(ends.a).open_for_datagrams(1, QUEUE_KEY).expect_err("it is open");
        assert_eq!(error.errno(), Some(libc::EINVAL));
        let connected = Ends::unconnected(fixture, Settings::default());
        let error = connected.pair(connected.a).open_for_datagrams(1, QUEUE_KEY).expect_err("it is no UD");
        assert!(error.detail().is_some_and(|detail| detail.contains("access")), "{error}");
        let fresh = Ends::unconnected(fixture, Settings { kind: QueuePairKind::Ud, ..Settings::default() });
        fresh.pair(fresh.a).open_for_datagrams(9, QUEUE_KEY).expect_err("there is no port 9");
    });
}
