//! One end of a reliable connection: what was posted to it and how far that is.

use std::collections::VecDeque;
use std::fmt;

use super::node::NodeId;
use super::queue_state::{QueueId, Ready};
use super::windows::WindowChange;
use crate::memory::Transfer;
use crate::transport::{ChannelKey, Completion, Failure, Operation};
use crate::{Error, ErrorKind};

/// Names a queue pair of a world; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PairId(pub(super) usize);

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pair {}", self.0)
    }
}

pub(super) struct Pair {
    pub(super) node: NodeId,
    pub(super) queue: QueueId,
    /// Its number in its queue; `None` when it was taken out.
    pub(super) channel: Option<ChannelKey>,
    pub(super) peer: Option<PairId>,
    pub(super) standing: Standing,
    pub(super) sends: usize,
    pub(super) inline: usize,
    pub(super) segments: usize,
    /// Requests that were taken and whose end was not told.
    pub(super) outstanding: usize,
    /// Of the entries of the completion queue: what it always has, how many of those it uses, and what it uses beyond.
    pub(super) guaranteed: usize,
    pub(super) guaranteed_used: usize,
    pub(super) common: usize,
    /// Those of them that have not ended, in the order of posting.
    pub(super) requests: VecDeque<Pending>,
    /// Ended well, and to be told with the next that is told.
    pub(super) unsignaled: Vec<End>,
    /// Ended, to be told by the next polls; those of one entry come together.
    pub(super) completed: VecDeque<Vec<End>>,
    /// Receives that have ended, and whose completions are about to be written.
    pub(super) received: VecDeque<Ready>,
    pub(super) next_sequence: u64,
    /// The first that the device has not begun.
    pub(super) next_launch: u64,
    pub(super) launched_at: u64,
    /// On the wire: when each arrives, and which.
    pub(super) wire: VecDeque<(u64, u64)>,
    pub(super) wire_at: u64,
    pub(super) is_arriving: bool,
    /// Something was refused: nothing behind it is carried out.
    pub(super) is_stopped: bool,
    /// Where nobody answers, it asks again for ever.
    pub(super) is_patient: bool,
    /// Tries without an answer, or without a receive.
    pub(super) attempts: u32,
    pub(super) not_ready: u32,
    pub(super) sends_told_at: u64,
    pub(super) receives_told_at: u64,
    /// The driver does not tell what is outstanding.
    pub(super) is_withheld: bool,
    /// The layers above know that it has failed.
    pub(super) is_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Initialized,
    Ready,
    Failed,
}

/// A request that has not ended.
pub(super) struct Pending {
    pub(super) sequence: u64,
    pub(super) token: u64,
    pub(super) what: What,
    pub(super) memory: Memory,
    pub(super) is_signaled: bool,
    pub(super) is_fenced: bool,
    pub(super) progress: Progress,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Remote(Operation),
    Local(WindowChange),
}

pub(super) enum Memory {
    Inline(Vec<u8>),
    Owned(Transfer),
}

pub(super) enum Progress {
    Posted,
    Launched,
    /// Ended, with what was read.
    Ended(Result<Option<Vec<u8>>, Refusal>),
}

/// Why a request failed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Injected,
    ReceiverNotReady,
    RemoteAccess,
    RemoteInvalid,
    RetryExceeded,
}

/// The end of a request, before it is told.
pub(super) struct End {
    pub(super) token: u64,
    pub(super) result: Result<(), Failure>,
    pub(super) memory: Option<Transfer>,
    pub(super) change: Option<WindowChange>,
}

/// A request of a channel that has failed meanwhile, still on the wire.
pub(super) struct Ghost {
    pub(super) to: PairId,
    pub(super) operation: Operation,
    pub(super) bytes: Vec<u8>,
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Remote(Operation::CompareSwap { .. }) => "compare-swap",
            Self::Remote(Operation::FetchAdd { .. }) => "fetch-add",
            Self::Remote(Operation::Probe) => "probe",
            Self::Remote(Operation::Read { .. }) => "read",
            Self::Remote(Operation::Send) => "send",
            Self::Remote(Operation::Write { .. }) => "write",
            Self::Remote(Operation::WriteNotify { .. }) => "write-notify",
            Self::Local(WindowChange { is_invalidation: false, .. }) => "bind",
            Self::Local(WindowChange { is_invalidation: true, .. }) => "invalidate",
        }
    }

    /// Whether it counts against the depth of reads, and fences wait for it.
    pub(super) fn is_read(self) -> bool {
        matches!(
            self,
            Self::Remote(Operation::CompareSwap { .. } | Operation::FetchAdd { .. } | Operation::Read { .. })
        )
    }
}

impl Memory {
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Owned(memory) => memory.length(),
        }
    }

    pub(super) fn into_transfer(self) -> Option<Transfer> {
        match self {
            Self::Inline(_) => None,
            Self::Owned(memory) => Some(memory),
        }
    }
}

impl Refusal {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::ReceiverNotReady => "receiver not ready",
            Self::RemoteAccess => "remote access",
            Self::RemoteInvalid => "remote invalid request",
            Self::RetryExceeded => "retry exceeded",
        }
    }

    pub(super) fn failure(self) -> Failure {
        let kind = match self {
            Self::Injected | Self::RemoteInvalid => ErrorKind::ConnectionBroken,
            Self::ReceiverNotReady => ErrorKind::Protocol,
            Self::RemoteAccess => ErrorKind::RemoteAccess,
            Self::RetryExceeded => ErrorKind::Unreachable,
        };
        Failure::Broken(Error::new(kind, "complete").with_detail(self.name()))
    }
}

impl End {
    pub(super) fn completion(self, channel: ChannelKey) -> Completion {
        Completion {
            token: self.token,
            channel,
            is_receive: false,
            result: self.result.map(|()| 0),
            immediate: None,
            memory: self.memory,
        }
    }
}

impl Pending {
    /// Its end without having been carried out for certain.
    pub(super) fn flushed(self) -> End {
        let change = match self.what {
            What::Local(change) => Some(change),
            What::Remote(_) => None,
        };
        End { token: self.token, result: Err(Failure::Flushed), memory: self.memory.into_transfer(), change }
    }
}

impl Pair {
    pub(super) fn pending(&mut self, sequence: u64) -> Option<&mut Pending> {
        let first = self.requests.front()?.sequence;
        self.requests.get_mut(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }

    /// All that it has not told, as the end of the pair leaves it.
    pub(super) fn remains(&mut self) -> Vec<End> {
        let told_next = self
            .completed
            .drain(..)
            .flatten()
            .chain(self.unsignaled.drain(..))
            .map(|end| End { result: Err(Failure::Flushed), ..end });
        let mut ends: Vec<_> = told_next.collect();
        ends.extend(self.requests.drain(..).map(Pending::flushed));
        ends
    }
}
