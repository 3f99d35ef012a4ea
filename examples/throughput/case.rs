//! What is measured in one row of the result.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::common::{Channel, Pattern, check_size};
use crate::limit::Limit;

/// Bytes in flight that no default exceeds.
const MOST_IN_FLIGHT: usize = 64 << 20;
/// Bytes in flight that a server allows.
const MOST_MEMORY: u64 = 1 << 30;
/// Operations in flight that a server allows.
const MOST_DEPTH: u32 = 4096;
/// Operations in flight by default.
const DEPTH: usize = 128;

/// An operation whose throughput is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Test {
    /// RDMA reads by the client.
    Read,
    /// Messages to the server.
    Send,
    /// RDMA writes by the client.
    Write,
}

/// One row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    /// The operation.
    pub(crate) test: Test,
    /// Bytes of each.
    pub(crate) size: u64,
    /// Operations in flight.
    pub(crate) depth: u32,
    /// Operations posted together.
    pub(crate) batch: u32,
    /// How many operations, or how long.
    pub(crate) limit: Limit,
    /// Seed of the pattern.
    pub(crate) seed: u64,
}

/// Operations in flight where the user says nothing.
pub(crate) fn default_depth(size: usize) -> u32 {
    (MOST_IN_FLIGHT / size).clamp(4, DEPTH) as u32
}

impl Case {
    /// Bytes of each operation.
    pub(crate) fn size(&self) -> usize {
        self.size as usize
    }

    /// Operations in flight.
    pub(crate) fn depth(&self) -> usize {
        self.depth as usize
    }

    /// Whether the server takes no part while it is measured.
    pub(crate) fn is_one_sided(&self) -> bool {
        self.test != Test::Send
    }

    /// The bytes of what uses `slot`, but for the stamp.
    pub(crate) fn pattern(&self, slot: usize) -> Pattern {
        Pattern::new(self.seed, 0, slot as u64)
    }

    /// Names an operation in the complaint about a wrong byte.
    pub(crate) fn complain(&self, number: u64, wrong: String) -> String {
        format!("{:?} of {} bytes, number {number}: {wrong}", self.test, self.size).to_lowercase()
    }

    /// The connection it needs, if the case makes sense.
    pub(crate) fn channel(&self) -> Result<Channel, String> {
        check_size(self.size)?;
        if !(1..=MOST_DEPTH).contains(&self.depth) || !(1..=self.depth).contains(&self.batch) {
            return Err(format!("{} operations in flight, {} together", self.depth, self.batch));
        }
        if self.size * u64::from(self.depth) > MOST_MEMORY {
            return Err(format!("{} times {} bytes are more than {MOST_MEMORY} bytes", self.depth, self.size));
        }
        let control = Channel::CONTROL;
        let send_depth = self.depth.max(control.send_depth);
        Ok(match self.test {
            Test::Send => Channel {
                max_message_size: u32::try_from(self.size).unwrap_or(u32::MAX).max(control.max_message_size),
                receive_depth: self.depth,
                send_depth,
            },
            Test::Read | Test::Write => Channel { send_depth, ..control },
        })
    }
}
