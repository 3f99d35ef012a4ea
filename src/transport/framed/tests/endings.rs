//! How connections end, and what is said last.

use super::*;

pub(in crate::transport) fn what_a_peer_has_said_before_its_end_is_received<C: TestCarrier>() {
    const LENGTH: usize = 30_000;
    let mut rig = Rig::<C>::new();
    for token in 0..5 {
        let memory = rig.transfer(LENGTH);
        rig.queue.post_receive(token, memory).map_err(|_| ()).expect("room");
    }
    let (tell, told) = std::sync::mpsc::channel();
    rig.socket.observe(Box::new(move |error| tell.send(error.kind()).expect("somebody hears")));
    for filling in 0..4 {
        rig.say(Frame::Send { length: LENGTH as u32 }, &[filling; LENGTH]);
    }
    // Half a message, which nobody sees.
    rig.say(Frame::Send { length: 8 }, b"half");
    rig.peer.hang_up();
    let mut done = rig.ends();
    done.extend(settle(&mut rig.queue));
    // Where polls ask the kernel nothing, the end is learned by who does that now and then.
    rig.queue.tend(Instant::now());
    done.extend(settle(&mut rig.queue));
    let received: Vec<_> = done.into_iter().filter_map(|done| Some((done.result.ok()?, done.memory?))).collect();
    assert_eq!(received.len(), 4);
    for (filling, (length, memory)) in (0..4).zip(received) {
        assert_eq!(length as usize, LENGTH);
        assert!(memory.into_buffer().expect("a buffer").iter().all(|&byte| byte == filling));
    }
    assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(ErrorKind::PeerClosed));
}

pub(in crate::transport) fn closing_does_not_wait_for_a_peer_that_does_not_read<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    block(&mut rig);
    rig.queue.fail(rig.channel);
    let begun = Instant::now();
    drop(rig.queue.close(rig.channel).expect("it is there")());
    assert!(begun.elapsed() < Duration::from_millis(50), "it took {:?}", begun.elapsed());
    while Arc::strong_count(&rig.socket) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the stream is not ended");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(in crate::transport) fn what_was_posted_comes_back_when_the_channel_fails<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    for token in 0..5 {
        let memory = rig.transfer(1 << 20);
        rig.post(token, Operation::Send, Some(memory));
    }
    rig.queue.fail(rig.channel);
    let done = rig.ends();
    assert_eq!(done.iter().map(|done| done.token).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(done.iter().all(|done| matches!(done.result, Err(Failure::Flushed)) && done.memory.is_some()));
    rig.post(6, Operation::Probe, None);
    assert!(matches!(&rig.ends()[..], [Completion { token: 6, result: Err(Failure::Flushed), .. }]));
}

fn read_all(peer: &mut impl Peer) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = peer.read_to_end(&mut all);
    all
}

/// Closes the channel, and hears all that it has said.
fn last_words<C: TestCarrier>(rig: &mut Rig<C>) -> Vec<Header> {
    let Rig { queue, peer, channel, .. } = rig;
    let all = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(peer));
        drop(queue.close(*channel).expect("it is there")());
        reader.join().expect("no panic")
    });
    let (mut all, mut headers) = (&all[..], Vec::new());
    while let Some((header, rest)) = all.split_first_chunk() {
        let header = Header::parse(*header).expect("a good one");
        headers.push(header);
        let length = match header.frame {
            Frame::Data { length } | Frame::Send { length } => length as usize,
            _ => 0,
        };
        assert!(length <= rest.len(), "{} of {length} bytes came", rest.len());
        assert!(rest[..length].iter().all(|&byte| byte == 0xee));
        all = &rest[length..];
    }
    headers
}

pub(in crate::transport) fn what_fails_behind_a_full_socket_says_what_is_done_and_no_more<C: TestCarrier>() {
    for is_refusing in [false, true] {
        let mut rig = Rig::<C>::new();
        let (_mapping, _region, address, key) = rig.open(4096, Access::READ);
        block(&mut rig);
        for _ in 0..2 {
            rig.say(Frame::Probe, &[]);
        }
        for _ in 0..3 {
            rig.say(Frame::Read { address, key, length: 8 }, &[]);
        }
        assert!(rig.settle().is_empty());
        if is_refusing {
            rig.say(Frame::Read { address, key: key ^ 1, length: 8 }, &[]);
            assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::ConnectionBroken));
        }
        rig.queue.fail(rig.channel);
        let said = last_words(&mut rig);
        let (last, before) = said.split_last().expect("something");
        assert!(before.iter().all(|header| header.acknowledged == 0), "the peer was not to be told before");
        assert!(before.iter().all(|header| header.frame == Frame::Send { length: 1 << 19 }));
        let frame = match is_refusing {
            true => Frame::Refuse { request: 6, reason: Reason::Access },
            false => Frame::Acknowledge,
        };
        assert_eq!(*last, Header { acknowledged: 2, frame });
    }
}

