//! Zero-copy messaging over RDMA: programs exchange messages and handles to memory, and read and write
//! each other's memory directly. The same programs run over TCP where there is no RDMA device, `tcp://HOST:PORT`, and
//! through shared memory of one host, `shm://NAME`; `auto://HOST:PORT` takes the best that leads to the peer.
//!
//! ```no_run
//! use zcmi::{Access, Buffer, Config, Connector, Listener, RemoteBuffer, Worker};
//!
//! # async fn example() -> zcmi::Result<()> {
//! let worker = Worker::new(Config::default())?;
//! let listener = Listener::bind(&worker, "rdma://192.0.2.1:0").await?;
//! let (connector, uri) = (Connector::new(&worker), listener.uri());
//! let (client, server) = tokio::try_join!(connector.connect(&uri), listener.accept())?;
//!
//! // The server lets its peer access 4 KiB, and sends the handle.
//! let exposed = Buffer::allocate(4096)?.expose();
//! let grant = exposed.grant(&server, 0..4096, Access::READ_WRITE).await?;
//! server.send(&grant.remote_buffer().to_bytes()).await?;
//!
//! // The client writes there. The server's process takes no part in it.
//! let handle = RemoteBuffer::from_bytes(&client.recv().await?)?;
//! let mut buffer = Buffer::allocate(5)?;
//! buffer.copy_from_slice(b"hello");
//! client.write(buffer, &handle.slice(100..105)?).await?;
//!
//! // A message behind the write tells the server that the bytes are there.
//! client.send(b"written").await?;
//! server.recv().await?;
//! let mut bytes = [0; 5];
//! exposed.read_at(100, &mut bytes);
//! assert_eq!(&bytes, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! | to | use |
//! |---|---|
//! | set up | [`Worker`], [`Config`] ([all settings](configuration_guide)), [`Listener`], [`Connector`] |
//! | exchange messages | [`Connection::send`], [`Connection::recv`], [`Message`] |
//! | exchange values | [`Channel::send_value`], [`Channel::recv_value`], [`Codec`] |
//! | call the peer | [`Client`], [`serve()`] |
//! | use tokio's [`AsyncRead`](tokio::io::AsyncRead) and [`AsyncWrite`](tokio::io::AsyncWrite) | [`Stream`] |
//! | do without `async` | [`blocking`] |
//! | use memory again and again | [`Pool`], [`Buffer`], [`SharedBuffer`] |
//! | let a peer access memory | [`Buffer::expose`], [`ExposedBuffer::grant`], [`Grant`] |
//! | access a peer's memory | [`RemoteBuffer`], [`Connection::read`], [`Connection::write`], [`Connection::fetch_add`], [`Connection::batch`] |
//! | see what a connection is doing | [`Connection::snapshot`], [`telemetry`] |
//! | know what transports differ in | [`Connection::capabilities`] |
//! | understand all that | [`memory_guide`] |
//! | use verbs directly | [`verbs`] |
//!
//! # Threads, cancellation, clean-up
//!
//! Everything is `Send`; a [`Connection`] can be cloned and used from many tasks. Whoever waits polls the worker's
//! completion queue; nobody else does. Futures work on any executor; on tokio (with I/O enabled) they sleep on the device's
//! event descriptor, elsewhere the crate's service thread wakes them.
//!
//! Dropping a future loses nothing: `recv` leaves the message, `send` that was not posted sends nothing, an
//! [`Operation`] that was posted goes on and keeps its buffer until the device is done with it. A timeout around a future therefore
//! says nothing about whether the operation happens.
//!
//! Dropping a [`Grant`] or an [`ExposedBuffer`] revokes; dropping the last clone of a [`Connection`] delivers what was
//! sent, in the background, and disconnects.
//!
//! # When an operation is done, and what is visible
//!
//! `send` resolves when the payload may be reused, `write` when the bytes are placed at the target, `read` when they are
//! here. The owner of written memory is certain to see the bytes after a later message on the same connection.
//!
//! # Features
//!
//! `verbs` (default): RDMA. It needs cmake and libclang to build; the C libraries are opened at run time. Without it there are
//! all the rest, over TCP and through shared memory.
//!
//! `bincode` (default): the codec of [`Channel::send_value`] and the like. Those that take a codec of one's own are
//! there without it.
//!
//! `cli`: the command `zcmi`, for `cargo install`; nothing of it is in the library.
//!
//! `metrics`: counts and times for a recorder of the `metrics` facade: [`telemetry`].
//!
//! `internals`: for zcmi's own tests, benches and fuzz targets; no stable API.

