//! A TCP socket as a carrier.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketFlags, SocketType};

use super::kernel;
use crate::Result;
use crate::memory::{Registrable, volatile};
use crate::transport::Kind;
use crate::transport::framed::{Carrier, Halt, Interest, Socket, broken, ended, failed};

/// A host that has vanished while nothing is said is noticed after half a minute, whatever the heartbeat is.
const KEEPALIVE: (u64, u64, u32) = (10, 5, 4);

pub(crate) struct TcpCarrier(Arc<Socket>);

impl Carrier for TcpCarrier {
    const KIND: Kind = Kind::Tcp;
    const IS_FREE_TO_LOOK: bool = false;
    const FEW: usize = 2;
    const DRY_POLLS: u32 = 2;

    type Address = SocketAddr;
    type Door = ();
    type Gift = ();

    fn listen(address: &SocketAddr, backlog: u16) -> Result<(OwnedFd, SocketAddr, ())> {
        let told = |errno| failed("listen", errno).with_detail(format!("tcp://{address}"));
        let socket = create(address).map_err(told)?;
        // A port is free again as soon as nobody listens there.
        sockopt::set_socket_reuseaddr(&socket, true).map_err(told)?;
        rustix::net::bind(&socket, address).map_err(told)?;
        rustix::net::listen(&socket, backlog.into()).map_err(told)?;
        let bound = rustix::net::getsockname(&socket).ok().and_then(|bound| SocketAddr::try_from(bound).ok());
        Ok((socket, bound.unwrap_or(*address), ()))
    }

    async fn connect(address: &SocketAddr, _deadline: Instant) -> Result<OwnedFd> {
        let told = |errno| failed("connect", errno);
        let socket = create(address).map_err(told)?;
        match rustix::net::connect(&socket, address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
            Err(errno) => Err(told(errno)),
        }
    }

    fn admit(socket: &OwnedFd) -> Result<()> {
        let set = || {
            sockopt::set_tcp_nodelay(socket, true)?;
            sockopt::set_socket_keepalive(socket, true)?;
            let (idle, interval, count) = KEEPALIVE;
            sockopt::set_tcp_keepidle(socket, Duration::from_secs(idle))?;
            sockopt::set_tcp_keepintvl(socket, Duration::from_secs(interval))?;
            sockopt::set_tcp_keepcnt(socket, count)
        };
        set().map_err(|errno| failed("set up", errno))
    }

    fn peer(_socket: &OwnedFd, from: Option<SocketAddrAny>) -> String {
        let peer = from.and_then(|from| SocketAddr::try_from(from).ok());
        peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
    }

    fn new(socket: &Arc<Socket>) -> Result<(Self, Option<OwnedFd>)> {
        Ok((Self(Arc::clone(socket)), None))
    }

    fn unwrap(_gifts: Vec<OwnedFd>) -> std::result::Result<(), String> {
        Ok(())
    }

    fn attach(&mut self, (): ()) {}

    fn read(&mut self, bytes: &mut [u8]) -> std::result::Result<usize, Halt> {
        again(|| rustix::net::recv(&self.0, &mut *bytes, RecvFlags::empty()).map(|(_, read)| read)).and_then(some)
    }

    fn read_to(&mut self, memory: &dyn Registrable, offset: usize, length: usize) -> std::result::Result<usize, Halt> {
        again(|| volatile::receive(memory, offset, length, &*self.0)).and_then(some)
    }

    fn write(&mut self, slices: &[IoSlice<'_>], goes_on: bool) -> std::result::Result<usize, Halt> {
        let flags = SendFlags::NOSIGNAL | if goes_on { SendFlags::MORE } else { SendFlags::empty() };
        again(|| rustix::net::sendmsg(&self.0, slices, &mut SendAncillaryBuffer::default(), flags))
    }

    fn write_from(
        &mut self,
        memory: &dyn Registrable,
        offset: usize,
        length: usize,
    ) -> std::result::Result<usize, Halt> {
        again(|| volatile::send(memory, offset, length, &*self.0))
    }

    fn events(interest: Interest) -> EventFlags {
        let when = |wanted: bool, flag| if wanted { flag } else { EventFlags::empty() };
        when(interest.reading, EventFlags::IN) | when(interest.writing, EventFlags::OUT)
    }

    fn host_answers(&self) -> bool {
        kernel::is_acknowledged(self.0.as_fd())
    }
}

/// A socket that does not block, for peers such as `peer`.
fn create(peer: &SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = SocketAddrAny::from(*peer).address_family();
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Does it until no signal interrupts it.
fn again(mut act: impl FnMut() -> rustix::io::Result<usize>) -> std::result::Result<usize, Halt> {
    loop {
        match act() {
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(Halt::Later),
            Err(errno) => return Err(Halt::Lost(broken(errno))),
        }
    }
}

/// Nothing is the end of the stream.
fn some(read: usize) -> std::result::Result<usize, Halt> {
    if read == 0 { Err(Halt::Lost(ended())) } else { Ok(read) }
}
