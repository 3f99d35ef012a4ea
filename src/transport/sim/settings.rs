//! What a world is like.

use std::time::Duration;

use super::faults::Faults;

/// Settings of a world.
#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    pub faults: Faults,
    /// A bug of the device, put in so that a test can show that it finds such.
    pub planted: Option<Planted>,
    /// Reads and atomics that a channel may have outstanding.
    pub reads: usize,
    /// Completions that a queue holds, at most.
    pub completions: usize,
    /// Bytes that one request carries.
    pub longest: u64,
    /// For how long nothing that is waited for may end before it is called a hang.
    pub patience: Duration,
    /// Steps after which a run is given up.
    pub steps: u64,
    /// Lines of the trace that are kept.
    pub trace: usize,
}

/// Bugs that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A message completes two receives: the second shows what was in its memory before.
    DoubleCompletion,
    /// Some frames arrive without the credits that they carry.
    LostCredit,
    /// Some messages are not put into their receive, whose memory shows what it was used for before.
    ReusedBuffer,
}

impl Settings {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            faults: Faults::none(),
            planted: None,
            reads: 16,
            completions: 32_767,
            longest: 1 << 30,
            patience: Duration::from_secs(120),
            steps: 2_000_000,
            trace: 64,
        }
    }
}
