//! Where memory is to be used: a domain, and what helps to register there.

use super::registration_cache::RegistrationCache;
use super::{Domain, Pool};
use crate::{ErrorKind, Result};

/// A domain and its registration cache.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) domain: &'a dyn Domain,
    pub(crate) cache: &'a RegistrationCache,
}

impl Place<'_> {
    /// Registers; if there is no room for it, gives back what is registered for later, and tries once more.
    pub(crate) fn make_room<R>(&self, mut register: impl FnMut(&dyn Domain) -> Result<R>) -> Result<R> {
        match register(self.domain) {
            Err(error) if matches!(error.kind(), ErrorKind::MemoryLimit | ErrorKind::ResourceExhausted) => {
                tracing::debug!(%error, "no room to register: idle registrations are given back");
                self.cache.flush();
                Pool::global().trim();
                register(self.domain)
            }
            done => done,
        }
    }
}
