//! Who is heard, and when: those who sleep, are idle, or were held up.

use super::*;

/// Whether the event descriptor is readable within `bound`.
pub(in crate::transport) fn is_called<C: TestCarrier>(rig: &Rig<C>, bound: Duration) -> bool {
    let events = rig.queue.event_descriptor().expect("a descriptor").expect("there is one");
    let mut polled = [PollFd::new(&events, PollFlags::IN)];
    let bound = Timespec { tv_sec: bound.as_secs() as i64, tv_nsec: bound.subsec_nanos().into() };
    rustix::event::poll(&mut polled, Some(&bound)).expect("polls") > 0
}

pub(in crate::transport) fn who_sleeps_is_called_once_for_what_comes<C: TestCarrier>() {
    let (short, long) = (Duration::from_millis(30), Duration::from_secs(5));
    let mut rig = Rig::<C>::new();
    rig.post_receives(30);
    let hears = |rig: &mut Rig<C>, count: usize| {
        rig.queue.drain_events().expect("drains");
        let mut done = rig.ends();
        while done.len() < count {
            done.extend(rig.ends());
        }
        assert_eq!(done.len(), count);
    };
    assert!(settle(&mut rig.queue).is_empty());
    for round in 0..5 {
        // It sleeps before something comes, polls once more as who arms does, and after it has come.
        rig.queue.request_notification().expect("arms");
        assert!(rig.queue.poll(&mut Vec::new()).is_ok_and(|happened| !happened));
        assert!(!is_called(&rig, short), "round {round}: for nothing");
        rig.say(Frame::Send { length: 1 }, b"x");
        assert!(is_called(&rig, long), "round {round}: it sleeps for ever");
        hears(&mut rig, 1);
        rig.say(Frame::Send { length: 1 }, b"x");
        std::thread::sleep(Duration::from_millis(5));
        rig.queue.request_notification().expect("arms");
        assert!(is_called(&rig, long), "round {round}: it does not see what is there");
        hears(&mut rig, 1);
        // Somebody else polls while it sleeps, and then more comes.
        rig.queue.request_notification().expect("arms");
        rig.say(Frame::Send { length: 1 }, b"x");
        assert_eq!(rig.ends().len(), 1);
        rig.say(Frame::Send { length: 1 }, b"x");
        assert!(is_called(&rig, long), "round {round}: what the other has left");
        hears(&mut rig, 1);
        // And that has asked the kernel too, and so taken off what would have woken who sleeps.
        rig.queue.request_notification().expect("arms");
        rig.say(Frame::Send { length: 1 }, b"x");
        rig.queue.tend(Instant::now());
        assert_eq!(rig.ends().len(), 1);
        assert!(settle(&mut rig.queue).is_empty());
        rig.say(Frame::Send { length: 1 }, b"x");
        assert!(is_called(&rig, long), "round {round}: what comes after the other has asked");
        hears(&mut rig, 1);
    }
}

pub(in crate::transport) fn those_that_are_idle_are_heard_when_they_say_something<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let mut others: Vec<_> = (0..20)
        .map(|_| {
            let (peer, socket, carrier, gift) = C::ends();
            let channel = rig.queue.create(Arc::clone(&socket), carrier, SIZES).expect("a channel");
            rig.queue.activate(channel, gift, 4).expect("activates");
            socket.open();
            (channel, peer, socket)
        })
        .collect();
    let mut done = Vec::new();
    for round in 0..3 {
        // So many that all but a few are not looked at any more.
        for _ in 0..5000 {
            rig.queue.poll(&mut done).expect("polls");
        }
        assert!(done.is_empty());
        for at in [0, 7, 19] {
            let memory = rig.transfer(8);
            rig.queue.post_receive(round, memory).map_err(|_| ()).expect("room");
            let (channel, peer, _) = &mut others[at];
            let said = Header { acknowledged: 0, frame: Frame::Send { length: 1 } }.to_bytes();
            peer.write_all(&[&said[..], b"x"].concat()).expect("writes");
            let received = rig.ends();
            assert!(
                received.iter().all(|done| done.channel == *channel && matches!(done.result, Ok(1))),
                "{received:?}"
            );
        }
    }
    // One goes: the others stay.
    let (gone, peer, _) = others.swap_remove(3);
    drop(peer);
    drop(rig.queue.close(gone).expect("it is there")());
    let memory = rig.transfer(8);
    rig.queue.post_receive(9, memory).map_err(|_| ()).expect("room");
    rig.say(Frame::Send { length: 1 }, b"x");
    assert!(matches!(&rig.ends()[..], [Completion { token: 9, result: Ok(1), .. }]));
}

pub(in crate::transport) fn one_that_was_held_up_is_heard_again<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let mut others: Vec<_> = (0..6)
        .map(|_| {
            let (peer, socket, carrier, gift) = C::ends();
            let channel = rig.queue.create(Arc::clone(&socket), carrier, SIZES).expect("a channel");
            rig.queue.activate(channel, gift, 4).expect("activates");
            socket.open();
            (peer, socket)
        })
        .collect();
    let mut done = Vec::new();
    for round in 0..3 {
        // There is no receive for it, for so long that it is not looked at any more; the others are.
        rig.say(Frame::Send { length: 1 }, b"x");
        for polls in 0..3000 {
            if polls % 500 == 0 {
                let nothing = Header { acknowledged: 0, frame: Frame::Acknowledge }.to_bytes();
                others.iter_mut().for_each(|(peer, _)| peer.write_all(&nothing).expect("writes"));
            }
            rig.queue.poll(&mut done).expect("polls");
        }
        assert!(done.is_empty());
        for token in [2 * round, 2 * round + 1] {
            let memory = rig.transfer(8);
            rig.queue.post_receive(token, memory).map_err(|_| ()).expect("room");
            assert!(matches!(&rig.ends()[..], [Completion { result: Ok(1), .. }]), "round {round}");
            if token % 2 == 0 {
                rig.say(Frame::Send { length: 1 }, b"y");
            }
        }
    }
    drop(others);
}

pub(in crate::transport) fn a_busy_connection_does_not_keep_another_from_being_told<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let (mut busy, socket, carrier, gift) = C::ends();
    let channel = rig.queue.create(Arc::clone(&socket), carrier, SIZES).expect("a channel");
    rig.queue.activate(channel, gift, 4).expect("activates");
    socket.open();
    rig.say(Frame::Probe, &[]);
    let probe = Header { acknowledged: 0, frame: Frame::Probe }.to_bytes();
    let mut done = Vec::new();
    for _ in 0..C::DRY_POLLS + 10 {
        busy.write_all(&probe).expect("writes");
        std::thread::sleep(Duration::from_millis(1));
        rig.queue.poll(&mut done).expect("polls");
    }
    rig.peer.be_impatient();
    assert_eq!(rig.hear(), Header { acknowledged: 1, frame: Frame::Acknowledge });
}