pub(in crate::transport) fn a_peer_that_does_not_read_is_told_once_when_it_does<C: TestCarrier>() {
    const PROBES: u64 = 8;
    let mut rig = Rig::<C>::new();
    block(&mut rig);
    for _ in 0..PROBES {
        rig.say(Frame::Probe, &[]);
        assert!(rig.settle().is_empty());
    }
    let Rig { queue, peer, .. } = &mut rig;
    let read_until_told = move || {
        let (mut header, mut body, mut acknowledgements) = ([0; HEADER], vec![0; 1 << 19], 0);
        loop {
            peer.read_exact(&mut header).expect("a header in time");
            let said = Header::parse(header).expect("a good one");
            match said.frame {
                Frame::Send { .. } => peer.read_exact(&mut body).expect("a message"),
                _ => acknowledgements += 1,
            }
            if said.acknowledged == PROBES {
                return acknowledgements;
            }
        }
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(read_until_told);
        while !reader.is_finished() {
            settle(queue);
        }
        assert!(reader.join().expect("no panic") <= 1);
    });
}

/// A message of `length` bytes is half written, and then the peer does what it may not.
fn half_written<C: TestCarrier>(length: usize) -> Rig<C> {
    let mut rig = Rig::<C>::new();
    let memory = rig.transfer(length);
    rig.post(1, Operation::Send, Some(memory));
    rig.say(Frame::Read { address: 1, key: 1, length: 1 }, &[]);
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::ConnectionBroken));
    rig
}

pub(in crate::transport) fn a_refusal_is_said_behind_what_is_half_written<C: TestCarrier>() {
    const LENGTH: usize = 8 << 20;
    let mut rig = half_written::<C>(LENGTH);
    let Rig { queue, peer, .. } = &mut rig;
    let all = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut all = vec![0; 2 * HEADER + LENGTH];
            peer.read_exact(&mut all).expect("all of it, and the reason");
            all
        });
        while !reader.is_finished() {
            settle(queue);
        }
        reader.join().expect("no panic")
    });
    assert!(all[HEADER..HEADER + LENGTH].iter().all(|&byte| byte == 0xee));
    let last = Header::parse(*all.last_chunk().expect("a header")).expect("a good one");
    assert_eq!(last.frame, Frame::Refuse { request: 1, reason: Reason::Access });
}

pub(in crate::transport) fn what_is_too_long_to_be_kept_ends_in_the_middle_and_nothing_follows<C: TestCarrier>() {
    // Much more than any socket takes.
    const LENGTH: usize = 64 << 20;
    let mut rig = half_written::<C>(LENGTH);
    rig.queue.fail(rig.channel);
    let Rig { queue, peer, channel, .. } = &mut rig;
    drop(queue.close(*channel).expect("it is there")());
    let all = read_all(peer);
    assert!((HEADER..HEADER + LENGTH).contains(&all.len()), "{} bytes", all.len());
    let first = Header::parse(*all.first_chunk().expect("a header")).expect("a good one");
    assert_eq!(first.frame, Frame::Send { length: LENGTH as u32 });
    assert!(all[HEADER..].iter().all(|&byte| byte == 0xee), "something that could be taken for its bytes");
}

pub(in crate::transport) fn receives_that_nobody_could_take_are_given_back<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let memory = rig.transfer(8);
    rig.queue.post_receive(1, memory).map_err(|_| ()).expect("room");
    let room = rig.queue.receive_room();
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    rig.queue.tend(now);
    rig.queue.tend(now + 2 * second);
    assert!(rig.settle().is_empty(), "there is a channel");
    drop(rig.queue.close(rig.channel).expect("it is there")());
    rig.queue.tend(now + 3 * second);
    rig.queue.tend(now + 5 * second);
    assert!(matches!(&rig.ends()[..], [Completion { token: 1, memory: Some(_), .. }]));
    assert_eq!(rig.queue.receive_room(), room + 1);
}
