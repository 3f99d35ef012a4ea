//! What handing over costs that does not jitter, for short and for long buffers: no heap allocation in either process, no system call while
//! both poll. That nothing is copied is shown where it is the same pages (`tests/shared`).

#![allow(unsafe_code, reason = "a counting allocator; each block carries its proof")]

#[path = "common/allocations.rs"]
mod allocations;
mod common;
#[path = "common/strace.rs"]
mod strace;

use std::time::Duration;

use allocations::ALLOCATIONS;
use common::{Peer, play, role, run, say, sharing};
use zcmi::{Access, Buffer, Config, Connection, Connector, Listener, Polling, RemoteBuffer, Worker};

/// Runs of which one has to show what is so.
const ATTEMPTS: usize = 6;

const SIZES: [usize; 3] = [64, 8 << 10, 1 << 20];

fn worker() -> Worker {
    let config = Config { polling: Polling::Busy, heartbeat: Duration::ZERO, ..Config::default() };
    Worker::new(sharing(config)).expect("valid settings")
}

/// The other process: hands back what begins with a 1, drops the rest and says so; answers an empty message with the allocations since the last.
#[test]
fn peer() {
    if role().as_deref() != Some("hands back") {
        return;
    }
    play(async {
        let listener = Listener::bind(&worker(), "shm://").await.expect("listens");
        say(listener.uri());
        let connection = listener.accept().await.expect("accepts");
        let exposed = connection.allocate(1 << 20).expect("memory").expose();
        let grant = exposed.grant(&connection, 0..1 << 20, Access::ALL).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        let mut before = 0;
        while let Ok(message) = connection.recv().await {
            if message.is_empty() {
                let now = ALLOCATIONS.get();
                connection.send(&(now - before).to_le_bytes()).await.expect("sends");
                before = now;
            } else if message[0] == 1 {
                connection.hand_over(message.into_buffer().expect("a buffer")).await.expect("hands back");
            } else {
                drop(message);
                connection.send(&[7]).await.expect("sends");
            }
        }
    });
}

async fn connect(uri: &str) -> (Connection, RemoteBuffer) {
    let connection = Connector::new(&worker()).connect(uri).await.expect("connects");
    let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
    (connection, handle)
}

async fn peers_allocations(connection: &Connection) -> u64 {
    connection.send(&[]).await.expect("sends");
    u64::from_le_bytes(connection.recv().await.expect("receives")[..].try_into().expect("eight bytes"))
}

async fn round(connection: &Connection, handle: &RemoteBuffer, operation: &str, own: &mut Vec<Buffer>) {
    let (what, size) = operation.split_once(' ').expect("two words");
    let size = size.parse().expect("a number");
    match what {
        "back" => {
            let mut buffer = own.pop().unwrap_or_else(|| connection.allocate(size).expect("memory"));
            buffer[0] = 1;
            connection.hand_over(buffer).await.expect("hands over");
            own.push(connection.recv().await.expect("receives").into_buffer().expect("a buffer"));
        }
        "dropped" => {
            let mut buffer = connection.allocate(size).expect("memory");
            buffer[0] = 2;
            connection.hand_over(buffer).await.expect("hands over");
            connection.recv().await.expect("receives");
        }
        _ => {
            let buffer = own.pop().unwrap_or_else(|| Buffer::allocate(size).expect("memory"));
            own.push(connection.read(buffer, handle).await.expect("reads"));
        }
    }
}

fn operations() -> impl Iterator<Item = String> {
    let of = |size| ["back", "dropped", "read"].map(|what| format!("{what} {size}"));
    SIZES.into_iter().flat_map(of)
}

#[test]
fn nothing_is_allocated_in_either_process() {
    run(async {
        let peer = Peer::start("hands back");
        let (connection, handle) = connect(&peer.hear()).await;
        for operation in operations() {
            let mut own = Vec::new();
            // What was handed over may come back after the answer: there are some more.
            let size = operation.split_once(' ').expect("two words").1.parse().expect("a number");
            drop((0..16).map(|_| connection.allocate(size).expect("memory")).collect::<Vec<_>>());
            for _ in 0..50 {
                round(&connection, &handle, &operation, &mut own).await;
            }
            // Where a process does not get its turn more comes at once than ever before, and a list grows: not again and again.
            let mut counted = (1, 1);
            for _ in 0..ATTEMPTS {
                peers_allocations(&connection).await;
                let before = ALLOCATIONS.get();
                for _ in 0..200 {
                    round(&connection, &handle, &operation, &mut own).await;
                }
                let ours = ALLOCATIONS.get() - before;
                counted = (ours, peers_allocations(&connection).await);
                if counted == (0, 0) {
                    break;
                }
            }
            assert_eq!(counted, (0, 0), "{operation}: here, there");
        }
        connection.close().await.expect("closes");
        assert!(peer.finish().success());
    });
}

/// Makes so many rounds of one operation, for a test that counts the system calls of this process.
#[test]
fn drive() {
    let Some(words) = role().and_then(|role| Some(role.strip_prefix("drive ")?.to_owned())) else { return };
    let (rounds, operation) = words.split_once(' ').expect("two words");
    play(async {
        let uri = std::env::var("ZCMI_TEST_URI").expect("the test tells the peer's address");
        let (connection, handle) = connect(&uri).await;
        let mut own = Vec::new();
        for _ in 0..rounds.parse().expect("a number") {
            round(&connection, &handle, operation, &mut own).await;
        }
        connection.close().await.expect("closes");
    });
}

/// Of a process that makes so many rounds.
fn system_calls(operation: &str, rounds: u32) -> i64 {
    strace::system_calls("hands back", &format!("drive {rounds} {operation}"))
}

#[test]
fn no_system_call_is_made_whatever_the_length() {
    for operation in operations() {
        let (few, many) = (100, 2100);
        // One that was made would be made each time. On a busy machine a process that does not get its turn is looked after by its
        // service thread, which sleeps and is rung for, and threads meet at a lock.
        let each = |_| (system_calls(&operation, many) - system_calls(&operation, few)) as f64 / f64::from(many - few);
        let mut attempts = Vec::new();
        let is_shown = (0..ATTEMPTS).map(each).any(|each| {
            attempts.push(each);
            each < 0.5
        });
        eprintln!("{operation}: {attempts:?} system calls a round");
        assert!(is_shown, "{operation}: {attempts:?} system calls a round");
    }
}
