//! Whether a container was given what RDMA needs.

use super::super::finding::Finding;
use super::super::ports::Port;
use crate::host::Host;

const CHECK: &str = "container";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let Some(kind) = host.container() else { return vec![Finding::ok(CHECK, "not in a container")] };
    if host.devices().is_empty() {
        return vec![Finding::ok(CHECK, format!("in a container ({kind}) that sees no RDMA device"))];
    }
    let mut findings = Vec::new();
    if host.list("/dev/infiniband").is_empty() {
        let what = format!("this container ({kind}) has no /dev/infiniband, though it sees RDMA devices");
        let why = "the devices cannot be opened";
        findings
            .push(Finding::problem(CHECK, what, why).fix("docker run --device=/dev/infiniband --ulimit memlock=-1 …"));
    }
    let elsewhere =
        |port: &Port| port.netdev.as_ref().is_some_and(|name| !host.exists(format!("/sys/class/net/{name}")));
    if let Some(port) = Port::all(host).into_iter().find(|port| port.is_roce && elsewhere(port)) {
        let what = format!("{}, the interface of {}, is outside of this container", port.netdev_or_word(), port.name());
        let why = "RoCE uses the addresses of its interface, which this container does not have";
        findings.push(Finding::problem(CHECK, what, why).fix("docker run --network=host --device=/dev/infiniband …"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("in a container ({kind}) that has the devices and their interfaces")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by};
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn what_a_container_was_not_given_is_told() {
        let host = Fixture::with_device();
        assert!(is_well(&check(&host)));
        host.write("/proc/1/cgroup", "0::/kubepods/pod1\n");
        assert!(is_well(&check(&host)) && check(&host)[0].what.contains("kubepods"));
        host.remove("/sys/class/net/rnet0");
        assert!(mended_by(&check(&host)).contains("--network=host"));
        host.write("/sys/class/net/rnet0/mtu", "1500");
        host.remove("/dev/infiniband");
        assert!(mended_by(&check(&host)).contains("--device=/dev/infiniband"));
        let host = Fixture::without_device();
        host.write("/.dockerenv", "");
        assert!(is_well(&check(&host)));
    }
}
