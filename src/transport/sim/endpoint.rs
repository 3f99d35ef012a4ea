//! The control plane: ends of connections that are set up, established or ended, and what they tell each other.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::faults::Fault;
use super::node::NodeId;
use super::pair::PairId;
use super::state::{Action, State};
use super::timers::Sleep;
use super::trace::Note;
use super::world::World;
use crate::protocol::Refusal;
use crate::{Error, ErrorKind};

/// Names an end of a world; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct EndpointId(pub(super) usize);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "end {}", self.0)
    }
}

pub(super) struct Endpoint {
    pub(super) node: NodeId,
    pub(super) peer: Option<EndpointId>,
    /// What it was told and nobody has looked at.
    events: VecDeque<Control>,
    waker: Option<Waker>,
    /// Told when the connection ends.
    observer: Option<Observer>,
    pub(super) is_established: bool,
    /// Its peer was told that it ends.
    has_said_so: bool,
}

pub(super) type Observer = Box<dyn FnOnce(Error) + Send>;

/// What ends tell each other, and the network tells them.
pub(super) enum Control {
    Disconnected,
    Established,
    /// With the reason that an application gave; `by_nobody` where none listens.
    Rejected {
        reason: Option<Vec<u8>>,
        by_nobody: bool,
    },
    Response {
        from: EndpointId,
        data: Vec<u8>,
        pair: Option<PairId>,
    },
}

impl Control {
    fn name(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Established => "established",
            Self::Rejected { .. } => "rejected",
            Self::Response { .. } => "response",
        }
    }

    /// The error that it stands for.
    pub(super) fn explain(&self, operation: &'static str) -> Error {
        match self {
            Self::Disconnected => Error::new(ErrorKind::PeerClosed, operation),
            Self::Rejected { by_nobody: true, .. } => Error::new(ErrorKind::ConnectionRefused, operation),
            Self::Rejected { reason, .. } => {
                let refusal = reason.as_deref().and_then(Refusal::explain);
                let detail = refusal.unwrap_or_else(|| "rejected without a reason".to_owned());
                Error::new(ErrorKind::Rejected, operation).with_detail(detail)
            }
            Self::Established | Self::Response { .. } => {
                Error::new(ErrorKind::ConnectionBroken, operation).with_detail(self.name())
            }
        }
    }
}

impl State {
    pub(super) fn add_endpoint(&mut self, node: NodeId, peer: Option<EndpointId>) -> EndpointId {
        self.endpoints.push(Some(Box::new(Endpoint {
            node,
            peer,
            events: VecDeque::new(),
            waker: None,
            observer: None,
            is_established: false,
            has_said_so: false,
        })));
        EndpointId(self.endpoints.len() - 1)
    }

    pub(super) fn endpoint(&mut self, id: EndpointId) -> Option<&mut Endpoint> {
        self.endpoints.get_mut(id.0)?.as_deref_mut()
    }

    /// Tells `to` something, after the time that it takes.
    pub(super) fn send_control(&mut self, to: EndpointId, control: Control) {
        let delay = 20_000 + self.wire_delay();
        self.after(delay, Action::Control(to, control));
    }

    pub(super) fn control_arrives(&mut self, to: EndpointId, control: Control) {
        self.note(Note::Control { to, what: control.name() });
        let is_end = matches!(control, Control::Disconnected | Control::Rejected { .. });
        let Some(endpoint) = self.endpoint(to) else {
            if let Control::Response { from, .. } = control {
                // Who had asked is gone.
                self.send_control(from, Control::Rejected { reason: None, by_nobody: false });
            }
            return;
        };
        let node = endpoint.node;
        if is_end && let Some(observer) = endpoint.observer.take() {
            let error = control.explain("connection");
            return self.run_job(node, Box::new(move || observer(error)));
        }
        endpoint.events.push_back(control);
        if let Some(waker) = endpoint.waker.take() {
            self.wake(waker);
        }
    }

    /// The service tells `observer` when the connection ends, or has.
    pub(super) fn observe(&mut self, id: EndpointId, observer: Observer) {
        let Some(endpoint) = self.endpoint(id) else { return self.discard(observer) };
        let end = endpoint.events.extract_if_ends().map(|control| (endpoint.node, control.explain("connection")));
        match end {
            Some((node, error)) => self.run_job(node, Box::new(move || observer(error))),
            None => endpoint.observer = Some(observer),
        }
    }

    /// Ends a connection at both ends; what is posted there does not feel it.
    pub(super) fn disconnect(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoint(id).filter(|endpoint| !endpoint.has_said_so) else { return };
        endpoint.has_said_so = true;
        let peer = endpoint.peer;
        if let Some(peer) = peer
            && !self.hit(Fault::LostDisconnect)
        {
            self.send_control(peer, Control::Disconnected);
        }
        self.send_control(id, Control::Disconnected);
    }

    /// Refuses the request that made `id`.
    pub(super) fn reject(&mut self, id: EndpointId, reason: Option<Vec<u8>>) {
        let Some(endpoint) = self.endpoint(id).filter(|endpoint| !endpoint.has_said_so) else { return };
        endpoint.has_said_so = true;
        if let Some(peer) = endpoint.peer {
            self.send_control(peer, Control::Rejected { reason, by_nobody: false });
        }
    }

    fn close_endpoint(&mut self, id: EndpointId) {
        match self.endpoint(id).map(|endpoint| endpoint.is_established) {
            Some(true) => self.disconnect(id),
            Some(false) => self.reject(id, None),
            None => {}
        }
        if let Some(endpoint) = self.endpoints[id.0].take() {
            self.discard(endpoint);
        }
    }

    fn take_event(&mut self, id: EndpointId, waker: &Waker) -> Poll<Option<Control>> {
        let Some(endpoint) = self.endpoint(id) else { return Poll::Ready(None) };
        match endpoint.events.pop_front() {
            Some(control) => Poll::Ready(Some(control)),
            None => {
                endpoint.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

/// Takes the first that ends a connection.
trait ExtractEnd {
    fn extract_if_ends(&mut self) -> Option<Control>;
}

impl ExtractEnd for VecDeque<Control> {
    fn extract_if_ends(&mut self) -> Option<Control> {
        let ends = |control: &Control| matches!(control, Control::Disconnected | Control::Rejected { .. });
        self.remove(self.iter().position(ends)?)
    }
}

/// Owns an end: it goes with this.
pub(super) struct End {
    pub(super) world: Arc<World>,
    pub(super) id: EndpointId,
}

impl End {
    pub(super) fn new(world: Arc<World>, node: NodeId) -> Self {
        let id = world.with(|state| state.add_endpoint(node, None));
        Self { world, id }
    }

    /// What it is told next; `None` when the deadline passes first.
    pub(super) async fn next(&self, deadline: Instant) -> Option<Control> {
        let mut sleep = pin!(Sleep::until(Arc::clone(&self.world), deadline));
        poll_fn(|context| {
            if let Poll::Ready(control) = self.world.with(|state| state.take_event(self.id, context.waker())) {
                return Poll::Ready(control);
            }
            sleep.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.world.with(|state| state.close_endpoint(self.id));
    }
}
