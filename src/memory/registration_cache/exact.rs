//! Registrations that peers may reach: of exactly the bytes that are asked for, whatever larger one is there.

use std::sync::Arc;

use super::{Lease, RegistrationCache};
use crate::Result;
use crate::memory::{Domain, RegionAccess, Registrable, Registration, SharedMemory};

impl RegistrationCache {
    /// A registration of all of `memory` and of nothing else, kept as long as this lives. As [`get`](Self::get), but one that
    /// contains more is not used: not every device looks at the bounds of a window within its region.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn get_exact(
        &self,
        memory: &SharedMemory,
        domain: &dyn Domain,
        access: RegionAccess,
    ) -> Result<Arc<dyn Registration>> {
        let lease = self.get(memory, 0..memory.length(), domain, access)?;
        let lease = if lease.is_exactly(memory.address().addr(), memory.length()) {
            lease
        } else {
            drop(lease);
            self.core.register_uncached(memory, domain, access)?
        };
        let registration = lease.registration();
        registration.map(|registration| Arc::new(Leased { registration, _lease: lease }) as Arc<dyn Registration>)
    }
}

/// A registration of the cache, in somebody's hands.
struct Leased {
    // Before the lease: the cache ends what nobody else holds.
    registration: Arc<dyn Registration>,
    _lease: Lease,
}

impl Registration for Leased {
    fn local_key(&self) -> u32 {
        self.registration.local_key()
    }

    fn remote_key(&self) -> u32 {
        self.registration.remote_key()
    }

    fn kept(&self) -> Option<&dyn Registration> {
        Some(&*self.registration)
    }

    fn end(self: Arc<Self>) -> Result<()> {
        // It is the cache's to deregister.
        drop(self);
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::CacheLimits;
    use super::*;
    use crate::memory::fake_domain::FakeDomain;
    use bytes::Bytes;

    const WINDOWS: RegionAccess = RegionAccess::Windows { write: false };

    fn cache() -> RegistrationCache {
        RegistrationCache::without_timer(CacheLimits { bytes: 1 << 30, entries: 100 })
    }

    #[test]
    fn the_same_bytes_are_registered_once_and_a_part_of_them_by_itself() {
        let (cache, domain) = (cache(), FakeDomain::new());
        let whole = SharedMemory::from(Bytes::from(vec![7; 10_000]));
        let first = cache.get_exact(&whole, &domain, WINDOWS).expect("registers");
        let key = first.local_key();
        drop(first);
        let again = cache.get_exact(&whole, &domain, WINDOWS).expect("is there");
        assert_eq!((again.local_key(), cache.statistics().misses, cache.statistics().hits), (key, 1, 1));
        for range in [0..9_999, 1..10_000, 5..6] {
            let part = cache.get_exact(&whole.slice(range), &domain, WINDOWS).expect("registers");
            assert_ne!(part.local_key(), key, "the whole must not be opened for a part");
        }
        assert_eq!((cache.statistics().uncached, cache.statistics().entries), (3, 1));
        // For our own operations what contains it would do, but that is another access.
        let local = cache.get(&whole, 0..10, &domain, RegionAccess::LocalRead).expect("registers");
        assert_ne!(local.local_key(), key);
    }

    #[test]
    fn what_is_given_up_while_it_is_used_stays_until_then_and_serves_nobody_else() {
        let (cache, domain) = (cache(), FakeDomain::new());
        let memory = SharedMemory::from(Bytes::from(vec![7; 10_000]));
        let used = cache.get_exact(&memory, &domain, WINDOWS).expect("registers");
        let other = Arc::clone(&used);
        cache.flush();
        assert_eq!(cache.statistics().entries, 1, "it is in use");
        // A larger one takes its place; the smaller one is given up, and there until its last user has gone.
        cache.disable();
        let next = cache.get_exact(&memory, &domain, WINDOWS).expect("registers");
        assert_ne!(next.local_key(), used.local_key());
        assert_eq!(domain.live(), 2);
        drop(next);
        used.end().expect("ends");
        assert_eq!(domain.live(), 1, "another has it");
        other.end().expect("ends");
        assert_eq!((domain.live(), cache.statistics().entries, cache.statistics().quarantined), (0, 0, 0));
    }
}
