//! Messages and requests, and peers that do otherwise than they may.

use super::*;

pub(in crate::transport) fn a_message_goes_into_the_next_receive_and_is_acknowledged<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    for (token, length) in [(1, 10), (2, 40_000)] {
        let memory = rig.transfer(length);
        rig.queue.post_receive(token, memory).map_err(|_| ()).expect("room");
    }
    rig.say(Frame::Send { length: 3 }, b"abc");
    rig.say(Frame::Send { length: 40_000 }, &[7; 40_000]);
    let mut done = rig.ends();
    while done.len() < 2 {
        done.extend(rig.ends());
    }
    let lengths: Vec<_> = done.iter().map(|done| (done.token, done.result.as_ref().ok().copied())).collect();
    assert_eq!(lengths, [(1, Some(3)), (2, Some(40_000))]);
    let received = done.pop().and_then(|done| done.memory).and_then(Transfer::into_buffer).expect("a buffer");
    assert!(received.iter().all(|&byte| byte == 7));
    rig.settle();
    assert_eq!(rig.hear(), Header { acknowledged: 2, frame: Frame::Acknowledge });
}

pub(in crate::transport) fn a_message_waits_for_a_receive_and_then_for_no_longer_than_a_device_would<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    rig.say(Frame::Send { length: 1 }, b"x");
    rig.say(Frame::Send { length: 1 }, b"y");
    assert!(rig.settle().is_empty());
    let memory = rig.transfer(8);
    rig.queue.post_receive(5, memory).map_err(|_| ()).expect("room");
    assert!(matches!(&rig.ends()[..], [Completion { token: 5, result: Ok(1), .. }]));
    assert!(rig.settle().is_empty(), "the second has none");
    rig.queue.tend(Instant::now() + Duration::from_secs(1));
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::ConnectionBroken));
    let said = std::iter::from_fn(|| Some(rig.hear().frame)).find(|frame| *frame != Frame::Acknowledge);
    assert_eq!(said, Some(Frame::Refuse { request: 2, reason: Reason::NotReady }));
    let memory = rig.transfer(8);
    rig.queue.post_receive(6, memory).map_err(|_| ()).expect("room");
    assert!(rig.settle().is_empty(), "what was refused is not carried out");
}

pub(in crate::transport) fn what_comes_behind_a_refusal_is_not_carried_out<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let memory = rig.transfer(8);
    rig.queue.post_receive(5, memory).map_err(|_| ()).expect("room");
    rig.post(1, Operation::Probe, None);
    let refusal = Frame::Refuse { request: 1, reason: Reason::Access };
    let said = [refusal, Frame::Send { length: 0 }].map(|frame| Header { acknowledged: 0, frame }.to_bytes());
    rig.peer.write_all(said.as_flattened()).expect("writes");
    assert_eq!(rig.ends().iter().map(|ended| ended.token).collect::<Vec<_>>(), [1]);
    assert!(rig.settle().is_empty());
}

pub(in crate::transport) fn a_peer_that_does_nothing_of_what_it_is_asked_is_given_up<C: TestCarrier>() {
    let second = Duration::from_secs(1);
    let mut rig = Rig::<C>::new();
    rig.queue.give_up_after(second);
    let (tell, told) = std::sync::mpsc::channel();
    rig.socket.observe(Box::new(move |error| tell.send(error.kind()).expect("somebody hears")));
    let mut now = Instant::now();
    for acknowledged in 1..=2 {
        rig.post(acknowledged, Operation::Probe, None);
        for _ in 0..3 {
            rig.queue.tend(now);
            now += second / 4;
        }
        // It says something all the while.
        rig.peer.write_all(&Header { acknowledged, frame: Frame::Probe }.to_bytes()).expect("writes");
        assert_eq!(rig.ends().len(), 1);
    }
    rig.queue.tend(now + 100 * second);
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "nothing is asked");
    rig.post(3, Operation::Probe, None);
    for step in 0..5 {
        assert!(told.try_recv().is_err(), "after {step} steps");
        rig.queue.tend(now + 100 * second + step * second / 4);
        rig.say_done(2);
        rig.settle();
    }
    assert_eq!(told.recv_timeout(5 * second), Ok(ErrorKind::Unresponsive));
    rig.queue.fail(rig.channel);
    assert!(rig.ends().iter().any(|ended| ended.token == 3));
}

pub(in crate::transport) fn what_is_not_written_has_not_left<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    assert!(rig.queue.has_left(rig.channel));
    rig.post(1, Operation::Probe, None);
    assert!(rig.queue.has_left(rig.channel) && rig.queue.host_answers(rig.channel) == Some(true));
    block(&mut rig);
    assert!(!rig.queue.has_left(rig.channel));
}

