//! The one cache of each domain.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};

use super::{CacheLimits, RegistrationCache};
use crate::memory::Domain;
use crate::sync::locks::Mutex;

/// By domain. Only weakly: an entry's registration holds its domain, so a domain that held its cache would never go.
static CACHES: Mutex<Option<HashMap<u64, Weak<RegistrationCache>>>> = Mutex::new(None);

impl RegistrationCache {
    /// The cache of `domain`, made with `limits` if there is none. It goes with its last user.
    pub(crate) fn of_domain(domain: &dyn Domain, limits: CacheLimits) -> Arc<Self> {
        let mut caches = CACHES.lock().unwrap_or_else(PoisonError::into_inner);
        let caches = caches.get_or_insert_default();
        if let Some(cache) = caches.get(&domain.id()).and_then(Weak::upgrade) {
            return cache;
        }
        caches.retain(|_, cache| cache.strong_count() > 0);
        let cache = Arc::new(Self::of_service(limits, domain.service()));
        caches.insert(domain.id(), Arc::downgrade(&cache));
        cache
    }
}
