//! What the fuzzers begin with, made of the vectors of `docs/protocol.md`; and all of it, and what once crashed, as tests.

use std::fs;
use std::path::{Path, PathBuf};

use super::{frames, handle, handshake, ring, set_up, stream};
use crate::protocol::vector;

type Target = (&'static str, fn(&[u8]));
const TARGETS: [Target; 6] = [
    ("frames", frames),
    ("handle", handle),
    ("handshake", handshake),
    ("ring", ring),
    ("set_up", set_up),
    ("stream", stream),
];

const HANDLE: &str = "handle read-write key=1029 session=6 slot=7 generation=8 address=258 length=3";

/// Steps of `crate::connection::fuzzed`, in its terms.
mod step {
    pub(super) const POLL: &[u8] = &[6];
    /// On the first channel, fetching ahead.
    pub(super) const RECEIVE: &[u8] = &[9, 0, 1];
    /// Into memory of 4096 bytes.
    pub(super) const CLAIM: &[u8] = &[11, 0, 0, 16];
    pub(super) const GO_ON_WITH_CLAIM: &[u8] = &[12, 0];
    pub(super) const GIVE_UP_CLAIM: &[u8] = &[13, 0];
    pub(super) const COMPLETE: &[u8] = &[14, 0];
    /// 100 bytes, to be acknowledged.
    pub(super) const SEND: &[u8] = &[15, 0, 100, 0, 1];
    pub(super) const OFFER: &[u8] = &[16, 0, 50];
    pub(super) const FINISH: &[u8] = &[17, 0, 0];
    pub(super) const WRITE: &[u8] = &[18, 0x0b];
    pub(super) const GRANT: &[u8] = &[19, 50];
    pub(super) const REVOKE: &[u8] = &[20, 0, 50];
    pub(super) const LOOK_AT_NOTIFICATION: &[u8] = &[21];
    pub(super) const LATER: &[u8] = &[22, 20];
    pub(super) const BREAK: &[u8] = &[23, 0];
    pub(super) const DECLINE: &[u8] = &[23, 2];
    /// Of the peer: a message, an offer, what was taken, window, the end of a channel; one in a frame, without credits.
    pub(super) const MESSAGE: &[u8] = &[0, 2, 0, 0, 0x80, 0, 100, 0];
    pub(super) const PEER_OFFERS: &[u8] = &[0, 2, 0, 0, 2, 0, 200, 0, 0x0b];
    pub(super) const TAKEN: &[u8] = &[0, 2, 0, 0, 3, 0, 0, 0];
    pub(super) const ACKNOWLEDGED: &[u8] = &[0, 2, 9, 0, 5, 0, 1, 0];
    pub(super) const WINDOW: &[u8] = &[0, 2, 9, 0, 4, 0, 164, 0];
    pub(super) const END: &[u8] = &[0, 2, 0, 0, 6, 0, 0, 0];
    /// Of the peer: a request for the grant of `WRITE` and of `PEER_OFFERS`, an answer to ours, and a notification.
    pub(super) const PEER_REVOKES: &[u8] = &[0, 4, 0, 1, 1, 0x0b];
    pub(super) const PEER_AGREES: &[u8] = &[0, 5, 0, 0, 0];
    pub(super) const NOTIFICATION: &[u8] = &[0, 6, 1];
    pub(super) const MANY_NOTIFICATIONS: &[u8] = &[0, 6, 200];
}

/// A connection of middling windows, and what happens to it.
fn connection(steps: &[&[u8]]) -> Vec<u8> {
    [&[4, 3, 4, 3, 0, 0x18, 4, 4, 0][..], &steps.concat()].concat()
}

/// The step in which a frame of these bytes arrives.
fn raw(frame: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &(frame.len() as u16).to_le_bytes(), frame].concat()
}

/// A frame without credits around a payload.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0][..], &(payload.len() as u32).to_le_bytes(), payload].concat()
}

