//! Bytes that the program has, through the registration cache, on a device.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zcmi::{Access, CacheLimits, Config, ErrorKind, Isolation, SharedMemory};

use crate::common::resources::Resources;
use crate::common::{on_device, pair, pattern, worker};

/// Time for what is given back in the background.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn what_was_sent_once_is_registered_once() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(1 << 20).expose();
        let grant = exposed.grant(&server, 0..1 << 20, Access::WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        let bytes = pattern(1, 1, 100_003);
        let seen = |length: usize| {
            let mut seen = vec![0; length];
            exposed.read_at(0, &mut seen);
            exposed.write_at(0, &vec![0xee; length]);
            seen
        };
        let before = client.cache_statistics();

        let vector = Arc::new(bytes.clone());
        for _ in 0..3 {
            client.write(SharedMemory::from(Arc::clone(&vector)), &handle).await.expect("writes");
            assert!(seen(bytes.len()) == bytes);
        }
        // A part of it needs nothing new.
        client.write(SharedMemory::from(Arc::clone(&vector)).slice(777..50_000), &handle).await.expect("writes");
        assert!(seen(50_000 - 777) == bytes[777..50_000]);
        let after = client.cache_statistics();
        assert_eq!((after.misses - before.misses, after.hits - before.hits), (1, 3));

        let shared: Bytes = bytes.clone().into();
        let back = client.write(shared.slice(5..1000), &handle).await.expect("writes");
        assert_eq!(back, shared.slice(5..1000));
        assert!(seen(995) == bytes[5..1000]);
        let slice: Arc<[u8]> = bytes[..5000].into();
        client.write(SharedMemory::from(slice), &handle).await.expect("writes");
        assert!(seen(5000) == bytes[..5000]);
        client.write(SharedMemory::from(&b"a static"[..]), &handle).await.expect("writes");
        assert_eq!(seen(8), b"a static");
        client.write(Bytes::new(), &handle).await.expect("writes nothing");
        let frozen = {
            let mut buffer = crate::common::allocate(3000);
            buffer.copy_from_slice(&bytes[..3000]);
            buffer.freeze()
        };
        client.write(vec![frozen.slice(..1000), frozen.slice(500..1500)], &handle).await.expect("writes");
        assert!(seen(2000) == [&bytes[..1000], &bytes[500..1500]].concat());
    });
}

/// The memory goes when the program lets go of it, not when the cache needs the room.
#[test]
fn what_nobody_owns_any_more_is_given_back_soon() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(1 << 16).expose();
        let grant = exposed.grant(&server, 0..1 << 16, Access::WRITE).await.expect("grants");
        // Frames have their memory before it is counted: pings are sent at any time.
        for (from, to) in [(&client, &server), (&server, &client)] {
            from.send(b"a frame").await.expect("sends");
            to.recv().await.expect("receives");
        }
        let before = Resources::now().of("mr");
        for round in 0..20 {
            let bytes = SharedMemory::from(pattern(2, round, 60_000));
            client.write(bytes, &grant.remote_buffer()).await.expect("writes");
        }
        let begun = std::time::Instant::now();
        while client.cache_statistics().entries > 0 || Resources::now().of("mr") > before {
            assert!(begun.elapsed() < SOON, "{:?}", client.cache_statistics());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut seen = vec![0; 60_000];
        exposed.read_at(0, &mut seen);
        assert!(seen == pattern(2, 19, 60_000));
    });
}

/// The way others lost data: registered memory is unmapped, its addresses come to mean something else, and the old
/// registration sends what was there before.
#[test]
fn a_remapped_range_never_sends_old_bytes() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(1 << 20).expose();
        let grant = exposed.grant(&server, 0..1 << 20, Access::WRITE).await.expect("grants");
        let mut places = std::collections::HashMap::new();
        let mut again = 0;
        for round in 0..60 {
            // Large enough for malloc to map it anew each time, mostly at the same place.
            let bytes = pattern(3, round, 700_001);
            let memory = SharedMemory::from(bytes);
            again += usize::from(places.insert(memory.as_ptr(), round).is_some());
            let memory = client.write(memory, &grant.remote_buffer()).await.expect("writes");
            drop(memory);
            let mut seen = vec![0; 700_001];
            exposed.read_at(0, &mut seen);
            assert!(seen == pattern(3, round, 700_001), "round {round} sent other bytes");
        }
        eprintln!("{again} of 60 had an address that was registered before");
    });
}

#[test]
fn without_a_cache_everything_works_uncached() {
    on_device(|address| async move {
        let settings = Config { cache: CacheLimits { bytes: 0, entries: 0 }, ..Config::default() };
        let worker = crate::common::worker_with(settings);
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(1 << 16).expose();
        let grant = exposed.grant(&server, 0..1 << 16, Access::WRITE).await.expect("grants");
        let before = client.cache_statistics();
        let memory = SharedMemory::from(pattern(4, 0, 10_000));
        for _ in 0..3 {
            client.write(memory.clone(), &grant.remote_buffer()).await.expect("writes");
        }
        let after = client.cache_statistics();
        // Another worker of this process may have made the cache of the device first.
        if after.uncached > before.uncached {
            assert_eq!((after.uncached - before.uncached, after.entries), (3, 0));
        }
    });
}

#[test]
fn memory_that_others_read_is_exposed_for_reading_only() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let memory = SharedMemory::from(pattern(5, 0, 9000));
        let exposed = memory.clone().expose();
        let grant = exposed.grant(&server, 100..8100, Access::READ).await.expect("grants");
        let buffer = client.read(crate::common::allocate(8000), &grant.remote_buffer()).await.expect("reads");
        assert!(buffer[..] == memory[100..8100]);
        for access in [Access::WRITE, Access::ATOMIC, Access::ALL] {
            let error = exposed.grant(&server, 0..8, access).await.expect_err("it may only be read");
            assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
        }
        grant.revoke().await.expect("revokes");
        assert!(exposed.into_inner().await.expect("comes back")[..] == memory[..]);

        // A constant lies in pages that are mapped read-only, over which no window can be bound.
        static CONSTANT: [u8; 100_000] = [7; 100_000];
        let exposed = SharedMemory::from(&CONSTANT[..]).expose();
        let grant = exposed.grant(&server, 50_000..50_100, Access::READ).await.expect("grants");
        eprintln!("a constant: {:?}", grant.isolation());
        let isolation =
            if crate::common::Transport::of_test().has_device() { Isolation::Domain } else { Isolation::Connection };
        assert_eq!(grant.isolation(), isolation);
        let buffer = client.read(crate::common::allocate(100), &grant.remote_buffer()).await.expect("reads");
        assert_eq!(buffer[..], [7; 100]);
    });
}
