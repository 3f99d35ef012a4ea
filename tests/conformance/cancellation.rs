//! Futures that are given up at each point.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use zcmi::{Access, Buffer, Config, ErrorKind, Pool, RemoteBuffer};

use crate::common::{allocate, fill, pattern};
use crate::world::{End, Initiator, Responder, sleep, soon};

/// Lengths at both sides of a frame.
const LENGTHS: [usize; 3] = [100, 5_000, 100_000];
/// Polls before a future is dropped.
const POLLS: usize = 10;

/// Polls `future` so often and drops it; answers what it gave, if it did.
async fn poll_and_drop<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        sleep(Duration::from_micros(300)).await;
    }
    None
}

pub(crate) async fn receives_that_are_given_up_lose_nothing(end: End) {
    // Each long message is fetched by who asks for it.
    let session = end.connected(Config { fetch_ahead: 0, ..Config::default() }).await;
    let connection = &session.connection;
    let count = POLLS * LENGTHS.len() * 4;
    match end.role {
        Initiator => {
            for number in 0..count {
                let message = pattern(1, number as u64, LENGTHS[number % LENGTHS.len()]);
                soon(connection.send(&message)).await.expect("sends");
            }
        }
        Responder => {
            let expected = |number: usize| pattern(1, number as u64, LENGTHS[number % LENGTHS.len()]);
            let (mut number, mut turn) = (0, 0);
            while number < count {
                assert!(turn < 100 * count, "message {number} does not come");
                turn += 1;
                let times = turn / 2 % POLLS;
                if turn % 2 == 0 {
                    if let Some(message) = poll_and_drop(connection.recv(), times).await {
                        assert!(message.expect("receives")[..] == expected(number), "message {number} was lost");
                        number += 1;
                    }
                    continue;
                }
                let memory = allocate(LENGTHS[2]);
                if let Some(received) = poll_and_drop(connection.recv_into(memory), times).await {
                    let (memory, length) = received.expect("receives");
                    assert!(memory[..length] == expected(number), "message {number} was lost");
                    number += 1;
                }
            }
            assert!(
                connection.try_recv().map_or_else(|error| error.kind() == ErrorKind::PeerClosed, |more| more.is_none())
            );
        }
    }
    end.meet("end").await;
    session.close().await;
}

/// A pool of its own, whose buffers are counted.
fn pool() -> Pool {
    Pool::builder().limit(16 << 20).build().expect("a pool")
}

fn filled(pool: &Pool, seed: u64, length: usize) -> Buffer {
    let mut buffer = pool.allocate(length).expect("memory");
    fill(&mut buffer, seed, 0);
    buffer
}

/// All that was allocated is back.
async fn all_is_back(pool: &Pool) {
    soon(async {
        while pool.statistics().in_use_bytes > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub(crate) async fn sends_that_are_given_up_give_their_memory_back(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    let tag = |times: usize, length: usize| (times * 1_000_000 + length) as u64;
    match end.role {
        Initiator => {
            let pool = pool();
            for times in 0..POLLS {
                for length in LENGTHS {
                    let buffer = filled(&pool, tag(times, length), length);
                    if let Some(sent) = poll_and_drop(connection.send_owned(buffer), times).await {
                        sent.expect("sends");
                    }
                    let payload = pattern(tag(times, length), 0, length);
                    if let Some(sent) = poll_and_drop(connection.send(&payload), times).await {
                        sent.expect("sends");
                    }
                }
            }
            soon(connection.send(b"the end")).await.expect("sends");
            all_is_back(&pool).await;
        }
        Responder => loop {
            // What was given up has come, or it has not; it is whole.
            let message = soon(connection.recv()).await.expect("receives");
            if &*message == b"the end" {
                break;
            }
            let is_whole = (0..POLLS).any(|times| message[..] == pattern(tag(times, message.len()), 0, message.len()));
            assert!(is_whole, "{} bytes that nobody has sent", message.len());
        },
    }
    end.meet("end").await;
    session.close().await;
}

pub(crate) async fn operations_that_are_given_up_give_their_memory_back(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    let longest = LENGTHS[2];
    match end.role {
        Initiator => {
            let handle = soon(connection.recv()).await.expect("receives");
            let handle = RemoteBuffer::from_bytes(&handle).expect("a handle");
            let pool = pool();
            for times in 0..POLLS {
                for length in LENGTHS {
                    let write = connection.write(filled(&pool, 7, length), &handle);
                    assert!(write.is_posted(), "there is room");
                    if let Some(written) = poll_and_drop(write, times).await {
                        written.expect("writes");
                    }
                    let read = connection.read(pool.allocate(length).expect("memory"), &handle);
                    if let Some(read) = poll_and_drop(read, times).await {
                        assert!(read.expect("reads")[..] == pattern(7, 0, length));
                    }
                    drop(connection.fetch_add(&handle.at(0).expect("inside"), 0));
                }
            }
            // What was posted goes on, whoever waits for it.
            soon(connection.flush()).await.expect("flushes");
            all_is_back(&pool).await;
            end.meet("all is written").await;
        }
        Responder => {
            let exposed = allocate(longest).expose();
            let grant = soon(exposed.grant(connection, 0..longest, Access::ALL)).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            end.meet("all is written").await;
            assert!(soon(exposed.into_buffer()).await.expect("comes back")[..] == pattern(7, 0, longest));
        }
    }
    session.close().await;
}
