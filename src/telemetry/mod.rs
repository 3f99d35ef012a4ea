//! What an operator sees of connections.
#![doc = include_str!("../../docs/telemetry.md")]

mod connection_id;
#[cfg(feature = "metrics")]
mod device_counters;
mod grants;
mod meters;
mod operations;
#[cfg(all(feature = "metrics", not(loom)))]
mod publish;
mod snapshot;
#[cfg(any(test, feature = "metrics"))]
mod table;
mod text;

pub use connection_id::ConnectionId;
pub use grants::{GivenGrant, GrantName, GrantPhase, HeldGrant};
pub(crate) use meters::{Count, Event, Meters, Phase, Refused, Tally, Timer};
pub use operations::{OperationInFlight, OperationKind};
#[cfg(all(feature = "metrics", not(loom)))]
pub use publish::publish;
#[cfg(all(feature = "metrics", not(loom)))]
pub(crate) use publish::publish_every;
pub(crate) use snapshot::MOST_LISTED;
pub use snapshot::{ChannelSnapshot, ConnectionSnapshot, ConnectionState, Credits, Ending, Window};
