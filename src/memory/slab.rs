//! A mapping with its local registrations.

use std::fmt;
use std::sync::Arc;

use super::local_keys::LocalKeys;
use super::{Domain, Mapping, RegionAccess, Registrable};
use crate::{Error, ErrorKind, Result};

/// Memory that buffers are cut from. It is registered for our own operations once per domain, whole.
pub(crate) struct Slab {
    // The registrations end before the memory they are of.
    keys: LocalKeys,
    mapping: Arc<Mapping>,
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
        Ok(Arc::new(Self { keys: LocalKeys::new(RegionAccess::Local), mapping: Arc::new(mapping) }))
    }

    pub(super) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// The key of this slab in `domain`, registered on first use and kept.
    pub(super) fn local_key(&self, domain: &dyn Domain) -> Result<u32> {
        let mapping = Arc::clone(&self.mapping) as Arc<dyn Registrable>;
        self.keys.key(&mapping, domain)
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mapping.fmt(f)
    }
}
