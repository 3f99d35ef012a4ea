//! A peer that gives what it must not, or speaks of what there is not.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::{Pages, Way, pair};
use crate::Pool;
use crate::memory::Tether;
use crate::protocol::{Handed, Record, SegmentPlace};
use crate::sync::lock;
use crate::transport::MOST_SEGMENTS;

const ALL: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

fn memfd(length: u64, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("zcmi-hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    ftruncate(&file, length).expect("grows");
    fcntl_add_seals(&file, seals).expect("seals");
    file
}

fn pipe() -> OwnedFd {
    Tether::new().expect("a pipe").1
}

fn give(way: &Way, gift: Vec<OwnedFd>) {
    lock(&way.0).push_back(gift);
}

fn introduce(pages: &mut Pages, length: u64) -> Result<(), &'static str> {
    let place = SegmentPlace { base: 1 << 40, length }.to_bytes();
    pages.handle(Record::Segment { place: &place }, &mut Vec::new()).map(drop)
}

fn hostile_files() -> usize {
    let links = |folder: &str| {
        let files = std::fs::read_dir(folder).expect("procfs").flatten();
        files
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .filter(|to| to.to_string_lossy().contains("zcmi-hostile"))
            .count()
    };
    let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
    links("/proc/self/fd") + maps.lines().filter(|line| line.contains("zcmi-hostile")).count()
}

#[test]
fn a_descriptor_that_is_not_what_it_has_to_be_is_refused_and_closed() {
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("it is there"));
    let cases: Vec<(Vec<OwnedFd>, u64, &str)> = vec![
        (vec![null(), pipe()], 4096, "no memfd"),
        (vec![memfd(4096, SealFlags::empty()), pipe()], 4096, "not sealed"),
        (vec![memfd(4096, SealFlags::SHRINK | SealFlags::GROW), pipe()], 4096, "not sealed"),
        (vec![memfd(4096, SealFlags::GROW | SealFlags::SEAL), pipe()], 4096, "not sealed"),
        (vec![memfd(4096, ALL), pipe()], 8192, "another length"),
        (vec![memfd(8192, ALL), pipe()], 4096, "another length"),
        (vec![memfd(0, ALL), pipe()], 0, "another length"),
        (vec![memfd(100, ALL), pipe()], 100, "another length"),
        (vec![memfd(4096, ALL), pipe()], u64::MAX, "another length"),
        (vec![memfd(4096, ALL | SealFlags::FUTURE_WRITE), pipe()], 4096, "could not be mapped"),
        (vec![memfd(4096, ALL)], 4096, "more or fewer"),
        (vec![], 4096, "without a descriptor"),
    ];
    for (gift, length, reason) in cases {
        let (_ours, mut theirs, way) = pair();
        give(&way, gift);
        let refused = introduce(&mut theirs, length).expect_err(reason);
        assert!(refused.contains(reason), "{refused}, not {reason}");
    }
    let (_ours, mut theirs, way) = pair();
    assert!(introduce(&mut theirs, 4096).expect_err("none was given").contains("has not given"));
    // The first brings the pipe along, and no other.
    give(&way, vec![memfd(4096, ALL), pipe()]);
    introduce(&mut theirs, 4096).expect("as it has to be");
    give(&way, vec![memfd(4096, ALL), pipe()]);
    assert!(introduce(&mut theirs, 4096).expect_err("a second pipe").contains("more or fewer"));
    drop(theirs);
    assert_eq!(hostile_files(), 0, "something is left");
}

#[test]
fn there_may_be_so_many_segments_at_once_and_others_when_some_are_given_up() {
    let (_ours, mut theirs, way) = pair();
    for number in 0..MOST_SEGMENTS + 1 {
        give(&way, std::iter::once(memfd(4096, ALL)).chain((number == 0).then(pipe)).collect());
        let introduced = introduce(&mut theirs, 4096);
        assert_eq!(introduced.is_ok(), number < MOST_SEGMENTS, "{introduced:?}");
    }
    let forget = |theirs: &mut Pages, segment| theirs.handle(Record::Forget { segment }, &mut Vec::new()).map(drop);
    forget(&mut theirs, 7).expect("it is there");
    assert!(forget(&mut theirs, 7).expect_err("it was given up").contains("there is none of"));
    assert!(forget(&mut theirs, u32::MAX).is_err());
    give(&way, vec![memfd(4096, ALL)]);
    introduce(&mut theirs, 4096).expect("there is room again");
    drop(theirs);
    assert_eq!(hostile_files(), 0, "something is left");
}

#[test]
fn a_message_lies_in_its_segment() {
    let (_ours, mut theirs, way) = pair();
    give(&way, vec![memfd(8192, ALL), pipe()]);
    introduce(&mut theirs, 8192).expect("as it has to be");
    let mut hand = |segment, start, length| {
        let place = Handed { segment, token: 3, start, length }.to_bytes();
        theirs.handle(Record::Hand { channel: 0, back: false, place: &place }, &mut Vec::new())
    };
    assert_eq!(hand(0, 4096, 4096).expect("inside").expect("a message").buffer.len(), 4096);
    for (start, length) in [(4097, 4096), (0, 8193), (8192, 1), (u64::MAX, 1), (1, u64::MAX), (0, 0)] {
        assert!(hand(0, start, length).is_err_and(|reason| reason.contains("leaves its segment")), "{start} {length}");
    }
    assert!(hand(1, 0, 1).is_err_and(|reason| reason.contains("none of")));
    assert!(hand(u32::MAX, 0, 1).is_err());
}

#[test]
fn only_what_it_has_is_given_back_and_once() {
    let (mut ours, _theirs, _way) = pair();
    let pool = Pool::builder().shareable(true).build().expect("a pool");
    let lend = |ours: &mut Pages| {
        let buffer = pool.allocate(100).expect("memory");
        let (slab, _) = buffer.shareable().expect("shareable");
        assert!(ours.lent.number(slab).is_some() || ours.lent.introduce(slab, &VecDeque::new()).is_some());
        let token = ours.lent.next_token().expect("there is room");
        ours.lent.handed_over(buffer);
        token
    };
    let mut garbage = Vec::new();
    let mut back = |ours: &mut Pages, token, start, length| {
        let place = Handed { segment: 0, token, start, length }.to_bytes();
        ours.handle(Record::Hand { channel: 0, back: true, place: &place }, &mut garbage)
            .map(|arrived| arrived.map(|it| it.buffer.len()))
    };
    let token = lend(&mut ours);
    assert_eq!(back(&mut ours, token, 10, 20), Ok(Some(20)));
    assert!(back(&mut ours, token, 10, 20).is_err_and(|reason| reason.contains("has not got")));
    for (start, length) in [(0, 101), (100, 1), (u64::MAX, 2), (0, 0)] {
        let token = lend(&mut ours);
        assert!(back(&mut ours, token, start, length).is_err_and(|reason| reason.contains("leaves it")), "{start}");
    }
    let token = lend(&mut ours);
    let returned = |ours: &mut Pages, token: u32| {
        ours.handle(Record::Returned { tokens: &token.to_le_bytes() }, &mut Vec::new()).map(drop)
    };
    assert_eq!(returned(&mut ours, token), Ok(()));
    assert!(returned(&mut ours, token).is_err() && returned(&mut ours, u32::MAX).is_err());
}
