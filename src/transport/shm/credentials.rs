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

/// What the kernel calls every user that this process' user namespace has no name for, if it was not told otherwise.
const NAMELESS: u32 = 65534;
/// Users that there are: the last number is none.
const ALL_USERS: u64 = u32::MAX as u64;

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
        compare(peer.user, ours, nameless(), are_all_named).map_err(|detail| {
            let error = Error::new(ErrorKind::PermissionDenied, "set up");
            error.with_detail(detail)
        })
    }
}

/// Whether the user `peer` is certainly `ours`: `nameless` is what all are called that have no name here, unless `are_all_named`.
fn compare(
    peer: u32,
    ours: u32,
    nameless: u32,
    are_all_named: impl FnOnce() -> bool,
) -> std::result::Result<(), String> {
    if peer != ours {
        return Err(format!("the peer is a process of user {peer}, and this one of user {ours}"));
    }
    if peer == nameless && !are_all_named() {
        let why = "which any user is called that this user namespace does not have";
        return Err(format!("the peer is a process of user {peer}, {why}"));
    }
    Ok(())
}

fn nameless() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(NAMELESS)
}

/// Whether all users have names here, as they have outside of user namespaces.
fn are_all_named() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| names_all(&map))
}

/// Of lines of a first name, whom it names, and how many follow (`user_namespaces(7)`); no user is in two of them.
fn names_all(map: &str) -> bool {
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    counts.fold(0, u64::saturating_add) >= ALL_USERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_name_here_is_not_taken_for_us() {
        for (peer, ours, are_all_named, is_same) in [
            (1000, 1000, false, true),
            (1000, 1001, true, false),
            (0, 0, false, true),
            (65534, 1000, true, false),
            (65534, 65534, true, true),
            (65534, 65534, false, false),
        ] {
            let compared = compare(peer, ours, NAMELESS, || are_all_named);
            assert_eq!(compared.is_ok(), is_same, "{peer} {ours} {are_all_named}");
        }
        let told = compare(65534, 65534, NAMELESS, || false).expect_err("refused");
        assert!(told.contains("user namespace"), "{told}");
    }

    #[test]
    fn all_are_named_outside_of_user_namespaces_only() {
        assert!(names_all("         0          0 4294967295\n"));
        assert!(names_all("0 0 4000000000\n4000000000 5 294967295\n"));
        for few in ["", "\n", "0 1000 1\n", "0 0 65536\n", "0 1000 1\n1 100000 65536\n", "a b c\n"] {
            assert!(!names_all(few), "{few:?}");
        }
    }
}
