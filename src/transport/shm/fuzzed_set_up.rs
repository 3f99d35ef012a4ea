//! A fuzzer that comes to a listener: what it says, in which parts, and which descriptors it gives along.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::LazyLock;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, open};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};

use super::ShmCarrier;
use super::pages::Ours;
use crate::fuzzing::Input;
use crate::transport::framed::fuzzed::Visit;

/// Descriptors that are taken at all.
const MOST_GIFTS: usize = 4;
const LENGTH: usize = 8192;

/// What may be given: those that may, and then those that may not.
struct Things {
    good: Vec<OwnedFd>,
    bad: Vec<OwnedFd>,
}

static THINGS: LazyLock<Things> = LazyLock::new(|| {
    let seals = SealFlags::FUTURE_WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let without = |seal: SealFlags| file(LENGTH, LENGTH, seals.difference(seal));
    let again = |file: &OwnedFd, how: OFlags| {
        open(format!("/proc/self/fd/{}", file.as_raw_fd()), how | OFlags::CLOEXEC, Mode::empty()).expect("opens")
    };
    let ours = || Ours::new(LENGTH / 2).expect("memory").1;
    let at = |path: &str, how: OFlags| open(path, how | OFlags::CLOEXEC, Mode::empty()).expect("it is there");
    let (one, other) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("sockets");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    Things {
        good: vec![ours(), without(SealFlags::empty()), again(&ours(), OFlags::RDONLY)],
        bad: vec![
            again(&ours(), OFlags::PATH),
            without(SealFlags::FUTURE_WRITE),
            without(SealFlags::SHRINK),
            without(SealFlags::GROW),
            without(SealFlags::SEAL),
            without(seals),
            file(LENGTH - 1, LENGTH, seals),
            file(4096, 4096, seals),
            file(0, 0, seals),
            file(LENGTH, 4096, seals),
            file(4096 + (2 << 20), 4096, seals),
            at("/dev/null", OFlags::RDWR),
            at("/dev/zero", OFlags::RDWR),
            at("/", OFlags::DIRECTORY),
            at("/proc/self/exe", OFlags::RDONLY),
            one,
            other,
            reader.into(),
            writer.into(),
        ],
    }
});

/// A file of so many bytes, of which so many are there.
fn file(length: usize, there: usize, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory");
    ftruncate(&file, length as u64).expect("memory");
    rustix::io::pwrite(&file, &vec![0; there.min(length)], 0).expect("writes");
    if length > 0 {
        rustix::io::pwrite(&file, b"zcmring1", 384).expect("writes");
    }
    fcntl_add_seals(&file, seals).expect("seals");
    file
}

/// The lowest number that no descriptor has: it grows if one is left.
fn lowest() -> i32 {
    rustix::io::dup(&THINGS.good[0]).expect("a descriptor").as_raw_fd()
}

/// Lets a peer say anything, and give any descriptors, to who listens.
pub(crate) fn set_up(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let before = lowest();
    let (ours, peer) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("sockets");
    let mut visit = Visit::new(ours);
    let private = [7; 40];
    let length = input.below(private.len());
    let mut request = Visit::request(&private[..length]);
    let wrong = input.byte();
    if wrong >= 0xc0 {
        let at = input.below(request.len());
        request[at] = input.byte();
    }
    let (mut left, mut said, mut given) = (&request[..], Vec::new(), Vec::new());
    let mut has_heard = false;
    while !has_heard && !input.is_empty() {
        let now = input.below(64).min(left.len());
        let (part, rest) = left.split_at(now);
        left = rest;
        let part = if part.is_empty() { input.take(8) } else { part };
        let gifts: Vec<_> = (0..[0, 0, 1, 1, 1, 2, 3, 6][input.below(8)]).map(|_| usize::from(input.byte())).collect();
        if part.is_empty() || !say(&peer, part, &gifts) {
            break;
        }
        given.push((said.len(), gifts));
        said.extend_from_slice(part);
        has_heard = visit.hear();
    }
    drop(peer);
    assert!(visit.hear(), "it waits for one that has gone");
    // What comes with bytes that are looked at is taken.
    let (looked_at, is_request) = Visit::looked_at(&said);
    let (mut taken, mut is_pushy) = (Vec::new(), false);
    for (_, gifts) in given.into_iter().filter(|(at, _)| *at < looked_at) {
        taken.extend(gifts);
        is_pushy |= taken.len() > MOST_GIFTS;
    }
    let is_welcome = is_request
        && !is_pushy
        && matches!(taken[..], [one] if one % (THINGS.good.len() + THINGS.bad.len()) < THINGS.good.len());
    match visit.wish::<ShmCarrier>() {
        Ok((data, _)) => assert!(is_welcome && HELLO + data == looked_at, "{taken:?} is taken"),
        Err(reason) => assert!(!is_welcome, "{reason}"),
    }
    // Other tests of the process have descriptors of their own that come and go.
    assert!(cfg!(test) || lowest() == before, "a descriptor is left");
}

/// Bytes of an introduction before its data.
const HELLO: usize = 16;

/// Says something, and gives something along; answers whether that was taken.
fn say(socket: &OwnedFd, bytes: &[u8], gifts: &[usize]) -> bool {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    let Things { good, bad } = &*THINGS;
    let gifts: Vec<_> =
        gifts.iter().map(|&gift| good.iter().chain(bad).cycle().nth(gift).expect("a cycle").as_fd()).collect();
    if !gifts.is_empty() {
        assert!(along.push(SendAncillaryMessage::ScmRights(&gifts)), "there is room");
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL).is_ok_and(|sent| sent == bytes.len())
}
