//! The registrations of one memory for our own operations, one per domain.

use std::sync::{Arc, PoisonError};

use super::{Domain, RegionAccess, Registrable, Registration};
use crate::Result;
use crate::sync::locks::{Mutex, OnceLock};

/// Made on first use in each domain, whole, and kept.
pub(crate) struct LocalKeys {
    access: RegionAccess,
    /// Most programs have one domain: finding its key takes no lock.
    first: OnceLock<Entry>,
    others: Mutex<Vec<Entry>>,
}

struct Entry {
    domain: u64,
    key: u32,
    registration: Arc<dyn Registration>,
}

impl LocalKeys {
    pub(crate) fn new(access: RegionAccess) -> Self {
        Self { access, first: OnceLock::new(), others: Mutex::default() }
    }

    /// The key of `memory` in `domain`.
    pub(crate) fn key(&self, memory: &Arc<dyn Registrable>, domain: &dyn Domain) -> Result<u32> {
        if memory.length() == 0 {
            // There is nothing to register, and no device looks at the key.
            return Ok(0);
        }
        if let Some(first) = self.first.get().filter(|first| first.domain == domain.id()) {
            return Ok(first.key);
        }
        // Two threads that need the same registration make it once; other memories are not held up.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.first.get().into_iter().chain(others.iter()).find(|entry| entry.domain == domain.id());
        if let Some(known) = known {
            return Ok(known.key);
        }
        let registration = domain.register(memory, 0..memory.length(), self.access)?;
        let key = registration.local_key();
        if let Err(second) = self.first.set(Entry { domain: domain.id(), key, registration }) {
            others.push(second);
        }
        Ok(key)
    }

    /// Ends all registrations; on failure the device has not let go of the memory.
    pub(crate) fn end(&mut self) -> Result<()> {
        let others = self.others.get_mut().unwrap_or_else(PoisonError::into_inner);
        let entries = self.first.take().into_iter().chain(others.drain(..));
        // All of them, whatever becomes of one.
        entries.map(|entry| entry.registration.end()).fold(Ok(()), Result::and)
    }
}
