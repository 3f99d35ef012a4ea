//! What a world has seen.

use std::collections::BTreeMap;

use super::faults::Fault;

/// Counts of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub steps: u64,
    pub polls: u64,
    pub jobs: u64,
    /// Connections that were set up, counted at the accepting end.
    pub connections: u64,
    /// Requests carried out, by what they do.
    pub requests: BTreeMap<&'static str, u64>,
    /// Messages that found no receive because of a fault.
    pub injected_rnr: u64,
    /// Messages that found no receive because there was none.
    pub rnr: u64,
    /// Faults that happened.
    pub faults: BTreeMap<Fault, u64>,
    /// Opportunities of each fault so far.
    pub opportunities: BTreeMap<Fault, u64>,
}
