//! What has happened, step by step.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::endpoint::EndpointId;
use super::faults::Fault;
use super::node::NodeId;
use super::pair::PairId;

/// Keeps the last lines, and a hash of all. Nothing in it differs from run to run of a seed: no addresses, no keys.
pub(super) struct Trace {
    lines: VecDeque<Line>,
    most: usize,
    hasher: DefaultHasher,
    count: u64,
}

#[derive(Clone, Copy)]
struct Line {
    time: u64,
    note: Note,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Note {
    Bound { pair: PairId },
    Broke { pair: PairId, why: &'static str },
    Closed { pair: PairId },
    Completed { pair: PairId, token: u64, how: &'static str },
    Control { to: EndpointId, what: &'static str },
    Deregistered { node: NodeId, length: usize },
    Died { node: NodeId },
    Done { pair: PairId, token: u64, what: &'static str, length: usize, how: &'static str },
    Ended { task: usize },
    Event { queue: usize },
    Fault(Fault),
    GoesOn { node: NodeId },
    Invalidated { pair: PairId },
    Job { node: NodeId },
    Opened { pair: PairId, node: NodeId },
    Poll { task: usize },
    Posted { pair: PairId, token: u64, what: &'static str, length: usize },
    Received { pair: PairId, length: usize },
    Receives { queue: usize, posted: usize },
    Registered { node: NodeId, length: usize },
    Tick { node: NodeId },
}

impl Trace {
    pub(super) fn new(most: usize) -> Self {
        Self { lines: VecDeque::with_capacity(most), most, hasher: DefaultHasher::new(), count: 0 }
    }

    pub(super) fn add(&mut self, time: u64, note: Note) {
        (time, note).hash(&mut self.hasher);
        self.count += 1;
        // Ticks would leave no room for anything else.
        if self.most == 0 || matches!(note, Note::Tick { .. }) {
            return;
        }
        if self.lines.len() == self.most {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { time, note });
    }

    /// Of all that has happened.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = self.hasher.clone();
        self.count.hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.3} us  ", self.time as f64 / 1000.0)?;
        match self.note {
            Note::Bound { pair } => write!(f, "{pair} binds a window"),
            Note::Broke { pair, why } => write!(f, "{pair} breaks: {why}"),
            Note::Closed { pair } => write!(f, "{pair} is closed"),
            Note::Completed { pair, token, how } => write!(f, "{pair} completes {token:#x}: {how}"),
            Note::Control { to, what } => write!(f, "{to} is told: {what}"),
            Note::Deregistered { node, length } => write!(f, "{node} deregisters {length} bytes"),
            Note::Died { node } => write!(f, "{node} dies"),
            Note::Done { pair, token, what, length, how } => {
                write!(f, "{pair} {what} {token:#x} of {length} bytes reaches its peer: {how}")
            }
            Note::Ended { task } => write!(f, "task {task} ends"),
            Note::Event { queue } => write!(f, "queue {queue} has an event"),
            Note::Fault(fault) => write!(f, "FAULT {fault:?}"),
            Note::GoesOn { node } => write!(f, "{node} goes on"),
            Note::Invalidated { pair } => write!(f, "{pair} invalidates a window"),
            Note::Job { node } => write!(f, "{node} runs a job"),
            Note::Opened { pair, node } => write!(f, "{pair} is opened on {node}"),
            Note::Poll { task } => write!(f, "task {task} is polled"),
            Note::Posted { pair, token, what, length } => write!(f, "{pair} posts {what} {token:#x} of {length} bytes"),
            Note::Received { pair, length } => write!(f, "{pair} receives {length} bytes"),
            Note::Receives { queue, posted } => write!(f, "queue {queue} has {posted} receives"),
            Note::Registered { node, length } => write!(f, "{node} registers {length} bytes"),
            Note::Tick { node } => write!(f, "{node} ticks"),
        }
    }
}
