//! TCP: frames over a socket, on any host and between hosts.

mod carrier;
mod kernel;
#[cfg(test)]
mod tests;

use super::framed::Framed;
pub(crate) use carrier::TcpCarrier;

/// Connections over TCP.
pub(crate) type Tcp = Framed<TcpCarrier>;
