//! Memory that is shared with peers: buffers, exposure, grants and the handles that name them.

mod access;
mod buffer;
mod dma_buf;
mod domain;
mod epoch;
mod exposed;
mod exposure;
#[cfg(any(test, feature = "internals"))]
#[cfg_attr(not(test), allow(dead_code, reason = "benches use less of it than tests"))]
pub(crate) mod fake_domain;
pub(crate) mod foreign;
mod grant;
mod local_keys;
mod locked_memory;
mod mapping;
mod payload;
mod piece;
mod place;
mod pool;
mod registered;
mod registrable;
pub(crate) mod registration_cache;
mod remote_buffer;
mod segment;
mod shared_buffer;
mod shared_memory;
mod slab;
mod tether;
mod transfer;
pub(crate) mod volatile;

pub use access::Access;
pub use buffer::Buffer;
pub use dma_buf::ExposedDmaBuf;
pub(crate) use domain::{Domain, RegionAccess, Registration};
pub(crate) use epoch::Epoch;
pub use exposed::{Exposable, Exposed, ExposedBuffer};
pub(crate) use exposure::{Exposure, check_range};
pub use grant::{Grant, Isolation, Revocation};
pub(crate) use grant::{GrantControl, GrantRecord, GrantState};
pub(crate) use mapping::Mapping;
pub use payload::{Destination, Source};
pub(crate) use payload::{Held, Payload};
pub(crate) use place::Place;
pub use pool::{Allocation, HugePages, Pool, PoolOptions, PoolStatistics};
pub use registered::Registered;
pub use registrable::Registrable;
pub(crate) use registration_cache::RegistrationCache;
pub use registration_cache::{CacheLimits, CacheStatistics};
pub use remote_buffer::{RemoteBuffer, RemoteValue};
pub use segment::Segment;
pub use shared_buffer::SharedBuffer;
pub(crate) use shared_memory::Owners;
pub use shared_memory::SharedMemory;
pub(crate) use slab::Slab;
pub(crate) use tether::Tether;
pub(crate) use transfer::Transfer;
