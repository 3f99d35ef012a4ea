//! The `ibverbs` crate as the other end, in a process of its own. It posts sends and receives, and its memory can be
//! read and written.

use std::process::Command;
use std::time::Instant;

use ibverbs::{ibv_qp_type as their_kind, ibv_wc};
use serde_json::{Value, from_str, from_value, json};
use zcmi::verbs::{
    CompletionStatus, Endpoint, Gid, InFlight, Psn, QueuePairKind, Remote, Segment, SendFlags, SendList, SendOperation,
    Tuning,
};

use crate::common::{Peer, fill, pattern, role, say};
use crate::end::{End, LONG_THERE, PATIENCE, POISON, bytes};
use crate::plain_end::PlainEnd;
use crate::support::{Fixture, with_device};

/// Bytes of each of the peer's regions: more than a packet, and no multiple of one.
const LENGTH: usize = 70_001;
const SEED: u64 = 0x1b;

/// The other process: does what it is told with the crate's means.
#[test]
fn peer() {
    let Some(role) = role() else { return };
    let mut words = role.split(' ');
    let kind = if words.next() == Some("uc") { their_kind::IBV_QPT_UC } else { their_kind::IBV_QPT_RC };
    let gid_index = number(words.next()) as u32;
    let context = ibverbs::devices().expect("devices").iter().next().expect("a device").open().expect("opens");
    let completions = context.create_cq(16, 0).expect("a completion queue");
    let domain = context.alloc_pd().expect("a domain");
    let mut message = domain.allocate::<u8>(LENGTH).expect("memory");
    let mut exposed = domain.allocate::<u8>(LENGTH).expect("memory");
    let mut builder = domain.create_qp(&completions, &completions, kind);
    builder.set_gid_index(gid_index).set_rq_psn(number(words.next()) as u32);
    // Half a second: the crate's own 65 µs are no time for an emulated processor.
    builder.allow_remote_rw().set_timeout(17);
    let prepared = builder.build().expect("a queue pair");
    say(json!([prepared.endpoint(), exposed.as_ptr() as u64, exposed.rkey().key]));
    let mut told = std::io::stdin().lines().map_while(Result::ok);
    let ours = from_str(&told.next().expect("our endpoint")).expect("an endpoint");
    let mut pair = prepared.handshake(ours).expect("RTS");
    say("connected");
    for line in told {
        let mut words = line.split(' ');
        match words.next().expect("a word") {
            "receive" => {
                message.fill(POISON);
                let length = number(words.next()) as usize;
                // SAFETY: the memory is not touched before "received" has polled the completion.
                unsafe { pair.post_receive(&mut message, ..length, 1) }.expect("posts");
                say("posted");
            }
            "received" => match their_completion(&completions, 1) {
                Ok((length, immediate)) => {
                    let is_right = message[..length] == pattern(SEED, number(words.next()), length);
                    say(format!("{is_right} {length} {immediate:?}"));
                }
                Err(status) => say(format!("status {status}")),
            },
            "send" => {
                let (round, length) = (number(words.next()), number(words.next()) as usize);
                fill(&mut message[..length], SEED, round);
                // SAFETY: the memory is not touched before the completion has been polled.
                unsafe { pair.post_send(&mut message, ..length, 2) }.expect("posts");
                match their_completion(&completions, 2) {
                    Ok(_) => say("sent"),
                    Err(status) => say(format!("status {status}")),
                }
            }
            "fill" => {
                fill(&mut exposed, SEED, number(words.next()));
                say("filled");
            }
            "compare" => say(exposed[..] == pattern(SEED, number(words.next()), LENGTH)),
            other => panic!("told {other}"),
        }
    }
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|word| word.parse().ok()).expect("a number")
}

/// The peer's next completion, of its request `wr_id`: length and immediate, or the status.
fn their_completion(completions: &ibverbs::CompletionQueue<'_>, wr_id: u64) -> Result<(usize, Option<u32>), u32> {
    let (begun, mut entries) = (Instant::now(), [ibv_wc::default()]);
    loop {
        if let [completion] = completions.poll(&mut entries).expect("polls") {
            assert_eq!(completion.wr_id(), wr_id);
            // The crate answers the immediate in network order.
            let arrival = (completion.len(), completion.imm_data().map(u32::from_be));
            return completion.error().map_or(Ok(arrival), |(status, _)| Err(status));
        }
        assert!(begun.elapsed() < PATIENCE, "no completion of {wr_id}");
        std::thread::yield_now();
    }
}

/// The other process, its queue pair and its exposed memory.
struct Theirs {
    peer: Peer,
    endpoint: Endpoint,
    remote: Remote,
}

