//! Which world runs on this thread, and whose code of it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::executor::{Task, TaskState};
use super::faults::Fault;
use super::no_device;
use super::node::NodeId;
use super::world::World;
use crate::{Pool, PoolStatistics, Result};

/// The world and the node whose code runs.
#[derive(Clone)]
pub(super) struct Here {
    pub(super) world: Arc<World>,
    pub(super) node: NodeId,
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// Where we are.
///
/// # Errors
/// [`NoDevice`](crate::ErrorKind::NoDevice) outside of a simulation.
pub(super) fn get(operation: &'static str) -> Result<Here> {
    HERE.with_borrow(Clone::clone).ok_or_else(|| no_device(operation))
}

/// Runs code of a node.
pub(super) fn run<R>(world: &Arc<World>, node: NodeId, act: impl FnOnce() -> R) -> R {
    struct Back(Option<Here>);
    impl Drop for Back {
        fn drop(&mut self) {
            HERE.set(self.0.take());
        }
    }
    let _back = Back(HERE.replace(Some(Here { world: Arc::clone(world), node })));
    act()
}

/// Where we are, for code that only a simulation runs.
pub(super) fn expect() -> Here {
    get("simulate").expect("code of a simulation runs in one")
}

/// Starts a task on the node whose code runs.
///
/// # Panics
/// Outside of a simulation.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let Here { world, node } = expect();
    TaskState::spawn(&world, node, future)
}

/// The virtual time.
///
/// # Panics
/// Outside of a simulation.
pub fn now() -> Instant {
    expect().world.clock().now()
}

/// A number below `bound` from the seed, for what a test decides. It has a sequence of its own.
///
/// # Panics
/// Outside of a simulation, or if the bound is 0.
pub fn random(bound: u64) -> u64 {
    expect().world.with(|state| state.test_random.random_range(0..bound))
}

/// Whether the node of this name lives: what a test knows and no program does.
///
/// # Panics
/// Outside of a simulation.
pub fn is_alive(node: &str) -> bool {
    expect().world.with(|state| state.node(node).is_some_and(|node| !state.is_dead(node)))
}

/// Bytes that the node of this name has registered.
///
/// # Panics
/// Outside of a simulation.
pub fn registered(node: &str) -> u64 {
    expect().world.with(|state| {
        let node = state.node(node).map(|node| &state.nodes[node.0]);
        node.map_or(0, |node| node.books.regions().map(|region| region.length() as u64).sum())
    })
}

/// What the pool of the world has, which all its nodes share.
pub fn pool_statistics() -> PoolStatistics {
    Pool::with_global(Pool::statistics)
}

/// Stops the software of this node for `time`; its device goes on.
///
/// # Panics
/// Outside of a simulation.
pub fn stop(node: &str, time: Duration) {
    expect().world.with(|state| {
        if let Some(node) = state.node(node) {
            state.stop(node, time.as_nanos() as u64);
        }
    });
}

/// Has this node die, in one of the ways that [`Fault`] has.
///
/// # Panics
/// Outside of a simulation.
pub fn kill(node: &str, how: Fault) {
    expect().world.with(|state| {
        if let Some(node) = state.node(node) {
            state.kill(node, how);
        }
    });
}

/// Tells that something that was waited for has ended: no hang so far.
///
/// # Panics
/// Outside of a simulation.
pub fn note_progress() {
    expect().world.with(|state| state.progress());
}
