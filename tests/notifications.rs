//! Writes that notify, fences and flushes: with an owner in another process that is stopped while it is written, and in
//! one process. On a real device.

mod common;

use std::future::Future;
use std::time::{Duration, Instant};

use common::{Peer, aside, baseline, device_address, listen, nothing_left, on_device, pair, pattern, play, role, say};
use common::{told, worker};
use zcmi::{
    Access, Batch, Buffer, Config, Connection, Connector, ErrorKind, ExposedBuffer, Grant, Operation, RemoteBuffer,
    Worker,
};

const SOON: Duration = Duration::from_secs(20);
/// Notifications that an end keeps.
const ROOM: u32 = 256;
/// Bytes that each notification is about.
const SLOT: usize = 64;

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

fn filled(seed: u64, iteration: u64, length: usize) -> Buffer {
    let mut buffer = common::allocate(length);
    common::fill(&mut buffer, seed, iteration);
    buffer
}

/// Exposed memory of `length` bytes, and a grant of all of it.
async fn grant(owner: &Connection, length: usize, access: Access) -> (ExposedBuffer, Grant) {
    let mut buffer = common::allocate(length);
    buffer.fill(0xee);
    let exposed = buffer.expose();
    let grant = exposed.grant(owner, 0..length, access).await.expect("grants");
    (exposed, grant)
}

fn at(exposed: &ExposedBuffer, offset: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    exposed.read_at(offset, &mut bytes);
    bytes
}

fn slot(handle: &RemoteBuffer, index: usize) -> RemoteBuffer {
    handle.slice((index * SLOT) as u64..((index + 1) * SLOT) as u64).expect("inside")
}

/// The owner: grants memory, and when it is asked says which notifications have come and whether the bytes are there.
#[test]
fn peer() {
    let Some(seed) = role() else { return };
    let seed: u64 = seed.parse().expect("a seed");
    play(async {
        let listener = listen(&worker(), &device_address().expect("the test has found it")).await;
        say(listener.uri());
        let mut told = told();
        let connection = listener.accept().await.expect("accepts");
        let (exposed, grant) = grant(&connection, 64 * SLOT, Access::READ_WRITE).await;
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        while let Some(count) = told.recv().await {
            let mut seen = Vec::new();
            for _ in 0..count.parse::<usize>().expect("a number") {
                let value = connection.notified().await.expect("a notification");
                let is_there = at(&exposed, value as usize * SLOT, SLOT) == pattern(seed, value.into(), SLOT);
                seen.push(format!("{value}{}", if is_there { "" } else { " without its bytes" }));
            }
            assert_eq!(connection.try_notified().expect("lives"), None);
            say(seen.join(","));
        }
    });
}

