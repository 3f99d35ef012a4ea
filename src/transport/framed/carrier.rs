//! What carries the bytes of a connection.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::net::SocketAddrAny;

use super::channel::Interest;
use super::socket::Socket;
use crate::memory::Registrable;
use crate::transport::{Courier, Kind};
use crate::{Error, Result};

/// One connection's bytes, both ways and in order, and how its ends find each other. Every carrier has a stream socket, on which the
/// connection is set up and which ends with the peer's process.
///
/// Where looking needs a system call, the kernel is asked which sockets have something, and wakes who sleeps. Where it needs none,
/// channels that were busy lately are looked at, and the peer *rings* on the socket for those that doze.
pub(crate) trait Carrier: Sized + Send + 'static {
    const KIND: Kind;
    /// Whether looking for what has come needs no system call.
    const IS_FREE_TO_LOOK: bool;
    /// So many channels are looked at by each poll, without asking the kernel which have something.
    const FEW: usize;
    /// Polls in a row that find nothing of a peer before it is told what is done: an answer of the program, which says it too, may be
    /// about to be sent.
    const DRY_POLLS: u32;

    type Address: fmt::Display + Clone + Send + Sync + 'static;
    /// What there is for as long as somebody listens, besides the socket.
    type Door: Send + Sync + 'static;
    /// What the peer has given along with its introduction, checked.
    type Gift: Send + Sync + 'static;

    /// A socket that listens at `address`, and where that is.
    fn listen(address: &Self::Address, backlog: u16) -> Result<(OwnedFd, Self::Address, Self::Door)>;
    /// A socket that is connected to who listens at `address`, or is about to be when it can be written.
    fn connect(address: &Self::Address, deadline: Instant) -> impl Future<Output = Result<OwnedFd>> + Send;
    /// Makes a new socket, of either end, what it has to be; refuses peers that may not connect.
    fn admit(socket: &OwnedFd) -> Result<()>;
    /// What to call a peer that has come in `from` somewhere.
    fn peer(socket: &OwnedFd, from: Option<SocketAddrAny>) -> String;

    /// What carries for `socket`, and what the peer is to be given along with our introduction.
    fn new(socket: &Arc<Socket>) -> Result<(Self, Option<OwnedFd>)>;
    /// Checks what a peer has given.
    ///
    /// # Errors
    /// What is wrong with it.
    fn unwrap(gifts: Vec<OwnedFd>) -> std::result::Result<Self::Gift, String>;
    /// The peer's part; without it nothing is carried.
    fn attach(&mut self, gift: Self::Gift);

    /// What carries descriptors beside the bytes, from now on.
    fn courier(&mut self) -> Option<Arc<dyn Courier>> {
        None
    }

    /// Takes what has come, as much as there is room for in `bytes`, which has some. Less means that there is no more.
    fn read(&mut self, bytes: &mut [u8]) -> std::result::Result<usize, Halt>;
    /// The same, up to `length` bytes, to `offset` of memory that others may access.
    fn read_to(&mut self, memory: &dyn Registrable, offset: usize, length: usize) -> std::result::Result<usize, Halt>;
    /// Gives bytes on, as many as are taken; `goes_on` says that others follow at once.
    fn write(&mut self, slices: &[IoSlice<'_>], goes_on: bool) -> std::result::Result<usize, Halt>;
    /// The same from `offset` of memory that others may access.
    fn write_from(
        &mut self,
        memory: &dyn Registrable,
        offset: usize,
        length: usize,
    ) -> std::result::Result<usize, Halt>;
    /// Whether so many bytes would be taken at once, by a carrier to which a message costs nothing but its bytes.
    fn takes_whole(&mut self, length: usize) -> bool {
        let _ = length;
        false
    }
    /// Gives bytes on, all of which [are taken](Self::takes_whole).
    fn write_whole(&mut self, heads: [&[u8]; 2], slices: &[IoSlice<'_>]) {
        let _ = (heads, slices);
    }
    /// Copies what has come, from `offset` on, and leaves it there; answers how much, which is nothing where it would cost more than a look.
    fn peek(&mut self, offset: usize, bytes: &mut [u8]) -> usize {
        let _ = (offset, bytes);
        0
    }
    /// Takes off so many bytes, which were peeked at.
    fn skip(&mut self, length: usize) {
        let _ = length;
    }
    /// Nothing more is written for now.
    fn flush(&mut self) {}

    /// Whether a read is worth while: something has come, or the end.
    fn has_something(&mut self) -> bool {
        true
    }
    /// Has the peer ring, once, when there is something to read, or room to write; answers whether there is already.
    fn doze(&mut self, interest: Interest) -> bool {
        let _ = interest;
        false
    }
    /// The peer need not ring any more.
    fn rouse(&mut self) {}
    /// The socket has something: takes off it what the peer has rung, and learns of the end.
    fn heed(&mut self) {}
    /// What the socket has when there is something of interest.
    fn events(interest: Interest) -> EventFlags;
    /// Whether the peer's host answers, whatever its process does. Not for the data path.
    fn host_answers(&self) -> bool;
}

/// Why a carrier takes or gives nothing.
#[derive(Debug)]
pub(crate) enum Halt {
    /// There is nothing, or no room, at present.
    Later,
    /// The connection has ended or failed.
    Lost(Error),
    /// The peer has done what nobody may.
    Protocol(String),
}
