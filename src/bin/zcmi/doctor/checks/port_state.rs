//! Whether the ports are up.

use super::super::finding::Finding;
use super::super::ports::Port;
use crate::host::Host;

const CHECK: &str = "ports";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    Port::all(host).iter().map(|port| look_at(host, port)).collect()
}

fn look_at(host: &Host, port: &Port) -> Finding {
    if port.state == "ACTIVE" {
        return Finding::ok(CHECK, format!("{} is active", port.name()));
    }
    if port.state.is_empty() {
        let what = format!("the state of {} cannot be read", port.name());
        return Finding::unknown(CHECK, what, "nothing goes through a port that is down");
    }
    let what = format!("{} is {}", port.name(), port.state);
    let problem = Finding::problem(CHECK, what, "nothing goes through a port that is not active");
    let netdev = port.netdev_or_word();
    let is_up = || host.read(format!("/sys/class/net/{netdev}/operstate")).is_some_and(|state| state == "up");
    match port.is_ethernet {
        // There, a subnet manager makes it active.
        false if port.state == "INIT" || port.state == "ARMED" => problem.fix("systemctl start opensm"),
        false => problem.fix("ibportstate -D 0 1 enable"),
        true if is_up() => {
            problem.fix(format!("ethtool {netdev} && ip link set dev {netdev} down && ip link set dev {netdev} up"))
        }
        true => problem.fix(format!("ip link set dev {netdev} up")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by, only};
    use super::*;
    use crate::doctor::finding::Level;
    use crate::host::fixture::Fixture;

    #[test]
    fn a_port_that_is_down_is_told_with_its_interface() {
        let host = Fixture::with_device();
        assert!(is_well(&check(&host)));
        let port = "/sys/class/infiniband/rxe0/ports/1";
        host.write(&format!("{port}/state"), "1: DOWN\n");
        assert!(mended_by(&check(&host)).starts_with("ethtool rnet0"));
        host.write("/sys/class/net/rnet0/operstate", "down\n");
        assert_eq!(mended_by(&check(&host)), "ip link set dev rnet0 up");
        host.write(&format!("{port}/link_layer"), "InfiniBand\n");
        host.write(&format!("{port}/state"), "2: INIT\n");
        assert_eq!(mended_by(&check(&host)), "systemctl start opensm");
        host.remove(&format!("{port}/state"));
        only(&check(&host), Level::Unknown);
    }
}
