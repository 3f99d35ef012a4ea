//! The seam over shared memory.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::ShmCarrier;
use super::pages::Theirs;
use crate::transport::framed::tests::{Peer, TestCarrier, bodies};
use crate::transport::framed::{Carrier, Halt, Socket};

bodies!(ShmCarrier);

/// The other end of a queue's channel.
pub(crate) struct ShmPeer {
    carrier: ShmCarrier,
    socket: Arc<Socket>,
    patience: Duration,
}

fn sockets() -> (Arc<Socket>, Arc<Socket>) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("sockets");
    let socket = |descriptor: OwnedFd| Socket::new(descriptor).expect("a service");
    (socket(one), socket(other))
}

impl TestCarrier for ShmCarrier {
    type Peer = ShmPeer;

    fn ends() -> (ShmPeer, Arc<Socket>, Self, Theirs) {
        let (socket, peers_socket) = sockets();
        let (carrier, gift) = Self::new(&socket).expect("memory");
        let (mut peer, peers_gift) = Self::new(&peers_socket).expect("memory");
        let unwrap = |gift: Option<OwnedFd>| Self::unwrap(gift.into_iter().collect()).expect("a good one");
        peer.attach(unwrap(gift));
        let peer = ShmPeer { carrier: peer, socket: peers_socket, patience: Duration::from_secs(5) };
        (peer, socket, carrier, unwrap(peers_gift))
    }
}

impl ShmPeer {
    fn wait(&mut self, mut act: impl FnMut(&mut ShmCarrier) -> Result<usize, Halt>) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            let done = act(&mut self.carrier);
            self.carrier.flush();
            match done {
                Ok(count) => return Ok(count),
                Err(Halt::Later) if begun.elapsed() > self.patience => return Err(io::ErrorKind::TimedOut.into()),
                Err(Halt::Later) => {
                    std::thread::sleep(Duration::from_micros(50));
                    self.carrier.heed();
                }
                Err(Halt::Lost(_)) => return Ok(0),
                Err(Halt::Protocol(detail)) => return Err(io::Error::other(detail)),
            }
        }
    }
}

impl Read for ShmPeer {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.wait(|carrier| carrier.read(bytes))
    }
}

impl Write for ShmPeer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.wait(|carrier| carrier.write(&[IoSlice::new(bytes)], false))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Peer for ShmPeer {
    fn hang_up(&self) {
        self.socket.shut();
    }

    fn be_impatient(&mut self) {
        self.patience = Duration::ZERO;
    }
}
