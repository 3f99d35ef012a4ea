//! Nodes: each is a process with a device, and the service of that process.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::domain::Books;
use super::endpoint::Control;
use super::faults::Fault;
use super::state::{Action, State};
use super::trace::Note;
use super::world::World;
use crate::service::{Job, Service, Simulated, Watch};

/// Names a node of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub(super) usize);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

pub(super) struct Node {
    pub(super) name: String,
    /// The number of its domain, and what handles that are good there are stamped with.
    pub(super) domain: u64,
    pub(super) nonce: u64,
    pub(super) service: Option<Arc<Service>>,
    pub(super) standing: Standing,
    /// In the order in which the service thread would do them.
    pub(super) jobs: VecDeque<NodeJob>,
    pub(super) books: Books,
    is_mortal: bool,
}

/// Whether a node's software runs. A stopped one's device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Dead,
    Running,
    Stopped,
}

pub(super) enum NodeJob {
    Once(Job),
    Tick(Duration, Watch),
}

impl Node {
    pub(super) fn new(name: String, domain: u64, nonce: u64, is_mortal: bool) -> Self {
        Self {
            name,
            domain,
            nonce,
            service: None,
            standing: Standing::Running,
            jobs: VecDeque::new(),
            books: Books::default(),
            is_mortal,
        }
    }
}

/// How long a stopped node stands still at most, in nanoseconds.
const LONGEST_STOP: u64 = 3_000_000_000;

impl State {
    pub(super) fn node(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.name == name).map(NodeId)
    }

    /// What can go wrong at any time.
    pub(super) fn mishaps(&mut self) {
        for fault in [Fault::Death, Fault::MuteDeath, Fault::SilentDeath, Fault::Stop] {
            if !self.hit(fault) {
                continue;
            }
            let can_happen = |node: &Node| node.is_mortal && node.standing == Standing::Running;
            let nodes: Vec<_> = (0..self.nodes.len()).filter(|&index| can_happen(&self.nodes[index])).collect();
            if nodes.is_empty() {
                continue;
            }
            let node = NodeId(nodes[self.below(nodes.len() as u64) as usize]);
            match fault {
                Fault::Stop => {
                    let time = self.below(LONGEST_STOP);
                    self.stop(node, time);
                }
                fault => self.kill(node, fault),
            }
        }
        if self.hit(Fault::Flush) {
            self.break_some_pair();
        }
    }

    /// Its software stands still for `time` nanoseconds.
    pub(super) fn stop(&mut self, node: NodeId, time: u64) {
        if self.nodes[node.0].standing == Standing::Running {
            self.nodes[node.0].standing = Standing::Stopped;
            self.after(time, Action::GoOn(node));
        }
    }

    pub(super) fn go_on(&mut self, node: NodeId) {
        if self.nodes[node.0].standing == Standing::Stopped {
            self.nodes[node.0].standing = Standing::Running;
            self.note(Note::GoesOn { node });
        }
    }

    /// Its process ends, and all it has; `how` is one of the deaths.
    pub(super) fn kill(&mut self, node: NodeId, how: Fault) {
        if self.is_dead(node) {
            return;
        }
        self.note(Note::Died { node });
        self.nodes[node.0].standing = Standing::Dead;
        self.deaths += 1;
        // Who waits for it has now something else to wait for.
        self.progress();
        let jobs = std::mem::take(&mut self.nodes[node.0].jobs);
        self.discard(jobs.into_iter().collect::<Vec<_>>());
        for index in 0..self.pairs.len() {
            if let Some(pair) = self.pairs[index].take_if(|pair| pair.node == node) {
                if let Some(peer) = pair.peer.and_then(|peer| self.pair(peer)) {
                    peer.is_patient = how == Fault::MuteDeath;
                }
                self.discard(pair);
            }
        }
        for index in 0..self.queues.len() {
            if let Some(queue) = self.queues[index].take_if(|queue| queue.node == node) {
                self.discard(queue);
            }
        }
        for index in 0..self.windows.len() {
            if let Some(window) = self.windows[index].take_if(|window| window.node == node) {
                self.discard(window);
            }
        }
        let books = std::mem::take(&mut self.nodes[node.0].books);
        self.discard(books);
        self.end_listeners_of(node);
        for index in 0..self.endpoints.len() {
            if let Some(endpoint) = self.endpoints[index].take_if(|endpoint| endpoint.node == node) {
                if let Some(peer) = endpoint.peer.filter(|_| how == Fault::Death) {
                    let delay = self.wire_delay();
                    self.after(delay, Action::Control(peer, Control::Disconnected));
                }
                self.discard(endpoint);
            }
        }
    }

    pub(super) fn run_job(&mut self, node: NodeId, job: Job) {
        if self.is_dead(node) {
            return self.discard(job);
        }
        self.nodes[node.0].jobs.push_back(NodeJob::Once(job));
    }

    pub(super) fn tick_is_due(&mut self, node: NodeId, interval: Duration, tick: Watch) {
        if self.is_dead(node) {
            return self.discard(tick);
        }
        self.nodes[node.0].jobs.push_back(NodeJob::Tick(interval, tick));
    }

    /// A node's next job.
    pub(super) fn take_job(&mut self, node: NodeId) -> Option<NodeJob> {
        let job = self.nodes[node.0].jobs.pop_front()?;
        self.statistics.jobs += 1;
        self.note(match job {
            NodeJob::Once(_) => Note::Job { node },
            NodeJob::Tick(..) => Note::Tick { node },
        });
        Some(job)
    }
}

/// The service of a node.
pub(super) struct NodeService {
    world: Weak<World>,
    node: NodeId,
}

impl NodeService {
    pub(super) fn new(world: Weak<World>, node: NodeId) -> Self {
        Self { world, node }
    }

    fn with(&self, act: impl FnOnce(&mut State)) {
        if let Some(world) = self.world.upgrade() {
            world.with(act);
        }
    }
}

impl Simulated for NodeService {
    fn run_job(&self, job: Job) {
        self.with(|state| state.run_job(self.node, job));
    }

    fn run_at(&self, when: Instant, job: Job) {
        self.with(|state| {
            if state.is_dead(self.node) {
                return state.discard(job);
            }
            let at = state.at_instant(when);
            state.at(at, Action::Timer(self.node, job));
        });
    }

    fn run_every(&self, interval: Duration, tick: Watch) {
        self.with(|state| {
            if state.is_dead(self.node) {
                return state.discard(tick);
            }
            state.after(interval.as_nanos() as u64, Action::Tick(self.node, interval, tick));
        });
    }
}
