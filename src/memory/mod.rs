//! Memory that is shared with peers: buffers, exposure, grants and the handles that name them.

mod buffer;
mod domain;
mod epoch;
mod exposure;
#[cfg(any(test, feature = "internals"))]
#[cfg_attr(not(test), allow(dead_code, reason = "benches use less of it than tests"))]
pub(crate) mod fake_domain;
mod local_keys;
mod locked_memory;
mod mapping;
mod registrable;
#[allow(dead_code, reason = "nothing is sent from shared memory yet")]
pub(crate) mod registration_cache;
mod remote_buffer;
#[allow(dead_code, reason = "only the registration cache asks for owners")]
mod shared_memory;
mod slab;
mod transfer;
pub(crate) mod volatile;

pub use buffer::Buffer;
pub(crate) use domain::{Domain, RegionAccess, Registration};
pub(crate) use epoch::Epoch;
pub use exposure::{ExposedBuffer, Grant};
pub(crate) use mapping::Mapping;
pub use registrable::Registrable;
pub use registration_cache::{CacheLimits, CacheStatistics};
pub use remote_buffer::{Access, RemoteBuffer};
pub(crate) use shared_memory::Owners;
pub use shared_memory::SharedMemory;
pub(crate) use slab::Slab;
pub(crate) use transfer::Transfer;
