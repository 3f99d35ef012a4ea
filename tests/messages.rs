//! Messages of all kinds between two ends in one process: long ones, channels, memory that is owned, half-closed
//! conversations, and futures that are dropped at every point. On a real device.

mod common;

use std::future::Future;
use std::io::IoSlice;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use common::{baseline, nothing_left, on_device, pair, pattern, worker};
use zcmi::{Buffer, Config, Connection, ErrorKind, Pool, Registered, SharedMemory};

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

fn filled(seed: u64, length: usize) -> Buffer {
    let mut buffer = common::allocate(length);
    common::fill(&mut buffer, seed, 0);
    buffer
}

#[test]
fn memory_of_every_kind_is_sent_and_comes_back() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        for (round, length) in [10, 4072, 4073, 70_000, 1 << 20].into_iter().enumerate() {
            let expected = pattern(round as u64, 0, length);
            let sending = async {
                let buffer = client.send_owned(filled(round as u64, length)).await.expect("sends");
                assert_eq!(buffer[..], expected);
                let frozen = client.send_owned(buffer.freeze()).await.expect("sends");
                assert_eq!(frozen[..], expected);
                let bytes = client.send_owned(Bytes::from(expected.clone())).await.expect("sends");
                assert_eq!(bytes, expected);
                client.send_owned(SharedMemory::from(expected.clone())).await.expect("sends");
                let registered = client.send_owned(Registered::new(expected.clone())).await.expect("sends");
                assert_eq!(registered.into_inner().expect("nobody holds it"), expected);
                let (first, second) = expected.split_at(length / 3);
                client.send_vectored(&[IoSlice::new(first), IoSlice::new(second)]).await.expect("sends");
                client.send(&expected).await.expect("sends");
                client.send_acknowledged(&expected).await.expect("sends");
            };
            let receiving = async {
                for _ in 0..8 {
                    let message = server.recv().await.expect("receives");
                    assert!(message[..] == expected, "{length} bytes");
                }
            };
            soon(async { tokio::join!(sending, receiving) }).await;
        }
    });
}

#[test]
fn messages_are_put_where_the_caller_wants_them() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        for length in [100, 5000, 300_000] {
            let expected = pattern(3, 0, length);
            let receiving = async {
                let (buffer, got) = server.recv_into(filled(9, length + 50)).await.expect("receives");
                assert_eq!(got, length);
                assert!(buffer[..length] == expected && buffer[length..] == pattern(9, 0, length + 50)[length..]);
                let parts = vec![Registered::new(vec![0; length / 2]), Registered::new(vec![0; length])];
                let (parts, got) = server.recv_into(parts).await.expect("receives");
                let joined = [&parts[0][..], &parts[1][..]].concat();
                assert!(got == length && joined[..length] == expected);
                let failed = server.recv_into(common::allocate(length - 1)).await.expect_err("no room");
                assert_eq!(
                    (failed.error.kind(), failed.buffer.map(|buffer| buffer.len())),
                    (ErrorKind::TooLong, Some(length - 1))
                );
                assert!(server.recv().await.expect("it is still there")[..] == expected);
            };
            let sending = async {
                for _ in 0..3 {
                    client.send(&expected).await.expect("sends");
                }
            };
            soon(async { tokio::join!(sending, receiving) }).await;
        }
    });
}

#[test]
fn channels_keep_their_order_each_and_do_not_wait_for_each_other() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let lengths = [10usize, 5000, 0, 70_000, 300];
        let send = |id: u32| {
            let channel = client.channel(id).expect("a channel");
            async move {
                for index in 0..60 {
                    let length = lengths[(index + id as usize) % lengths.len()];
                    channel.send(&pattern(id.into(), index as u64, length)).await.expect("sends");
                }
                channel.finish().await.expect("finishes");
                assert_eq!(channel.send(b"x").await.expect_err("finished").kind(), ErrorKind::Closed);
            }
        };
        let receive = |id: u32| {
            let channel = server.channel(id).expect("a channel");
            async move {
                for index in 0..60 {
                    let length = lengths[(index + id as usize) % lengths.len()];
                    let message = channel.recv().await.expect("receives");
                    assert!(message[..] == pattern(id.into(), index as u64, length), "channel {id}, message {index}");
                }
                assert_eq!(channel.recv().await.expect_err("the end").kind(), ErrorKind::PeerClosed);
            }
        };
        soon(async {
            tokio::join!(send(0), send(7), send(u32::MAX), receive(0), receive(7), receive(u32::MAX));
        })
        .await;
    });
}

#[test]
fn a_side_that_has_finished_still_receives() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let asked = async {
            client.send(&pattern(1, 0, 50_000)).await.expect("sends");
            client.finish().await.expect("all is taken");
            assert_eq!(client.send(b"x").await.expect_err("finished").kind(), ErrorKind::Closed);
            assert!(client.recv().await.expect("receives")[..] == pattern(2, 0, 90_000));
            assert_eq!(client.recv().await.expect_err("the end").kind(), ErrorKind::PeerClosed);
        };
        let answered = async {
            assert!(server.recv().await.expect("receives")[..] == pattern(1, 0, 50_000));
            assert_eq!(server.recv().await.expect_err("the end").kind(), ErrorKind::PeerClosed);
            server.send(&pattern(2, 0, 90_000)).await.expect("sends");
            server.finish().await.expect("all is taken");
        };
        soon(async { tokio::join!(asked, answered) }).await;
        soon(async { tokio::try_join!(client.close(), server.close()) }).await.expect("closes");
    });
}

