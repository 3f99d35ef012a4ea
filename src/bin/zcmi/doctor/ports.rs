//! Ports of RDMA devices as sysfs tells them, which needs neither libraries nor permissions.

use std::net::{IpAddr, Ipv6Addr};

use crate::host::Host;

/// A port.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) device: String,
    pub(super) number: u8,
    /// `ACTIVE`, `DOWN`, `INIT` and the like; empty if it is not told.
    pub(super) state: String,
    pub(super) is_ethernet: bool,
    /// Over Ethernet, and not iWARP, whose GIDs are no addresses.
    pub(super) is_roce: bool,
    /// The network interface that its packets go through.
    pub(super) netdev: Option<String>,
    pub(super) gids: Vec<Gid>,
}

/// An entry of a port's table.
#[derive(Clone, Debug)]
pub(super) struct Gid {
    pub(super) index: u32,
    pub(super) address: Ipv6Addr,
    /// As sysfs writes it: `RoCE v2`, `IB/RoCE v1`.
    pub(super) kind: String,
    pub(super) netdev: Option<String>,
}

impl Port {
    /// All ports of all devices.
    pub(super) fn all(host: &Host) -> Vec<Self> {
        let ports = |device: String| {
            let numbers = host.list(format!("/sys/class/infiniband/{device}/ports"));
            numbers.into_iter().filter_map(move |number| Some(Self::read(host, &device, number.parse().ok()?)))
        };
        host.devices().into_iter().flat_map(ports).collect()
    }

    /// `rxe0 port 1`.
    pub(super) fn name(&self) -> String {
        format!("{} port {}", self.device, self.number)
    }

    /// The network interface, or a word for it in a command.
    pub(super) fn netdev_or_word(&self) -> &str {
        self.netdev.as_deref().unwrap_or("NETDEV")
    }

    fn read(host: &Host, device: &str, number: u8) -> Self {
        let folder = format!("/sys/class/infiniband/{device}/ports/{number}");
        let read = |file: &str| host.read(format!("{folder}/{file}"));
        let gids: Vec<_> = host
            .list(format!("{folder}/gids"))
            .iter()
            .filter_map(|index| Gid::read(host, &folder, index.parse().ok()?))
            .collect();
        // Devices in software name their interface; others have it below their PCI device.
        let parent = host.read(format!("/sys/class/infiniband/{device}/parent")).filter(|name| !name.is_empty());
        let netdev = parent
            .or_else(|| gids.iter().find_map(|gid| gid.netdev.clone()))
            .or_else(|| host.list(format!("/sys/class/infiniband/{device}/device/net")).into_iter().next());
        let state = read("state").unwrap_or_default();
        let is_ethernet = read("link_layer").is_some_and(|layer| layer == "Ethernet");
        // "4: RNIC".
        let node_type = host.read(format!("/sys/class/infiniband/{device}/node_type")).unwrap_or_default();
        Self {
            device: device.to_owned(),
            number,
            state: state.split(": ").last().unwrap_or_default().to_owned(),
            is_ethernet,
            is_roce: is_ethernet && !node_type.starts_with("4:"),
            netdev,
            gids,
        }
    }
}

impl Gid {
    fn read(host: &Host, folder: &str, index: u32) -> Option<Self> {
        let read = |file: &str| host.read(format!("{folder}/{file}/{index}"));
        // Empty entries cannot be read, or are all zero.
        let address: Ipv6Addr = read("gids")?.parse().ok().filter(|address: &Ipv6Addr| !address.is_unspecified())?;
        let kind = read("gid_attrs/types").unwrap_or_default();
        Some(Self { index, address, kind, netdev: read("gid_attrs/ndevs").filter(|name| !name.is_empty()) })
    }

    /// The address that it stands for.
    pub(super) fn ip(&self) -> IpAddr {
        IpAddr::V6(self.address).to_canonical()
    }

    pub(super) fn is_link_local(&self) -> bool {
        self.address.is_unicast_link_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn ports_are_read_from_sysfs() {
        let host = Fixture::with_device();
        let ports = Port::all(&host);
        assert_eq!(ports.len(), 1);
        let port = &ports[0];
        assert_eq!(
            (port.name().as_str(), port.state.as_str(), port.netdev_or_word()),
            ("rxe0 port 1", "ACTIVE", "rnet0")
        );
        assert!(port.is_ethernet && port.is_roce);
        let ips: Vec<_> = port.gids.iter().map(|gid| gid.ip().to_string()).collect();
        assert_eq!(ips, ["fe80::202:304:506:708", "192.0.2.1"]);
        assert!(port.gids[0].is_link_local() && !port.gids[1].is_link_local());
        host.write("/sys/class/infiniband/rxe0/node_type", "4: RNIC\n");
        assert!(Port::all(&host)[0].is_ethernet && !Port::all(&host)[0].is_roce);
        assert!(Port::all(&Fixture::empty()).is_empty());
    }
}
