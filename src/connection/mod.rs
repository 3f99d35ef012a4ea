//! Connections: who listens, who connects, and the worker that drives them.

mod address;
mod batch;
mod connector;
mod core;
mod domain_grants;
mod engine;
mod established;
mod grant;
mod grants;
mod link;
mod link_grants;
mod listener;
mod message;
mod one_sided;
mod operations;
mod pending;
mod posting;
mod set_up;
mod waiting;
mod worker;

pub use batch::Batch;
pub use connector::Connector;
pub use established::Connection;
pub use listener::Listener;
pub use message::Message;
pub use one_sided::{AtomicOperation, Operation};
pub use worker::Worker;

/// The transport of this build. When there are more, the public types choose among them here.
type Active = crate::transport::verbs::Verbs;
