//! Random sequences against a model: expose, grant, read, write, add, revoke, drop, give back, with every kind of memory, a
//! cache that is too small and addresses that come again.

use std::sync::Arc;

use bytes::Bytes;
use zcmi::{
    Access, CacheLimits, Config, Connection, ErrorKind, ExposedBuffer, Grant, Registered, RemoteBuffer, SharedMemory,
};

use crate::common::{baseline, nothing_left, on_device, pair, pattern};

const STEPS: usize = 400;

/// Numbers that look random (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// A part of `length` bytes, not empty.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        start..start + 1 + self.below(length - start)
    }
}

/// Exposed memory, and what its bytes must be.
struct Exposure {
    exposed: ExposedBuffer,
    model: Vec<u8>,
    grants: Vec<Granted>,
}

struct Granted {
    /// `None` once it was revoked.
    grant: Option<Grant>,
    handle: RemoteBuffer,
    start: usize,
    access: Access,
    connection: usize,
}

struct World {
    numbers: Numbers,
    /// Holder and owner of each.
    connections: Vec<(Connection, Connection)>,
    exposures: Vec<Exposure>,
    /// Bytes that are sent again and again, or let go.
    shared: Vec<SharedMemory>,
    round: u64,
}

impl World {
    async fn step(&mut self) {
        self.round += 1;
        match self.numbers.below(16) {
            0 if self.exposures.len() < 6 => self.expose(),
            1..=3 => self.grant().await,
            4..=7 => self.write().await,
            8..=9 => self.read().await,
            10 => self.add().await,
            11..=12 => self.revoke().await,
            13 => self.owner_writes(),
            14 => self.give_back().await,
            _ => self.shared.truncate(self.numbers.below(12)),
        }
    }

    fn expose(&mut self) {
        let length = 8 + self.numbers.below(20_000);
        let model = pattern(1, self.round, length);
        let mut buffer = crate::common::allocate(length);
        assert!(buffer.iter().all(|&byte| byte == 0), "memory of somebody else");
        buffer.copy_from_slice(&model);
        self.exposures.push(Exposure { exposed: buffer.expose(), model, grants: Vec::new() });
    }

    async fn grant(&mut self) {
        let Some(at) = self.pick_exposure() else { return };
        let connection = self.numbers.below(self.connections.len());
        let exposure = &mut self.exposures[at];
        let access = [Access::READ, Access::WRITE, Access::READ_WRITE, Access::ALL][self.numbers.below(4)];
        let mut range = self.numbers.part(exposure.model.len());
        if access.contains(Access::ATOMIC) {
            range.start -= range.start % 8;
        }
        let owner = &self.connections[connection].1;
        let grant = exposure.exposed.grant(owner, range.clone(), access).await.expect("grants");
        let handle = grant.remote_buffer();
        assert_eq!(handle.len(), range.len() as u64);
        exposure.grants.push(Granted { grant: Some(grant), handle, start: range.start, access, connection });
    }

    /// A part of a grant, live or not: exposure, grant, range within the exposure, and the handle for it.
    fn pick(&mut self) -> Option<(usize, usize, std::ops::Range<usize>, RemoteBuffer)> {
        let at = self.pick_exposure()?;
        let grants = &self.exposures[at].grants;
        if grants.is_empty() {
            return None;
        }
        let which = self.numbers.below(grants.len());
        let grant = &self.exposures[at].grants[which];
        let part = self.numbers.part(grant.handle.len() as usize);
        let handle = grant.handle.slice(part.start as u64..part.end as u64).expect("inside");
        Some((at, which, grant.start + part.start..grant.start + part.end, handle))
    }

    fn pick_exposure(&mut self) -> Option<usize> {
        (!self.exposures.is_empty()).then(|| self.numbers.below(self.exposures.len()))
    }

    async fn write(&mut self) {
        let Some((at, which, range, handle)) = self.pick() else { return };
        let bytes = pattern(2, self.round, range.len());
        let grant = &self.exposures[at].grants[which];
        let (is_live, access, client) =
            (grant.grant.is_some(), grant.access, self.connections[grant.connection].0.clone());
        let (error, sent) = match self.numbers.below(6) {
            0 => {
                let mut buffer = crate::common::allocate(bytes.len());
                buffer.copy_from_slice(&bytes);
                (client.write(buffer, &handle).await.err().map(|failed| failed.error), bytes)
            }
            1 => (client.write(Registered::new(bytes.clone()), &handle).await.err().map(|failed| failed.error), bytes),
            2 => (client.write(Bytes::from(bytes.clone()), &handle).await.err().map(|failed| failed.error), bytes),
            3 => {
                // In two pieces, of the heap as malloc gives it: most addresses have been registered before.
                let middle = self.numbers.below(bytes.len());
                let (one, two) = bytes.split_at(middle);
                let list = vec![SharedMemory::from(one.to_vec()), SharedMemory::from(two.to_vec())];
                (client.write(list, &handle).await.err().map(|failed| failed.error), bytes)
            }
            choice => {
                // What is at hand, again, or a part of it: it may be registered.
                let short = self.shared.iter().position(|shared| shared.len() <= bytes.len());
                let shared = match short {
                    Some(index) => self.shared[index].clone(),
                    None => {
                        self.shared.push(SharedMemory::from(Arc::new(pattern(3, self.round, bytes.len() / 2 + 1))));
                        self.shared.last().expect("just pushed").clone()
                    }
                };
                let part = if choice == 4 { 0..shared.len() } else { self.numbers.part(shared.len()) };
                let sent = shared[part.clone()].to_vec();
                (client.write(shared.slice(part), &handle).await.err().map(|failed| failed.error), sent)
            }
        };
        let expected = expected(is_live, access, Access::WRITE);
        assert_eq!(error.map(|error| error.kind()), expected, "round {}", self.round);
        if expected.is_none() {
            self.exposures[at].model[range.start..range.start + sent.len()].copy_from_slice(&sent);
        }
        self.check(at);
    }

