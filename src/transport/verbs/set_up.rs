//! Connections set up by rdma_cm: resolve, connect, listen, accept.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::events::{Arrival, Endpoint, EventSource, Events};
use super::link::VerbsLink;
use super::{Channels, Verbs, kind_of, wrap};
use crate::protocol::Refusal;
use crate::transport::{ChannelKey, ChannelSizes, Device, Kind as Transport, Listen, SetUp};
use crate::verbs::{self, ConnectionEvent, ConnectionEventKind as Kind, ConnectionParameters, Route, Tuning};
use crate::{Error, ErrorKind, Result, failpoint};

/// Reads that a connection has outstanding at most, each way, if the device has that many.
const READS: u8 = 32;
/// First time given to the kernel to resolve an address.
const RESOLVE: Duration = Duration::from_millis(100);

/// The connecting end.
pub(crate) struct Outgoing(End);

/// The accepting end, with what the peer said.
pub(crate) struct Incoming(End, Vec<u8>);

/// Waits for connect requests.
pub(crate) struct VerbsListener {
    // Some until dropped.
    endpoint: Mutex<Option<Endpoint>>,
    address: SocketAddr,
    requests: EventSource,
}

struct End {
    operation: &'static str,
    endpoint: Endpoint,
    route: Route,
    peer: String,
    /// Reads that the peer may have outstanding here, and we there.
    reads: (u8, u8),
    queue_pair: u32,
}

impl Outgoing {
    pub(super) async fn resolve(peer: SocketAddr, deadline: Instant) -> Result<Self> {
        let operation = "connect";
        let failed = |error: Error| error.with_peer(peer);
        let (endpoint, route) = resolve_address(peer, deadline).await.map_err(failed)?;
        let failed = |error: Error| failed(error).with_device(&route.device);
        let started = endpoint.id().resolve_route(left(deadline));
        started.map_err(|error| failed(wrap(operation, error)))?;
        let resolved = endpoint.next_event(Some(deadline)).await;
        expect(resolved, Kind::RouteResolved, operation).map_err(failed)?;
        let peer = peer.to_string();
        Ok(Self(End { operation, endpoint, route, peer, reads: (READS, READS), queue_pair: 0 }))
    }
}

#[cfg(test)]
impl Outgoing {
    /// Serves at most so many reads, and has at most so many outstanding.
    pub(super) fn offer_reads(&mut self, reads: (u8, u8)) {
        self.0.reads = reads;
    }
}

/// An identifier with the address resolved. The kernel may look at the neighbour's answer only when the time it was
/// given is over, so it gets little at first, and more each time.
async fn resolve_address(peer: SocketAddr, deadline: Instant) -> Result<(Endpoint, Route)> {
    let operation = "connect";
    let mut patience = RESOLVE;
    loop {
        let endpoint = Events::of_process(operation)?.endpoint(operation)?;
        let started = endpoint.id().resolve_address(peer, patience.min(left(deadline)));
        started.map_err(|error| wrap(operation, error))?;
        match endpoint.next_event(Some(deadline)).await {
            Some((event, _)) if event.kind == Kind::AddressError && event.status == -libc::ETIMEDOUT => {
                patience *= 2;
            }
            resolved => {
                let route = expect(resolved, Kind::AddressResolved, operation)?.route;
                return Ok((endpoint, route.ok_or_else(|| Error::new(ErrorKind::NoDevice, operation))?));
            }
        }
        if Instant::now() >= deadline {
            return expect(None, Kind::AddressResolved, operation).and(Err(Error::new(ErrorKind::TimedOut, operation)));
        }
    }
}

impl SetUp<Verbs> for Outgoing {
    fn device(&self) -> Device {
        self.0.device()
    }

    fn peer(&self) -> &str {
        &self.0.peer
    }

    fn gid(&self) -> Option<Ipv6Addr> {
        self.0.gid()
    }

    fn open_channel(&mut self, queue: &mut Channels, sizes: ChannelSizes) -> Result<ChannelKey> {
        self.0.open_channel(queue, sizes)
    }

    fn negotiate(&mut self, ours: &[u8], deadline: Instant) -> impl Future<Output = Result<Vec<u8>>> + Send {
        let End { operation, endpoint, .. } = &self.0;
        let started = endpoint.id().connect(&self.0.parameters(ours));
        let response = endpoint.next_event(Some(deadline));
        let operation = *operation;
        let reads = &mut self.0.reads;
        async move {
            started.map_err(|error| wrap(operation, error))?;
            failpoint::reach("connect.asked");
            let response = expect(response.await, Kind::ConnectResponse, operation)?;
            allows_reads(&response, operation)?;
            *reads = (reads.0.min(response.responder_resources), reads.1.min(response.initiator_depth));
            Ok(response.private_data)
        }
    }

    fn activate(&mut self, queue: &mut Channels, channel: ChannelKey) -> Result<()> {
        // The peer's reply has limited both counts to what it can do; rdma_cm knows them.
        self.0.activate(queue, channel, tuning())
    }

