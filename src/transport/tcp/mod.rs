//! TCP: frames over a socket, on any host and between hosts.

mod carrier;
mod kernel;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Instant;

use super::framed::Framed;
use crate::protocol::Offer;
use crate::{Error, ErrorKind, Result};
pub(crate) use carrier::TcpCarrier;

/// What who listens at `address` says of the ways that lead to it.
pub(crate) async fn ask(address: SocketAddr, deadline: Instant) -> Result<Offer> {
    let answer = super::framed::ask::<TcpCarrier>(address, deadline).await?;
    let wrong = |reason| Error::new(ErrorKind::Protocol, "connect").with_peer(address).with_detail(reason);
    Offer::parse(&answer).map_err(wrong)
}

/// Connections over TCP.
pub(crate) type Tcp = Framed<TcpCarrier>;
