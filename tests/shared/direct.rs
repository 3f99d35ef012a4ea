//! One-sided access by the holder's own processor.

use std::time::Duration;

use rustix::process::Signal;
use zcmi::{Access, Buffer, Config, Connection, ErrorKind, RemoteBuffer, Revocation, Worker};

use crate::common::{Peer, fill, pattern, run, sharing};
use crate::player::{ask, config, start, sum, sum_of, worker};

/// Longer than a page, and than any frame.
const LENGTH: usize = 100_000;

/// A handle of memory of the peer's, filled with the pattern of `seed`.
async fn exposed(peer: &mut Peer, connection: &Connection, seed: u64) -> RemoteBuffer {
    peer.tell(&format!("expose {seed} {LENGTH}"));
    let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("a handle")).expect("a handle");
    assert_eq!(peer.hear_aside().await, "exposed");
    handle
}

fn filled(seed: u64, length: usize) -> Buffer {
    let mut buffer = Buffer::allocate(length).expect("memory");
    fill(&mut buffer, seed, 0);
    buffer
}

#[test]
fn a_stopped_owner_is_read_and_written_and_its_words_are_changed() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        let handle = exposed(&mut peer, &connection, 3).await;
        peer.signal(Signal::STOP);
        let read = connection.read(Buffer::allocate(LENGTH).expect("memory"), &handle).await.expect("reads");
        assert!(*read == pattern(3, 0, LENGTH));
        // A part that begins and ends between words.
        let part = handle.slice(1001..2010).expect("inside");
        connection.write(filled(4, 1009), &part).await.expect("writes");
        let word = handle.at::<u64>(8).expect("inside");
        let before = u64::from_ne_bytes(read[8..16].try_into().expect("eight"));
        assert_eq!(connection.fetch_add(&word, 5).await.expect("adds"), before);
        let sum_there = before.wrapping_add(5);
        assert_eq!(connection.compare_swap(&word, sum_there, 7).await.expect("swaps"), sum_there);
        assert_eq!(connection.compare_swap(&word, sum_there, 8).await.expect("does not"), 7);
        // Lists are gathered and scattered, in a batch too.
        let tail = handle.slice(50_000..).expect("inside");
        let mut batch = connection.batch();
        let list = batch.write(vec![filled(5, 10), filled(6, 20_000), filled(7, 0)], &tail);
        batch.post();
        list.await.expect("writes");
        let lists = vec![Buffer::allocate(10).expect("memory"), Buffer::allocate(20_000).expect("memory")];
        let lists = connection.read(lists, &tail).await.expect("reads");
        assert!(*lists[0] == pattern(5, 0, 10) && *lists[1] == pattern(6, 0, 20_000));
        // The notification waits until the owner looks; the bytes do not.
        connection.write_notify(filled(8, 30), &handle.slice(100..130).expect("inside"), 77).await.expect("writes");
        assert!(peer.is_stopped(), "it was stopped all the time");
        peer.signal(Signal::CONT);
        assert_eq!(ask(&mut peer, "notified").await, "77");
        let mut expected = pattern(3, 0, LENGTH);
        expected[1001..2010].copy_from_slice(&pattern(4, 0, 1009));
        expected[8..16].copy_from_slice(&7u64.to_ne_bytes());
        expected[50_000..50_010].copy_from_slice(&pattern(5, 0, 10));
        expected[50_010..70_010].copy_from_slice(&pattern(6, 0, 20_000));
        expected[100..130].copy_from_slice(&pattern(8, 0, 30));
        assert_eq!(ask(&mut peer, "look").await, sum(&expected));
        assert_eq!(ask(&mut peer, "end").await, format!("Agreed {}", sum(&expected)));
        let failed = connection.read(Buffer::allocate(8).expect("memory"), &handle).await.expect_err("revoked");
        assert_eq!(failed.error.kind(), ErrorKind::Revoked, "{}", failed.error);
        connection.send(b"lives").await.expect("sends");
    });
}

#[test]
fn what_is_long_is_served_by_its_owner() {
    const LONG: usize = (4 << 20) + 1;
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        peer.tell(&format!("expose 3 {LONG}"));
        let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("a handle")).expect("a handle");
        assert_eq!(peer.hear_aside().await, "exposed");
        peer.signal(Signal::STOP);
        let most = handle.slice(1..).expect("inside");
        let read = connection.read(Buffer::allocate(LONG - 1).expect("memory"), &most).await.expect("reads");
        assert!(*read == pattern(3, 0, LONG)[1..]);
        let mut all = Box::pin(connection.read(Buffer::allocate(LONG).expect("memory"), &handle).into_future());
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut all).await.is_err(), "nobody has served it");
        assert!(peer.is_stopped(), "it was stopped all the time");
        peer.signal(Signal::CONT);
        assert!(*all.await.expect("reads") == pattern(3, 0, LONG));
    });
}

