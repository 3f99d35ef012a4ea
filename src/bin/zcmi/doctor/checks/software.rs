//! What the transports without a device need.

use super::super::finding::Finding;
use crate::host::Host;

const SHARED_MEMORY: &str = "shm";
const TCP: &str = "tcp";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub(super) fn shared_memory(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    if host.read(BOOT_ID).is_none_or(|id| id.is_empty()) {
        let what = format!("{BOOT_ID} cannot be read");
        let why = "auto:// cannot tell that a peer is on this host, and takes no shared memory";
        findings.push(Finding::problem(SHARED_MEMORY, what, why).fix("mount -t proc proc /proc"));
    }
    let why = "shm:// does not work, and auto:// takes TCP on this host";
    if let Err(error) = (host.sealed_memory)() {
        let what = format!("memory with seals cannot be made (memfd_create): {error}");
        findings.push(Finding::problem(SHARED_MEMORY, what, why).fix("sysctl -w vm.memfd_noexec=0"));
    }
    if let Err(error) = (host.unix_socket)() {
        let what = format!("unix sockets do not work: {error}");
        findings.push(Finding::problem(SHARED_MEMORY, what, why).fix("modprobe unix"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(SHARED_MEMORY, "boot id, sealed memory and unix sockets work"));
    }
    findings
}

pub(super) fn tcp(host: &Host) -> Vec<Finding> {
    vec![match (host.loopback)() {
        Ok(()) => Finding::ok(TCP, "a connection to this host works"),
        Err(error) => {
            let what = format!("a connection to 127.0.0.1 does not work: {error}");
            let why = "auto:// and tcp:// do not work between processes of this host";
            Finding::problem(TCP, what, why).fix("ip link set dev lo up")
        }
    }]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by};
    use super::*;
    use crate::host::fixture::Fixture;
    use std::io;

    #[test]
    fn what_shared_memory_lacks_is_told() {
        let mut host = Fixture::without_device();
        assert!(is_well(&shared_memory(&host)));
        host.remove(BOOT_ID);
        assert_eq!(mended_by(&shared_memory(&host)), "mount -t proc proc /proc");
        host.write(BOOT_ID, "1");
        host.sealed_memory = || Err(io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(mended_by(&shared_memory(&host)), "sysctl -w vm.memfd_noexec=0");
        host.sealed_memory = || Ok(());
        host.unix_socket = || Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        assert_eq!(mended_by(&shared_memory(&host)), "modprobe unix");
    }

    #[test]
    fn a_loopback_that_is_down_is_told() {
        let mut host = Fixture::without_device();
        assert!(is_well(&tcp(&host)));
        host.loopback = || Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
        assert_eq!(mended_by(&tcp(&host)), "ip link set dev lo up");
    }
}