/// Adds to a batch what notifies of a slot, as soon as there is room: what finds none is not posted before it is awaited, and never if
/// it is dropped.
async fn staged(worker: &Worker, batch: &mut Batch<'_>, handle: &RemoteBuffer, index: usize) -> Operation<Buffer> {
    let begun = Instant::now();
    loop {
        let operation = batch.write_notify(filled(77, index as u64, SLOT), &slot(handle, index), index as u32);
        if operation.is_posted() {
            return operation;
        }
        assert!(begun.elapsed() < SOON, "the peer gives no credit back");
        worker.progress();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn an_owner_that_is_stopped_is_written_and_hears_of_it_later() {
    on_device(|_| async {
        let mut peer = Peer::start("77");
        // It may be stopped for longer than a peer may be silent.
        let settings = Config { heartbeat: Duration::ZERO, ..Config::default() };
        let worker = common::worker_with(settings);
        let connection = Connector::new(&worker).connect(&peer.hear()).await.expect("connects");
        let handle = RemoteBuffer::from_bytes(&soon(connection.recv()).await.expect("receives")).expect("a handle");
        let notify = |index: usize| {
            let source = filled(77, index as u64, SLOT);
            soon(connection.write_notify(source, &slot(&handle, index), index as u32))
        };
        common::while_stopped(&peer, async {
            // A connection begins with one credit.
            notify(31).await.expect("writes");
            // Where pages are shared, it is the process that says what has come.
            if !common::shares_pages() {
                soon(connection.flush()).await.expect("its process has no part in it");
            }
            let read = soon(connection.read(common::allocate(SLOT), &slot(&handle, 31))).await;
            assert_eq!(read.expect("reads")[..], pattern(77, 31, SLOT));
        })
        .await;
        for index in [3, 0, 9, 9] {
            notify(index).await.expect("writes");
        }
        assert_eq!(peer.ask("5"), "31,3,0,9,9");
        // A batch, which it waits for.
        peer.tell("3");
        let mut batch = connection.batch();
        let first = staged(&worker, &mut batch, &handle, 40).await;
        // Not awaited: it happens all the same.
        drop(staged(&worker, &mut batch, &handle, 41).await);
        let last = staged(&worker, batch.fence(), &handle, 42).await;
        batch.post();
        soon(async { tokio::try_join!(first, last) }).await.expect("writes");
        assert_eq!(peer.hear(), "40,41,42");
        assert!(peer.finish().success());
    });
}

#[test]
fn notifications_wait_for_room_and_none_is_lost() {
    on_device(|address| async move {
        // Few receives, so that there are fewer credits than room for notifications.
        for receive_depth in [3, 600] {
            let settings = Config { receive_depth, ..Config::default() };
            let (client, server) = pair(&common::worker_with(settings), &address).await;
            let (exposed, grant) = grant(&server, 8192, Access::WRITE).await;
            let handle = grant.remote_buffer();
            let notify = |value: u32| {
                let mut buffer = common::allocate(8);
                buffer.copy_from_slice(&u64::from(value).to_le_bytes());
                let place = u64::from(value) * 8;
                client.write_notify(buffer, &handle.slice(place..place + 8).expect("inside"), value)
            };
            // Posted together as far as there is room; the others when they are polled.
            let many = async |values: std::ops::Range<u32>| {
                let operations: Vec<_> = values.map(notify).collect();
                for operation in operations {
                    operation.await.expect("writes");
                }
            };
            soon(many(0..ROOM)).await;
            let stuck = tokio::time::timeout(Duration::from_millis(100), notify(ROOM)).await;
            assert!(stuck.is_err(), "there is no room for one more, and it was given up");
            // Other things go on meanwhile.
            soon(client.send(b"hello")).await.expect("sends");
            assert_eq!(&*soon(server.recv()).await.expect("receives"), b"hello");
            let hear = async || {
                let value = server.notified().await.expect("a notification");
                let bytes = at(&exposed, value as usize * 8, 8).try_into().expect("eight");
                assert_eq!(u64::from_le_bytes(bytes), value.into(), "its bytes are there");
                value
            };
            // One is looked at: there is room for one.
            let mut heard = vec![hear().await];
            soon(notify(ROOM)).await.expect("writes");
            assert!(tokio::time::timeout(Duration::from_millis(100), notify(ROOM + 1)).await.is_err());
            let hearing = async {
                for _ in 1..3 * ROOM {
                    heard.push(hear().await);
                }
            };
            soon(async { tokio::join!(many(ROOM + 1..3 * ROOM), hearing) }).await;
            heard.sort_unstable();
            assert!(heard.into_iter().eq(0..3 * ROOM), "each once");
            assert_eq!(server.try_notified().expect("lives"), None);
        }
    });
}

#[test]
fn what_was_notified_comes_before_the_end_and_waiting_is_given_up_without_loss() {
    on_device(|address| async move {
        let worker = worker();
        let before = baseline(&worker, &address).await;
        let (client, server) = pair(&worker, &address).await;
        let (exposed, grant) = grant(&server, 64, Access::WRITE).await;
        for value in 0..10 {
            // Given up while it waits.
            assert!(tokio::time::timeout(Duration::from_micros(100), server.notified()).await.is_err());
            soon(client.write_notify(filled(1, 1, 64), &grant.remote_buffer(), value)).await.expect("writes");
            assert_eq!(soon(server.notified()).await.expect("a notification"), value);
        }
        let waiting = tokio::spawn({
            let server = server.clone();
            async move { server.notified().await }
        });
        soon(client.write_notify(filled(1, 1, 64), &grant.remote_buffer(), 10)).await.expect("writes");
        assert_eq!(soon(waiting).await.expect("no panic").expect("a notification"), 10);
        soon(client.write_notify(filled(1, 1, 64), &grant.remote_buffer(), 11)).await.expect("writes");
        let waiting = tokio::spawn({
            let server = server.clone();
            async move { (server.notified().await, server.notified().await) }
        });
        soon(client.finish()).await.expect("finishes");
        let (last, end) = soon(waiting).await.expect("no panic");
        assert_eq!(last.expect("before the end"), 11);
        assert_eq!(end.expect_err("the end").kind(), ErrorKind::PeerClosed);
        assert_eq!(server.try_notified().expect_err("the end").kind(), ErrorKind::PeerClosed);
        let refused = client.write_notify(filled(1, 1, 64), &grant.remote_buffer(), 1).await.expect_err("finished");
        assert_eq!((refused.error.kind(), refused.error.operation()), (ErrorKind::Closed, "write and notify"));
        assert!(refused.buffer.is_some());
        drop(grant);
        exposed.into_buffer().await.expect("comes back");
        soon(async { tokio::try_join!(client.close(), server.close()) }).await.expect("closes");
        drop((client, server, refused));
        nothing_left(&before).await;
    });
}

#[test]
fn what_must_not_be_written_is_no_notification() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let (_exposed, grant) = grant(&server, 64, Access::READ).await;
        let failed = client.write_notify(filled(1, 1, 64), &grant.remote_buffer(), 1).await.expect_err("for reading");
        assert_eq!(failed.error.kind(), ErrorKind::AccessDenied);
        let handle = grant.remote_buffer();
        grant.revoke().await.expect("revokes");
        let failed = client.write_notify(filled(1, 1, 64), &handle, 1).await.expect_err("revoked");
        assert!(matches!(failed.error.kind(), ErrorKind::AccessDenied | ErrorKind::Revoked));
        soon(client.flush()).await.expect("lives");
        assert_eq!(server.try_notified().expect("lives"), None);
        // Nothing at all can be written, and told.
        let (_exposed, grant) = self::grant(&server, 64, Access::WRITE).await;
        let empty = grant.remote_buffer().slice(0..0).expect("inside");
        soon(client.write_notify(Buffer::default(), &empty, u32::MAX)).await.expect("writes");
        assert_eq!(soon(server.notified()).await.expect("a notification"), u32::MAX);
    });
}

