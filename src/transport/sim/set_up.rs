//! Connections being set up: request, reply, confirmation.

use std::sync::Arc;
use std::time::Instant;

use super::endpoint::{Control, End};
use super::faults::Fault;
use super::link::SimLink;
use super::node::NodeId;
use super::pair::{PairId, Standing};
use super::queue::SimQueue;
use super::state::{Action, State};
use super::world::World;
use super::{Sim, SimAddress, device};
use crate::transport::{ChannelKey, ChannelSizes, Device, SetUp};
use crate::{Error, ErrorKind, Result};

/// How long a connect request is delayed at most, in nanoseconds.
const LONGEST_DELAY: u64 = 4_000_000_000;

/// The connecting end.
pub(crate) struct Outgoing {
    end: End,
    device: Device,
    peer: String,
    pair: Option<PairId>,
    theirs: Option<PairId>,
}

/// The accepting end, with what the peer said.
pub(crate) struct Incoming {
    end: End,
    device: Device,
    data: Vec<u8>,
    peer: String,
    pair: Option<PairId>,
    theirs: Option<PairId>,
}

impl Outgoing {
    pub(super) fn new(world: Arc<World>, node: NodeId, peer: SimAddress) -> Self {
        let device = device(&world, node);
        Self { end: End::new(world, node), device, peer: peer.0, pair: None, theirs: None }
    }

    fn failed(&self, error: Error) -> Error {
        error.with_peer(&self.peer).with_device(&*self.device.name)
    }
}

impl Incoming {
    pub(super) fn new(end: End, data: Vec<u8>, theirs: Option<PairId>, peer: String) -> Self {
        let id = end.id;
        // Of a node that has died meanwhile nothing is left to ask.
        let node = end.world.with(|state| state.endpoint(id).map_or(NodeId(0), |endpoint| endpoint.node));
        let device = device(&end.world, node);
        Self { end, device, data, peer, pair: None, theirs }
    }

    fn failed(&self, error: Error) -> Error {
        error.with_peer(&self.peer).with_device(&*self.device.name)
    }
}

impl State {
    /// Asks whoever listens at `name`.
    fn request(&mut self, end: &End, name: &str, data: &[u8], pair: Option<PairId>) {
        if self.hit(Fault::ConnectLost) {
            return;
        }
        if self.hit(Fault::ConnectRefused) {
            return self.send_control(end.id, Control::Rejected { reason: None, by_nobody: true });
        }
        let late = if self.hit(Fault::ConnectDelayed) { self.below(LONGEST_DELAY) } else { 0 };
        let delay = 20_000 + self.wire_delay() + late;
        self.after(delay, Action::Connect { from: end.id, name: name.to_owned(), data: data.to_vec(), pair });
    }

    /// Both ends know each other: requests can be posted.
    pub(super) fn connect_pair(&mut self, pair: Option<PairId>, theirs: Option<PairId>) -> Result<()> {
        let closed = || Error::new(ErrorKind::Closed, "set up");
        let id = pair.ok_or_else(closed)?;
        let pair = self.pair(id).filter(|pair| pair.standing == Standing::Initialized).ok_or_else(closed)?;
        (pair.peer, pair.standing) = (theirs, Standing::Ready);
        self.launch(id);
        Ok(())
    }
}

impl SetUp<Sim> for Outgoing {
    fn device(&self) -> Device {
        self.device.clone()
    }

    fn peer(&self) -> &str {
        &self.peer
    }

    fn open_channel(&mut self, queue: &mut SimQueue, sizes: ChannelSizes) -> Result<ChannelKey> {
        let (channel, pair) = queue.create(sizes).map_err(|error| self.failed(error.within("connect")))?;
        self.pair = Some(pair);
        Ok(channel)
    }

    async fn negotiate(&mut self, ours: &[u8], deadline: Instant) -> Result<Vec<u8>> {
        self.end.world.with(|state| state.request(&self.end, &self.peer, ours, self.pair));
        match self.end.next(deadline).await {
            Some(Control::Response { data, pair, .. }) => {
                self.theirs = pair;
                Ok(data)
            }
            Some(other) => Err(self.failed(other.explain("connect"))),
            None => {
                let detail = "nothing answered the connect request in time";
                Err(self.failed(Error::new(ErrorKind::TimedOut, "connect").with_detail(detail)))
            }
        }
    }

    fn activate(&mut self, _queue: &mut SimQueue, _channel: ChannelKey) -> Result<()> {
        let connected = self.end.world.with(|state| state.connect_pair(self.pair, self.theirs));
        connected.map_err(|error| self.failed(error.within("connect")))
    }

    async fn finish(self, _ours: &[u8], _deadline: Instant) -> Result<SimLink> {
        self.end.world.with(|state| {
            let Some(endpoint) = state.endpoint(self.end.id) else { return };
            endpoint.is_established = true;
            if let Some(peer) = endpoint.peer {
                state.send_control(peer, Control::Established);
            }
        });
        Ok(SimLink::new(self.end))
    }

    fn refuse(self, _reason: &[u8]) {}
}

impl SetUp<Sim> for Incoming {
    fn device(&self) -> Device {
        self.device.clone()
    }

    fn peer(&self) -> &str {
        &self.peer
    }

    fn open_channel(&mut self, queue: &mut SimQueue, sizes: ChannelSizes) -> Result<ChannelKey> {
        let (channel, pair) = queue.create(sizes).map_err(|error| self.failed(error.within("accept")))?;
        self.pair = Some(pair);
        Ok(channel)
    }

    async fn negotiate(&mut self, _ours: &[u8], _deadline: Instant) -> Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.data))
    }

    fn activate(&mut self, _queue: &mut SimQueue, _channel: ChannelKey) -> Result<()> {
        let connected = self.end.world.with(|state| state.connect_pair(self.pair, self.theirs));
        connected.map_err(|error| self.failed(error.within("accept")))
    }

    async fn finish(self, ours: &[u8], deadline: Instant) -> Result<SimLink> {
        self.end.world.with(|state| {
            let Some(endpoint) = state.endpoint(self.end.id) else { return };
            endpoint.is_established = true;
            if let Some(peer) = endpoint.peer
                && !state.hit(Fault::ConnectLost)
            {
                let response = Control::Response { from: self.end.id, data: ours.to_vec(), pair: self.pair };
                state.send_control(peer, response);
            }
        });
        match self.end.next(deadline).await {
            Some(Control::Established) => {
                self.end.world.with(|state| state.statistics.connections += 1);
                Ok(SimLink::new(self.end))
            }
            Some(other) => Err(self.failed(other.explain("accept"))),
            None => {
                let detail = "the peer did not confirm the connection in time";
                Err(self.failed(Error::new(ErrorKind::TimedOut, "accept").with_detail(detail)))
            }
        }
    }

    fn refuse(self, reason: &[u8]) {
        self.end.world.with(|state| state.reject(self.end.id, Some(reason.to_vec())));
    }
}
