//! Whether the GIDs of a port are addresses that peers can reach it by.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::finding::Finding;
use super::super::ports::{Gid, Port};
use crate::host::Host;

const CHECK: &str = "addresses";
const IPV6: &str = "ipv6";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let ports: Vec<_> = Port::all(host).into_iter().filter(|port| port.is_roce).collect();
    if ports.is_empty() {
        return Vec::new();
    }
    let Some(own) = own_addresses(host) else {
        let why = "a GID that is no address of this host cannot be reached by rdma://";
        return vec![Finding::unknown(CHECK, "the addresses of this host cannot be read", why)];
    };
    ports.iter().flat_map(|port| look_at(host, port, &own)).collect()
}

fn look_at(host: &Host, port: &Port, own: &HashSet<IpAddr>) -> Vec<Finding> {
    let netdev = port.netdev_or_word();
    if port.gids.is_empty() {
        let what = format!("{} has no GID", port.name());
        let why = "RoCE addresses its packets by GIDs, which come from the addresses of the interface";
        return vec![Finding::problem(CHECK, what, why).fix(format!("ip link set dev {netdev} up"))];
    }
    let mut findings: Vec<_> = without_ipv6(host, port).into_iter().collect();
    // Those of another network namespace cannot be judged from here. RoCE v1 and v2 have an entry each.
    let is_here = |gid: &&Gid| gid.netdev.as_ref().is_none_or(|name| host.exists(format!("/sys/class/net/{name}")));
    let mut seen = HashSet::new();
    let gids: Vec<_> = port.gids.iter().filter(is_here).filter(|gid| seen.insert(gid.address)).collect();
    if gids.is_empty() {
        let what = format!("the GIDs of {} are of another network namespace", port.name());
        return vec![Finding::unknown(CHECK, what, "rdma:// reaches the device from there only")];
    }
    for gid in gids.iter().filter(|gid| !gid.is_link_local() && !own.contains(&gid.ip())) {
        let below = gid.netdev.as_deref().unwrap_or(netdev);
        let what = format!("GID {} of {}, {}, is no address of {below}", gid.index, port.name(), gid.ip());
        let why = "packets to it do not come here, and those from it have no way back";
        let length = if gid.ip().is_ipv4() { 24 } else { 64 };
        let fix = format!("ip address add {}/{length} dev {below}", gid.ip());
        findings.push(Finding::problem(CHECK, what, why).fix(fix));
    }
    let good: Vec<_> = gids.iter().map(|gid| gid.ip()).filter(|ip| own.contains(ip)).collect();
    let is_local = |ip: &&IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if findings.is_empty() && good.iter().all(|ip| is_local(&ip)) {
        let what = format!("{netdev}, the interface of {}, has no address but link-local ones", port.name());
        let why = "rdma://HOST:PORT has no HOST then that leads to this device";
        findings.push(Finding::problem(CHECK, what, why).fix(format!("ip address add ADDRESS/24 dev {netdev}")));
    }
    if findings.is_empty() {
        let listed: Vec<_> = good.iter().map(ToString::to_string).collect();
        findings.push(Finding::ok(CHECK, format!("{} is reached by {}", port.name(), listed.join(", "))));
    }
    findings
}

/// IPv6 is off, and there are no other GIDs.
fn without_ipv6(host: &Host, port: &Port) -> Option<Finding> {
    let netdev = port.netdev_or_word();
    let off = |which: &&str| host.number(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6")) == Some(1);
    let which = ["all", netdev].into_iter().find(off)?;
    if port.gids.iter().any(|gid| gid.ip().is_ipv4()) {
        return None;
    }
    let what = format!("IPv6 is off (net.ipv6.conf.{which}.disable_ipv6), and {} has IPv6 GIDs only", port.name());
    let why = "no address leads to the device";
    let fix = format!("sysctl -w net.ipv6.conf.{which}.disable_ipv6=0");
    Some(Finding::problem(IPV6, what, why).fix(fix))
}

/// All addresses of this host, in this network namespace.
fn own_addresses(host: &Host) -> Option<HashSet<IpAddr>> {
    let v4 = host.read("/proc/net/fib_trie")?;
    // Without IPv6 there is no such file.
    let v6 = host.read("/proc/net/if_inet6").unwrap_or_default();
    Some(local_v4(&v4).map(IpAddr::V4).chain(v6.lines().filter_map(parse_v6).map(IpAddr::V6)).collect())
}

/// Local addresses in the text of `/proc/net/fib_trie`: each leaf is followed by what it is.
fn local_v4(text: &str) -> impl Iterator<Item = Ipv4Addr> + '_ {
    let mut leaf = None;
    text.lines().filter_map(move |line| {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            leaf = address.trim().parse().ok();
        }
        line.contains("/32 host LOCAL").then_some(leaf)?
    })
}

