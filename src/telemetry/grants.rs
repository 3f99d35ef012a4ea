//! Grants, as a snapshot shows them: by their names, never by their keys.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::snapshot::seconds;
use crate::protocol::{GrantId, Scope};

/// What both ends of a connection call a grant: slot and generation, `3.7`. One to all of the owner's domain is `domain 3.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GrantName {
    /// A place in the owner's table.
    pub slot: u32,
    /// How often the place was used before.
    pub generation: u32,
    /// Whether it is for every connection to the owner's domain.
    pub is_of_domain: bool,
}

impl GrantName {
    pub(crate) fn of(id: GrantId) -> Self {
        Self { slot: id.slot, generation: id.generation, is_of_domain: id.scope == Scope::Domain }
    }
}

impl fmt::Display for GrantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = if self.is_of_domain { "domain " } else { "" };
        write!(f, "{scope}{}.{}", self.slot, self.generation)
    }
}

impl Serialize for GrantName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A grant that the application has made for the peer, and that has not ended; or has, and the peer has still to say that it knows ([`Over`](GrantPhase::Over)).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct GivenGrant {
    /// Its name.
    pub grant: GrantName,
    /// How far it is.
    pub phase: GrantPhase,
    /// Bytes that the peer may access.
    pub length: u64,
    /// How long ago it was made; 25 ms more at most, or as long as this process stood still.
    #[serde(rename = "age_seconds", serialize_with = "seconds")]
    pub age: Duration,
}

/// How far a grant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GrantPhase {
    /// It is being taken back, and the peer is asked to let go.
    Asking,
    /// Its key is being made invalid.
    Closing,
    /// The peer may access the memory.
    Live,
    /// Its key is being made.
    Opening,
    /// It has ended, and the peer has still to say that it knows.
    Over,
}

impl fmt::Display for GrantPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asking => "asking",
            Self::Closing => "closing",
            Self::Live => "live",
            Self::Opening => "opening",
            Self::Over => "over",
        })
    }
}

/// A place in the peer's table of grants which operations of ours use just now. Of handles that lie idle in the application the library
/// does not know.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HeldGrant {
    /// The place.
    pub slot: u32,
    /// Whether it is of the grants to the peer's domain.
    pub is_of_domain: bool,
    /// Operations that use it.
    pub operations: u32,
    /// Whether the peer has asked us to let go, and waits for these operations.
    pub is_wanted_back: bool,
}
