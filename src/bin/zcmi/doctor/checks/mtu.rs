//! Whether packets fit: the MTU of the port and that of the interface below.

use super::super::finding::Finding;
use super::super::ports::Port;
use crate::host::Host;

const CHECK: &str = "mtu";
/// What the kernel reserves for headers when it chooses the MTU of a port (`iboe_get_mtu` in `rdma/ib_addr.h`).
const HEADERS: u64 = 40 + 8 + 12 + 4 + 28 + 4;
/// Ethernet's own allows it.
const USUAL: u32 = 1024;

pub(super) fn check(host: &Host) -> Vec<Finding> {
    Port::all(host).iter().filter(|port| port.is_roce).map(|port| look_at(host, port)).collect()
}

fn look_at(host: &Host, port: &Port) -> Finding {
    let netdev = port.netdev_or_word();
    let why = "packets that do not fit are dropped, and small ones cost time";
    let below = host.number(format!("/sys/class/net/{netdev}/mtu"));
    let active = (host.active_mtu)(&port.device, port.number);
    let Some(below) = below else {
        let what = format!("the interface of {}, {netdev}, is not in this network namespace", port.name());
        return Finding::unknown(CHECK, what, why);
    };
    let fitting = fitting(below);
    let what = |active: u32| format!("the MTU of {} is {active}, that of {netdev} {below}", port.name());
    let again = format!("ip link set dev {netdev} down && ip link set dev {netdev} up");
    match (fitting, active) {
        (None, _) => {
            let what = format!("the MTU of {netdev}, {below}, is too small for {}", port.name());
            Finding::problem(CHECK, what, why).fix(format!("ip link set dev {netdev} mtu 1500"))
        }
        (Some(fitting), Some(active)) if u64::from(active) > u64::from(fitting) => {
            Finding::problem(CHECK, what(active) + ", into which its packets do not fit", why).fix(again)
        }
        (Some(fitting), _) if fitting < USUAL => {
            let what = format!("the MTU of {netdev}, {below}, leaves {fitting} bytes for a packet of {}", port.name());
            Finding::problem(CHECK, what, why).fix(format!("ip link set dev {netdev} mtu 1500"))
        }
        (Some(_), None) => Finding::unknown(CHECK, format!("the active MTU of {} cannot be asked", port.name()), why),
        (Some(fitting), Some(active)) if active < fitting => {
            Finding::notice(CHECK, what(active) + &format!(", which would allow {fitting}"), why).fix(again)
        }
        (Some(_), Some(active)) => Finding::ok(CHECK, what(active)),
    }
}

/// The largest MTU of RoCE that fits an interface's.
fn fitting(below: u64) -> Option<u32> {
    [4096, 2048, 1024, 512, 256].into_iter().find(|&mtu| u64::from(mtu) + HEADERS <= below)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by, only};
    use super::*;
    use crate::doctor::finding::Level;
    use crate::host::fixture::Fixture;

    #[test]
    fn an_interface_with_a_small_mtu_is_a_problem() {
        let host = Fixture::with_device();
        assert!(is_well(&check(&host)));
        for (mtu, fix) in [
            ("300", "ip link set dev rnet0 mtu 1500"),
            ("700", "ip link set dev rnet0 down && ip link set dev rnet0 up"),
        ] {
            host.write("/sys/class/net/rnet0/mtu", mtu);
            assert_eq!(mended_by(&check(&host)), fix);
        }
    }

    #[test]
    fn the_two_are_compared() {
        let mut host = Fixture::with_device();
        host.active_mtu = |_, _| Some(4096);
        assert!(only(&check(&host), Level::Problem).what.contains("do not fit"));
        host.active_mtu = |_, _| Some(512);
        assert!(only(&check(&host), Level::Notice).what.contains("would allow 1024"));
        host.write("/sys/class/net/rnet0/mtu", "700");
        assert!(mended_by(&check(&host)).ends_with("mtu 1500"));
        host.write("/sys/class/net/rnet0/mtu", "1500");
        host.active_mtu = |_, _| None;
        only(&check(&host), Level::Unknown);
        host.remove("/sys/class/net/rnet0");
        assert!(only(&check(&host), Level::Unknown).what.contains("namespace"));
    }

    #[test]
    fn what_fits_is_as_the_kernel_has_it() {
        assert_eq!(
            [351, 352, 1500, 4191, 4192, 9000].map(fitting),
            [None, Some(256), Some(1024), Some(2048), Some(4096), Some(4096)]
        );
    }
}
