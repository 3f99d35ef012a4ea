//! A mapping with its local registrations.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::local_keys::LocalKeys;
use super::mapping::Pages;
use super::pool::Room;
use super::{Domain, Mapping, RegionAccess, Registrable};
use crate::{Error, ErrorKind, Result};

/// Memory that buffers are cut from. It is registered for our own operations once per domain, whole.
pub(crate) struct Slab {
    // The registrations end before the memory they are of, and its room is free after that.
    keys: LocalKeys,
    mapping: Arc<Mapping>,
    room: Option<Room>,
}

impl Slab {
    /// Zeroed memory of its own.
    #[cfg(test)]
    pub(super) fn new(length: usize) -> Result<Arc<Self>> {
        Self::of(length, Pages::Ordinary, None)
    }

    /// Zeroed memory of a pool.
    pub(super) fn in_room(length: usize, pages: Pages, room: Room) -> Result<Arc<Self>> {
        Self::of(length, pages, Some(room))
    }

    fn of(length: usize, pages: Pages, room: Option<Room>) -> Result<Arc<Self>> {
        let mapping = Mapping::of(length, pages).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::OutOfMemory => ErrorKind::MemoryLimit,
                _ => ErrorKind::ResourceExhausted,
            };
            Error::new(kind, "allocate").with_detail(format!("{length} bytes")).with_source(error)
        })?;
        Ok(Arc::new(Self::over(mapping, room)))
    }

    fn over(mapping: Mapping, room: Option<Room>) -> Self {
        Self { keys: LocalKeys::new(RegionAccess::Local), mapping: Arc::new(mapping), room }
    }

    /// All of a file of a peer, as [`Mapping::of_peer`].
    pub(super) fn of_peer(file: &OwnedFd, length: usize, tether: Arc<OwnedFd>) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self::over(Mapping::of_peer(file, length, tether)?, None)))
    }

    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// The file to give to peers, if they may have it.
    pub(crate) fn file(&self) -> Option<&OwnedFd> {
        self.mapping.file()
    }

    /// The key of this slab in `domain`, registered on first use and kept.
    pub(super) fn local_key(&self, domain: &dyn Domain) -> Result<u32> {
        if self.mapping.is_of_peers_too() && !domain.takes_pages_of_peers() {
            return Err(not_for_devices("prepare"));
        }
        let mapping = Arc::clone(&self.mapping) as Arc<dyn Registrable>;
        self.keys.key(&mapping, domain)
    }
}

/// What is answered who would have a device access pages that peers may have.
pub(super) fn not_for_devices(operation: &'static str) -> Error {
    let detail = "pages that are shared with peers are for shm:// alone: copy them into a buffer of another pool";
    Error::new(ErrorKind::Unsupported, operation).with_detail(detail)
}

impl Drop for Slab {
    fn drop(&mut self) {
        if !self.mapping.is_ours() {
            return;
        }
        if let Err(error) = self.keys.end() {
            // The registration keeps the mapping, so the room stays taken.
            tracing::error!(%error, "a device does not let go of a slab, which is never used again");
            std::mem::forget(self.room.take());
        }
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mapping.fmt(f)
    }
}
