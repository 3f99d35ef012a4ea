//! Long messages out of shared memory that is sent again and again: registered once, by exactly what is sent. On a real
//! device.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{baseline, nothing_left, on_device, pair, pattern, worker};
use zcmi::{Connection, Exposable, SharedMemory};

const SOON: Duration = Duration::from_secs(20);
const LENGTH: usize = 300_000;

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

/// Sends `source` and checks what arrives.
async fn carry<M: Exposable>(from: &Connection, to: &Connection, source: M, expected: &[u8]) -> M {
    let (sent, received) = soon(async { tokio::join!(from.send_owned(source), to.recv()) }).await;
    assert!(received.expect("receives")[..] == *expected);
    sent.expect("sends")
}

#[test]
fn the_same_bytes_are_registered_once() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let (other, other_server) = pair(&worker, &address).await;
        let expected = pattern(5, 0, LENGTH);
        let done = || {
            let statistics = client.cache_statistics();
            (statistics.misses, statistics.hits, statistics.uncached)
        };
        let bytes = Bytes::from(expected.clone());
        let before = done();
        let bytes = carry(&client, &server, bytes, &expected).await;
        assert_eq!(done(), (before.0 + 1, before.1, before.2), "the first time it is registered");
        for round in 1..=10 {
            let sent = carry(&client, &server, bytes.clone(), &expected).await;
            assert_eq!(sent.as_ptr(), bytes.as_ptr());
            assert_eq!(done(), (before.0 + 1, before.1 + round, before.2), "round {round}");
        }
        // On another connection of the device it is there too, and for another type of memory.
        carry(&other, &other_server, SharedMemory::from(bytes.clone()), &expected).await;
        assert_eq!(done(), (before.0 + 1, before.1 + 11, before.2));
        // Several at once.
        let sending = async { tokio::join!(client.send_owned(bytes.clone()), other.send_owned(bytes.clone())) };
        let receiving = async { tokio::join!(server.recv(), other_server.recv()) };
        let (sent, received) = soon(async { tokio::join!(sending, receiving) }).await;
        assert!(sent.0.is_ok() && sent.1.is_ok());
        assert!(received.0.expect("receives")[..] == expected && received.1.expect("receives")[..] == expected);
        assert_eq!(done(), (before.0 + 1, before.1 + 13, before.2));
        // A part is opened by itself, whatever contains it.
        carry(&client, &server, bytes.slice(7..LENGTH - 7), &expected[7..LENGTH - 7]).await;
        assert_eq!(done().0, before.0 + 2);
        assert_eq!(done().2, before.2 + 1);
    });
}

#[test]
fn what_is_dropped_in_flight_stays_until_it_is_received_and_then_goes() {
    on_device(|address| async move {
        let worker = worker();
        let before = baseline(&worker, &address).await;
        let (client, server) = pair(&worker, &address).await;
        let entries = client.cache_statistics().entries;
        let expected = pattern(6, 0, LENGTH);
        struct Owner {
            bytes: Vec<u8>,
            _alive: Arc<()>,
        }
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        let alive = Arc::new(());
        let memory = SharedMemory::from_owner(Owner { bytes: expected.clone(), _alive: Arc::clone(&alive) });
        {
            let mut sending = pin!(client.send_owned(memory));
            let begun = Instant::now();
            // Until it is offered: a short message behind it would come otherwise.
            while begun.elapsed() < Duration::from_millis(200) {
                let polled = sending.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(polled, Poll::Pending), "nobody has received it");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        // Its sender has gone, and the cache has looked for what nobody owns.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(Arc::strong_count(&alive), 2, "the connection keeps it");
        assert_eq!(client.cache_statistics().entries, entries + 1);
        assert!(soon(server.recv()).await.expect("receives")[..] == expected);
        let begun = Instant::now();
        while Arc::strong_count(&alive) > 1 {
            assert!(begun.elapsed() < SOON, "nobody owns it any more, and it is still registered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let statistics = client.cache_statistics();
        assert_eq!((statistics.entries, statistics.quarantined), (entries, 0));
        // A connection that ends under it lets it go too.
        let memory = SharedMemory::from_owner(Owner { bytes: expected.clone(), _alive: Arc::clone(&alive) });
        let sending = tokio::spawn({
            let client = client.clone();
            async move { client.send_owned(memory).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.abort();
        let failed = soon(sending).await.expect("no panic").expect_err("broken");
        assert!(failed.buffer.expect("it comes back")[..] == expected);
        let begun = Instant::now();
        while Arc::strong_count(&alive) > 1 {
            assert!(begun.elapsed() < SOON, "it is still registered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(client.cache_statistics().quarantined, 0);
        drop((client, server));
        nothing_left(&before).await;
    });
}
