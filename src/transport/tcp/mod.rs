//! TCP behind the seam: the semantics of a reliable connection, in software. It needs no device and no privileges.
//!
//! What a device does elsewhere is done here by whoever polls the queue: frames are read and written, and accesses of the peer are
//! checked against what is registered and bound here, by key, range and right, and carried out. So a peer's access waits until this
//! process polls. While the application does not, the service thread does: at once where it was needed before, and within two of
//! its ticks otherwise.
//!
//! Every request is acknowledged by the peer's transport, as a device acknowledges: what has completed is done there.

mod access;
mod channel;
mod closing;
mod domain;
mod events;
mod frame;
mod hello;
mod input;
mod kernel;
mod link;
mod listener;
mod output;
mod queue;
mod readiness;
mod set_up;
mod socket;
#[cfg(test)]
mod tests;
mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::{Device, Kind, Transport};
use crate::memory::Domain;
use crate::{Error, ErrorKind, Result};

use domain::TcpDomain;
use link::TcpLink;
use listener::TcpListener;
use queue::TcpQueue;
use set_up::{Incoming, Outgoing};

/// What errors call the device that there is none of.
pub(super) const DEVICE: &str = "tcp";

/// Connections over TCP.
#[derive(Debug)]
pub(crate) struct Tcp;

impl Transport for Tcp {
    type Address = SocketAddr;
    type Queue = TcpQueue;
    type Link = TcpLink;
    type Outgoing = Outgoing;
    type Incoming = Incoming;
    type Listener = TcpListener;

    fn open(_device: &Device, completions: u32) -> Result<(Arc<dyn Domain>, TcpQueue)> {
        let domain = TcpDomain::of_process();
        let queue = TcpQueue::open(Arc::clone(&domain), completions as usize)?;
        Ok((domain, queue))
    }

    async fn resolve(peer: SocketAddr, deadline: Instant) -> Result<Outgoing> {
        Outgoing::connect(peer, deadline).await
    }

    fn listen(address: SocketAddr, backlog: u16) -> Result<TcpListener> {
        TcpListener::bind(address, backlog)
    }
}

fn device() -> Device {
    Device { transport: Kind::Tcp, name: DEVICE.to_owned() }
}

/// A failure of the kernel in `operation`.
fn failed(operation: &'static str, errno: Errno) -> Error {
    let kind = match errno {
        Errno::ACCESS | Errno::PERM => ErrorKind::PermissionDenied,
        Errno::ADDRINUSE => ErrorKind::AddressInUse,
        Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::INVAL => ErrorKind::AddressInvalid,
        Errno::CONNREFUSED => ErrorKind::ConnectionRefused,
        Errno::CONNRESET | Errno::PIPE => ErrorKind::PeerClosed,
        Errno::HOSTUNREACH | Errno::NETUNREACH => ErrorKind::NoRoute,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC => ErrorKind::ResourceExhausted,
        Errno::TIMEDOUT => ErrorKind::TimedOut,
        _ => ErrorKind::Other,
    };
    Error::new(kind, operation).with_source(std::io::Error::from(errno))
}
