//! Listeners, found by name.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::endpoint::{Control, End, EndpointId};
use super::node::NodeId;
use super::pair::PairId;
use super::set_up::Incoming;
use super::state::State;
use super::world::World;
use super::{Sim, SimAddress};
use crate::transport::Listen;
use crate::{Error, ErrorKind, Result};

/// Who waits for connect requests.
pub(super) struct Listening {
    node: NodeId,
    name: String,
    backlog: usize,
    waiting: VecDeque<Request>,
    waker: Option<Waker>,
}

/// A connect request.
struct Request {
    end: EndpointId,
    data: Vec<u8>,
    pair: Option<PairId>,
    peer: String,
}

impl State {
    pub(super) fn connect_arrives(&mut self, from: EndpointId, name: &str, data: Vec<u8>, pair: Option<PairId>) {
        let is_it = |listening: &Option<Listening>| listening.as_ref().is_some_and(|known| known.name == name);
        let found = self.listeners.iter().position(is_it);
        let Some(listening) = found.and_then(|place| self.listeners[place].as_ref()) else {
            return self.send_control(from, Control::Rejected { reason: None, by_nobody: true });
        };
        if listening.waiting.len() >= listening.backlog {
            return self.send_control(from, Control::Rejected { reason: None, by_nobody: false });
        }
        let end = self.add_endpoint(listening.node, Some(from));
        let peer = match self.endpoint(from) {
            Some(asking) => {
                asking.peer = Some(end);
                let node = asking.node;
                self.nodes[node.0].name.clone()
            }
            None => "gone".to_owned(),
        };
        let Some(listening) = found.and_then(|place| self.listeners[place].as_mut()) else { return };
        listening.waiting.push_back(Request { end, data, pair, peer });
        if let Some(waker) = listening.waker.take() {
            self.wake(waker);
        }
    }

    pub(super) fn end_listeners_of(&mut self, node: NodeId) {
        for listener in &mut self.listeners {
            // Its ends go with the node.
            listener.take_if(|listening| listening.node == node);
        }
    }

    /// Listeners there are.
    pub(super) fn live_listeners(&self) -> usize {
        self.listeners.iter().flatten().count()
    }
}

/// A listener of a node.
pub(crate) struct SimListener {
    world: Arc<World>,
    place: usize,
    address: SimAddress,
}

impl SimListener {
    pub(super) fn bind(world: Arc<World>, node: NodeId, address: SimAddress, backlog: u16) -> Result<Self> {
        let place = world.with(|state| {
            if state.listeners.iter().flatten().any(|known| known.name == address.0) {
                return Err(Error::new(ErrorKind::AddressInUse, "listen").with_detail(format!("sim://{address}")));
            }
            let backlog = usize::from(backlog);
            let (name, waiting) = (address.0.clone(), VecDeque::new());
            state.listeners.push(Some(Listening { node, name, backlog, waiting, waker: None }));
            Ok(state.listeners.len() - 1)
        })?;
        Ok(Self { world, place, address })
    }
}

impl Listen<Sim> for SimListener {
    fn local_address(&self) -> SimAddress {
        self.address.clone()
    }

    async fn next(&self) -> Result<Incoming> {
        let request = poll_fn(|context| {
            self.world.with(|state| match &mut state.listeners[self.place] {
                None => Poll::Ready(None),
                Some(listening) => match listening.waiting.pop_front() {
                    Some(request) => Poll::Ready(Some(request)),
                    None => {
                        listening.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                },
            })
        });
        let gone = || Error::new(ErrorKind::NoDevice, "accept").with_detail("the device was removed");
        let Request { end, data, pair, peer } = request.await.ok_or_else(gone)?;
        let end = End { world: Arc::clone(&self.world), id: end };
        Ok(Incoming::new(end, data, pair, peer))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let listening = self.world.with(|state| state.listeners[self.place].take());
        for request in listening.into_iter().flat_map(|listening| listening.waiting) {
            // Dropping its end refuses it.
            drop(End { world: Arc::clone(&self.world), id: request.end });
        }
    }
}
