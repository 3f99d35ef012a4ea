//! What a peer may reach of the memory here.

use super::*;

pub(in crate::transport) fn what_a_peer_may_not_reach_is_refused_and_left_alone<C: TestCarrier>() {
    for case in 0..8 {
        let mut rig = Rig::<C>::new();
        let access = [Access::READ_WRITE, Access::READ, Access::WRITE][match case {
            5 => 1,
            6 => 2,
            _ => 0,
        }];
        let (mapping, _region, address, key) = rig.open(4096, access);
        let of_another = Rig::<C>::new().open(4096, Access::ALL).3;
        let write = |address, key, length| Frame::Write { address, key, length };
        let frame = match case {
            0 => write(address, key ^ 1, 8),
            1 => write(address + 4090, key, 8),
            2 => write(address - 1, key, 8),
            3 => write(u64::MAX - 3, key, 8),
            4 => write(address, of_another, 8),
            5 => write(address, key, 8),
            6 => Frame::Read { address, key, length: 8 },
            _ => Frame::FetchAdd { address, key, add: 1 },
        };
        rig.say(frame, if let Frame::Write { .. } = frame { &[1; 8] } else { &[] });
        let ended = rig.ends();
        assert_eq!(ended.iter().map(kind).collect::<Vec<_>>(), [Some(ErrorKind::ConnectionBroken)], "case {case}");
        assert_eq!(rig.hear().frame, Frame::Refuse { request: 1, reason: Reason::Access }, "case {case}");
        assert!(bytes(&mapping, 0..4096).iter().all(|&byte| byte == 0x5a), "case {case} changed memory");
    }
}

pub(in crate::transport) fn a_window_that_is_closed_in_the_middle_of_a_write_stops_it<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let length = 100_000;
    let mapping = Arc::new(Mapping::new(length).expect("memory"));
    let memory: Arc<dyn Registrable> = Arc::clone(&mapping) as _;
    let region = rig.register(&memory, 0..length, RegionAccess::Windows { write: true });
    let opening = Opening { region, access: Access::WRITE };
    let (window, key) = rig.queue.bind(rig.channel, 1, opening).map_err(|refused| refused.error).expect("binds");
    rig.ends();
    let address = mapping.address().addr() as u64;
    let frame = Frame::Write { address, key, length: length as u32 };
    rig.say(frame, &vec![1; length / 2]);
    assert!(rig.settle().is_empty());
    assert_eq!(bytes(&mapping, 0..1), [1], "the first half is there");
    rig.queue.invalidate(rig.channel, 2, window).map_err(|_| ()).expect("invalidates");
    // It is noticed by the next poll, whether or not more has come.
    let mut ended = rig.ends();
    rig.peer.write_all(&vec![1; length / 2]).expect("writes");
    ended.extend(rig.settle());
    assert!(ended.iter().any(|done| done.token == 2 && done.result.is_ok()));
    assert_eq!(ended.iter().find_map(kind), Some(ErrorKind::ConnectionBroken));
    assert!(bytes(&mapping, length / 2..length).iter().all(|&byte| byte == 0), "nothing more came");
}

pub(in crate::transport) fn a_peer_is_served_in_turn_with_the_threads_of_this_process<C: TestCarrier>() {
    let mut rig = Rig::<C>::new();
    let exposed = Buffer::allocate(64).expect("memory").expose();
    let memory = exposed.host();
    let region = rig.register(&memory, 0..64, RegionAccess::Windows { write: true });
    let opening = Opening { region, access: Access::ALL };
    let (_, key) = rig.queue.bind(rig.channel, 9, opening).map_err(|refused| refused.error).expect("binds");
    rig.ends();
    let address = memory.address().addr() as u64;
    for frame in [
        Frame::Write { address, key, length: 8 },
        Frame::FetchAdd { address, key, add: 1 },
        Frame::Read { address, key, length: 8 },
    ] {
        rig.say(frame, if let Frame::Write { .. } = frame { &[1; 8] } else { &[] });
        let turns = memory.turns().expect("threads take turns");
        std::thread::scope(|scope| {
            let turn = turns.write().expect("no panic");
            let served = scope.spawn(|| rig.settle());
            std::thread::sleep(Duration::from_millis(100));
            assert!(!served.is_finished(), "{frame:?} did not wait");
            drop(turn);
        });
    }
    let mut word = [0; 8];
    exposed.read_at(0, &mut word);
    assert_eq!(u64::from_le_bytes(word), u64::from_le_bytes([1; 8]) + 1);
}
