//! A world: its clock and, under a lock, its state.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::node::NodeService;
use super::node::{Node, NodeId};
use super::settings::Settings;
use super::state::State;
use crate::clock::Clock;
use crate::service::Service;

/// A simulated network. What it is made of may be used and dropped on any thread; only the thread that runs it makes it go on.
pub(crate) struct World {
    clock: Clock,
    state: Mutex<State>,
}

impl World {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        let clock = Clock::of_simulation();
        Arc::new(Self { state: Mutex::new(State::new(settings, clock.clone())), clock })
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Lets `act` see and change the state. What that wakes and drops is woken and dropped without the lock.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut state);
        let (wakers, garbage) = state.take_effects();
        drop(state);
        drop(garbage);
        for waker in wakers {
            waker.wake();
        }
        result
    }

    /// Adds a node; `is_mortal` if faults may stop and kill it.
    pub(super) fn add_node(self: &Arc<Self>, name: &str, is_mortal: bool) -> NodeId {
        static NEXT: AtomicU64 = AtomicU64::new(1 << 62);
        // A domain's number is never used again in the process; nothing is decided by it.
        let domain = NEXT.fetch_add(1, Ordering::Relaxed);
        let node = self.with(|state| {
            let nonce = state.below(u64::MAX);
            state.nodes.push(Node::new(name.to_owned(), domain, nonce, is_mortal));
            NodeId(state.nodes.len() - 1)
        });
        let service = Service::simulated(NodeService::new(Arc::downgrade(self), node), self.clock.clone());
        self.with(|state| state.nodes[node.0].service = Some(service));
        node
    }
}
