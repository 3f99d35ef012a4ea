//! What zcmi's own tests, benches and fuzz targets reach into. No part of the API: it changes without notice.

#![allow(missing_docs, reason = "nobody else is to use it")]

use std::ops::Range;

use crate::memory::RegionAccess;
use crate::memory::fake_domain::FakeDomain;
use crate::memory::registration_cache::{Lease, RegistrationCache};
use crate::{CacheLimits, CacheStatistics, Result, SharedMemory};

/// A registration cache over a domain without a device.
pub struct CacheOfNothing {
    cache: RegistrationCache,
    domain: FakeDomain,
}

/// A lease of it.
#[must_use]
pub struct CacheLease(Lease);

impl CacheOfNothing {
    pub fn new(limits: CacheLimits) -> Self {
        Self { cache: RegistrationCache::without_timer(limits), domain: FakeDomain::without_snapshots() }
    }

    #[inline]
    pub fn get(&self, memory: &SharedMemory, range: Range<usize>) -> Result<CacheLease> {
        self.cache.get(memory, range, &self.domain, RegionAccess::LocalRead).map(CacheLease)
    }

    pub fn statistics(&self) -> CacheStatistics {
        self.cache.statistics()
    }
}

impl CacheLease {
    #[inline]
    pub fn key(&self) -> u32 {
        self.0.local_key()
    }
}

/// Registers `memory` for `connection` by its cache, as an operation does.
#[cfg(not(loom))]
#[inline]
pub fn lease(connection: &crate::Connection, memory: &SharedMemory) -> Result<CacheLease> {
    connection.lease(memory).map(CacheLease)
}

/// Has `hook` called at each named point that this process reaches on the way of an operation.
#[cfg(not(loom))]
pub fn on_failpoint(hook: impl Fn(&'static str) + Send + Sync + 'static) {
    crate::failpoint::hook(hook);
}

/// A network that is simulated, with all that a test needs of it.
#[cfg(not(loom))]
pub mod simulation {
    pub use crate::transport::sim::{
        Ended, Executor, Fault, Faults, NodeId, Planted, Settings, Sleep, Statistics, Task, is_alive, kill,
        note_progress, now, pool_statistics, random, registered, sleep, spawn, stop,
    };
}

/// What the fuzz targets call.
#[cfg(not(loom))]
pub mod fuzzing {
    pub use crate::fuzzing::{frames, handle, handshake, ring, set_up, stream};
}