    async fn read(&mut self) {
        let Some((at, which, range, handle)) = self.pick() else { return };
        let grant = &self.exposures[at].grants[which];
        let expected = expected(grant.grant.is_some(), grant.access, Access::READ);
        let client = &self.connections[grant.connection].0;
        let mut buffer = crate::common::allocate(range.len());
        buffer.fill(0xee);
        match client.read(buffer, &handle).await {
            Ok(buffer) => {
                assert_eq!(expected, None, "round {}", self.round);
                assert!(buffer[..] == self.exposures[at].model[range], "round {}: stale bytes", self.round);
            }
            Err(failed) => {
                assert_eq!(Some(failed.error.kind()), expected, "round {}", self.round);
                let buffer = failed.buffer.expect("comes back");
                assert!(buffer.iter().all(|&byte| byte == 0xee), "round {}: something was read", self.round);
            }
        }
    }

    async fn add(&mut self) {
        let Some((at, which, ..)) = self.pick() else { return };
        let grant = &self.exposures[at].grants[which];
        let Ok(counter) = grant.handle.at::<u64>(0) else { return };
        let expected = expected(grant.grant.is_some(), grant.access, Access::ATOMIC);
        let (start, client) = (grant.start, self.connections[grant.connection].0.clone());
        let added = client.fetch_add(&counter, 5).await;
        let place = &mut self.exposures[at].model[start..start + 8];
        match added {
            Ok(old) => {
                assert_eq!(expected, None, "round {}", self.round);
                assert_eq!(old.to_ne_bytes(), *place);
                place.copy_from_slice(&old.wrapping_add(5).to_ne_bytes());
            }
            Err(error) => assert_eq!(Some(error.kind()), expected, "round {}", self.round),
        }
        self.check(at);
    }

    async fn revoke(&mut self) {
        let Some((at, which, ..)) = self.pick() else { return };
        let Some(grant) = self.exposures[at].grants[which].grant.take() else { return };
        grant.revoke().await.expect("revokes");
    }

    fn owner_writes(&mut self) {
        let Some(at) = self.pick_exposure() else { return };
        let range = self.numbers.part(self.exposures[at].model.len());
        let bytes = pattern(4, self.round, range.len());
        let exposure = &mut self.exposures[at];
        exposure.exposed.write_at(range.start, &bytes);
        exposure.model[range].copy_from_slice(&bytes);
    }

    async fn give_back(&mut self) {
        let Some(at) = self.pick_exposure() else { return };
        let Exposure { exposed, model, grants } = self.exposures.swap_remove(at);
        let handles: Vec<_> = grants.iter().map(|grant| (grant.handle, grant.access, grant.connection)).collect();
        match self.numbers.below(3) {
            // In the background, and the pool may give it to somebody else at once when that is done.
            0 => return drop((exposed, grants)),
            1 => drop(grants),
            _ => {}
        }
        let buffer = exposed.into_buffer().await.expect("comes back");
        assert!(buffer[..] == model[..], "round {}", self.round);
        for (handle, access, connection) in handles {
            let operation = self.connections[connection].0.read(crate::common::allocate(1), &handle);
            let expected = expected(false, access, Access::READ);
            assert_eq!(operation.await.err().map(|failed| failed.error.kind()), expected, "round {}", self.round);
        }
    }

    /// What peers were granted and wrote is there, and not a byte beside it.
    fn check(&self, at: usize) {
        let Exposure { exposed, model, .. } = &self.exposures[at];
        let mut bytes = vec![0; model.len()];
        exposed.read_at(0, &mut bytes);
        assert!(bytes == *model, "round {}: other bytes than the model has", self.round);
    }
}

/// How an operation that needs `needed` ends.
fn expected(is_live: bool, access: Access, needed: Access) -> Option<ErrorKind> {
    match (access.contains(needed), is_live) {
        (false, _) => Some(ErrorKind::AccessDenied),
        (true, false) => Some(ErrorKind::Revoked),
        (true, true) => None,
    }
}

#[test]
fn random_sequences_agree_with_the_model() {
    on_device(|address| async move {
        // So small that it evicts all the time.
        let cache = CacheLimits { bytes: 64 << 10, entries: 4 };
        let worker = crate::common::worker_with(Config { cache, ..Config::default() });
        let before = baseline(&worker, &address).await;
        let seeds = std::env::var("ZCMI_TEST_SEED").ok().map(|seed| vec![seed.parse().expect("a number")]);
        for seed in seeds.unwrap_or_else(|| vec![1, 2, u64::from(std::process::id())]) {
            eprintln!("seed {seed}: again by ZCMI_TEST_SEED={seed}");
            let connections = vec![pair(&worker, &address).await, pair(&worker, &address).await];
            let mut world =
                World { numbers: Numbers(seed), connections, exposures: Vec::new(), shared: Vec::new(), round: 0 };
            for _ in 0..STEPS {
                world.step().await;
            }
            for (client, server) in &world.connections {
                client.send(b"lives").await.expect("sends");
                assert_eq!(&*server.recv().await.expect("receives"), b"lives");
            }
            let statistics = world.connections[0].0.cache_statistics();
            assert!(statistics.entries <= 4 && statistics.bytes <= 64 << 10, "{statistics:?}");
            assert!(statistics.evictions > 0 && statistics.hits > 0, "{statistics:?}");
        }
        nothing_left(&before).await;
    });
}