impl Theirs {
    /// Starts it with a queue pair for ours, which begins with packet `psn`.
    fn start(kind: QueuePairKind, gid_index: u32, psn: Psn) -> Self {
        let kind = if kind == QueuePairKind::Uc { "uc" } else { "rc" };
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.args(["--exact", "ibverbs_crate::peer", "--nocapture", "--test-threads=1"]);
        command.env("ZCMI_TEST_PEER", format!("{kind} {gid_index} {}", psn.number()));
        let peer = Peer::spawn(command);
        let (theirs, address, key): (Value, u64, u32) = from_str(&peer.hear()).expect("its end");
        let gid: [u8; 16] = from_value(theirs["gid"]["raw"].clone()).expect("a GID");
        let queue_pair = theirs["num"].as_u64().expect("a number") as u32;
        // The crate always begins with packet 0.
        let endpoint = Endpoint { gid: Gid(gid), lid: 0, queue_pair, psn: Psn::from(0) };
        Self { peer, endpoint, remote: Remote { address, key } }
    }

    /// Lets it connect to ours.
    fn connect(&mut self, ours: &Endpoint) {
        let ours = json!({"num": ours.queue_pair, "lid": ours.lid, "gid": {"raw": ours.gid.0}});
        assert_eq!(self.peer.ask(&ours.to_string()), "connected");
    }
}

/// The peer, and our end connected to it.
struct Pair {
    end: End,
    peer: Peer,
    remote: Remote,
}

impl Pair {
    /// Connects a queue pair with two receives of [`LENGTH`] bytes.
    fn connect(fixture: &Fixture, kind: QueuePairKind) -> Self {
        let end = End::prepared(fixture, kind, mtu(fixture), 2, LENGTH);
        let mut theirs = Theirs::start(kind, end.local.gid_index, end.local.psn);
        end.connect(&theirs.endpoint);
        theirs.connect(&end.endpoint());
        Self { end, peer: theirs.peer, remote: theirs.remote }
    }

    /// A message from us to the crate.
    fn there(&mut self, round: u64, length: usize, immediate: Option<u32>) {
        assert_eq!(self.peer.ask(&format!("receive {LENGTH}")), "posted");
        let memory = self.end.buffer(&pattern(SEED, round, length));
        let operation = immediate.map_or(SendOperation::Send, SendOperation::SendWithImmediate);
        self.end.post(round, operation, memory);
        assert_eq!(self.peer.ask(&format!("received {round}")), format!("true {length} {immediate:?}"));
        let sent = self.end.next();
        assert!(!sent.is_receive && sent.token == round && sent.result.is_ok(), "{sent:?}");
    }

    /// A message from the crate to us.
    fn back(&mut self, round: u64, length: usize) {
        assert_eq!(self.peer.ask(&format!("send {round} {length}")), "sent");
        let received = self.end.next();
        assert!(
            received.is_receive && bytes(&received) == pattern(SEED, round, length),
            "round {round}, {length} bytes"
        );
        self.end.post_again(received.memory.expect("a receive has memory"));
    }

    /// Ends the peer, which must be content.
    fn finish(self) {
        assert!(self.peer.finish().success());
    }
}

fn mtu(fixture: &Fixture) -> u32 {
    fixture.context.port(1).expect("a port").active_mtu.bytes().expect("a known MTU")
}

#[test]
fn messages_both_ways_over_a_reliable_connection() {
    with_device(|fixture| {
        let mut pair = Pair::connect(fixture, QueuePairKind::Rc);
        for (round, length) in [1, 4096, 4097, LENGTH].into_iter().enumerate() {
            pair.there(round as u64, length, (round % 2 == 1).then_some(0x0102_0304));
            pair.back(round as u64 + 100, length);
        }
        pair.finish();
    });
}

#[test]
fn messages_both_ways_over_an_unreliable_connection() {
    with_device(|fixture| {
        let mut pair = Pair::connect(fixture, QueuePairKind::Uc);
        for (round, length) in [1, 4096, LENGTH].into_iter().enumerate() {
            pair.there(round as u64, length, (round % 2 == 1).then_some(0x0102_0304));
            pair.back(round as u64 + 100, length);
        }
        pair.finish();
    });
}