#[test]
fn a_fenced_operation_comes_after_the_reads_before_it() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let length = 1 << 20;
        let (exposed, grant) = grant(&server, length, Access::ALL).await;
        let handle = grant.remote_buffer();
        let counter = handle.at::<u64>(0).expect("inside");
        for round in 0..4 {
            let old = at(&exposed, 0, length);
            let read = client.read(common::allocate(length), &handle);
            let write = client.fenced().write(filled(5, round, length), &handle);
            let again = client.fenced().read(common::allocate(length), &handle);
            let told = client.fenced().write_notify(filled(6, round, 64), &handle, round as u32);
            let added = client.fenced().fetch_add(&counter, 1);
            let swapped = client.fenced().compare_swap(&counter, 0, 0);
            let (read, write, again, told) =
                soon(async { tokio::try_join!(read, write, again, told) }).await.expect("all complete");
            assert!(read[..] == old[..], "the read sees what was there before the write behind it");
            assert!(again[..] == write[..]);
            let word = u64::from_ne_bytes(told[..8].try_into().expect("eight"));
            assert_eq!(soon(added).await.expect("adds"), word);
            assert_eq!(soon(swapped).await.expect("compares"), word.wrapping_add(1));
            assert_eq!(soon(server.notified()).await.expect("a notification"), round as u32);
        }
    });
}

#[test]
fn a_flush_waits_for_all_that_was_posted() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        soon(client.flush()).await.expect("nothing to wait for");
        let length = 256 << 10;
        let (exposed, grant) = grant(&server, 16 * length, Access::WRITE).await;
        for round in 0..3 {
            for part in 0..16 {
                let range = (part * length) as u64..((part + 1) * length) as u64;
                let target = grant.remote_buffer().slice(range).expect("inside");
                drop(client.write(filled(round, part as u64, length), &target));
            }
            soon(client.flush()).await.expect("flushes");
            for part in 0..16 {
                assert!(at(&exposed, part * length, length) == pattern(round, part as u64, length), "part {part}");
            }
        }
        // Given up while it waits, and with nothing left of it.
        for _ in 0..30 {
            let _ = tokio::time::timeout(Duration::ZERO, client.flush()).await;
        }
        soon(client.flush()).await.expect("flushes");
        drop((exposed, grant));
        server.abort();
        let broken = soon(async {
            loop {
                if let Err(error) = client.flush().await {
                    return error;
                }
            }
        });
        assert_eq!(broken.await.operation(), "flush");
    });
}

#[test]
fn a_peer_that_dies_ends_a_flush() {
    on_device(|_| async {
        let peer = Peer::start("1");
        let connection = Connector::new(&worker()).connect(&peer.hear()).await.expect("connects");
        soon(connection.recv()).await.expect("a handle");
        aside(move || peer.kill()).await;
        let failed = async {
            loop {
                if let Err(error) = connection.flush().await {
                    return error;
                }
            }
        };
        assert_eq!(soon(failed).await.kind(), ErrorKind::ConnectionBroken);
        assert_eq!(soon(connection.notified()).await.expect_err("lost").kind(), ErrorKind::ConnectionBroken);
    });
}
