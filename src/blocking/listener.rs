//! Making connections.

use std::net::SocketAddr;
use std::time::Duration;

use super::Connection;
use super::wait::{block_on, wait};
use crate::{Result, Worker};

/// Waits for peers; see [`Listener`](crate::Listener).
#[derive(Debug)]
pub struct Listener(crate::Listener);

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// As [`Listener::bind`](crate::Listener::bind).
    pub fn bind(worker: &Worker, address: &str) -> Result<Self> {
        block_on(crate::Listener::bind(worker, address)).map(Self)
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// As [`Listener::accept`](crate::Listener::accept).
    pub fn accept(&self) -> Result<Connection> {
        block_on(self.0.accept()).map(Connection::from)
    }

    /// As [`accept`](Self::accept), for no longer than `timeout`. No peer is lost.
    ///
    /// # Errors
    /// As [`accept`](Self::accept), and [`TimedOut`](crate::ErrorKind::TimedOut).
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Connection> {
        wait(Some(timeout), "accept", self.0.accept()).map(Connection::from)
    }

    /// The address it listens at, with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.0.local_address()
    }

    /// The address as a URI.
    pub fn uri(&self) -> String {
        self.0.uri()
    }

    /// The listener that does not block.
    pub fn inner(&self) -> &crate::Listener {
        &self.0
    }
}

/// Makes connections to listeners; see [`Connector`](crate::Connector).
#[derive(Clone, Debug)]
pub struct Connector(crate::Connector);

impl Connector {
    /// A connector whose connections belong to `worker`.
    pub fn new(worker: &Worker) -> Self {
        Self(crate::Connector::new(worker))
    }

    /// Connects to `address`, within [`Config::connect_timeout`](crate::Config::connect_timeout).
    ///
    /// # Errors
    /// As [`Connector::connect`](crate::Connector::connect).
    pub fn connect(&self, address: &str) -> Result<Connection> {
        block_on(self.0.connect(address)).map(Connection::from)
    }

    /// As [`connect`](Self::connect), for no longer than `timeout`, if that is less than the worker's.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_timeout(&self, address: &str, timeout: Duration) -> Result<Connection> {
        wait(Some(timeout), "connect", self.0.connect(address)).map(Connection::from)
    }

    /// The connector that does not block.
    pub fn inner(&self) -> &crate::Connector {
        &self.0
    }
}