    fn finish(self, _ours: &[u8], _deadline: Instant) -> impl Future<Output = Result<VerbsLink>> + Send {
        let Self(end) = self;
        let established = end.endpoint.id().establish().map_err(|error| end.failed(error));
        std::future::ready(established.map(|()| end.into_link()))
    }

    fn refuse(self, _reason: &[u8]) {}
}

impl SetUp<Verbs> for Incoming {
    fn device(&self) -> Device {
        self.0.device()
    }

    fn peer(&self) -> &str {
        &self.0.peer
    }

    fn gid(&self) -> Option<Ipv6Addr> {
        self.0.gid()
    }

    fn open_channel(&mut self, queue: &mut Channels, sizes: ChannelSizes) -> Result<ChannelKey> {
        self.0.open_channel(queue, sizes)
    }

    fn negotiate(&mut self, _ours: &[u8], _deadline: Instant) -> impl Future<Output = Result<Vec<u8>>> + Send {
        std::future::ready(Ok(std::mem::take(&mut self.1)))
    }

    fn activate(&mut self, queue: &mut Channels, channel: ChannelKey) -> Result<()> {
        let (as_target, as_initiator) = self.0.reads;
        let reads = Tuning { reads_as_target: Some(as_target), reads_as_initiator: Some(as_initiator), ..tuning() };
        self.0.activate(queue, channel, reads)
    }

    fn finish(self, ours: &[u8], deadline: Instant) -> impl Future<Output = Result<VerbsLink>> + Send {
        let Self(end, _) = self;
        let accepted = end.endpoint.id().accept(&end.parameters(ours)).map_err(|error| end.failed(error));
        let established = end.endpoint.next_event(Some(deadline));
        async move {
            accepted?;
            failpoint::reach("accept.answered");
            match expect(established.await, Kind::Established, end.operation) {
                Ok(_) => Ok(end.into_link()),
                Err(error) => Err(error),
            }
        }
    }

    fn refuse(self, reason: &[u8]) {
        if let Err(error) = self.0.endpoint.id().reject(reason) {
            tracing::debug!(%error, peer = self.0.peer, "a connect request could not be refused");
        }
    }
}

impl End {
    fn device(&self) -> Device {
        Device { transport: Transport::Verbs, name: self.route.device.clone() }
    }

    fn failed(&self, error: verbs::Error) -> Error {
        wrap(self.operation, error).with_peer(&self.peer).with_device(&self.route.device).with_gid(self.gid())
    }

    /// The GID from which the path to the peer begins.
    fn gid(&self) -> Option<Ipv6Addr> {
        let paths = self.endpoint.id().paths();
        paths.first().map(|path| path.source).filter(|gid| !gid.is_zero()).map(|gid| gid.0.into())
    }

    fn open_channel(&mut self, queue: &mut Channels, sizes: ChannelSizes) -> Result<ChannelKey> {
        let (target, initiator) = queue.reads().map_err(|error| self.failed(error))?;
        self.reads = (self.reads.0.min(target), self.reads.1.min(initiator));
        let channel = queue.create(sizes).map_err(|error| self.failed(error))?;
        let pair = queue.queue_pair(channel).expect("just created");
        match pair.initialize(self.endpoint.id()) {
            Ok(()) => {
                self.queue_pair = pair.number();
                Ok(channel)
            }
            Err(error) => {
                crate::transport::Queue::close(queue, channel);
                Err(self.failed(error))
            }
        }
    }

    fn activate(&self, queue: &mut Channels, channel: ChannelKey, tuning: Tuning) -> Result<()> {
        let pair = queue.queue_pair(channel).ok_or_else(|| Error::new(ErrorKind::Closed, self.operation))?;
        pair.connect(self.endpoint.id(), &tuning).map_err(|error| self.failed(error))?;
        queue.activated(channel, self.reads.1);
        Ok(())
    }

    fn into_link(self) -> VerbsLink {
        let gid = self.gid();
        VerbsLink::new(self.endpoint, self.peer, self.route.device, gid)
    }

    fn parameters<'a>(&self, private_data: &'a [u8]) -> ConnectionParameters<'a> {
        let tuning = tuning();
        ConnectionParameters {
            private_data,
            responder_resources: self.reads.0,
            initiator_depth: self.reads.1,
            retry_count: tuning.retry_count,
            rnr_retry_count: tuning.rnr_retry_count,
            queue_pair: self.queue_pair,
        }
    }
}

