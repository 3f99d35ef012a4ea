//! The listening side.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{Mutex, watch};

use super::address::Address;
use super::established::Inner;
use super::filter::{Answer, ConnectRequest, Filter};
use super::set_up::{Role, set_up};
use super::{Active, Connection, Worker};
use crate::protocol::Refusal;
use crate::transport::{Listen, SetUp, Transport};
use crate::{Error, ErrorKind, Result};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Incoming = <Active as Transport>::Incoming;

/// Waits for peers. Dropping it frees the address; connections live on.
pub struct Listener {
    worker: Worker,
    address: <Active as Transport>::Address,
    filter: Filter,
    state: Mutex<State>,
    /// Whether it is to end.
    closing: watch::Sender<bool>,
}

/// Peers in set-up; one that is slow or hostile does not hold the others up.
struct State {
    /// `None` when it has ended.
    requests: Option<Arc<<Active as Transport>::Listener>>,
    next: Option<Boxed<Result<Incoming>>>,
    handshakes: Vec<Boxed<Result<Arc<Inner<Active>>>>>,
}

impl Listener {
    /// Listens at `address`: `rdma://HOST:PORT`, where HOST is an address of an RDMA device or `0.0.0.0` or `[::]` for all
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
        let bound = address.resolve(deadline).await?;
        let requests = Arc::new(Active::listen(bound, worker.config().backlog)?);
        let address = requests.local_address();
        let state = State { requests: Some(requests), next: None, handshakes: Vec::new() };
        let (closing, _) = watch::channel(false);
        Ok(Self { worker: worker.clone(), address, filter: Filter::default(), state: Mutex::new(state), closing })
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
        self.address.socket_address()
    }

    /// The address as a URI, for [`Connector::connect`](super::Connector::connect). If the listener is bound to all
    /// addresses, a peer needs one of them in its place.
    pub fn uri(&self) -> String {
        self.address.uri()
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
        (state.next, state.requests) = (None, None);
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
            let Some(requests) = state.requests.clone() else { break };
            let next = state.next.get_or_insert_with(|| Box::pin(async move { requests.next().await }));
            let Poll::Ready(request) = next.as_mut().poll(context) else { break };
            state.next = None;
            self.begin(state, request?);
        }
        poll_handshakes(state, context).map_or(Poll::Pending, |connection| Poll::Ready(Ok(connection)))
    }

    fn begin(&self, state: &mut State, request: Incoming) {
        if state.handshakes.len() >= usize::from(self.worker.config().backlog) {
            tracing::warn!(peer = request.peer(), "too many peers in set-up; this one is refused");
            return request.refuse(&Refusal::Busy.to_bytes());
        }
        match self.worker.engine(&request.device()) {
            Ok(engine) => {
                let deadline = engine.now() + self.worker.config().connect_timeout;
                state.handshakes.push(Box::pin(set_up(engine, request, Role::Listener(self.filter.clone()), deadline)));
            }
            Err(error) => {
                passed_over(&error.with_peer(request.peer()));
                request.refuse(&Refusal::Busy.to_bytes());
            }
        }
    }
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

fn passed_over(error: &Error) {
    tracing::warn!(%error, "a peer could not be accepted");
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.local_address()).finish_non_exhaustive()
    }
}