#[test]
fn rights_and_bounds_are_the_handles() {
    run(async {
        let worker = worker();
        let listener = zcmi::Listener::bind(&worker, "shm://").await.expect("listens");
        let (holder, owner) = crate::common::connect_to(&worker, &listener).await;
        let memory = owner.allocate(4096).expect("memory").expose();
        let grant = memory.grant(&owner, 100..200, Access::READ).await.expect("grants");
        let handle = grant.remote_buffer();
        let failed = holder.write(filled(1, 8), &handle).await.expect_err("it may only be read");
        assert_eq!(failed.error.kind(), ErrorKind::AccessDenied, "{}", failed.error);
        let failed = holder.read(Buffer::allocate(101).expect("memory"), &handle).await.expect_err("too much");
        assert_eq!(failed.error.kind(), ErrorKind::OutOfBounds, "{}", failed.error);
        memory.write_at(100, &[9; 100]);
        let read = holder.read(Buffer::allocate(100).expect("memory"), &handle).await.expect("reads");
        assert_eq!(*read, [9; 100]);
        drop(grant);
        memory.into_buffer().await.expect("comes back");
    });
}

#[test]
fn a_polite_holder_leaves_the_memory_where_it_is() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        let buffer = connection.allocate(LENGTH).expect("memory");
        let address = buffer.as_ptr().addr();
        let memory = buffer.expose();
        let grant = memory.grant(&connection, 0..LENGTH, Access::READ_WRITE).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        assert_eq!(ask(&mut peer, "learn").await, "learnt");
        assert_eq!(ask(&mut peer, "write 5").await, "written");
        let back = memory.into_buffer().await.expect("comes back");
        assert_eq!(back.as_ptr().addr(), address);
        assert!(*back == pattern(5, 0, LENGTH));
        assert_eq!(ask(&mut peer, "write 6").await, "Revoked");
        assert!(*back == pattern(5, 0, LENGTH));
    });
}

#[test]
fn a_holder_that_does_not_let_go_keeps_the_pages_and_the_owner_has_the_bytes() {
    run(async {
        let worker = Worker::new(sharing(Config { revoke_timeout: Duration::from_millis(100), ..config() }));
        let (mut peer, connection) = start("shares", &worker.expect("valid settings")).await;
        let pool = connection.pool();
        let before = pool.statistics().in_use_bytes;
        let buffer = connection.allocate(LENGTH).expect("memory");
        let address = buffer.as_ptr().addr();
        let memory = buffer.expose();
        let grant = memory.grant(&connection, 0..LENGTH, Access::READ_WRITE).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        assert_eq!(ask(&mut peer, "learn").await, "learnt");
        assert_eq!(ask(&mut peer, "write 5").await, "written");
        peer.signal(Signal::STOP);
        assert_eq!(grant.revoke().await.expect("is taken back"), Revocation::Forced);
        let back = memory.into_buffer().await.expect("comes back");
        assert_ne!(back.as_ptr().addr(), address, "the holder can still write there");
        assert!(*back == pattern(5, 0, LENGTH));
        let error = connection.recv().await.expect_err("it has ended");
        assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
        assert!(pool.statistics().in_use_bytes > before, "the pages are used again");
        // Whatever it writes now, as one that was stopped in the midst of it.
        peer.signal(Signal::CONT);
        assert_eq!(ask(&mut peer, "closed").await, "ConnectionBroken");
        assert!(*back == pattern(5, 0, LENGTH));
        // As soon as it has unmapped them they are ours again.
        soon(|| pool.statistics().in_use_bytes == before).await;
        peer.kill();
    });
}

#[test]
fn what_a_runaway_holder_writes_reaches_nobody_and_its_death_gives_the_pages_back() {
    run(async {
        let worker = Worker::new(sharing(Config { revoke_timeout: Duration::from_millis(100), ..config() }));
        let (mut peer, connection) = start("shares", &worker.expect("valid settings")).await;
        let pool = connection.pool();
        let before = pool.statistics().in_use_bytes;
        // Something that it holds, so that it keeps the pages when the connection has ended.
        let kept = connection.allocate(LENGTH).expect("memory");
        connection.hand_over(kept).await.expect("hands over");
        ask(&mut peer, "hold").await;
        let mut buffer = connection.allocate(LENGTH).expect("memory");
        fill(&mut buffer, 5, 0);
        let memory = buffer.expose();
        let grant = memory.grant(&connection, 0..LENGTH, Access::READ_WRITE).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        assert_eq!(ask(&mut peer, "learn").await, "learnt");
        peer.signal(Signal::STOP);
        let back = memory.into_buffer().await.expect("comes back");
        peer.signal(Signal::CONT);
        assert_eq!(ask(&mut peer, "closed").await, "ConnectionBroken");
        assert_eq!(ask(&mut peer, "scribble 238").await, "scribbled");
        assert!(*back == pattern(5, 0, LENGTH), "the holder's write has reached the owner's buffer");
        drop(grant);
        assert!(pool.statistics().in_use_bytes >= before + 2 * LENGTH, "the pages are used again");
        peer.kill();
        soon(|| pool.statistics().in_use_bytes == before).await;
    });
}

