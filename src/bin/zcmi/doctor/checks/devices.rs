//! Whether there is a device.

use super::super::finding::{Finding, Level};
use crate::host::Host;

const CHECK: &str = "devices";

/// `is_wanted`: that there is none is a problem.
pub(in crate::doctor) fn check(host: &Host, is_wanted: bool) -> Vec<Finding> {
    let devices = host.devices();
    if !devices.is_empty() {
        return vec![Finding::ok(CHECK, format!("RDMA devices: {}", devices.join(", ")))];
    }
    let level = if is_wanted { Level::Problem } else { Level::Notice };
    let why = "shm:// and tcp:// work without one; rdma:// needs one";
    let finding = Finding { level, ..Finding::notice(CHECK, "there is no RDMA device", why) };
    if host.container().is_some() {
        let command = "docker run --network=host --device=/dev/infiniband --ulimit memlock=-1 …";
        return vec![finding.fix(command)];
    }
    vec![match has_soft_roce(host) {
        Some(false) => finding.fix("soft-roce-setup/run -- COMMAND"),
        _ => finding.fix(format!("modprobe rdma_rxe && rdma link add rxe0 type rxe netdev {}", netdev(host))),
    }]
}

/// Whether the kernel has the module of Soft-RoCE, if that can be told.
fn has_soft_roce(host: &Host) -> Option<bool> {
    let folder = format!("/lib/modules/{}", host.kernel()?);
    let modules = host.read(format!("{folder}/modules.dep"));
    let built_in = host.read(format!("{folder}/modules.builtin"));
    if modules.is_none() && built_in.is_none() {
        return None;
    }
    Some([modules, built_in].iter().flatten().any(|list| list.contains("/rdma_rxe.ko")))
}

/// A network interface that a device could be made on.
fn netdev(host: &Host) -> String {
    let is_up =
        |name: &String| host.read(format!("/sys/class/net/{name}/operstate")).is_some_and(|state| state == "up");
    host.list("/sys/class/net").into_iter().find(|name| name != "lo" && is_up(name)).unwrap_or("NETDEV".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by};
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn without_a_device_it_is_told_how_to_get_one() {
        let host = Fixture::without_device();
        assert_eq!(mended_by(&check(&host, true)), "modprobe rdma_rxe && rdma link add rxe0 type rxe netdev rnet0");
        assert_eq!(check(&host, false)[0].level, Level::Notice);
        host.write("/lib/modules/6.12.1/modules.dep", "kernel/net/ipv4/ipip.ko:\n");
        assert_eq!(mended_by(&check(&host, true)), "soft-roce-setup/run -- COMMAND");
        host.write("/.dockerenv", "");
        assert!(mended_by(&check(&host, true)).contains("--device=/dev/infiniband"));
        assert!(is_well(&check(&Fixture::with_device(), true)));
    }
}
