//! What is measured in one row of the result.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::common::{Channel, Pattern, check_size, compare};

/// Longest message for which the default queues are affordable.
const SHORT: u32 = 64 * 1024;

/// An operation whose latency is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Test {
    /// RDMA reads by the client.
    Read,
    /// Messages both ways.
    Send,
    /// RDMA writes both ways.
    Write,
}

/// One row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    /// The operation.
    pub(crate) test: Test,
    /// Bytes each time.
    pub(crate) size: u64,
    /// Iterations that are measured.
    pub(crate) iterations: u32,
    /// Iterations before those.
    pub(crate) warm_up: u32,
    /// Seed of the pattern.
    pub(crate) seed: u64,
}

/// Who sends; their patterns differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl Case {
    /// Bytes each time.
    pub(crate) fn size(&self) -> usize {
        self.size as usize
    }

    /// All iterations, the measured ones last.
    pub(crate) fn all(&self) -> u64 {
        u64::from(self.warm_up) + u64::from(self.iterations)
    }

    /// Whether an iteration is measured.
    pub(crate) fn is_measured(&self, iteration: u64) -> bool {
        iteration >= self.warm_up.into()
    }

    /// What `from` sends in `iteration`.
    pub(crate) fn pattern(&self, from: From, iteration: u64) -> Pattern {
        Pattern::new(self.seed, from as u64, iteration)
    }

    /// Compares every byte of what came in an iteration; an error names the first that is wrong.
    pub(crate) fn check(&self, iteration: u64, found: &[u8], expected: &[u8]) -> Result<(), String> {
        compare(found, expected)
            .map_err(|wrong| format!("{:?} of {} bytes, iteration {iteration}: {wrong}", self.test, self.size))
            .map_err(|complaint| complaint.to_lowercase())
    }

    /// The connection it needs, if the case makes sense.
    pub(crate) fn channel(&self) -> Result<Channel, String> {
        check_size(self.size)?;
        let longest = match self.test {
            Test::Send => u32::try_from(self.size).unwrap_or(u32::MAX),
            Test::Read | Test::Write => 0,
        };
        let max_message_size = longest.max(Channel::CONTROL.max_message_size);
        if longest <= SHORT {
            Ok(Channel { max_message_size, receive_depth: 64, send_depth: 128 })
        } else {
            // One message is on its way at a time: a few buffers of that length are enough.
            Ok(Channel { max_message_size, receive_depth: 4, send_depth: 16 })
        }
    }
}
