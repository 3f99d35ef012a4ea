//! The right to use a registration.

use std::fmt;
use std::sync::Arc;

use super::entry::{Entry, is_foreign, release};
use crate::memory::{Epoch, Registrable, Registration, SharedMemory};
use crate::{Error, ErrorKind, Result};

/// Keeps a registration and its memory for as long as it lives, whatever becomes of the cache.
#[must_use = "dropping a lease lets the registration go"]
pub(crate) struct Lease {
    key: u32,
    held: Held,
}

enum Held {
    Cached(&'static Entry),
    /// Of no bytes there is nothing to register.
    Empty,
    Uncached(Box<Uncached>),
}

struct Uncached {
    // Taken when dropped.
    registration: Option<Arc<dyn Registration>>,
    memory: Option<Arc<SharedMemory>>,
    epoch: Epoch,
}

impl Lease {
    /// Takes over a pin of `entry`.
    #[inline]
    pub(super) fn cached(entry: &'static Entry, key: u32) -> Self {
        Self { key, held: Held::Cached(entry) }
    }

    pub(super) fn empty() -> Self {
        Self { key: 0, held: Held::Empty }
    }

    pub(super) fn uncached(registration: Arc<dyn Registration>, memory: Arc<SharedMemory>, epoch: Epoch) -> Self {
        let key = registration.local_key();
        let uncached = Uncached { registration: Some(registration), memory: Some(memory), epoch };
        Self { key, held: Held::Uncached(Box::new(uncached)) }
    }

    /// The key for our own operations; 0 for an empty range.
    #[inline]
    pub(crate) fn local_key(&self) -> u32 {
        self.key
    }

    /// Whether it covers these bytes and no others.
    pub(super) fn is_exactly(&self, base: usize, length: usize) -> bool {
        match &self.held {
            Held::Cached(entry) => (entry.range().base, entry.range().end) == (base, base + length),
            Held::Empty => false,
            // It is of what was asked for, and was not asked for by anybody else.
            Held::Uncached(uncached) => {
                let memory = uncached.memory.as_ref();
                memory.is_some_and(|memory| (memory.address().addr(), memory.length()) == (base, length))
            }
        }
    }

    /// What is registered, which must be let go before the lease.
    pub(super) fn registration(&self) -> Result<Arc<dyn Registration>> {
        let registration = match &self.held {
            Held::Cached(entry) => entry.registration(),
            Held::Empty => None,
            Held::Uncached(uncached) => uncached.registration.clone(),
        };
        registration.ok_or_else(|| Error::new(ErrorKind::OutOfBounds, "register memory").with_detail("of no bytes"))
    }

    /// Whether the registration stays when the lease ends.
    #[cfg(test)]
    pub(super) fn is_cached(&self) -> bool {
        matches!(self.held, Held::Cached(_))
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        if let Held::Cached(entry) = self.held {
            entry.unpin();
        }
    }
}

impl Drop for Uncached {
    fn drop(&mut self) {
        let (registration, memory) = (self.registration.take(), self.memory.take());
        if is_foreign(self.epoch) {
            // They are the parent process'.
            std::mem::forget((registration, memory));
        } else if let Some(registration) = registration {
            // It was logged if that failed.
            let _ = release(registration, memory);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = match self.held {
            Held::Cached(_) => "cached",
            Held::Empty => "empty",
            Held::Uncached(_) => "uncached",
        };
        f.debug_struct("Lease").field("held", &held).finish_non_exhaustive()
    }
}
