//! zcmi: zero-copy messaging over RDMA verbs.

mod error;
mod memory;
#[cfg(feature = "verbs")]
#[allow(unsafe_code, reason = "the FFI layer; each block carries its proof")]
pub mod verbs;

pub use error::{Error, ErrorKind, Failed, Result};
pub use memory::{Access, Buffer, ExposedBuffer, Grant, RemoteBuffer};