pub(in crate::transport) fn what_no_peer_may_say_ends_the_channel_with_the_reason<C: TestCarrier>() {
    let data = Frame::Data { length: 8 };
    for (frame, acknowledged, word) in [
        (Frame::Acknowledge, 1, "acknowledges request 1"),
        (data, 0, "nothing that was asked"),
        (Frame::Word { old: 1 }, 0, "nothing that was asked"),
        (Frame::Refuse { request: 3, reason: Reason::Access }, 0, "refuses request 3"),
        (Frame::Refuse { request: 0, reason: Reason::Access }, 0, "refuses request 0"),
    ] {
        let mut rig = Rig::<C>::new();
        rig.peer.write_all(&Header { acknowledged, frame }.to_bytes()).expect("writes");
        let ended = rig.ends();
        let Some(Err(Failure::Broken(error))) = ended.into_iter().next().map(|ended| ended.result) else {
            panic!("{frame:?} breaks it");
        };
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains(word), "{error}");
    }
    // An answer that is too long, and one of the wrong kind.
    for (frame, acknowledged) in [(Frame::Data { length: 9 }, 0), (Frame::Word { old: 1 }, 0), (Frame::Acknowledge, 1)]
    {
        let mut rig = Rig::<C>::new();
        let memory = rig.transfer(8);
        rig.post(1, Operation::Read { address: 1, key: 1 }, Some(memory));
        rig.peer.write_all(&Header { acknowledged, frame }.to_bytes()).expect("writes");
        assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::Protocol), "{frame:?}");
    }
    // More reads than anybody may have outstanding.
    let mut rig = Rig::<C>::new();
    let (_mapping, _region, address, key) = rig.open(1 << 20, Access::READ);
    let read = Header { acknowledged: 0, frame: Frame::Read { address, key, length: 1 << 20 } }.to_bytes();
    rig.peer.write_all(&read.repeat(200)).expect("writes");
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::Protocol));
}

pub(in crate::transport) fn noise_of_any_kind_breaks_one_channel_and_nothing_else<C: TestCarrier>() {
    for round in 0..200u64 {
        let mut rig = Rig::<C>::new();
        let (_mapping, _region, address, key) = rig.open(4096, Access::ALL);
        for token in 0..4 {
            let memory = rig.transfer(512);
            rig.queue.post_receive(token, memory).map_err(|_| ()).expect("room");
        }
        for token in 0..3 {
            let memory = rig.transfer(100);
            rig.post(token, Operation::Read { address: 0, key: 0 }, Some(memory));
        }
        let mut noise = vec![0u8; 4000];
        noise.fill_with(rand::random);
        if round % 2 == 0 {
            // Good headers with bad contents, or some good ones.
            for at in (0..noise.len() - HEADER).step_by(HEADER + 16) {
                let length = u32::from(noise[at + 5]);
                (noise[at], noise[at + 1]) = (1, noise[at + 1] % 12);
                noise[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
                noise[at + 8..at + 16].fill(0);
                noise[at + 16..at + 24].copy_from_slice(&(address + u64::from(length)).to_le_bytes());
                noise[at + 24..at + 28].copy_from_slice(&key.to_le_bytes());
            }
        }
        // It may be ended before all is said.
        let _ = rig.peer.write_all(&noise);
        rig.peer.hang_up();
        let _ = rig.settle();
        rig.queue.fail(rig.channel);
        let left = rig.queue.close(rig.channel).expect("it is there")();
        let mut done = Vec::new();
        rig.queue.poll(&mut done).expect("polls");
        assert!(left.len() + done.len() < 100);
        assert_eq!(Arc::strong_count(&rig.socket), 1, "nothing holds the stream");
    }
}

pub(in crate::transport) fn a_read_that_is_acknowledged_without_its_answer_still_ends<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    for token in 1..=3 {
        let memory = rig.transfer(8);
        rig.post(token, Operation::Read { address: 1, key: 1 }, Some(memory));
    }
    rig.peer.write_all(&Header { acknowledged: 2, frame: Frame::Acknowledge }.to_bytes()).expect("writes");
    assert_eq!(rig.ends().iter().find_map(kind), Some(ErrorKind::Protocol));
    rig.queue.fail(rig.channel);
    let ended: Vec<_> = rig.settle().into_iter().map(|done| (done.token, done.memory.is_some())).collect();
    assert_eq!(ended, [(1, true), (2, true), (3, true)]);
}
