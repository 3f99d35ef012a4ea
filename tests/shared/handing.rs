//! Messages that are handed over.

use std::time::Duration;

use rustix::process::Signal;
use zcmi::{Buffer, Config, Connection, Connector, ErrorKind, Listener, Pool, Worker};

use crate::common::{connect_to, fill, pattern, run, sharing, sharing_of};
use crate::direct::soon;
use crate::player::{ask, config, mapped, received, start, sum_of, worker};

const LENGTHS: [usize; 7] = [1, 64, 100, 4096, 8192, 100_000, 3 << 20];

#[test]
fn what_is_handed_over_lies_in_the_same_pages_both_ways() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        connection.pool().trim();
        assert!(connection.shares_pages() && connection.pool().is_shareable());
        for (seed, length) in LENGTHS.into_iter().enumerate() {
            let seed = seed as u64;
            let mut buffer = connection.allocate(length).expect("memory");
            fill(&mut buffer, seed, 0);
            let address = buffer.as_ptr().addr();
            connection.hand_over(buffer).await.expect("hands over");
            assert_eq!(ask(&mut peer, "change").await, sum_of(seed, length));
            let back = received(&connection).await;
            assert_eq!(back.as_ptr().addr(), address, "it is our own block again");
            let changed: Vec<_> = pattern(seed, 0, length).iter().map(|byte| byte.wrapping_add(1)).collect();
            assert!(*back == changed, "{length} bytes");
        }
        let theirs = ask(&mut peer, "mapped").await;
        assert!(!mapped().is_empty());
        for file in mapped() {
            assert!(theirs.contains(&file), "{file} is not mapped there: {theirs}");
        }
        // And what the peer gives is mapped here.
        peer.tell("give 7 100000");
        let given = received(&connection).await;
        assert_eq!(peer.hear_aside().await, "given");
        assert!(*given == pattern(7, 0, 100_000));
        let theirs = ask(&mut peer, "mapped").await;
        assert!(mapped().iter().all(|file| theirs.contains(file)) && mapped().len() == theirs.split(' ').count());
    });
}

/// A buffer that is all that is in its segment.
fn alone() -> Buffer {
    Pool::builder().shareable(true).build().expect("a pool").allocate(4096).expect("memory")
}

#[test]
fn segments_that_are_gone_make_room_for_others_at_once() {
    run(async {
        let worker = worker();
        let listener = Listener::bind(&worker, "shm://").await.expect("listens");
        let (sender, receiver) = connect_to(&worker, &listener).await;
        let buffers: Vec<_> = (0..256).map(|_| alone()).collect();
        let mut held = Vec::new();
        for buffer in buffers {
            sender.hand_over(buffer).await.expect("hands over");
            held.push(received(&receiver).await);
        }
        // They come home and are gone, and the peer is not told before the next are there.
        for buffer in held {
            receiver.hand_over(buffer).await.expect("hands back");
            drop(received(&sender).await);
        }
        for number in 0..300u16 {
            let mut buffer = alone();
            buffer[..2].copy_from_slice(&number.to_le_bytes());
            sender.hand_over(buffer).await.expect("hands over");
            assert_eq!(received(&receiver).await[..2], number.to_le_bytes());
        }
    });
}

#[test]
fn a_segment_may_go_before_its_buffer_does() {
    run(async {
        let worker = Worker::new(sharing(Config { channel_window: 1 << 20, ..config() })).expect("valid settings");
        let (mut peer, connection) = start("shares", &worker).await;
        peer.signal(Signal::STOP);
        // All that can be on its way is.
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(100), connection.send(&[1; 1000])).await.is_ok() {
            sent += 1;
        }
        assert!(sent < 500, "{sent} messages: the window is what holds it back");
        for _ in 0..3 {
            let handed = tokio::time::timeout(Duration::from_millis(10), connection.hand_over(alone())).await;
            assert!(handed.is_err(), "it has gone");
        }
        // The service tells what is gone.
        tokio::time::sleep(Duration::from_millis(100)).await;
        peer.signal(Signal::CONT);
        for _ in 0..sent {
            ask(&mut peer, "hold").await;
        }
        hand(&connection, 5, 1000).await;
        assert_eq!(ask(&mut peer, "change").await, sum_of(5, 1000));
    });
}

