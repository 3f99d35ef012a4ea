//! Processes and connections that end while pages are in others' hands.

use crate::common::{fill, pattern, run};
use crate::direct::soon;
use crate::player::{ask, mapped, received, start, sum_of, worker};

const LENGTH: usize = 100_000;

#[test]
fn a_killed_holder_gives_the_blocks_back() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        let pool = connection.pool();
        let before = pool.statistics().in_use_bytes;
        for seed in 0..10 {
            let mut buffer = connection.allocate(LENGTH).expect("memory");
            fill(&mut buffer, seed, 0);
            connection.hand_over(buffer).await.expect("hands over");
            // Half of them are never received.
            if seed % 2 == 0 {
                assert_eq!(ask(&mut peer, "hold").await, sum_of(seed / 2, LENGTH));
            }
        }
        assert!(pool.statistics().in_use_bytes >= before + 10 * LENGTH);
        peer.kill();
        soon(|| pool.statistics().in_use_bytes == before).await;
        connection.recv().await.expect_err("it is dead");
    });
}

#[test]
fn what_a_killed_owner_has_handed_over_stays_readable_and_writable() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        connection.pool().trim();
        let before = mapped();
        let mut buffers = Vec::new();
        for seed in 0..3 {
            peer.tell(&format!("give {seed} {LENGTH}"));
            buffers.push(received(&connection).await);
            assert_eq!(peer.hear_aside().await, "given");
        }
        peer.kill();
        connection.recv().await.expect_err("it is dead");
        drop(connection);
        for (seed, buffer) in buffers.iter_mut().enumerate() {
            assert!(**buffer == pattern(seed as u64, 0, LENGTH));
            buffer.fill(seed as u8);
        }
        assert!(buffers.iter().enumerate().all(|(seed, buffer)| buffer.iter().all(|&byte| byte == seed as u8)));
        assert_ne!(mapped(), before);
        drop(buffers);
        // Unmapped with the last.
        soon(|| mapped() == before).await;
    });
}

#[test]
fn a_peer_keeps_what_it_holds_when_the_connection_ends_and_gives_it_back_when_it_is_done() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        let pool = connection.pool();
        let before = pool.statistics().in_use_bytes;
        for seed in 0..2 {
            let mut buffer = connection.allocate(LENGTH).expect("memory");
            fill(&mut buffer, seed, 0);
            connection.hand_over(buffer).await.expect("hands over");
            assert_eq!(ask(&mut peer, "hold").await, sum_of(seed, LENGTH));
        }
        connection.close().await.expect("closes");
        assert_eq!(ask(&mut peer, "closed").await, "PeerClosed");
        drop(connection);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(pool.statistics().in_use_bytes >= before + 2 * LENGTH, "it is used again while the peer has it");
        assert_eq!(ask(&mut peer, "sum 1").await, sum_of(1, LENGTH));
        assert_eq!(ask(&mut peer, "drop").await, "dropped");
        soon(|| pool.statistics().in_use_bytes == before).await;
    });
}

#[test]
fn segments_that_are_given_up_are_unmapped_by_the_peer() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
        let pool = connection.pool();
        pool.trim();
        for length in [100, 100_000, 65 << 20] {
            let mut buffer = connection.allocate(length).expect("memory");
            fill(&mut buffer, 1, 0);
            peer.tell("change");
            connection.hand_over(buffer).await.expect("hands over");
            assert_eq!(peer.hear_aside().await, sum_of(1, length));
            drop(received(&connection).await);
        }
        assert!(!ask(&mut peer, "mapped").await.is_empty());
        pool.trim();
        for _ in 0..1000 {
            if ask(&mut peer, "mapped").await.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(ask(&mut peer, "mapped").await, "");
    });
}

#[test]
fn nothing_is_left_of_connections_that_shared() {
    run(async {
        let worker = worker();
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("our descriptors").count();
        let mut before = None;
        for round in 0..8 {
            let (mut peer, connection) = start("shares", &worker).await;
            peer.tell(&format!("give 1 {LENGTH}"));
            let buffer = received(&connection).await;
            assert_eq!(peer.hear_aside().await, "given");
            connection.hand_over(buffer).await.expect("hands back");
            let buffer = connection.allocate(LENGTH).expect("memory");
            connection.hand_over(buffer).await.expect("hands over");
            ask(&mut peer, "hold").await;
            ask(&mut peer, "hold").await;
            if round % 2 == 0 {
                peer.kill();
            } else {
                connection.close().await.expect("closes");
                assert!(peer.finish().success());
            }
            drop(connection);
            connection_pool_is_idle().await;
            let now = (descriptors(), mapped().len());
            let (files, maps) = *before.get_or_insert(now);
            soon(|| descriptors() <= files && mapped().len() <= maps).await;
        }
    });
}

async fn connection_pool_is_idle() {
    let pool = crate::common::sharing(zcmi::Config::default());
    drop(pool);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}
