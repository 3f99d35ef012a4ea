//! Somebody who comes to a listener, without the listener.

use std::os::fd::OwnedFd;

use super::super::carrier::Carrier;
use super::super::hello::{HELLO, Hello, Kind};
use super::super::lobby::Guest;
use super::super::socket::Socket;

pub(in crate::transport) struct Visit(Guest);

impl Visit {
    /// Who is at the other end of `socket`.
    pub(in crate::transport) fn new(socket: OwnedFd) -> Self {
        Self(Guest::new(Socket::new(socket).expect("a service"), String::new()))
    }

    /// Hears what there is; answers whether that is all that is heard.
    pub(in crate::transport) fn hear(&mut self) -> bool {
        self.0.hear()
    }

    /// Bytes of private data of who asks for a connection, and what it gives.
    pub(in crate::transport) fn wish<C: Carrier>(self) -> Result<(usize, C::Gift), String> {
        self.0.wish::<C>().map(|(hello, gift)| (hello.length, gift))
    }

    /// A request for a connection.
    pub(in crate::transport) fn request(data: &[u8]) -> Vec<u8> {
        Kind::Request.say(1, data)
    }

    /// Of bytes that were said, how many are looked at, and whether they ask for a connection.
    pub(in crate::transport) fn looked_at(said: &[u8]) -> (usize, bool) {
        match said.first_chunk().map(|head: &[u8; HELLO]| Hello::parse(*head)) {
            Some(Ok(Hello { kind, length, .. })) => {
                (HELLO + length, kind == Kind::Request && said.len() >= HELLO + length)
            }
            _ => (HELLO, false),
        }
    }
}