#[test]
fn an_abort_is_no_end() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        client.send(b"before").await.expect("sends");
        assert_eq!(&*soon(server.recv()).await.expect("receives"), b"before");
        client.abort();
        assert_eq!(soon(server.recv()).await.expect_err("aborted").kind(), ErrorKind::ConnectionBroken);
        assert_eq!(client.send(b"x").await.expect_err("aborted").kind(), ErrorKind::Closed);
    });
}

/// Polls `future` `times` and drops it; answers what it gave, if it did.
async fn poll_and_drop<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    None
}

#[test]
fn whatever_future_is_dropped_the_connection_works_and_nothing_is_left() {
    on_device(|address| async move {
        let worker = worker();
        let before = baseline(&worker, &address).await;
        for length in [100, 100_000] {
            let (client, server) = pair(&worker, &address).await;
            for times in 0..12 {
                let payload = pattern(times, 1, length);
                // What was sent, or was not, is found out from what arrives.
                let _ = poll_and_drop(client.send(&payload), times as usize).await;
                let _ = poll_and_drop(client.send_owned(filled(times, length)), times as usize).await;
                let _ = poll_and_drop(client.send_acknowledged(&payload), times as usize).await;
                let _ = poll_and_drop(server.recv(), times as usize).await;
                let _ = poll_and_drop(server.recv_into(filled(0, length)), times as usize).await;
            }
            let end = async {
                client.send(b"the end").await.expect("sends");
            };
            let drain = async {
                loop {
                    let message = server.recv().await.expect("receives");
                    if &*message == b"the end" {
                        break;
                    }
                    let is_whole = (0..12).any(|times| {
                        message[..] == pattern(times, 1, length) || message[..] == pattern(times, 0, length)
                    });
                    assert!(is_whole, "a message of {} bytes that nobody sent", message.len());
                }
            };
            soon(async { tokio::join!(end, drain) }).await;
            soon(async { tokio::try_join!(client.close(), server.close()) }).await.expect("closes");
            drop((client, server));
        }
        nothing_left(&before).await;
    });
}

#[test]
fn many_long_messages_at_once_stay_within_the_depth_of_reads() {
    on_device(|address| async move {
        let settings = Config { fetch_ahead: 64 << 20, ..Config::default() };
        let (client, server) = pair(&common::worker_with(settings), &address).await;
        let send = |connection: Connection, index: u64| async move {
            connection.send_owned(filled(index, 10_000)).await.map(drop).expect("sends");
        };
        let sending: Vec<_> = (0..100).map(|index| tokio::spawn(send(client.clone(), index))).collect();
        let mut seen = Vec::new();
        for _ in 0..100 {
            let message = soon(server.recv()).await.expect("receives");
            let index = (0..100).find(|index| message[..] == pattern(*index, 0, 10_000)).expect("one that was sent");
            seen.push(index);
        }
        for task in sending {
            soon(task).await.expect("no panic");
        }
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..100), "each once");
    });
}

/// Whatever the transport, and whatever pool the buffer is of.
#[test]
fn a_buffer_is_handed_over_and_comes_back() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let shareable = Pool::builder().shareable(true).build().expect("a pool");
        for length in [0, 1, 100, 100_000] {
            for pool in [client.pool(), shareable.clone()] {
                let mut buffer = pool.allocate(length).expect("memory");
                common::fill(&mut buffer, 5, 0);
                let there = async {
                    let buffer = server.recv().await.expect("a message").into_buffer().expect("a buffer");
                    assert!(*buffer == pattern(5, 0, length));
                    server.hand_over(buffer).await.expect("hands back");
                };
                let back = async {
                    client.hand_over(buffer).await.expect("hands over");
                    client.recv().await.expect("a message")
                };
                let (back, ()) = soon(async { tokio::join!(back, there) }).await;
                assert!(*back == pattern(5, 0, length), "{length} bytes");
            }
        }
        assert_eq!(shareable.statistics().in_use_bytes, 0);
    });
}

/// A peer could take pages out that a device writes.
#[test]
fn a_device_is_not_given_pages_that_peers_may_have() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let pool = Pool::builder().shareable(true).build().expect("a pool");
        let exposed = Buffer::allocate(64).expect("memory").expose();
        let grant = exposed.grant(&server, 0..64, zcmi::Access::READ_WRITE).await.expect("grants");
        let written = soon(client.write(pool.allocate(64).expect("memory"), &grant.remote_buffer())).await;
        let shared = pool.allocate(64).expect("memory").expose();
        let granted = shared.grant(&server, 0..64, zcmi::Access::READ_WRITE).await;
        if common::Transport::of_test().has_device() {
            let failed = written.expect_err("not by a device");
            assert_eq!(failed.error.kind(), ErrorKind::Unsupported, "{}", failed.error);
            assert!(failed.error.to_string().contains("shm://") && failed.buffer.is_some(), "{}", failed.error);
            assert_eq!(granted.expect_err("not to a device").kind(), ErrorKind::Unsupported);
            let frozen = pool.allocate(100_000).expect("memory").freeze();
            let failed = soon(client.send_owned(frozen)).await.expect_err("not for reading either");
            assert_eq!(failed.error.kind(), ErrorKind::Unsupported, "{}", failed.error);
        } else {
            written.expect("in software it is memory as any");
            drop(granted.expect("in software it is memory as any"));
        }
        client.send(b"lives").await.expect("sends");
        assert_eq!(&*soon(server.recv()).await.expect("receives"), b"lives");
    });
}