impl VerbsListener {
    pub(super) fn bind(address: SocketAddr, backlog: u16) -> Result<Self> {
        let operation = "listen";
        let failed = |error: verbs::Error| {
            // rdma_cm answers ENODEV for an address of a netdev without a device, too.
            wrap(operation, error).with_detail(format!("rdma://{address}"))
        };
        let endpoint = Events::of_process(operation)?.endpoint(operation)?;
        endpoint.limit_requests(backlog.into());
        endpoint.id().bind(address).map_err(failed)?;
        if !address.ip().is_unspecified() && endpoint.id().device().is_none() {
            // rdma_cm lets a loopback address be bound; no peer could ever connect to it.
            return Err(Error::new(ErrorKind::NoDevice, operation).with_detail(format!("rdma://{address}")));
        }
        endpoint.id().listen(backlog.into()).map_err(failed)?;
        let address = endpoint.id().local_address().unwrap_or(address);
        let requests = endpoint.event_source();
        Ok(Self { endpoint: Mutex::new(Some(endpoint)), address, requests })
    }
}

impl Listen<Verbs> for VerbsListener {
    fn local_address(&self) -> SocketAddr {
        self.address
    }

    async fn next(&self) -> Result<Incoming> {
        loop {
            let Some((event, request)) = self.requests.next(None).await else { continue };
            let allowed = allows_reads(&event, "accept");
            let (Some(endpoint), Some(route)) = (request, event.route) else {
                if event.kind == Kind::DeviceRemoval {
                    let error = Error::new(ErrorKind::NoDevice, "accept").with_detail("the device was removed");
                    return Err(error.with_peer(format_args!("rdma://{}", self.address)));
                }
                continue;
            };
            let peer = route.peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
            let reads = (event.responder_resources.min(READS), event.initiator_depth.min(READS));
            let end = End { operation: "accept", endpoint, route, peer, reads, queue_pair: 0 };
            match allowed {
                Ok(()) => return Ok(Incoming(end, event.private_data)),
                Err(error) => {
                    tracing::warn!(%error, peer = end.peer, "a peer could not be accepted");
                    Incoming(end, Vec::new()).refuse(&Refusal::Incompatible.to_bytes());
                }
            }
        }
    }
}

impl Drop for VerbsListener {
    fn drop(&mut self) {
        let endpoint = self.endpoint.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(endpoint) = endpoint {
            // At once, so that the port is free when the listener is gone.
            endpoint.destroy();
        }
    }
}

/// A peer waits 41 ms when it finds no receive, and tries six times. That happens only when another has taken more than its share,
/// which ends within a look or two of the service thread.
fn tuning() -> Tuning {
    Tuning { min_rnr_timer: 24, ..Tuning::default() }
}

/// The event if it is `wanted`, else what it means for `operation`; none means that the deadline has passed.
fn expect(event: Arrival, wanted: Kind, operation: &'static str) -> Result<ConnectionEvent> {
    let Some((event, _)) = event else {
        let detail = match wanted {
            Kind::AddressResolved | Kind::RouteResolved => "the address was not resolved in time",
            Kind::Established => "the peer did not confirm the connection in time",
            _ => "nothing answered the connect request in time",
        };
        return Err(Error::new(ErrorKind::TimedOut, operation).with_detail(detail));
    };
    if event.kind == wanted {
        return Ok(event);
    }
    Err(explain(&event, operation))
}

/// A device with a read depth of 0 would hold a read back for ever, and everything behind it.
fn allows_reads(event: &ConnectionEvent, operation: &'static str) -> Result<()> {
    if event.initiator_depth > 0 && event.responder_resources > 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Protocol, operation).with_detail("it allows no RDMA reads to be outstanding"))
}

/// The error that an event stands for.
pub(super) fn explain(event: &ConnectionEvent, operation: &'static str) -> Error {
    // IBTA 1.4, table 106: 8 is "invalid service id", 28 "consumer reject".
    let kind = match (event.kind, event.status) {
        (Kind::Rejected, 8) => ErrorKind::ConnectionRefused,
        (Kind::Rejected, _) => ErrorKind::Rejected,
        (Kind::Disconnected | Kind::TimewaitExit, _) => ErrorKind::PeerClosed,
        (Kind::DeviceRemoval, _) => ErrorKind::NoDevice,
        (Kind::Unreachable, _) => ErrorKind::Unreachable,
        (Kind::AddressError | Kind::RouteError, status) => match kind_of(-status) {
            ErrorKind::TimedOut | ErrorKind::Other => ErrorKind::NoRoute,
            kind => kind,
        },
        _ => ErrorKind::ConnectionBroken,
    };
    let error = Error::new(kind, operation);
    match (event.kind, Refusal::explain(&event.private_data)) {
        (Kind::Rejected, Some(refusal)) => error.with_detail(refusal),
        (Kind::Rejected, None) if kind == ErrorKind::Rejected => {
            error.with_detail(format!("rejected with reason {} (IBTA 1.4, table 106)", event.status))
        }
        (Kind::Disconnected | Kind::Rejected, _) => error,
        (kind, _) if event.status < 0 => {
            error.with_detail(format!("{kind:?}")).with_source(std::io::Error::from_raw_os_error(-event.status))
        }
        (kind, _) => error.with_detail(format!("{kind:?}, status {}", event.status)),
    }
}

/// Time to `deadline`, not nothing: to rdma_cm zero means for ever.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}
