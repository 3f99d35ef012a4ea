//! Where memory is to be used: a domain, and what helps to register there.

use super::registration_cache::RegistrationCache;
use std::sync::Arc;

use super::{Domain, Pool, RegionAccess, Registrable, Registration, SharedMemory};
use crate::{ErrorKind, Result};

/// A domain and its registration cache.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) domain: &'a dyn Domain,
    pub(crate) cache: &'a RegistrationCache,
}

impl Place<'_> {
    /// A registration of exactly `memory` out of the cache, and the address of its first byte.
    pub(crate) fn cached(&self, memory: &SharedMemory, access: RegionAccess) -> Result<(Arc<dyn Registration>, u64)> {
        let registration = self.make_room(|domain| self.cache.get_exact(memory, domain, access))?;
        Ok((registration, memory.address().addr() as u64))
    }

    /// Registers; if there is no room for it, gives back what is registered for later, and tries once more.
    pub(crate) fn make_room<R>(&self, mut register: impl FnMut(&dyn Domain) -> Result<R>) -> Result<R> {
        match register(self.domain) {
            Err(error) if matches!(error.kind(), ErrorKind::MemoryLimit | ErrorKind::ResourceExhausted) => {
                tracing::debug!(%error, "no room to register: idle registrations are given back");
                self.cache.flush();
                Pool::with_global(Pool::trim);
                register(self.domain)
            }
            done => done,
        }
    }
}
