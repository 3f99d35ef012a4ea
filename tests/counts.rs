//! What one operation costs that does not jitter: heap allocations (none, in both processes) and system calls (those of
//! the posted batch, and no others).

#![allow(unsafe_code, reason = "a counting allocator; each block carries its proof")]

#[path = "common/allocations.rs"]
mod allocations;
mod common;
#[path = "common/strace.rs"]
mod strace;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use allocations::ALLOCATIONS;
use common::{Peer, device_address, listen, on_device, play, role, say, told};
use zcmi::{
    Access, Buffer, Config, Connection, Connector, Polling, Pool, RemoteBuffer, Revocation, SharedMemory, Worker,
};

/// Rounds of mixed operations between two meetings with the peer.
const MEETING: u32 = 16;

static SHARED: std::sync::OnceLock<SharedMemory> = std::sync::OnceLock::new();

/// Without heartbeats: how many there are depends on the time that a test takes.
fn worker(polling: Polling) -> Worker {
    let config = Config { polling, heartbeat: Duration::ZERO, ..Config::default() };
    Worker::new(config).expect("valid settings")
}

fn polling(name: &str) -> Polling {
    match name {
        "busy" => Polling::Busy,
        // No spinning at all: every wait goes through the event descriptor.
        _ => Polling::Event,
    }
}

/// The other process: echoes messages, and answers an empty one with the allocations since the last empty one.
#[test]
fn peer() {
    let Some(mode) = role() else { return };
    if mode.starts_with("drive") {
        return;
    }
    play(async {
        let worker = worker(polling(&mode));
        let listener = listen(&worker, &device_address().expect("the test has found it")).await;
        say(listener.uri());
        let mut told = told();
        let connection = listener.accept().await.expect("accepts");
        let exposed = Buffer::allocate(1 << 16).expect("memory").expose();
        let grant = exposed.grant(&connection, 0..1 << 16, Access::ALL).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        let mut before = 0;
        loop {
            let message = tokio::select! {
                biased;
                notified = connection.notified() => match notified {
                    Ok(_) => continue,
                    Err(_) => break,
                },
                message = connection.recv() => match message {
                    Ok(message) => message,
                    Err(_) => break,
                },
            };
            if message.is_empty() {
                let now = ALLOCATIONS.get();
                connection.send(&(now - before).to_le_bytes()).await.expect("sends");
                before = now;
            } else {
                connection.send(&message).await.expect("sends");
            }
        }
        drop(told.recv().await);
    });
}

async fn connect(uri: &str, mode: &str) -> (Connection, RemoteBuffer) {
    let connection = Connector::new(&worker(polling(mode))).connect(uri).await.expect("connects");
    let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
    // Many at once, so that both ends have the receives that they ever will; together they fit the channel's window.
    for _ in 0..4 {
        for _ in 0..60 {
            connection.send(&[7; 3000]).await.expect("sends");
        }
        for _ in 0..60 {
            connection.recv().await.expect("receives");
        }
    }
    (connection, handle)
}

async fn peers_allocations(connection: &Connection) -> u64 {
    connection.send(&[]).await.expect("sends");
    u64::from_le_bytes(connection.recv().await.expect("receives")[..].try_into().expect("eight bytes"))
}

/// One round of every operation of the public data path.
async fn round(connection: &Connection, handle: &RemoteBuffer, buffers: &mut Vec<Buffer>, operations: &[&str]) {
    for operation in operations {
        match *operation {
            "inline" | "slot" => {
                let payload = [7; 700];
                let payload = if *operation == "inline" { &payload[..64] } else { &payload[..] };
                connection.send(payload).await.expect("sends");
                assert_eq!(connection.recv().await.expect("receives").len(), payload.len());
            }
            "write" => {
                let buffer = buffers.pop().expect("a buffer");
                buffers.push(connection.write(buffer, handle).await.expect("writes"));
            }
            "read" => {
                let buffer = buffers.pop().expect("a buffer");
                buffers.push(connection.read(buffer, handle).await.expect("reads"));
            }
            "shared" => {
                // The reference in hand keeps the registration; cloning it allocates nothing.
                let memory = SHARED.get_or_init(|| SharedMemory::from(vec![7; 4096]));
                connection.write(memory.clone(), handle).await.expect("writes");
            }
            "atomic" => {
                let counter = handle.at::<u64>(0).expect("inside");
                connection.fetch_add(&counter, 1).await.expect("adds");
            }
            "pool" => {
                let buffer = Pool::global().allocate(4096).expect("memory");
                connection.write(buffer, handle).await.expect("writes");
            }
            "batch" => {
                let mut batch = connection.batch();
                let mut add = |index| {
                    let buffer = buffers.pop().expect("a buffer");
                    if index % 2 == 0 { batch.write(buffer, handle) } else { batch.read(buffer, handle) }
                };
                let flying: [_; 8] = std::array::from_fn(&mut add);
                batch.post();
                for operation in flying {
                    buffers.push(operation.await.expect("completes"));
                }
            }
            "mixed" => {
                let counter = handle.at::<u64>(0).expect("inside");
                let [first, second, third] = std::array::from_fn(|_| buffers.pop().expect("a buffer"));
                let mut batch = connection.batch();
                let added = batch.fetch_add(&counter, 1);
                let written = batch.write(first, handle);
                let read = batch.read(second, handle);
                let swapped = batch.compare_swap(&counter, 0, 1);
                let told = batch.fence().write_notify(third, handle, 7);
                batch.post();
                for buffer in [written.await, read.await, told.await] {
                    buffers.push(buffer.expect("completes"));
                }
                added.await.expect("adds");
                swapped.await.expect("compares");
                // Now and then the peer is waited for, so that it always has room for notifications.
                static ROUNDS: AtomicU32 = AtomicU32::new(0);
                if ROUNDS.fetch_add(1, Ordering::Relaxed).is_multiple_of(MEETING) {
                    connection.send(&[7]).await.expect("sends");
                    assert_eq!(connection.recv().await.expect("receives").len(), 1);
                }
            }
            other => panic!("no operation {other}"),
        }
    }
}

