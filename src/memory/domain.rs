//! What memory needs of a transport: to be registered, and to be let go.

use std::any::Any;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Access, Registrable};
use crate::Result;
use crate::service::Service;

/// Registers memory and yields keys. One per device and process; registration is control plane, so it is
/// called through a trait object.
pub(crate) trait Domain: Send + Sync + 'static {
    /// A number that no other domain of this process ever has.
    fn id(&self) -> u64;

    /// A random number that handles granted to all of the domain are stamped with.
    fn nonce(&self) -> u64;

    /// Who looks after the registration cache of the domain, and by whose clock; `None` is the process' service.
    fn service(&self) -> Option<Arc<Service>> {
        None
    }

    /// Whether memory windows give each connection keys of its own.
    fn has_windows(&self) -> bool;

    /// Whether memory can be used without being pinned.
    fn pages_on_demand(&self) -> bool;

    /// Whether memory may be registered whose pages peers may have too, and take out or change at any time: not with a device.
    fn takes_pages_of_peers(&self) -> bool {
        false
    }

    /// Registers exactly `range` of `memory`.
    fn register(
        &self,
        memory: &Arc<dyn Registrable>,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<Arc<dyn Registration>>;

    /// Registers `length` bytes at `offset` of a dma-buf; peers name the first byte by `offset`.
    fn register_dma_buf(
        &self,
        file: OwnedFd,
        offset: u64,
        length: usize,
        access: RegionAccess,
    ) -> Result<Arc<dyn Registration>>;
}

/// What a registration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RegionAccess {
    /// Source and destination of our own operations.
    Local,
    /// The same, without pinning.
    LocalOnDemand,
    /// Source of our own operations, and nothing else; also for memory that is mapped read-only.
    LocalRead,
    /// Access by a peer that has the key.
    Remote { access: Access, on_demand: bool },
    /// Windows can be bound to it; its own key opens nothing to peers.
    Windows { write: bool },
}

impl RegionAccess {
    /// Whether it lets anybody write the memory.
    pub(crate) fn is_writing(self) -> bool {
        match self {
            Self::Local | Self::LocalOnDemand => true,
            Self::LocalRead => false,
            Self::Remote { access, .. } => access.is_writing(),
            Self::Windows { write } => write,
        }
    }

    /// Whether pages come when the device touches them.
    #[cfg(any(test, feature = "internals", feature = "verbs"))]
    pub(crate) fn is_on_demand(self) -> bool {
        matches!(self, Self::LocalOnDemand | Self::Remote { on_demand: true, .. })
    }
}

/// Registered memory. Dropping it deregisters; if that fails, the memory is never given back.
pub(crate) trait Registration: Any + Send + Sync {
    fn local_key(&self) -> u32;
    fn remote_key(&self) -> u32;

    /// What a transport has made, if this only holds it.
    fn kept(&self) -> Option<&dyn Registration> {
        None
    }

    /// Deregisters, if this is the last that holds it. On success no peer can reach the memory any more; on failure it stays
    /// out of use for ever.
    fn end(self: Arc<Self>) -> Result<()>;
}