/// Its memory is written and read; it only looks before and after.
#[test]
fn the_crates_memory_is_written_and_read() {
    with_device(|fixture| {
        let mut pair = Pair::connect(fixture, QueuePairKind::Rc);
        let memory = pair.end.buffer(&pattern(SEED, 7, LENGTH));
        pair.end.post(1, SendOperation::Write(pair.remote), memory);
        pair.end.next().result.expect("written");
        assert_eq!(pair.peer.ask("compare 7"), "true");
        assert_eq!(pair.peer.ask("fill 8"), "filled");
        let memory = pair.end.buffer(&[POISON; LENGTH]);
        pair.end.post(2, SendOperation::Read(pair.remote), memory);
        let read = pair.end.next();
        read.result.expect("read");
        assert!(read.memory.expect("its memory")[..] == pattern(SEED, 8, LENGTH));
        pair.finish();
    });
}

#[test]
fn a_list_of_the_unsafe_tier_arrives_in_order() {
    with_device(|fixture| {
        let mut end = PlainEnd::new(fixture, QueuePairKind::Rc, mtu(fixture), LENGTH);
        end.pair.prepare(&end.local).expect("INIT");
        let mut theirs = Theirs::start(QueuePairKind::Rc, end.local.gid_index, end.local.psn);
        end.pair.connect_to(&end.local, &theirs.endpoint, &Tuning::default()).expect("connects");
        theirs.connect(&end.endpoint());
        assert_eq!(theirs.peer.ask("receive 9"), "posted");
        fill(&mut end.sent, SEED, 3);
        end.received[..9].copy_from_slice(&pattern(SEED, 4, 9));
        let whole = end.sent.segment();
        let mut list = SendList::new();
        for half in [0..LENGTH / 2, LENGTH / 2..LENGTH] {
            let offset = half.start as u64;
            let remote = Remote { address: theirs.remote.address + offset, ..theirs.remote };
            let segment = Segment { address: whole.address + offset, length: half.len() as u32, ..whole };
            list.push(1, SendOperation::Write(remote), &[segment], SendFlags::NONE);
        }
        let last = Segment { length: 9, ..end.received.segment() };
        list.push(2, SendOperation::Send, &[last], SendFlags::SIGNALED);
        // SAFETY: both buffers are left alone until `sent` has polled the last request's completion, and outlive the queue
        // pair.
        unsafe { end.pair.post_send_list(&mut list) }.expect("posts");
        assert!(list.is_empty());
        assert_eq!(theirs.peer.ask("received 4"), "true 9 None");
        assert_eq!(theirs.peer.ask("compare 3"), "true");
        end.sent(2);
        assert!(theirs.peer.finish().success());
    });
}

#[test]
fn a_wrong_key_is_refused_by_the_crates_memory() {
    with_device(|fixture| {
        let mut pair = Pair::connect(fixture, QueuePairKind::Rc);
        assert_eq!(pair.peer.ask("fill 5"), "filled");
        let memory = pair.end.buffer(&[POISON; 64]);
        let wrong = Remote { key: pair.remote.key ^ 0xff00, ..pair.remote };
        pair.end.post(1, SendOperation::Write(wrong), memory);
        let failed = pair.end.next();
        assert_eq!(failed.result.expect_err("refused").status, CompletionStatus::RemoteAccess);
        assert_eq!(pair.peer.ask("compare 5"), "true", "nothing was written");
        pair.peer.kill();
        drop(pair.end);
        // The device has taken no harm.
        let mut pair = Pair::connect(fixture, QueuePairKind::Rc);
        pair.there(1, 64, None);
        pair.finish();
    });
}

#[test]
fn a_message_longer_than_the_crates_receive_fails_at_both_ends() {
    with_device(|fixture| {
        let mut pair = Pair::connect(fixture, QueuePairKind::Rc);
        assert_eq!(pair.peer.ask("receive 4096"), "posted");
        let memory = pair.end.buffer(&[1; 8192]);
        pair.end.post(1, SendOperation::Send, memory);
        let failed = pair.end.next();
        let status = failed.result.expect_err("too long").status;
        assert!(LONG_THERE.iter().any(|&(known, _)| known == status), "{status:?}");
        let said = pair.peer.ask("received 0");
        assert!(said.starts_with("status "), "{said}");
        pair.peer.kill();
    });
}

#[test]
fn a_peer_that_is_killed_ends_our_requests_in_time() {
    with_device(|fixture| {
        let mut pair = Pair::connect(fixture, QueuePairKind::Rc);
        pair.there(1, 64, None);
        pair.peer.kill();
        let memory = pair.end.buffer(&[1; 64]);
        pair.end.post(2, SendOperation::Send, memory);
        let failed = pair.end.next();
        assert_eq!((failed.token, failed.is_receive), (2, false));
        assert_eq!(failed.result.expect_err("nobody is there").status, CompletionStatus::RetryExceeded);
        assert_eq!(failed.memory.expect("the buffer comes back")[..], [1; 64]);
    });
}
