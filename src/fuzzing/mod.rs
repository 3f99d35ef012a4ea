//! What the fuzz targets call: each takes any bytes, and panics where the library breaks a promise.

mod handle;
mod handshake;
mod input;
#[cfg(test)]
mod seeds;
mod stream;
#[cfg(test)]
mod transport_seeds;

pub use crate::connection::frames;
pub use handle::handle;
pub use handshake::handshake;
pub(crate) use input::Input;
pub use stream::{ring, set_up, stream};