fn buffers() -> Vec<Buffer> {
    (0..8).map(|_| Buffer::allocate(4096).expect("memory")).collect()
}

#[test]
fn no_operation_allocates_in_either_process() {
    on_device(|_| async {
        for mode in ["busy", "event"] {
            let peer = Peer::start(mode);
            let (connection, handle) = connect(&peer.hear(), mode).await;
            let mut buffers = buffers();
            for operation in ["inline", "slot", "write", "read", "atomic", "pool", "shared", "batch", "mixed"] {
                // Until the peer has got all the receives that it makes use of.
                for _ in 0..150 {
                    round(&connection, &handle, &mut buffers, &[operation]).await;
                }
                peers_allocations(&connection).await;
                let before = ALLOCATIONS.get();
                for _ in 0..300 {
                    round(&connection, &handle, &mut buffers, &[operation]).await;
                }
                let ours = ALLOCATIONS.get() - before;
                let theirs = peers_allocations(&connection).await;
                assert_eq!((ours, theirs), (0, 0), "{mode} {operation}: allocations here, there");
            }
            connection.close().await.expect("closes");
            assert!(peer.finish().success());
        }
    });
}

/// Makes so many rounds of one operation, for a test that counts the system calls of this process.
#[test]
fn drive() {
    let Some(mode) = role() else { return };
    let Some(words) = mode.strip_prefix("drive ") else { return };
    let (operation, rounds) = words.split_once(' ').expect("two words");
    play(async {
        let uri = std::env::var("ZCMI_TEST_URI").expect("the test tells the peer's address");
        let (connection, handle) = connect(&uri, "busy").await;
        let mut buffers = buffers();
        // Granted over and over, and revoked, by this process.
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        for _ in 0..rounds.parse().expect("a number") {
            if operation == "grant" {
                let grant = exposed.grant(&connection, 0..4096, Access::READ_WRITE).await.expect("grants");
                assert_eq!(grant.revoke().await.expect("revokes"), Revocation::Agreed);
                continue;
            }
            round(&connection, &handle, &mut buffers, &[operation]).await;
        }
        connection.close().await.expect("closes");
    });
}

/// Of a process that makes so many rounds.
fn system_calls(operation: &str, rounds: u32) -> i64 {
    strace::system_calls("busy", &format!("drive {operation} {rounds}"))
}

#[test]
fn a_batch_is_one_system_call_and_nothing_else_is_any() {
    // Without a device the kernel is asked for everything.
    if !common::Transport::of_test().has_device() || device_address().is_none() {
        return;
    }
    // A grant is the bind; revoking it the question and the invalidation, so that is two. A window is replaced after 255
    // keys, which is two calls more.
    for (operation, calls) in [
        ("inline", 1.0),
        ("slot", 1.0),
        ("write", 1.0),
        ("read", 1.0),
        ("atomic", 1.0),
        ("pool", 1.0),
        ("shared", 1.0),
        ("batch", 1.0),
        ("mixed", 1.0 + 1.0 / f64::from(MEETING)),
        ("grant", 3.0 + 2.0 / 255.0),
    ] {
        let (few, many) = (100, 2100);
        let difference = system_calls(operation, many) - system_calls(operation, few);
        let each = difference as f64 / f64::from(many - few);
        eprintln!("{operation}: {each} system calls a round");
        // As raw verbs on rxe: one for each `ibv_post_send`, however long its list; none to poll or to post receives.
        // Set-up and end differ by some dozens from run to run, and two threads may meet at a lock.
        assert!((calls - 0.05..calls + 0.05).contains(&each), "{operation}: {each} system calls a round");
    }
}
