//! A mapping with its local registrations, one per domain.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Domain, Mapping, RegionAccess, Registration};
use crate::{Error, ErrorKind, Result};

/// Memory that buffers are cut from. It is registered for our own operations once per domain, whole.
pub(crate) struct Slab {
    mapping: Arc<Mapping>,
    registrations: Mutex<Vec<(u64, Box<dyn Registration>)>>,
}

impl Slab {
    pub(super) fn new(length: usize) -> Result<Arc<Self>> {
        let mapping = Mapping::new(length).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::OutOfMemory => ErrorKind::MemoryLimit,
                _ => ErrorKind::ResourceExhausted,
            };
            Error::new(kind, "allocate").with_detail(format!("{length} bytes")).with_source(error)
        })?;
        Ok(Arc::new(Self { mapping: Arc::new(mapping), registrations: Mutex::default() }))
    }

    pub(super) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// The key of this slab in `domain`, registered on first use and kept.
    pub(super) fn local_key(&self, domain: &dyn Domain) -> Result<u32> {
        let mut registrations = self.registrations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, registration)) = registrations.iter().find(|(id, _)| *id == domain.id()) {
            return Ok(registration.local_key());
        }
        let registration = domain.register(&self.mapping, 0..self.mapping.length(), RegionAccess::Local)?;
        let key = registration.local_key();
        registrations.push((domain.id(), registration));
        Ok(key)
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mapping.fmt(f)
    }
}
