//! Memory that is shared with peers: buffers, exposure, grants and the handles that name them.

mod buffer;
mod domain;
mod epoch;
mod exposure;
mod local_keys;
mod mapping;
mod piece;
mod pool;
mod registrable;
mod remote_buffer;
mod shared_buffer;
mod slab;
mod transfer;
pub(crate) mod volatile;

pub use buffer::Buffer;
pub(crate) use domain::{Domain, RegionAccess, Registration};
pub(crate) use epoch::Epoch;
pub use exposure::{ExposedBuffer, Grant};
pub(crate) use mapping::Mapping;
pub use pool::{Allocation, HugePages, Pool, PoolOptions, PoolStatistics};
pub use registrable::Registrable;
pub use remote_buffer::{Access, RemoteBuffer};
pub use shared_buffer::SharedBuffer;
pub(crate) use slab::Slab;
pub(crate) use transfer::Transfer;
