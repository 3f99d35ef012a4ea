//! zcmi: zero-copy messaging over RDMA verbs.

mod config;
#[cfg(feature = "verbs")]
mod connection;
mod error;
mod memory;
mod protocol;
mod service;
mod transport;
#[cfg(feature = "verbs")]
#[allow(unsafe_code, reason = "the FFI layer; each block carries its proof")]
pub mod verbs;

pub use config::{Config, Polling};
#[cfg(feature = "verbs")]
pub use connection::{Batch, Connection, Connector, Listener, Message, Operation, Worker};
pub use error::{Error, ErrorKind, Failed, Result};
pub use memory::{Access, Buffer, ExposedBuffer, Grant, RemoteBuffer};
