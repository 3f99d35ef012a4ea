//! The listening side.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::Mutex;

use super::established::Inner;
use super::set_up::{Role, set_up};
use super::{Active, Connection, Worker, address};
use crate::protocol::Refusal;
use crate::transport::{Listen, SetUp, Transport};
use crate::{Error, Result};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Incoming = <Active as Transport>::Incoming;

/// Waits for peers. Dropping it frees the address; connections live on.
pub struct Listener {
    worker: Worker,
    requests: Arc<<Active as Transport>::Listener>,
    state: Mutex<State>,
}

/// Peers in set-up; one that is slow or hostile does not hold the others up.
#[derive(Default)]
struct State {
    next: Option<Boxed<Result<Incoming>>>,
    handshakes: Vec<Boxed<Result<Arc<Inner<Active>>>>>,
}

impl Listener {
    /// Listens at `address`, `rdma://HOST:PORT`. HOST is an address of an RDMA device or `0.0.0.0` or `[::]` for all
    /// devices; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// [`AddressInUse`](crate::ErrorKind::AddressInUse), [`AddressInvalid`](crate::ErrorKind::AddressInvalid),
    /// [`NoDevice`](crate::ErrorKind::NoDevice) if no RDMA device has the address,
    /// [`NotInstalled`](crate::ErrorKind::NotInstalled), [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub async fn bind(worker: &Worker, address: &str) -> Result<Self> {
        let deadline = Instant::now() + worker.config().connect_timeout;
        let bound = address::resolve("listen", address, deadline).await?;
        let requests = Arc::new(Active::listen(bound, worker.config().backlog)?);
        Ok(Self { worker: worker.clone(), requests, state: Mutex::default() })
    }

    /// The address it listens at, with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.requests.local_address()
    }

    /// The address as a URI, for [`Connector::connect`](super::Connector::connect). If the listener is bound to all
    /// addresses, a peer needs one of them in its place.
    pub fn uri(&self) -> String {
        format!("rdma://{}", self.local_address())
    }

    /// The next connection. A peer that fails to connect is logged and passed over; each has
    /// [`Config::connect_timeout`](crate::Config::connect_timeout). Dropping the future loses no peer.
    ///
    /// # Errors
    /// If nothing can be accepted any more, for instance because the device is gone.
    pub async fn accept(&self) -> Result<Connection> {
        // One accepts at a time; the others queue here.
        let mut state = self.state.lock().await;
        poll_fn(|context| self.poll_accept(&mut state, context)).await
    }

    fn poll_accept(&self, state: &mut State, context: &mut Context<'_>) -> Poll<Result<Connection>> {
        // Bounded, so that a flood of requests cannot keep set-ups from going on.
        for turn in 0..=usize::from(self.worker.config().backlog) {
            if turn == usize::from(self.worker.config().backlog) {
                context.waker().wake_by_ref();
                break;
            }
            let requests = Arc::clone(&self.requests);
            let next = state.next.get_or_insert_with(|| Box::pin(async move { requests.next().await }));
            let Poll::Ready(request) = next.as_mut().poll(context) else { break };
            state.next = None;
            self.begin(state, request?);
        }
        let mut connected = None;
        let mut index = 0;
        while index < state.handshakes.len() && connected.is_none() {
            match state.handshakes[index].as_mut().poll(context) {
                Poll::Pending => index += 1,
                Poll::Ready(result) => {
                    drop(state.handshakes.swap_remove(index));
                    match result {
                        Ok(inner) => connected = Some(Connection(inner)),
                        Err(error) => passed_over(&error),
                    }
                }
            }
        }
        connected.map_or(Poll::Pending, |connection| Poll::Ready(Ok(connection)))
    }

    fn begin(&self, state: &mut State, request: Incoming) {
        if state.handshakes.len() >= usize::from(self.worker.config().backlog) {
            tracing::warn!(peer = request.peer(), "too many peers in set-up; this one is refused");
            return request.refuse(&Refusal::Busy.to_bytes());
        }
        match self.worker.engine(request.device()) {
            Ok(engine) => {
                let deadline = Instant::now() + self.worker.config().connect_timeout;
                state.handshakes.push(Box::pin(set_up(engine, request, Role::Listener, deadline)));
            }
            Err(error) => {
                passed_over(&error.with_peer(request.peer()));
                request.refuse(&Refusal::Busy.to_bytes());
            }
        }
    }
}

fn passed_over(error: &Error) {
    tracing::warn!(%error, "a peer could not be accepted");
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.local_address()).finish_non_exhaustive()
    }
}
