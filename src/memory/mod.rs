//! Memory that is shared with peers: buffers, exposure, grants and the handles that name them.

mod buffer;
mod domain;
mod epoch;
mod exposure;
mod mapping;
mod remote_buffer;
mod slab;

pub use buffer::Buffer;
pub(crate) use buffer::Transfer;
pub(crate) use domain::{Domain, RegionAccess, Registration};
pub(crate) use epoch::Epoch;
pub use exposure::{ExposedBuffer, Grant};
pub(crate) use mapping::Mapping;
pub use remote_buffer::{Access, RemoteBuffer};
pub(crate) use slab::Slab;
