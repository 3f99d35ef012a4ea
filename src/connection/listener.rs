//! The listening side.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{Mutex, watch};
use tracing::Instrument;

use super::address::{Address, Target};
use super::auto;
use super::established::Inner;
use super::filter::{Answer, ConnectRequest, Filter};
use super::set_up::{Role, set_up};
use super::{Active, Connection, Worker, spans};
use crate::protocol::Refusal;
use crate::telemetry::{Meters, Refused};
use crate::transport::{Listen, SetUp, Transport};
use crate::{Error, ErrorKind, Result};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Incoming = <Active as Transport>::Incoming;

/// Waits for peers. Dropping it frees the address; connections live on.
pub struct Listener {
    worker: Worker,
    local_address: SocketAddr,
    uri: String,
    /// Whether it is to take only what the settings allow.
    is_auto: bool,
    filter: Filter,
    state: Mutex<State>,
    /// Whether it is to end.
    closing: watch::Sender<bool>,
}

/// Peers in set-up; one that is slow or hostile does not hold the others up.
struct State {
    /// None when it has ended.
    sources: Vec<Source>,
    handshakes: Vec<Boxed<Result<Arc<Inner<Active>>>>>,
}

/// Where requests come from: one transport.
struct Source {
    requests: Arc<<Active as Transport>::Listener>,
    next: Option<Boxed<Result<Incoming>>>,
}

