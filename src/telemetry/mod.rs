//! What an operator sees of connections.
#![doc = include_str!("../../docs/telemetry.md")]

mod connection_id;
mod grants;
mod operations;
mod snapshot;
mod text;

pub use connection_id::ConnectionId;
pub use grants::{GivenGrant, GrantName, GrantPhase, HeldGrant};
pub use operations::{OperationInFlight, OperationKind};
pub(crate) use snapshot::MOST_LISTED;
pub use snapshot::{ChannelSnapshot, ConnectionSnapshot, ConnectionState, Credits, Ending, Window};
