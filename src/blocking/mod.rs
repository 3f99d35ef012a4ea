//! The same API for programs that do not use `async`: calls that block their thread.
//!
//! ```no_run
//! use std::time::Duration;
//! use zcmi::blocking::{Connector, Listener};
//! use zcmi::{Buffer, Config, RemoteBuffer, Worker};
//!
//! fn server() -> zcmi::Result<()> {
//!     let listener = Listener::bind(&Worker::new(Config::from_env()?)?, "rdma://192.0.2.1:7471")?;
//!     let connection = listener.accept()?.with_timeout(Duration::from_secs(10));
//!     let question = connection.recv()?;
//!     connection.send(&question)
//! }
//!
//! fn client() -> zcmi::Result<()> {
//!     let worker = Worker::new(Config::from_env()?)?;
//!     let connection = Connector::new(&worker).connect("rdma://192.0.2.1:7471")?;
//!     connection.send(b"hello")?;
//!     assert_eq!(&*connection.recv_timeout(Duration::from_secs(1))?, b"hello");
//!     connection.close()
//! }
//! ```
//!
//! Each type is a thin cover over the one of the same name in the crate's root, which [`Connection::inner`] and the
//! like give; both can be used at once. For what has no blocking form, such as granting and revoking, there is
//! [`block_on`].
//!
//! # Waiting
//!
//! A thread that waits is parked, and the crate's service thread wakes it when the device says that something is there.
//! With [`Polling::Busy`](crate::Polling::Busy) it polls the device itself instead, with
//! [`Polling::Adaptive`](crate::Polling::Adaptive) for a short time at first.
//!
//! Everything that waits can be given a bound: `with_timeout` for all calls of a handle, `…_timeout` for one. A call
//! that has timed out answers [`TimedOut`](crate::ErrorKind::TimedOut) and says nothing about whether the operation
//! happens: an operation on memory that was posted goes on, and its buffer is freed when it has ended. A message that
//! was not received stays.
//!
//! # Within an asynchronous runtime
//!
//! It works there too, and blocks the thread: other tasks of that thread wait. On a runtime with one thread a peer in
//! the same runtime is one of them, so that nothing but the bound ends the call. Use the asynchronous API, or
//! `tokio::task::spawn_blocking`.

mod channel;
mod connection;
mod listener;
mod stream;
mod wait;

use crate::Result;

#[cfg(feature = "bincode")]
pub use self::channel::serve;
pub use self::channel::{Channel, Client, serve_with};
pub use connection::Connection;
pub use listener::{Connector, Listener};
pub use stream::Stream;
pub(crate) use wait::is_blocking;
pub use wait::{block_on, block_on_timeout};
