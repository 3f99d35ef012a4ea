//! Messages that are handed over.

use crate::common::{fill, pattern, run};
use crate::player::{ask, hear, mapped, received, start, sum_of, worker};

const LENGTHS: [usize; 7] = [1, 64, 100, 4096, 8192, 100_000, 3 << 20];

#[test]
fn what_is_handed_over_lies_in_the_same_pages_both_ways() {
    run(async {
        let (mut peer, connection) = start("shares", &worker()).await;
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
        assert_eq!(hear(&peer).await, "given");
        assert!(*given == pattern(7, 0, 100_000));
        let theirs = ask(&mut peer, "mapped").await;
        assert!(mapped().iter().all(|file| theirs.contains(file)) && mapped().len() == theirs.split(' ').count());
    });
}