// Under loom little of the seam and what is above it is there.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

#[cfg(not(loom))]
mod background;
#[cfg(not(loom))]
pub mod blocking;
mod clock;
mod config;
#[cfg(not(loom))]
mod connection;
// Of the connections, what is modelled.
mod error;
mod failpoint;
#[cfg(all(any(test, feature = "internals"), not(loom)))]
#[cfg_attr(not(feature = "internals"), allow(unreachable_pub, reason = "what is public is so for the fuzz targets"))]
mod fuzzing;
#[cfg(loom)]
#[path = "connection/hand_over.rs"]
mod hand_over;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod memory;
mod message;
mod protocol;
mod service;
#[cfg(not(loom))]
mod stream;
mod sync;
pub mod telemetry;
mod transport;
#[cfg(feature = "verbs")]
#[allow(unsafe_code, reason = "the FFI layer; each block carries its proof")]
pub mod verbs;

pub use config::{Config, ConfigBuilder, Polling, SharedPages, TransportChoice};
#[cfg(not(loom))]
pub use connection::{
    Answer, AtomicOperation, Batch, Capabilities, Channel, ConnectRequest, Connection, Connector, Fenced, Listener,
    Message, Operation, ReceiveHalf, SendHalf, Worker,
};
pub use error::{Error, ErrorKind, Failed, Result};
pub use memory::{
    Access, Allocation, Buffer, CacheLimits, CacheStatistics, Destination, Exposable, Exposed, ExposedBuffer,
    ExposedDmaBuf, Grant, HugePages, Isolation, Pool, PoolOptions, PoolStatistics, Registered, Registrable,
    RemoteBuffer, RemoteValue, Revocation, Segment, SharedBuffer, SharedMemory, Source,
};

#[cfg(feature = "bincode")]
pub use message::Bincode;
#[cfg(all(feature = "bincode", not(loom)))]
pub use message::serve;
#[cfg(not(loom))]
pub use message::{ApplicationError, CallOptions, Client, serve_with};
pub use message::{Codec, CodecError};
#[cfg(not(loom))]
pub use stream::Stream;

/// Who owns memory, who may touch it, and how it is taken back.
#[doc = include_str!("../docs/memory.md")]
pub mod memory_guide {}

/// All settings, and the environment variables for them.
#[doc = include_str!("../docs/configuration.md")]
pub mod configuration_guide {}

/// The examples of README and of the guide in `docs/` are compiled with the others.
#[cfg(all(doctest, feature = "verbs", feature = "bincode"))]
mod documents {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/choosing-a-transport.md")]
    mod choosing_a_transport {}
    #[doc = include_str!("../docs/containers.md")]
    mod containers {}
    #[doc = include_str!("../docs/getting-started.md")]
    mod getting_started {}
    #[doc = include_str!("../docs/messages.md")]
    mod messages {}
    #[doc = include_str!("../docs/one-sided.md")]
    mod one_sided {}
    #[doc = include_str!("../docs/telemetry.md")]
    mod telemetry {}
    #[doc = include_str!("../docs/threat-model.md")]
    mod threat_model {}
    #[doc = include_str!("../docs/troubleshooting.md")]
    mod troubleshooting {}
    #[doc = include_str!("../docs/tuning.md")]
    mod tuning {}
}