impl Source {
    fn new(requests: <Active as Transport>::Listener) -> Self {
        Self { requests: Arc::new(requests), next: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Incoming>> {
        let requests = &self.requests;
        let next = self.next.get_or_insert_with(|| {
            let requests = Arc::clone(requests);
            Box::pin(async move { requests.next().await })
        });
        let request = std::task::ready!(next.as_mut().poll(context));
        self.next = None;
        Poll::Ready(request)
    }
}

impl Listener {
    /// Listens at `address`: `auto://HOST:PORT`, which is all of the following that there are: peers ask at TCP port PORT which ways lead here.
    ///
    /// Or by one way only: `rdma://HOST:PORT`, where HOST is an address of an RDMA device or `0.0.0.0` or `[::]` for all
    /// devices, or `tcp://HOST:PORT`, where it is any address of this host; port 0 lets the kernel choose.
    ///
    /// For processes of the same user on this host: `shm://NAME`, which is gone with this process, and which those of the same
    /// network namespace reach, or `shm:///PATH`, a socket in the file system, made with mode 0600 and removed with the listener; one at
    /// which nobody listens is replaced. `shm://` alone has a name chosen.
    ///
    /// # Errors
    /// [`AddressInUse`](crate::ErrorKind::AddressInUse), [`AddressInvalid`](crate::ErrorKind::AddressInvalid),
    /// [`NoDevice`](crate::ErrorKind::NoDevice) if no RDMA device has the address,
    /// [`NotInstalled`](crate::ErrorKind::NotInstalled), [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub async fn bind(worker: &Worker, address: &str) -> Result<Self> {
        let address = Address::parse("listen", address)?;
        let deadline = address.clock().now() + worker.config().connect_timeout;
        let target = address.resolve(deadline).await?;
        let is_auto = matches!(target, Target::Auto(_));
        let (sources, local_address, uri) = match target {
            Target::Auto(address) => {
                let (listeners, bound) = auto::listen(address, worker.config())?;
                (listeners.into_iter().map(Source::new).collect(), bound, format!("auto://{bound}"))
            }
            Target::One(address) => {
                let listener = Active::listen(address, worker.config().backlog)?;
                let bound = listener.local_address();
                (vec![Source::new(listener)], bound.socket_address(), bound.uri())
            }
        };
        let state = Mutex::new(State { sources, handshakes: Vec::new() });
        let (closing, _) = watch::channel(false);
        Ok(Self { worker: worker.clone(), local_address, uri, is_auto, filter: Filter::default(), state, closing })
    }

    /// Has `decide` decide about each peer before anything is spent on it. It is called by who accepts, so it must not block.
    ///
    /// ```no_run
    /// # async fn example(worker: &zcmi::Worker) -> zcmi::Result<()> {
    /// use zcmi::{Answer, Listener};
    ///
    /// let listener = Listener::bind(worker, "rdma://192.0.2.1:7471").await?.filter(|request| match request.private_data() {
    ///     b"version 2" => Answer::Accept,
    ///     _ => Answer::Refuse("this server speaks version 2".to_owned()),
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn filter(mut self, decide: impl Fn(&ConnectRequest<'_>) -> Answer + Send + Sync + 'static) -> Self {
        self.filter = Filter::new(decide);
        self
    }

    /// The address it listens at, with the port that was chosen; `0.0.0.0:0` for one that is not of the network, which
    /// [`uri`](Self::uri) tells.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// The address as a URI, for [`Connector::connect`](super::Connector::connect). If the listener is bound to all
    /// addresses, a peer needs one of them in its place.
    pub fn uri(&self) -> String {
        self.uri.clone()
    }

    /// The next connection. A peer that fails to connect is logged and passed over; each has
    /// [`Config::connect_timeout`](crate::Config::connect_timeout). Dropping the future loses no peer.
    ///
    /// # Errors
    /// If nothing can be accepted any more, for instance because the device is gone; [`Closed`](ErrorKind::Closed) after
    /// [`shutdown`](Self::shutdown).
    pub async fn accept(&self) -> Result<Connection> {
        let mut closing = self.closing.subscribe();
        let mut closing = pin!(closing.wait_for(|is_closing| *is_closing));
        let mut accepting = pin!(async {
            // One accepts at a time; the others queue here.
            let mut state = self.state.lock().await;
            poll_fn(|context| self.poll_accept(&mut state, context)).await
        });
        poll_fn(|context| {
            if closing.as_mut().poll(context).is_ready() {
                let error = Error::new(ErrorKind::Closed, "accept").with_detail("the listener was shut down");
                return Poll::Ready(Err(error));
            }
            accepting.as_mut().poll(context)
        })
        .await
    }

    /// Ends it: the address is free, peers that ask are refused, and who waits in [`accept`](Self::accept) is told. Those in
    /// set-up have what is left of their [`Config::connect_timeout`](crate::Config::connect_timeout); answers those that became
    /// connections meanwhile. To shut down twice, or to drop the future, does no harm.
    pub async fn shutdown(&self) -> Vec<Connection> {
        self.closing.send_replace(true);
        let mut state = self.state.lock().await;
        // The last reference is the listener's: with it go those that nobody has looked at.
        state.sources.clear();
        let mut connections = Vec::new();
        poll_fn(|context| {
            while let Some(connection) = poll_handshakes(&mut state, context) {
                connections.push(connection);
            }
            if state.handshakes.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        connections
    }

    fn poll_accept(&self, state: &mut State, context: &mut Context<'_>) -> Poll<Result<Connection>> {
        // Bounded, so that a flood of requests cannot keep set-ups from going on.
        for turn in 0..=usize::from(self.worker.config().backlog) {
            if turn == usize::from(self.worker.config().backlog) {
                context.waker().wake_by_ref();
                break;
            }
            let Poll::Ready(request) = poll_sources(state, context) else { break };
            self.begin(state, request?);
        }
        poll_handshakes(state, context).map_or(Poll::Pending, |connection| Poll::Ready(Ok(connection)))
    }

    fn begin(&self, state: &mut State, request: Incoming) {
        if state.handshakes.len() >= usize::from(self.worker.config().backlog) {
            tracing::warn!(peer = request.peer(), "too many peers in set-up; this one is refused");
            refused(&request, Refused::Busy);
            return request.refuse(&Refusal::Busy.to_bytes());
        }
        let device = request.device();
        if self.is_auto && !self.worker.config().transport.takes(device.transport) {
            tracing::debug!(peer = request.peer(), "a peer comes by a way that the settings exclude");
            refused(&request, Refused::Declined);
            return request.refuse(&Refusal::Declined.with_reason("its settings exclude this transport"));
        }
        match self.worker.engine(&device) {
            Ok(engine) => {
                let deadline = engine.now() + self.worker.config().connect_timeout;
                let trace = spans::accept(request.peer(), device.transport, &device.name, &engine.meters);
                let made = set_up(engine, request, Role::Listener(self.filter.clone()), deadline);
                state.handshakes.push(Box::pin(async move {
                    let accepted = made.instrument(trace.span()).await;
                    if let Ok(inner) = &accepted {
                        trace.with(&inner.facts.identity);
                    }
                    trace.end_with(&accepted);
                    accepted
                }));
            }
            Err(error) => {
                passed_over(&error.with_peer(request.peer()));
                refused(&request, Refused::Busy);
                request.refuse(&Refusal::Busy.to_bytes());
            }
        }
    }
}

/// The next request, from each source in its turn. One of several that fails leaves the others.
fn poll_sources(state: &mut State, context: &mut Context<'_>) -> Poll<Result<Incoming>> {
    let mut index = 0;
    while index < state.sources.len() {
        match state.sources[index].poll(context) {
            Poll::Pending => index += 1,
            Poll::Ready(Err(error)) if state.sources.len() > 1 => {
                tracing::warn!(%error, "by one of its ways nobody is accepted any more");
                drop(state.sources.remove(index));
            }
            Poll::Ready(request) => {
                state.sources.rotate_left(index + 1);
                return Poll::Ready(request);
            }
        }
    }
    Poll::Pending
}

/// Goes on with all set-ups, until one has made a connection.
fn poll_handshakes(state: &mut State, context: &mut Context<'_>) -> Option<Connection> {
    let mut index = 0;
    while index < state.handshakes.len() {
        match state.handshakes[index].as_mut().poll(context) {
            Poll::Pending => index += 1,
            Poll::Ready(result) => {
                drop(state.handshakes.swap_remove(index));
                match result {
                    Ok(inner) => return Some(Connection(inner)),
                    Err(error) => passed_over(&error),
                }
            }
        }
    }
    None
}

fn refused(request: &Incoming, why: Refused) {
    let device = request.device();
    Meters::of(device.transport.name(), &device.name).refused(why);
}

fn passed_over(error: &Error) {
    tracing::warn!(%error, "a peer could not be accepted");
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("uri", &self.uri).finish_non_exhaustive()
    }
}