/// The address in a line of `/proc/net/if_inet6`.
fn parse_v6(line: &str) -> Option<Ipv6Addr> {
    let digits = line.split_whitespace().next().filter(|digits| digits.len() == 32)?;
    u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by, only};
    use super::*;
    use crate::doctor::finding::Level;
    use crate::host::fixture::Fixture;

    #[test]
    fn a_gid_that_is_no_address_is_told() {
        let host = Fixture::with_device();
        assert!(is_well(&check(&host)));
        assert!(check(&host)[0].what.contains("192.0.2.1"));
        host.gid(2, "0000:0000:0000:0000:0000:ffff:c000:0209");
        assert_eq!(mended_by(&check(&host)), "ip address add 192.0.2.9/24 dev rnet0");
        host.gid(2, "2001:0db8:0000:0000:0000:0000:0000:0001");
        assert_eq!(mended_by(&check(&host)), "ip address add 2001:db8::1/64 dev rnet0");
        let port = "/sys/class/infiniband/rxe0/ports/1";
        host.write(&format!("{port}/gid_attrs/ndevs/2"), "elsewhere0\n");
        assert!(is_well(&check(&host)), "of another namespace");
        host.remove("/sys/class/net/rnet0");
        host.write(&format!("{port}/gid_attrs/ndevs/2"), "rnet0\n");
        assert!(only(&check(&host), Level::Unknown).what.contains("another network namespace"));
        host.write("/sys/class/net/rnet0/mtu", "1500");
        host.gid(2, "0000:0000:0000:0000:0000:ffff:c000:0201");
        assert!(check(&host)[0].what.ends_with("fe80::202:304:506:708, 192.0.2.1"), "twice: {:?}", check(&host));
        host.gid(2, "0000:0000:0000:0000:0000:ffff:c000:0209");
        host.write("/sys/class/infiniband/rxe0/node_type", "4: RNIC\n");
        assert!(check(&host).is_empty(), "iWARP");
    }

    #[test]
    fn without_an_address_there_is_no_way_to_the_device() {
        let host = Fixture::with_device();
        host.remove("/sys/class/infiniband/rxe0/ports/1/gids/1");
        assert_eq!(mended_by(&check(&host)), "ip address add ADDRESS/24 dev rnet0");
        host.remove("/sys/class/infiniband/rxe0/ports/1/gids/0");
        assert_eq!(mended_by(&check(&host)), "ip link set dev rnet0 up");
        host.remove("/proc/net/fib_trie");
        only(&check(&host), Level::Unknown);
        assert!(check(&Fixture::without_device()).is_empty());
    }

    #[test]
    fn ipv6_that_is_off_matters_where_there_are_no_other_gids() {
        let host = Fixture::with_device();
        host.write("/proc/sys/net/ipv6/conf/rnet0/disable_ipv6", "1\n");
        assert!(is_well(&check(&host)), "there is IPv4");
        host.remove("/sys/class/infiniband/rxe0/ports/1/gids/1");
        let findings = check(&host);
        assert_eq!(mended_by(&findings), "sysctl -w net.ipv6.conf.rnet0.disable_ipv6=0");
        assert_eq!(only(&findings, Level::Problem).check, IPV6);
    }

    #[test]
    fn addresses_are_read_as_proc_writes_them() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 192.0.2.1\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(local_v4(trie).collect::<Vec<_>>(), [Ipv4Addr::new(192, 0, 2, 1)]);
        let line = "00000000000000000000000000000001 01 80 10 80       lo";
        assert_eq!(parse_v6(line), Some(Ipv6Addr::LOCALHOST));
        assert_eq!(parse_v6("zz 01"), None);
    }
}
