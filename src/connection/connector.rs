//! The connecting side.

use tracing::Instrument;

use super::address::{Address, Target};
use super::auto;
use super::{Connection, Worker, spans};
use crate::protocol::REQUEST_PRIVATE;
use crate::telemetry::{Meters, Phase};
use crate::{Error, ErrorKind, Result};

/// Makes connections to listeners.
#[derive(Clone, Debug)]
pub struct Connector {
    worker: Worker,
}

impl Connector {
    /// A connector whose connections belong to `worker`.
    pub fn new(worker: &Worker) -> Self {
        Self { worker: worker.clone() }
    }

    /// Connects to `address`, `auto://HOST:PORT`, `rdma://HOST:PORT`, `tcp://HOST:PORT`, `shm://NAME` or `shm:///PATH`, within
    /// [`Config::connect_timeout`](crate::Config::connect_timeout).
    ///
    /// `auto://` asks the listener which ways lead to it, and takes the best that works: shared memory on one host, else verbs, else
    /// TCP. [`Connection::transport`] tells which it was, [`Connection::passed_over`] why the others were not.
    /// [`Config::transport`](crate::Config::transport) has it take one only.
    ///
    /// # Errors
    /// Among others [`ConnectionRefused`](crate::ErrorKind::ConnectionRefused) (nobody listens),
    /// [`Rejected`](crate::ErrorKind::Rejected) (the listener said no), [`NoRoute`](crate::ErrorKind::NoRoute),
    /// [`TimedOut`](crate::ErrorKind::TimedOut) (nothing answers), [`NoDevice`](crate::ErrorKind::NoDevice),
    /// [`NotInstalled`](crate::ErrorKind::NotInstalled), [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub async fn connect(&self, address: &str) -> Result<Connection> {
        self.connect_with(address, &[]).await
    }

    /// As [`connect`](Self::connect), with up to 20 bytes that the listener's [filter](super::Listener::filter) sees, and then the peer's
    /// [`Connection::private_data`]. They are not secret, and nothing vouches for them.
    ///
    /// # Errors
    /// As there, and [`TooLong`](ErrorKind::TooLong) for more bytes.
    pub async fn connect_with(&self, address: &str, private_data: &[u8]) -> Result<Connection> {
        if private_data.len() > REQUEST_PRIVATE {
            let detail =
                format!("{} bytes of private data; a connect request carries {REQUEST_PRIVATE}", private_data.len());
            return Err(Error::new(ErrorKind::TooLong, "connect").with_peer(address).with_detail(detail));
        }
        let trace = spans::connect(address);
        let connected = self.connect_to(address, private_data).instrument(trace.span()).await;
        match &connected {
            Ok(Connection(inner)) => trace.with(&inner.facts.identity),
            Err(error) => Meters::of_process().failed(Phase::Connect, error),
        }
        trace.end_with(&connected);
        connected
    }

    async fn connect_to(&self, address: &str, private_data: &[u8]) -> Result<Connection> {
        let address = Address::parse("connect", address)?;
        let deadline = address.clock().now() + self.worker.config().connect_timeout;
        let connected = match address.resolve(deadline).await? {
            Target::Auto(peer) => auto::connect(&self.worker, peer, private_data, deadline).await,
            Target::One(peer) => auto::connect_by(&self.worker, peer, private_data, deadline).await,
        };
        connected.map(Connection)
    }
}