/// Waits until that is so.
pub(crate) async fn soon(mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is not so after five seconds");
}

#[test]
fn other_memory_is_served_by_the_owner_on_the_same_connection() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        let memory = filled(2, LENGTH).expose();
        let grant = memory.grant(&connection, 0..LENGTH, Access::READ_WRITE).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        assert_eq!(ask(&mut peer, "learn").await, "learnt");
        assert_eq!(ask(&mut peer, "read").await, sum_of(2, LENGTH));
        assert_eq!(ask(&mut peer, "write 3").await, "written");
        drop(grant);
        assert!(*memory.into_buffer().await.expect("comes back") == pattern(3, 0, LENGTH));
    });
}

#[test]
fn a_dropped_exposure_is_not_used_again_while_somebody_may_access_it() {
    run(async {
        let worker = Worker::new(sharing(Config { revoke_timeout: Duration::from_millis(100), ..config() }));
        let (mut peer, connection) = start("shares", &worker.expect("valid settings")).await;
        let pool = connection.pool();
        let before = pool.statistics().in_use_bytes;
        let memory = connection.allocate(LENGTH).expect("memory").expose();
        let grant = memory.grant(&connection, 0..LENGTH, Access::READ_WRITE).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        assert_eq!(ask(&mut peer, "learn").await, "learnt");
        peer.signal(Signal::STOP);
        assert_eq!(grant.revoke().await.expect("is taken back"), Revocation::Forced);
        drop(memory);
        connection.recv().await.expect_err("it has ended");
        drop(connection);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(pool.statistics().in_use_bytes >= before + LENGTH, "the pages are used again");
        peer.kill();
        soon(|| pool.statistics().in_use_bytes == before).await;
    });
}

#[test]
fn a_dropped_exposure_comes_home_when_its_holder_agrees() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        let pool = connection.pool();
        let before = pool.statistics().in_use_bytes;
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("our descriptors").count();
        let mut files = None;
        for round in 0..9 {
            let memory = connection.allocate(LENGTH).expect("memory").expose();
            let grant = memory.grant(&connection, 0..LENGTH, Access::READ_WRITE).await.expect("grants");
            connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
            assert_eq!(ask(&mut peer, "learn").await, "learnt");
            assert_eq!(ask(&mut peer, format!("write {round}")).await, "written");
            drop(memory);
            assert_eq!(grant.ended().await.expect("is taken back"), Revocation::Agreed);
            // The first leaves the pipe of the connection.
            let files = *files.get_or_insert_with(descriptors);
            soon(|| pool.statistics().in_use_bytes == before && descriptors() <= files).await;
        }
        assert_eq!(ask(&mut peer, "write 1").await, "Revoked");
    });
}

/// Memory that the owner serves and memory that is accessed directly, on one connection: what was begun first is there first.
#[test]
fn what_goes_directly_overtakes_nothing_that_is_served() {
    run(async {
        let worker = worker();
        let listener = zcmi::Listener::bind(&worker, "shm://").await.expect("listens");
        let (holder, owner) = crate::common::connect_to(&worker, &listener).await;
        let served = Buffer::allocate(1 << 20).expect("memory").expose();
        let direct = owner.allocate(64).expect("memory").expose();
        direct.write_at(0, &[0; 64]);
        let served_grant = served.grant(&owner, 0..1 << 20, Access::READ_WRITE).await.expect("grants");
        let direct_grant = direct.grant(&owner, 0..64, Access::READ_WRITE).await.expect("grants");
        let (there, flag) = (served_grant.remote_buffer(), direct_grant.remote_buffer());
        for round in 1..20u8 {
            let mut bytes = Buffer::allocate(1 << 20).expect("memory");
            bytes.fill(round);
            let data = holder.write(bytes, &there);
            let mut bytes = Buffer::allocate(64).expect("memory");
            bytes.fill(round);
            let told = holder.write(bytes, &flag);
            let mut is_set = [0; 64];
            let mut last = [0; 1];
            direct.read_at(0, &mut is_set);
            served.read_at((1 << 20) - 1, &mut last);
            assert!(is_set[0] != round || last[0] == round, "round {round}: it is set, and the bytes are not there");
            data.await.expect("writes");
            told.await.expect("writes");
            direct.read_at(0, &mut is_set);
            assert_eq!(is_set, [round; 64]);
        }
    });
}
