//! A connection as it is at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::connection_id::ConnectionId;
use super::grants::{GivenGrant, HeldGrant};
use super::operations::OperationInFlight;

/// Entries of each list in a snapshot: what there is more is counted.
pub(crate) const MOST_LISTED: usize = 64;

/// What [`Connection::snapshot`](crate::Connection::snapshot) answers: what to look at when a peer seems stuck. It has no keys of grants in it.
/// `Display` writes a page for a person, [`Serialize`] the same for a program, with times in seconds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ConnectionSnapshot {
    /// What both ends call the connection.
    pub connection: ConnectionId,
    /// Whether it goes on.
    pub state: ConnectionState,
    /// `shm`, `tcp` or `verbs`.
    pub transport: &'static str,
    /// The local device.
    pub device: String,
    /// The peer's address.
    pub peer: String,
    /// How long ago it was set up.
    #[serde(rename = "age_seconds", serialize_with = "seconds")]
    pub age: Duration,
    /// For how long nothing has come from the peer's library, within 25 ms. Where this process stood still, half a second of that counts;
    /// once the connection has ended it stays as it was.
    #[serde(rename = "silence_seconds", serialize_with = "seconds")]
    pub silence: Duration,
    /// Receives on both sides, one of which each frame takes.
    pub credits: Credits,
    /// Channels on which something is used or waited for, by index, up to 64 of them; the first always.
    pub channels: Vec<ChannelSnapshot>,
    /// Channels that there are.
    pub channels_total: usize,
    /// Bytes in the frame that is being filled and not posted.
    pub unsent_bytes: usize,
    /// Frames that were posted and are not known to have arrived. Those that are copied through shared memory are none.
    pub frames_in_flight: usize,
    /// Messages that asked to be acknowledged and are not yet.
    pub unacknowledged: u64,
    /// Tasks that wait for room to send, for an answer about a grant, or for the end of an operation that found no room.
    pub waiting_to_send: usize,
    /// Notifications that the application has not looked at.
    pub notifications: usize,
    /// Reads and atomics, fetches included, that are on their way, and how many may be.
    pub reads: Window,
    /// Operations and long messages that have not ended, up to 64 of them, the oldest first.
    pub operations: Vec<OperationInFlight>,
    /// Operations that have not ended.
    pub operations_total: usize,
    /// Grants to the peer that have not ended, but for long messages, up to 64 of them, the oldest first.
    pub grants_given: Vec<GivenGrant>,
    /// Such grants in all.
    pub grants_given_total: usize,
    /// Grants of the peer in use, up to 64.
    pub grants_held: Vec<HeldGrant>,
    /// Such grants in all.
    pub grants_held_total: usize,
    /// What it has counted, by the names of the metrics; nothing without the feature `metrics`.
    pub counts: BTreeMap<String, u64>,
    /// Why it has ended.
    pub ending: Option<Ending>,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionState {
    /// It has failed.
    Broken,
    /// One side has closed it.
    Closed,
    /// This side sends no more, and not all has arrived.
    Finishing,
    /// This side sends no more, and all has arrived.
    Finished,
    /// This process is a forked child, and the connection its parent's: nothing else is known.
    Inherited,
    /// It goes on.
    Open,
}

/// Receives, one of which each frame takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Credits {
    /// Frames that we may send now.
    pub available: u32,
    /// Receives that the peer has here.
    pub granted: u32,
    /// Of these, used ones that the peer is still to be given back.
    pub owed: u32,
}

/// What is used of a window, and how much there is of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Window {
    /// In use.
    pub used: u64,
    /// In all.
    pub limit: u64,
}

/// One channel of a connection.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ChannelSnapshot {
    /// Its number.
    pub channel: u32,
    /// Bytes that were sent and the peer's application has not received, as far as we have been told; each message counts for 64 more.
    pub send: Window,
    /// The same of what came.
    pub receive: Window,
    /// Messages that have come and were not received, long ones that are not here yet included.
    pub messages: usize,
    /// Tasks that wait for one.
    pub waiting_to_receive: usize,
    /// Whether we have said that no more will be sent on it.
    pub is_finished: bool,
    /// Whether the peer has.
    pub is_peer_finished: bool,
}

/// Why a connection has ended.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Ending {
    /// The name of the [`ErrorKind`](crate::ErrorKind).
    pub kind: String,
    /// The error, with cause and hint.
    pub error: String,
}

/// Seconds, for programs.
pub(super) fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
