//! Listening at a unix socket, and connecting to one.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::address::ShmAddress;
use crate::memory::Epoch;
use crate::transport::framed::{failed, pause};
use crate::{Error, ErrorKind, Result};

/// How long it may take until an address is free at which nobody listens any more.
const PATIENCE: Duration = Duration::from_millis(200);
const MOMENT: Duration = Duration::from_millis(1);

/// The file of a socket, removed when it is dropped.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    epoch: Epoch,
}

impl SocketFile {
    fn of(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), identity: identity(path)?, epoch: Epoch::current() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The parent's is not a forked child's to remove, nor is one that somebody has put in its place.
        if self.epoch.is_current() && identity(&self.path) == Some(self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    rustix::fs::lstat(path).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// A socket that listens at `address`, and the file that it is, if it is one.
pub(super) fn listen(address: &ShmAddress, backlog: u16) -> Result<(OwnedFd, Option<SocketFile>)> {
    let told = |errno| {
        let error = match errno {
            Errno::NOENT | Errno::NOTDIR => {
                Error::new(ErrorKind::AddressInvalid, "listen").with_source(std::io::Error::from(errno))
            }
            errno => failed("listen", errno),
        };
        error.with_detail(format!("shm://{address}"))
    };
    let listen = || {
        let (socket, place) = (create()?, address.socket_address()?);
        match address {
            ShmAddress::File(path) => {
                // One at a time: of two that find a stale file one would remove what the other has made.
                let turn = take_turn(path);
                // The file has this mode from the start.
                rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
                bind_file(&socket, path, &place, turn.is_some())?;
                rustix::net::listen(&socket, backlog.into())?;
                Ok((socket, SocketFile::of(path)))
            }
            ShmAddress::Name(_) => {
                bind_name(&socket, &place)?;
                rustix::net::listen(&socket, backlog.into())?;
                Ok((socket, None))
            }
        }
    };
    listen().map_err(told)
}

fn bind_name(socket: &OwnedFd, place: &SocketAddrUnix) -> rustix::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::net::bind(socket, place) {
            // Who listened there is about to let go of it.
            Err(Errno::ADDRINUSE) if !is_answered(place) && Instant::now() < deadline => std::thread::sleep(MOMENT),
            bound => return bound,
        }
    }
}

fn bind_file(socket: &OwnedFd, path: &Path, place: &SocketAddrUnix, may_replace: bool) -> rustix::io::Result<()> {
    let is_socket = |path| {
        let stat = rustix::fs::lstat(path);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
    };
    match rustix::net::bind(socket, place) {
        Err(Errno::ADDRINUSE) if may_replace && is_socket(path) && !is_answered(place) => {
            rustix::fs::unlink(path)?;
            rustix::net::bind(socket, place)
        }
        bound => bound,
    }
}

/// Whether somebody listens there, or something that is no socket is there.
fn is_answered(place: &SocketAddrUnix) -> bool {
    let asked = create().and_then(|socket| rustix::net::connect(&socket, place));
    asked != Err(Errno::CONNREFUSED)
}

/// Has no other listener of ours come to the folder of `path` meanwhile. `None` where that cannot be had, for instance because somebody
/// else holds it: then nothing is replaced.
fn take_turn(path: &Path) -> Option<OwnedFd> {
    let (deadline, how) = (Instant::now() + PATIENCE, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC);
    let folder = rustix::fs::open(path.parent().unwrap_or(Path::new("/")), how, Mode::empty()).ok()?;
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => std::thread::sleep(MOMENT),
            Err(_) => return None,
        }
    }
}

/// A socket that is connected to who listens at `address`.
pub(super) async fn connect(address: &ShmAddress, deadline: Instant) -> Result<OwnedFd> {
    let told = |errno| failed("connect", errno);
    let place = address.socket_address().map_err(told)?;
    let socket = create().map_err(told)?;
    loop {
        match rustix::net::connect(&socket, &place) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            // As many wait there as may.
            Err(Errno::AGAIN) if Instant::now() < deadline => pause(deadline.min(Instant::now() + MOMENT)).await?,
            Err(Errno::AGAIN) => {
                let detail = "nobody has taken up the connect request in time";
                return Err(Error::new(ErrorKind::TimedOut, "connect").with_detail(detail));
            }
            Err(errno @ Errno::NOENT) => {
                let error = Error::new(ErrorKind::ConnectionRefused, "connect").with_detail("there is no such socket");
                return Err(error.with_source(std::io::Error::from(errno)));
            }
            Err(errno) => return Err(told(errno)),
        }
    }
}

/// A socket that does not block.
fn create() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}
