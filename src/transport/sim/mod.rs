//! A simulated network behind the seam: in one process and on one thread, in virtual time, with faults, all from one seed.
//!
//! A [`World`] has nodes; each is a process with a device. Everything that happens is a step: a task of the program under test
//! is polled, a job of a node's service runs, a device does something. Which comes next, and how long things take, is
//! chosen at random from the seed, so a seed is one possible history and gives the same one each time.
//!
//! The device is modelled on a reliable connection (IBTA 1.4, chapter 9): requests of a channel are carried out in order and
//! complete in order, channels in any order; a read may see what was written by requests behind it unless those are fenced; a
//! refused access breaks both ends; keys, bounds and rights are checked as a device does. What no device would
//! forgive is a bug found: it ends the run.

mod domain;
mod endpoint;
mod executor;
mod faults;
mod here;
mod leaks;
mod link;
mod listener;
mod node;
mod pair;
mod queue;
mod queue_state;
mod requester;
mod responder;
mod set_up;
mod settings;
mod state;
mod statistics;
#[cfg(test)]
mod tests;
mod timers;
mod trace;
mod windows;
mod world;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::{Device, Kind, Transport};
use crate::clock::Clock;
use crate::memory::Domain;
use crate::service::Service;
use crate::{Error, ErrorKind, Result};

use here::Here;
use link::SimLink;
use listener::SimListener;
use queue::SimQueue;
use set_up::{Incoming, Outgoing};
use world::World;

pub use executor::{Ended, Executor, Task};
pub use faults::{Fault, Faults};
pub use here::{is_alive, kill, note_progress, now, pool_statistics, random, registered, spawn, stop};
pub use node::NodeId;
pub use settings::{Planted, Settings};
pub use statistics::Statistics;
pub use timers::{Sleep, sleep};

/// The network of the world that runs on this thread.
#[derive(Debug)]
pub(crate) struct Sim;

/// The name of a listener in its world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SimAddress(pub(crate) String);

impl fmt::Display for SimAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Transport for Sim {
    type Address = SimAddress;
    type Queue = SimQueue;
    type Link = SimLink;
    type Outgoing = Outgoing;
    type Incoming = Incoming;
    type Listener = SimListener;

    fn open(device: &Device, completions: u32) -> Result<(Arc<dyn Domain>, SimQueue)> {
        let (world, node) = node_of(device)?;
        let domain = domain::SimDomain::new(&world, node);
        Ok((Arc::new(domain), SimQueue::open(world, node, completions as usize)))
    }

    fn service(device: &Device) -> Result<Arc<Service>> {
        let (world, node) = node_of(device)?;
        world.with(|state| state.nodes[node.0].service.clone()).ok_or_else(|| no_device("open device"))
    }

    async fn resolve(peer: SimAddress, _deadline: Instant) -> Result<Outgoing> {
        let Here { world, node } = here::get("connect")?;
        Ok(Outgoing::new(world, node, peer))
    }

    fn listen(address: SimAddress, backlog: u16) -> Result<SimListener> {
        let Here { world, node } = here::get("listen")?;
        SimListener::bind(world, node, address, backlog)
    }
}

/// The clock of the world on this thread; the host's where there is none.
pub(crate) fn clock() -> Clock {
    here::get("tell the time").map_or_else(|_| Clock::real(), |here| here.world.clock().clone())
}

fn node_of(device: &Device) -> Result<(Arc<World>, NodeId)> {
    let world = here::get("open device")?.world;
    let node = world.with(|state| state.node(&device.name));
    node.map(|node| (world, node)).ok_or_else(|| no_device("open device").with_device(&*device.name))
}

fn device(world: &World, node: NodeId) -> Device {
    Device { transport: Kind::Sim, name: world.with(|state| state.nodes[node.0].name.clone()) }
}

fn no_device(operation: &'static str) -> Error {
    Error::new(ErrorKind::NoDevice, operation).with_detail("no simulation of it runs on this thread")
}
