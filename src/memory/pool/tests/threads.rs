//! Many threads at one pool.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::{MIB, pool};
use crate::Buffer;

#[test]
fn what_a_consumer_releases_comes_back_to_the_producer() {
    let pool = pool(64 * MIB);
    for length in [100, 5000, 200_000] {
        let (sender, receiver) = sync_channel::<Buffer>(16);
        let consumer = std::thread::spawn(move || receiver.into_iter().for_each(|buffer| assert_eq!(buffer[0], 7)));
        for _ in 0..5000 {
            let mut buffer = pool.allocate(length).expect("room");
            buffer[0] = 7;
            sender.send(buffer).expect("the consumer lives");
        }
        drop(sender);
        consumer.join().expect("no panic");
    }
    let statistics = pool.statistics();
    // In flight, in the caches and on the list, and doubling on top.
    assert!(statistics.mapped_bytes < 24 * MIB && statistics.in_use_bytes == 0, "{statistics:?}");
    pool.trim();
    assert_eq!(pool.statistics().mapped_bytes, 0);
}

#[test]
fn nobody_waits_for_ever_and_nobody_shares() {
    const THREADS: u8 = 6;
    // Room for fewer than there are threads, in two classes that take turns.
    let pool = pool(256 << 10);
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..400usize {
                    let length = if (round / 8).is_multiple_of(2) { 60_000 } else { 120_000 };
                    let patience =
                        if round.is_multiple_of(7) { Duration::from_micros(50) } else { Duration::from_secs(60) };
                    let Ok(mut buffer) = pool.allocate_timeout(length, patience) else {
                        assert!(patience < Duration::from_secs(1), "a wake-up was lost: {:?}", pool.statistics());
                        continue;
                    };
                    buffer[..64].fill(thread);
                    buffer[length - 64..].fill(thread);
                    std::thread::yield_now();
                    let ends = [&buffer[..64], &buffer[length - 64..]];
                    assert!(ends.iter().all(|end| end.iter().all(|&byte| byte == thread)));
                    assert!(pool.statistics().mapped_bytes <= 256 << 10);
                }
            });
        }
    });
    let statistics = pool.statistics();
    assert_eq!((statistics.in_use_bytes, statistics.waiting), (0, 0));
    assert!(statistics.waits > 0, "nobody had to wait");
}
