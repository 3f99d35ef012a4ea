//! Connections: who listens, who connects, and the worker that drives them.

mod address;
mod arrived;
mod at_once;
mod auto;
mod batch;
mod capabilities;
mod channel;
mod completing;
mod connector;
mod conversation;
mod core;
mod counting;
mod deadline;
mod domain_grants;
mod driving;
mod engine;
mod established;
mod fetches;
mod filter;
#[cfg(all(any(test, feature = "internals"), not(loom)))]
#[cfg_attr(not(feature = "internals"), allow(unreachable_pub, reason = "what is public is so for the fuzz targets"))]
mod fuzzed;
mod grant;
mod grants;
mod halves;
mod hand_over;
mod idle;
mod later_span;
mod link;
mod link_grants;
mod listener;
mod liveness;
mod message;
mod notifications;
mod one_sided;
mod operations;
mod ordering;
mod outbox;
mod pages;
mod pending;
mod posting;
#[cfg(feature = "metrics")]
mod publishing;
mod reactors;
mod receives;
mod receiving;
mod seats;
mod sending;
mod set_up;
mod snapshot;
mod spans;
mod taking;
mod waiting;
mod worker;

pub use batch::Batch;
pub use capabilities::Capabilities;
pub use channel::Channel;
pub use connector::Connector;
pub use established::Connection;
pub use filter::{Answer, ConnectRequest};
#[cfg(all(any(test, feature = "internals"), not(loom)))]
#[cfg_attr(
    not(feature = "internals"),
    allow(unreachable_pub, reason = "what is public is so for the fuzz targets")
)]
pub use fuzzed::frames;
pub use halves::{ReceiveHalf, SendHalf};
pub use listener::Listener;
pub use message::Message;
pub use one_sided::{AtomicOperation, Operation};
pub use ordering::Fenced;
#[cfg(feature = "metrics")]
pub(crate) use publishing::{Now, gather};
pub use worker::Worker;

/// What the public types are made of: whichever transports this build has.
type Active = crate::transport::any::Any;
