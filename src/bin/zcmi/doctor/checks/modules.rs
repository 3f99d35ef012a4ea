//! The kernel's modules between a device and its users.

use super::super::finding::Finding;
use crate::host::Host;

const CHECK: &str = "modules";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    if host.devices().is_empty() {
        return Vec::new();
    }
    // Their classes are there also where they are built in.
    let modules = [
        ("ib_uverbs", "/sys/class/infiniband_verbs", "no program can open an RDMA device"),
        ("rdma_ucm", "/sys/class/misc/rdma_cm", "rdma:// addresses cannot be connected to nor listened at"),
    ];
    let is_loaded = |name: &str, class: &str| host.exists(class) || host.exists(format!("/sys/module/{name}"));
    let missing: Vec<_> = modules
        .iter()
        .filter(|(name, class, _)| !is_loaded(name, class))
        .map(|(name, _, why)| {
            Finding::problem(CHECK, format!("module {name} is not loaded"), *why).fix(format!("modprobe {name}"))
        })
        .collect();
    if missing.is_empty() { vec![Finding::ok(CHECK, "ib_uverbs and rdma_ucm are loaded")] } else { missing }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by};
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn a_missing_module_is_named() {
        let host = Fixture::with_device();
        assert!(is_well(&check(&host)));
        host.remove("/sys/class/misc/rdma_cm");
        assert_eq!(mended_by(&check(&host)), "modprobe rdma_ucm");
        host.write("/sys/module/rdma_ucm/refcnt", "0\n");
        host.remove("/sys/class/infiniband_verbs");
        assert_eq!(mended_by(&check(&host)), "modprobe ib_uverbs");
        assert!(check(&Fixture::without_device()).is_empty());
    }
}