/// A buffer of the pattern of `seed`, handed over.
async fn hand(connection: &Connection, seed: u64, length: usize) {
    let mut buffer = connection.allocate(length).expect("memory");
    fill(&mut buffer, seed, 0);
    connection.hand_over(buffer).await.expect("hands over");
}

#[test]
fn parts_are_handed_over_and_back_and_others_stay() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        let before = connection.pool().statistics().in_use_bytes;
        let mut buffer = connection.allocate(10_000).expect("memory");
        fill(&mut buffer, 1, 0);
        let all = pattern(1, 0, 10_000);
        let (first, rest) = buffer.split_at(4_001);
        let address = first.as_ptr().addr();
        connection.hand_over(first).await.expect("hands over");
        // It keeps what is behind 1,000 bytes, so these come as a copy.
        assert_eq!(ask(&mut peer, "part 1000").await, "done");
        let part = received(&connection).await;
        assert!(*part == all[..1000] && part.as_ptr().addr() != address);
        assert!(*rest == all[4_001..]);
        let start = rest.as_ptr().addr();
        connection.hand_over(rest).await.expect("hands over");
        // Of which all else is gone, so it is the pages themselves.
        assert_eq!(ask(&mut peer, "shorten").await, "done");
        let part = received(&connection).await;
        assert!(*part == all[4_011..4_021] && part.as_ptr().addr() == start + 10);
        drop(part);
        assert!(connection.pool().statistics().in_use_bytes > before, "it holds a part");
        assert_eq!(ask(&mut peer, "drop").await, "dropped");
        soon(|| connection.pool().statistics().in_use_bytes == before).await;
    });
}

#[test]
fn the_order_and_the_windows_of_a_channel_hold() {
    run(async {
        let worker = Worker::new(sharing(Config { channel_window: 2000, ..config() })).expect("valid settings");
        let listener = Listener::bind(&worker, "shm://").await.expect("listens");
        let (sender, receiver) = connect_to(&worker, &listener).await;
        let sending = async {
            for number in 0..200u8 {
                match number % 4 {
                    0 => sender.send(&[number; 50]).await.expect("sends"),
                    1 => hand(&sender, number.into(), 1 << 16).await,
                    2 => sender.send_acknowledged(&[number; 50]).await.expect("sends"),
                    _ => hand(&sender, number.into(), 10).await,
                }
            }
            sender.finish().await.expect("finishes");
        };
        let receiving = async {
            for number in 0..200u8 {
                let message = receiver.recv().await.expect("a message");
                let is_right = match number % 4 {
                    0 | 2 => *message == [number; 50],
                    1 => *message == pattern(number.into(), 0, 1 << 16),
                    _ => *message == pattern(number.into(), 0, 10),
                };
                assert!(is_right, "message {number}");
            }
            assert_eq!(receiver.recv().await.expect_err("that was all").kind(), ErrorKind::PeerClosed);
        };
        tokio::join!(sending, receiving);
        // Who does not receive holds the sender back, at 88 bytes for each.
        let (sender, receiver) = connect_to(&worker, &listener).await;
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(100), hand(&sender, 1, 1 << 16)).await.is_ok() {
            sent += 1;
            assert!(sent < 100, "nothing holds it back");
        }
        assert!(sent >= 2000 / 100, "{sent} were sent");
        drop(receiver);
    });
}

#[test]
fn the_limit_of_the_pool_is_what_peers_can_have_and_who_waits_is_told() {
    run(async {
        let pool = Pool::builder().shareable(true).limit(1 << 20).build().expect("a pool");
        let (mut peer, connection) =
            start("shares", &Worker::new(sharing_of(&pool, config())).expect("valid settings")).await;
        for seed in 0..4 {
            hand(&connection, seed, 1 << 18).await;
            assert_eq!(ask(&mut peer, "hold").await, sum_of(seed, 1 << 18));
        }
        let error = connection.allocate(1 << 18).expect_err("the peer has all of it");
        assert_eq!(error.kind(), ErrorKind::PoolExhausted, "{error}");
        let waiting = pool.allocate_async(1 << 18);
        assert_eq!(ask(&mut peer, "drop").await, "dropped");
        let buffer = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("in time").expect("memory");
        assert_eq!(buffer.len(), 1 << 18);
    });
}

