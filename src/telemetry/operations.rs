//! Operations that have not ended.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::grants::GrantName;
use super::snapshot::seconds;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperationKind {
    /// An atomic compare and swap.
    CompareSwap,
    /// A long message that is fetched from the peer.
    Fetch,
    /// An atomic fetch and add.
    FetchAdd,
    /// What ends when all before it have.
    Flush,
    /// A long message that the peer was offered, and has not taken.
    Offer,
    /// A read of the peer's memory.
    Read,
    /// A write to the peer's memory.
    Write,
    /// A write of which the peer is told.
    WriteNotify,
}

/// An operation that has begun and not ended.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct OperationInFlight {
    /// What it does.
    pub kind: OperationKind,
    /// Bytes.
    pub length: u64,
    /// For how long it has been on its way; 25 ms more at most, or as long as this process stood still.
    #[serde(rename = "age_seconds", serialize_with = "seconds")]
    pub age: Duration,
    /// The grant that it uses: the peer's, but for an offer, where it is ours. Both ends call it so.
    pub grant: Option<GrantName>,
    /// Of a long message that is fetched: its channel.
    pub channel: Option<u32>,
    /// Whether its future was dropped, so that nobody waits for it.
    pub is_detached: bool,
}

impl OperationKind {
    /// Its name, as errors have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CompareSwap => "compare and swap",
            Self::Fetch => "fetch",
            Self::FetchAdd => "fetch and add",
            Self::Flush => "flush",
            Self::Offer => "offer",
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteNotify => "write and notify",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
