//! The connecting side.

use std::time::Instant;

use super::set_up::{Role, set_up};
use super::{Active, Connection, Worker, address};
use crate::Result;
use crate::transport::{SetUp, Transport};

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

    /// Connects to `address`, `rdma://HOST:PORT`, within [`Config::connect_timeout`](crate::Config::connect_timeout).
    ///
    /// # Errors
    /// Among others [`ConnectionRefused`](crate::ErrorKind::ConnectionRefused) (nobody listens),
    /// [`Rejected`](crate::ErrorKind::Rejected) (the listener said no), [`NoRoute`](crate::ErrorKind::NoRoute),
    /// [`TimedOut`](crate::ErrorKind::TimedOut) (nothing answers), [`NoDevice`](crate::ErrorKind::NoDevice),
    /// [`NotInstalled`](crate::ErrorKind::NotInstalled), [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub async fn connect(&self, address: &str) -> Result<Connection> {
        let deadline = Instant::now() + self.worker.config().connect_timeout;
        let peer = address::resolve("connect", address, deadline).await?;
        let end = Active::resolve(peer, deadline).await?;
        let engine = self.worker.engine(end.device()).map_err(|error| error.within("connect").with_peer(peer))?;
        set_up(engine, end, Role::Connector, deadline).await.map(Connection)
    }
}
