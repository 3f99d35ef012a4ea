//! When a measurement ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many operations, or for how long.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Limit {
    /// So many operations.
    Operations(u64),
    /// So long.
    Time(Duration),
}

impl Limit {
    /// The limit of the command line: operations if given, else seconds.
    pub(crate) fn new(operations: Option<u64>, seconds: f64) -> Result<Self, String> {
        if let Some(operations) = operations {
            return Ok(Self::Operations(operations));
        }
        match Duration::try_from_secs_f64(seconds) {
            Ok(time) if !time.is_zero() => Ok(Self::Time(time)),
            _ => Err(format!("--duration {seconds}: must be more than 0 seconds")),
        }
    }

    /// Of `wanted` operations, how many may still start after `started`.
    pub(crate) fn allows(self, started: u64, wanted: u64, elapsed: Duration) -> u64 {
        match self {
            Self::Operations(all) => wanted.min(all.saturating_sub(started)),
            Self::Time(limit) if elapsed < limit => wanted,
            Self::Time(_) => 0,
        }
    }
}
