//! Whose process a peer is.

#![allow(unsafe_code, reason = "one call that rustix makes only for peers of this pid namespace; it carries its proof")]

use std::os::fd::{AsFd, AsRawFd};

use crate::transport::framed::failed;
use crate::{Error, ErrorKind, Result};

/// Who connected, or who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    /// 0 if it is not known here: the process is in another namespace.
    pub(super) process: i32,
    pub(super) user: u32,
}

impl Credentials {
    /// Those of the process at the other end of `socket`, which the kernel vouches for (`unix(7)`, `SO_PEERCRED`).
    pub(super) fn of_peer(socket: impl AsFd) -> rustix::io::Result<Self> {
        let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        let socket = socket.as_fd().as_raw_fd();
        // SAFETY: `peer` and `length` are writable, and as large as they say.
        let answer = unsafe { libc::getsockopt(socket, level, option, (&raw mut peer).cast(), &mut length) };
        match answer {
            0 => Ok(Self { process: peer.pid, user: peer.uid }),
            _ => {
                let error = std::io::Error::last_os_error();
                Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
            }
        }
    }

    /// Only processes of our own user share memory with us.
    pub(super) fn check(socket: impl AsFd) -> Result<()> {
        let peer = Self::of_peer(socket).map_err(|errno| failed("set up", errno))?;
        let ours = rustix::process::geteuid().as_raw();
        if peer.user == ours {
            return Ok(());
        }
        let detail = format!("the peer is a process of user {}, and this one of user {ours}", peer.user);
        Err(Error::new(ErrorKind::PermissionDenied, "set up").with_detail(detail))
    }
}
