//! Transports in software: the semantics of a reliable connection, as frames over a [`Carrier`] of bytes. They need no device and
//! no privileges.
//!
//! What a device does elsewhere is done here by whoever polls the queue: frames are read and written, and accesses of the peer are
//! checked against what is registered and bound here, by key, range and right, and carried out. So a peer's access waits until this
//! process polls. While the application does not, the service thread does: at once where it was needed before, and within two of
//! its ticks otherwise.
//!
//! Every request is acknowledged by the peer's transport, as a device acknowledges: what has completed is done there.

mod access;
mod attention;
mod carrier;
mod channel;
mod closing;
mod domain;
mod events;
mod frame;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod fuzzed;
mod hello;
mod input;
mod link;
mod lobby;
mod output;
mod queue;
mod readiness;
mod set_up;
mod socket;
#[cfg(test)]
pub(super) mod tests;
mod upkeep;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::{Device, Transport};
use crate::memory::Domain;
use crate::{Error, ErrorKind, Result};

pub(super) use carrier::{Carrier, Halt};
pub(super) use channel::Interest;
use domain::SoftwareDomain;
use link::FramedLink;
use lobby::FramedListener;
use queue::FramedQueue;
pub(super) use readiness::pause;
use set_up::{Incoming, Outgoing};
pub(super) use socket::{Socket, broken, ended};

/// Connections over a carrier.
#[derive(Debug)]
pub(crate) struct Framed<C>(PhantomData<fn() -> C>);

impl<C: Carrier> Transport for Framed<C> {
    type Address = C::Address;
    type Queue = FramedQueue<C>;
    type Link = FramedLink;
    type Outgoing = Outgoing<C>;
    type Incoming = Incoming<C>;
    type Listener = FramedListener<C>;

    fn open(_device: &Device, completions: u32) -> Result<(Arc<dyn Domain>, FramedQueue<C>)> {
        let domain = SoftwareDomain::of_process();
        let queue = FramedQueue::open(Arc::clone(&domain), completions as usize)?;
        Ok((domain, queue))
    }

    async fn resolve(peer: C::Address, deadline: Instant) -> Result<Outgoing<C>> {
        Outgoing::connect(peer, deadline).await
    }

    fn listen(address: C::Address, backlog: u16) -> Result<FramedListener<C>> {
        FramedListener::bind(address, backlog)
    }
}

/// What who listens at `address` answers to the question which ways lead there.
pub(super) async fn ask<C: Carrier>(address: C::Address, deadline: Instant) -> Result<Vec<u8>> {
    Outgoing::<C>::connect(address, deadline).await?.ask(deadline).await
}

/// What errors call the device that there is none of.
fn device_name<C: Carrier>() -> &'static str {
    C::KIND.name()
}

fn device<C: Carrier>() -> Device {
    Device { transport: C::KIND, name: device_name::<C>().to_owned() }
}

/// A failure of the kernel in `operation`.
pub(super) fn failed(operation: &'static str, errno: Errno) -> Error {
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
