//! A child that was forked with memory registered.

#![allow(unsafe_code, reason = "forking; each block carries its proof")]

use super::super::{CacheLimits, RegistrationCache};
use crate::memory::fake_domain::FakeDomain;
use crate::memory::{Access, RegionAccess, SharedMemory};

const ACCESS: RegionAccess = RegionAccess::LocalRead;

#[test]
fn a_forked_child_neither_uses_nor_destroys_what_is_registered() {
    let domain = FakeDomain::new();
    let cache = RegistrationCache::without_timer(CacheLimits { bytes: 1 << 20, entries: 1 });
    let memory = SharedMemory::from(vec![7; 5000]);
    let cached = cache.get(&memory, 0..5000, &domain, ACCESS).expect("registers");
    let uncached = cache.get(&memory, 0..100, &domain, RegionAccess::Remote { access: Access::READ, on_demand: false });
    let uncached = uncached.expect("registers");
    assert!(cached.is_cached() && !uncached.is_cached());
    // Nor what is the last lease's to deregister, in a cache that has gone.
    let gone = RegistrationCache::without_timer(CacheLimits { bytes: 1 << 20, entries: 1 });
    let orphan = gone.get(&memory, 0..5000, &domain, ACCESS).expect("registers");
    drop(gone);
    // The child can take no lock that another thread of the test had: it must not want to.
    let locked = cache.core.lock();
    // SAFETY: the child takes no lock, and allocates only to make an error, which glibc lets it do.
    match unsafe { libc::fork() } {
        0 => {
            let refused = cache.get(&memory, 0..5000, &domain, ACCESS).is_err();
            cache.flush();
            cache.sweep();
            drop((cached, uncached, orphan));
            let untouched = domain.live() == 3 && cache.statistics().entries == 0;
            std::mem::forget(locked);
            drop(cache);
            let status = if refused && untouched && domain.live() == 3 { 0 } else { 1 };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(status) }
        }
        child => {
            drop(locked);
            let mut status = -1;
            // SAFETY: waits for the child just made; `status` is writable.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child touched what is its parent's");
        }
    }
    assert_eq!(cache.get(&memory, 5..50, &domain, ACCESS).expect("a hit").local_key(), cached.local_key());
    drop((cached, uncached, orphan, cache));
    assert_eq!(domain.live(), 0);
}
