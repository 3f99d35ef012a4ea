//! What a peer puts on the socket when the set-up is over.

use std::io::PipeReader;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;

fn ring(rig: &mut Rig<ShmCarrier>, how: SendFlags) {
    rustix::net::send(&rig.peer().socket, &[0], how).expect("there is room");
    rig.queue().drain_events().expect("drains");
}

fn violation(rig: &mut Rig<ShmCarrier>) -> String {
    let ended = rig.ends();
    let [crate::transport::Completion { result: Err(Failure::Broken(error)), .. }] = &ended[..] else {
        panic!("it breaks it: {}", ended.len());
    };
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    error.to_string()
}

#[test]
fn who_rings_more_often_than_we_have_dozed_loses_its_connection() {
    for how in [SendFlags::empty(), SendFlags::OOB] {
        let mut rig = Rig::<ShmCarrier>::new();
        assert!(settle(rig.queue()).is_empty());
        for _ in 0..3 {
            rig.queue().request_notification().expect("arms");
            ring(&mut rig, how);
            assert!(settle(rig.queue()).is_empty(), "each was for a doze");
        }
        ring(&mut rig, how);
        let told = violation(&mut rig);
        assert!(told.contains("rung 4 times, for 3 dozes"), "{told}");
        // And is not listened to any more.
        ring(&mut rig, how);
        rig.queue().request_notification().expect("arms");
        assert!(!is_called(&rig, Duration::from_millis(50)), "it wakes us");
    }
}

#[test]
fn a_bell_may_come_late() {
    let mut rig = Rig::<ShmCarrier>::new();
    assert!(settle(rig.queue()).is_empty());
    for _ in 0..3 {
        rig.queue().request_notification().expect("arms");
        // Something else has woken us.
        rig.peer().carrier.scribble(Word::Doze, 0);
        rig.queue().drain_events().expect("drains");
        let bytes = Header { acknowledged: 0, frame: Frame::Probe }.to_bytes();
        assert!(rig.peer().carrier.write(&[IoSlice::new(&bytes)], false).is_ok());
        assert!(settle(rig.queue()).is_empty());
    }
    for _ in 0..3 {
        ring(&mut rig, SendFlags::empty());
    }
    assert!(settle(rig.queue()).is_empty());
    ring(&mut rig, SendFlags::empty());
    let told = violation(&mut rig);
    assert!(told.contains("rung 4 times"), "{told}");
}

/// Rings, and gives a descriptor along; answers what the kernel says, and what tells whether somebody has it.
fn give(rig: &mut Rig<ShmCarrier>) -> (rustix::io::Result<usize>, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    let gifts = [std::os::fd::AsFd::as_fd(&writer)];
    assert!(along.push(SendAncillaryMessage::ScmRights(&gifts)));
    (sendmsg(&rig.peer().socket, &[IoSlice::new(&[0])], &mut along, SendFlags::empty()), reader)
}

#[test]
fn descriptors_that_come_with_a_bell_stay_with_nobody() {
    let mut rig = Rig::<ShmCarrier>::new();
    assert!(settle(rig.queue()).is_empty());
    for _ in 0..3 {
        rig.queue().request_notification().expect("arms");
        let (given, mut reader) = give(&mut rig);
        rig.queue().drain_events().expect("drains");
        assert!(settle(rig.queue()).is_empty());
        match given {
            Ok(_) => eprintln!("this kernel takes them, and throws them away"),
            Err(errno) => assert_eq!(errno, Errno::PERM),
        }
        rustix::io::ioctl_fionbio(&reader, true).expect("sets");
        assert_eq!(reader.read(&mut [0]).expect("an end"), 0, "somebody has it");
    }
}

#[test]
fn the_kernel_refuses_descriptors_where_it_can() {
    let knows = rights::take(&sockets().0, false).is_ok();
    let mut rig = Rig::<ShmCarrier>::new();
    let (given, _reader) = give(&mut rig);
    assert_eq!(given.is_err(), knows, "{given:?}");
    assert_eq!(rights::take(rig.socket(), true).is_ok(), knows);
    let (given, _reader) = give(&mut rig);
    assert!(given.is_ok(), "{given:?}");
}
