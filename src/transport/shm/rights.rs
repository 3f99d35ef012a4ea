//! Whether descriptors may come over a socket.

#![allow(unsafe_code, reason = "one call that rustix does not have yet; it carries its proof")]

use std::os::fd::{AsFd, AsRawFd};

/// `SO_PASSRIGHTS`, from Linux 6.16 on.
const PASS_RIGHTS: libc::c_int = if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 0x5c } else { 83 };

/// Whether the kernel takes descriptors that the peer sends from now on, or refuses them.
///
/// # Errors
/// It does not know how to refuse them: then it throws those away that come with bytes which are read without room for any.
pub(super) fn take(socket: impl AsFd, does: bool) -> rustix::io::Result<()> {
    let (socket, does) = (socket.as_fd().as_raw_fd(), libc::c_int::from(does));
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `does` is readable, and as large as `length` says.
    match unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, PASS_RIGHTS, (&raw const does).cast(), length) } {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)),
    }
}
