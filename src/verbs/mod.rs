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

mod address_handle;
mod completion;
mod completion_channel;
mod completion_queue;
mod connection_id;
mod detached;
mod device;
mod endpoint;
mod error;
mod event;
mod event_channel;
mod exposed_region;
mod fork;
mod memory_region;
mod operation_table;
mod owning_queue;
mod post_batch;
mod protection_domain;
mod queue_pair;
mod queue_pair_builder;
mod queue_pair_change;
mod queue_pair_state;
mod registered_buffer;
mod send_list;
mod shared_receive_queue;
mod sockaddr;
mod tuning;
mod work_request;

pub use address_handle::{AddressHandle, AddressVector, ROUTE_HEADER};
pub use completion::{Arrival, Completion, CompletionError, CompletionStatus, WorkOpcode};
pub use completion_channel::CompletionChannel;
pub use completion_queue::{CompletionBatch, CompletionQueue, Completions};
pub use connection_id::{ConnectionId, ConnectionParameters};
pub use detached::Detached;
pub use device::{Context, Device, DeviceAttributes, Gid, PortAttributes, PortState};
pub use endpoint::{Endpoint, LocalEnd, Psn};
pub use error::Error;
pub use event::{AsyncEvent, ConnectionEvent, ConnectionEventKind, Route};
pub use event_channel::EventChannel;
pub use exposed_region::{ExposedPart, ExposedRegion};
pub use memory_region::{Access, MemoryRegion, Registrable};
pub use owning_queue::{Completed, InFlight, Local, OwningQueue, QueuePairKey, Refused, SendRequest};
pub use post_batch::PostBatch;
pub use protection_domain::ProtectionDomain;
pub use queue_pair::QueuePair;
pub use queue_pair_builder::{QueuePairBuilder, QueuePairCapabilities, QueuePairKind};
pub use queue_pair_change::QueuePairChange;
pub use queue_pair_state::QueuePairState;
pub use registered_buffer::{Pieces, RegisteredBuffer};
pub use send_list::SendList;
pub use shared_receive_queue::{SharedReceiveAttributes, SharedReceiveQueue};
pub use tuning::Tuning;
pub use work_request::{Destination, Remote, Segment, SendFlags, SendOperation};

/// The result of a verbs call.
pub type Result<T> = std::result::Result<T, Error>;