/// All seeds: target, name, bytes.
fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use step::*;
    let data =
        vector("frame data credits=2 message channel=7 acknowledge payload=616263, window channel=7 bytes=258, end");
    let records = &data[8..];
    let introduction =
        vector("introduction features=1 nonce=1 longest=2 credits=3 frame=4096 window=5 domain=6 private=0708");
    let slice = |operation: u8, from: u64, to: u64| [&[operation][..], &from.to_le_bytes(), &to.to_le_bytes()].concat();
    let handles = [&[0][..], &vector(HANDLE), &slice(0, 1, 3), &slice(3, 0, 0), &slice(2, 1, 0), &slice(1, 0, 0)];
    // A list of a handle, bytes, a record, a table and a number, and a limit above its length.
    let value = [
        &[1, 0, 1, 2, 5, 1, 40][..],
        &vector(HANDLE),
        &[0, 2, 7, 8, 6, 2, b'a', b'b', b'c', 9, 1, 7, 1, 3, 1, b'x', 4, 4, 3],
    ];
    let all: [(&str, &str, Vec<u8>); 18] = [
        ("handshake", "introduction", introduction),
        ("handshake", "refusal", vector("refusal busy")),
        ("handle", "handle", handles.concat()),
        ("handle", "value", value.concat()),
        ("frames", "data", connection(&[&raw(&data), POLL])),
        ("frames", "records", connection(&[&raw(&frame(1, records)), POLL, RECEIVE])),
        ("frames", "credit", connection(&[SEND, SEND, &raw(&vector("frame credit credits=258")), POLL])),
        ("frames", "taken", connection(&[OFFER, COMPLETE, POLL, TAKEN, POLL, COMPLETE, POLL, TAKEN, POLL])),
        ("frames", "taken-raw", connection(&[&raw(&frame(1, &vector("taken slot=3 generation=7"))), POLL])),
        ("frames", "revoke", connection(&[&raw(&frame(4, &vector("revoke serial=0 slot=3 generation=7"))), POLL])),
        (
            "frames",
            "revoked",
            connection(&[GRANT, COMPLETE, POLL, REVOKE, &raw(&frame(5, &vector("revoked serial=0"))), POLL]),
        ),
        (
            "frames",
            "messages",
            connection(&[MESSAGE, POLL, RECEIVE, MESSAGE, END, POLL, RECEIVE, RECEIVE, SEND, COMPLETE, POLL]),
        ),
        (
            "frames",
            "windows",
            connection(&[SEND, SEND, COMPLETE, POLL, ACKNOWLEDGED, WINDOW, POLL, SEND, FINISH, COMPLETE, POLL]),
        ),
        (
            "frames",
            "offers",
            connection(&[
                PEER_OFFERS,
                POLL,
                RECEIVE,
                COMPLETE,
                POLL,
                RECEIVE,
                PEER_OFFERS,
                POLL,
                CLAIM,
                GO_ON_WITH_CLAIM,
                COMPLETE,
                POLL,
                GO_ON_WITH_CLAIM,
                GIVE_UP_CLAIM,
                DECLINE,
                MESSAGE,
                PEER_OFFERS,
                POLL,
            ]),
        ),
        (
            "frames",
            "broken",
            connection(&[PEER_OFFERS, MESSAGE, POLL, RECEIVE, BREAK, MESSAGE, POLL, RECEIVE, RECEIVE]),
        ),
        ("frames", "lost", connection(&[PEER_OFFERS, END, SEND, POLL, BREAK, POLL, RECEIVE, CLAIM])),
        (
            "frames",
            "grants",
            connection(&[
                GRANT,
                COMPLETE,
                POLL,
                REVOKE,
                PEER_AGREES,
                POLL,
                COMPLETE,
                POLL,
                WRITE,
                PEER_REVOKES,
                POLL,
                COMPLETE,
                POLL,
                GRANT,
                REVOKE,
                LATER,
                LATER,
            ]),
        ),
        ("frames", "notifications", connection(&[NOTIFICATION, MANY_NOTIFICATIONS, POLL, LOOK_AT_NOTIFICATION, POLL])),
    ];
    all.into_iter().chain(super::transport_seeds::seeds()).collect()
}

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target)
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(path).expect("a file")))
        .collect()
}

#[test]
fn the_seeds_are_those_of_the_document() {
    let seeds = seeds();
    if std::env::var_os("ZCMI_TEST_WRITE_DOCUMENTS").is_some() {
        for (target, name, bytes) in seeds {
            fs::create_dir_all(folder("seeds", target)).expect("a folder");
            fs::write(folder("seeds", target).join(name), bytes).expect("written");
        }
        return;
    }
    for (target, _) in TARGETS {
        let mut is: Vec<_> = files(&folder("seeds", target));
        let of_target = seeds.iter().filter(|seed| seed.0 == target);
        let mut wanted: Vec<_> =
            of_target.map(|(_, name, bytes)| (folder("seeds", target).join(name), bytes.clone())).collect();
        is.sort();
        wanted.sort();
        assert!(
            is == wanted,
            "fuzz/seeds is stale: `ZCMI_TEST_WRITE_DOCUMENTS=1 cargo test --lib the_seeds_are` mends it; delete what is of no seed"
        );
    }
}

#[test]
fn what_fuzzers_begin_with_and_what_once_crashed_passes() {
    for (target, run) in TARGETS {
        seeds().iter().filter(|seed| seed.0 == target).for_each(|seed| run(&seed.2));
        for (path, bytes) in files(&folder("regressions", target)) {
            println!("{}", path.display());
            run(&bytes);
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_pass(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
        TARGETS.iter().for_each(|(_, run)| run(&bytes));
    }
}