#[test]
fn a_receiver_with_memory_of_its_own_gets_a_copy_and_the_block_goes_back() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        let before = connection.pool().statistics().in_use_bytes;
        hand(&connection, 6, 50_000).await;
        assert_eq!(ask(&mut peer, "hold-copy 60000").await, sum_of(6, 50_000));
        soon(|| connection.pool().statistics().in_use_bytes == before).await;
        assert_eq!(ask(&mut peer, "sum 0").await, sum_of(6, 50_000));
    });
}

#[test]
fn to_third_peers_it_is_copied() {
    run(async {
        let worker = worker();
        let (mut owner, from) = start("shares", &worker).await;
        let (mut third, to) = start("shares", &worker).await;
        for length in [100, 100_000] {
            owner.tell(&format!("give 4 {length}"));
            let buffer = received(&from).await;
            assert_eq!(owner.hear_aside().await, "given");
            third.tell("hold");
            to.hand_over(buffer).await.expect("hands over");
            assert_eq!(third.hear_aside().await, sum_of(4, length));
            for _ in 0..1000 {
                if ask(&mut owner, "in-use").await == "0" {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(ask(&mut owner, "in-use").await, "0");
        }
    });
}

#[test]
fn the_same_program_runs_where_one_end_does_not_share() {
    run(async {
        for (role, worker) in [("isolated", worker()), ("shares", Worker::new(config()).expect("valid settings"))] {
            let (mut peer, connection) = start(role, &worker).await;
            assert!(!connection.shares_pages() && !connection.pool().is_shareable());
            assert_eq!(ask(&mut peer, "shares").await, "false");
            for length in [0, 100, 100_000] {
                peer.tell("change");
                hand(&connection, 9, length).await;
                let changed: Vec<_> = pattern(9, 0, length).iter().map(|byte| byte.wrapping_add(1)).collect();
                assert!(*received(&connection).await == changed, "{length} bytes");
                assert_eq!(peer.hear_aside().await, sum_of(9, length));
            }
            // What could have been handed over elsewhere is sent too.
            let pool = Pool::builder().shareable(true).build().expect("a pool");
            for length in [100, 100_000] {
                let mut buffer = pool.allocate(length).expect("memory");
                fill(&mut buffer, 2, 0);
                peer.tell("hold");
                connection.hand_over(buffer).await.expect("hands over");
                assert_eq!(peer.hear_aside().await, sum_of(2, length));
            }
            assert_eq!(pool.statistics().in_use_bytes, 0);
        }
    });
}

#[test]
fn over_tcp_it_is_an_ordinary_pool_and_an_ordinary_message() {
    run(async {
        let worker = worker();
        let listener = Listener::bind(&worker, "tcp://127.0.0.1:0").await.expect("listens");
        let (client, server) = connect_to(&worker, &listener).await;
        assert!(!client.shares_pages() && !client.pool().is_shareable());
        for length in [0, 100, 100_000] {
            tokio::join!(hand(&client, 3, length), async {
                assert!(*server.recv().await.expect("a message") == pattern(3, 0, length));
            });
        }
    });
}

#[test]
fn no_bytes_are_handed_over_too() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        connection.hand_over(Buffer::default()).await.expect("hands over");
        assert_eq!(ask(&mut peer, "hold").await, sum_of(0, 0));
    });
}

#[test]
fn a_pool_that_is_not_shareable_is_refused() {
    let pool = Pool::builder().build().expect("a pool");
    #[allow(unsafe_code, reason = "nothing is shared")]
    // SAFETY: there are no peers.
    let error = unsafe { Config::builder().share_pages_with_peers(&pool) }.build().expect_err("not shareable");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("shareable(true)"), "{error}");
    let _ = Connector::new(&Worker::new(Config::default()).expect("valid settings"));
}
