//! A safe, thin layer over libibverbs and librdmacm.
//!
//! Every object is one type in one file. Parents are held by [`Arc`](std::sync::Arc), so objects are
//! destroyed in the order that verbs asks for, in whatever order they are dropped. Both libraries
//! are opened at run time: without them every call answers `ENOSYS`, which [`Error::is_not_installed`] tells.
//!
//! Posting has two tiers. [`QueuePair::post_send`] and [`QueuePair::post_receive`] are `unsafe` and
//! cost what the C inline functions cost. [`OwningQueue`] is safe: it owns the memory of every
//! operation from post to completion.
//!
//! # Destruction
//!
//! `Drop` calls the verbs destructor at once; some of them can block (a queue pair, an identifier with
//! an unacknowledged event). Whoever must not block drops the object on another thread. A process
//! that inherited an object over `fork` leaks it instead of destroying what is its parent's.

mod completion;
mod completion_channel;
mod completion_queue;
mod connection_id;
mod device;
mod error;
mod event;
mod event_channel;
mod fork;
mod memory_region;
mod owning_queue;
mod protection_domain;
mod queue_pair;
mod queue_pair_state;
mod sockaddr;
mod work_request;

pub use completion::{Completion, CompletionError, CompletionStatus, WorkOpcode};
pub use completion_channel::CompletionChannel;
pub use completion_queue::{CompletionBatch, CompletionQueue};
pub use connection_id::{ConnectionId, ConnectionParameters};
pub use device::{Context, Device, DeviceAttributes, Gid, PortAttributes, PortState};
pub use error::Error;
pub use event::{AsyncEvent, ConnectionEvent, ConnectionEventKind, Route};
pub use event_channel::EventChannel;
pub use memory_region::{Access, MemoryRegion, Registrable};
pub use owning_queue::{Completed, Detached, InFlight, Local, OwningQueue, QueuePairKey, Refused, SendRequest};
pub use protection_domain::ProtectionDomain;
pub use queue_pair::{QueuePair, QueuePairCapabilities};
pub use queue_pair_state::{QueuePairState, Tuning};
pub use work_request::{Remote, Segment, SendFlags, SendOperation};

/// The result of a verbs call.
pub type Result<T> = std::result::Result<T, Error>;
