//! No descriptors behind the set-up.

#![allow(unsafe_code, reason = "one call that rustix does not have yet; it carries its proof")]

use std::os::fd::{AsFd, AsRawFd};

/// `SO_PASSRIGHTS`, from Linux 6.16 on.
const PASS_RIGHTS: libc::c_int = if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 0x5c } else { 83 };

/// Has the kernel refuse descriptors that the peer sends from now on. One that cannot do that throws them away when the bytes that they
/// came with are read, since that is done without room for any.
pub(super) fn take_no_more(socket: impl AsFd) -> rustix::io::Result<()> {
    let (socket, no): (_, libc::c_int) = (socket.as_fd().as_raw_fd(), 0);
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `no` is readable, and as large as `length` says.
    match unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, PASS_RIGHTS, (&raw const no).cast(), length) } {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)),
    }
}
