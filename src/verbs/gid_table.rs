//! The table of a device's global identifiers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rdma_sys as ffi;

use super::interface_address::{InterfaceAddress, Names, route_to};
use super::{Context, Error, Gid, LinkLayer, Result};

/// Entries that a port's table can have (IBTA 1.4, 14.2.5.6: 16 bits).
const MOST_ENTRIES: u32 = 1 << 16;

impl Context {
    /// All entries of all ports' GID tables that are not empty (`ibv_query_gid_table(3)`, or sysfs where libibverbs is
    /// older than that).
    pub fn gid_table(&self) -> Result<GidTable> {
        let entries = match self.queried_entries() {
            Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => self.sysfs_entries(),
            entries => entries,
        }?;
        Ok(GidTable::new(self.name(), entries))
    }

    /// The GID that stands for `local`, an address of this host. RoCE v2 goes before v1. A link-local address comes with
    /// its scope, or is on one netdev only.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if no entry of the table is it, with what the table has.
    pub fn gid_for(&self, local: impl Into<ScopedIp>) -> Result<GidEntry> {
        self.gid_table()?.gid_for(local)
    }

    /// The GID to reach `peer` from: that of the address which the kernel's route to it would be used with, or else one of
    /// the peer's subnet. RoCE v2 goes before v1. Of a socket address the port does not matter. Nothing is sent.
    ///
    /// ```
    /// use zcmi::verbs::Device;
    ///
    /// # fn main() -> zcmi::verbs::Result<()> {
    /// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
    /// let peer: std::net::IpAddr = [192, 0, 2, 2].into();
    /// match device.open()?.gid_toward(peer) {
    ///     Ok(entry) => println!("source GID {} at index {} of port {}", entry.gid, entry.index, entry.port),
    ///     Err(error) => println!("{error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if there is none, with the route and what the table has.
    pub fn gid_toward(&self, peer: impl Into<ScopedIp>) -> Result<GidEntry> {
        let peer = peer.into();
        let table = self.gid_table()?;
        table.toward(peer, route_to(peer), &InterfaceAddress::all()?)
    }

    fn ports(&self) -> Result<Vec<(u8, u32, LinkLayer)>> {
        (1..=self.attributes()?.ports)
            .map(|port| {
                let attributes = self.port(port)?;
                Ok((port, attributes.gid_table_length.min(MOST_ENTRIES), attributes.link_layer))
            })
            .collect()
    }

    fn queried_entries(&self) -> Result<Vec<GidEntry>> {
        let room: usize = self.ports()?.iter().map(|&(_, length, _)| length as usize).sum();
        if room == 0 {
            return Ok(Vec::new());
        }
        let empty = ffi::ibv_gid_entry {
            gid: ffi::ibv_gid { raw: [0; 16] },
            gid_index: 0,
            port_num: 0,
            gid_type: 0,
            ndev_ifindex: 0,
        };
        let mut raw = vec![empty; room];
        // SAFETY: the context is open and the vector has room for as many entries as it says.
        let answer = unsafe { ffi::ibv_query_gid_table(self.raw(), raw.as_mut_ptr(), room, 0) };
        let Ok(filled) = usize::try_from(answer) else {
            return Err(Error::returned("ibv_query_gid_table", i32::try_from(answer).unwrap_or(-libc::EIO)));
        };
        let names = Names::open()?;
        Ok(raw.iter().take(filled).filter_map(|raw| GidEntry::from_raw(raw, &names)).collect())
    }

    pub(super) fn sysfs_entries(&self) -> Result<Vec<GidEntry>> {
        let names = Names::open()?;
        let ports = self.ports()?;
        let read = |&(port, length, layer)| sysfs_port(self.device().sysfs_path(), port, length, layer, &names);
        Ok(ports.iter().flat_map(read).collect())
    }
}

/// The global identifiers of a device, those of all ports, without empty entries.
#[derive(Clone, Debug)]
pub struct GidTable {
    pub(super) device: String,
    entries: Vec<GidEntry>,
}

impl GidTable {
    pub(super) fn new(device: &str, mut entries: Vec<GidEntry>) -> Self {
        entries.retain(|entry| !entry.gid.is_zero());
        Self { device: device.to_owned(), entries }
    }

    /// The entries, by port and index.
    pub fn entries(&self) -> &[GidEntry] {
        &self.entries
    }
}

/// An entry of a [`GidTable`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GidEntry {
    /// The port, counted from 1.
    pub port: u8,
    /// The place in the port's table, counted from 0. Address vectors of libibverbs hold no index above 255.
    pub index: u32,
    /// The identifier.
    pub gid: Gid,
    /// The protocol that it is for.
    pub kind: GidKind,
    /// Index of the netdev whose address it is; `None` on InfiniBand.
    pub netdev: Option<u32>,
    /// Name of that netdev; `None` too if it is in another network namespace.
    pub netdev_name: Option<String>,
}

impl GidEntry {
    fn from_raw(raw: &ffi::ibv_gid_entry, names: &Names) -> Option<Self> {
        let netdev = (raw.ndev_ifindex != 0).then_some(raw.ndev_ifindex);
        Some(Self {
            port: u8::try_from(raw.port_num).ok()?,
            index: raw.gid_index,
            // SAFETY: every bit pattern is a valid array of bytes.
            gid: Gid(unsafe { raw.gid.raw }),
            kind: GidKind::from_raw(raw.gid_type),
            netdev,
            netdev_name: netdev.and_then(|netdev| names.name_of(netdev)),
        })
    }
}

impl fmt::Display for GidEntry {
    /// `RoCE v2 2001:db8::1 on rnet0 (port 1, index 3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.gid)?;
        match (&self.netdev_name, self.netdev) {
            (Some(name), _) => write!(f, " on {name}")?,
            (None, Some(netdev)) => write!(f, " on netdev {netdev}")?,
            (None, None) => {}
        }
        write!(f, " (port {}, index {})", self.port, self.index)
    }
}

/// The protocol that a GID is for (`enum ibv_gid_type`). An unknown kind is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GidKind {
    /// InfiniBand.
    InfiniBand,
    /// RoCE v1: Ethernet frames, which no router passes on.
    RoceV1,
    /// RoCE v2: UDP over IP.
    RoceV2,
    /// A value this version does not name.
    Other(u32),
}

impl GidKind {
    fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::InfiniBand,
            1 => Self::RoceV1,
            2 => Self::RoceV2,
            other => Self::Other(other),
        }
    }

    /// The kind that sysfs calls `text`, for a port with this link layer.
    fn from_sysfs(text: &str, layer: LinkLayer) -> Self {
        match (text, layer) {
            ("RoCE v2", _) => Self::RoceV2,
            ("IB/RoCE v1", LinkLayer::Ethernet) => Self::RoceV1,
            ("IB/RoCE v1", _) => Self::InfiniBand,
            _ => Self::Other(u32::MAX),
        }
    }
}

impl fmt::Display for GidKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InfiniBand => f.write_str("InfiniBand"),
            Self::RoceV1 => f.write_str("RoCE v1"),
            Self::RoceV2 => f.write_str("RoCE v2"),
            Self::Other(raw) => write!(f, "unknown kind {raw}"),
        }
    }
}

/// An IP address and, for a link-local one, the netdev that it is on. An IPv4-mapped IPv6 address is an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopedIp {
    ip: IpAddr,
    scope: Option<u32>,
}

impl ScopedIp {
    /// The address.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// Index of the netdev, for a link-local address that came with one.
    pub fn scope(self) -> Option<u32> {
        self.scope
    }

    pub(super) fn is_link_local(self) -> bool {
        matches!(self.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
    }
}

impl From<IpAddr> for ScopedIp {
    fn from(ip: IpAddr) -> Self {
        Self { ip: ip.to_canonical(), scope: None }
    }
}

impl From<Ipv4Addr> for ScopedIp {
    fn from(ip: Ipv4Addr) -> Self {
        IpAddr::from(ip).into()
    }
}

impl From<Ipv6Addr> for ScopedIp {
    fn from(ip: Ipv6Addr) -> Self {
        IpAddr::from(ip).into()
    }
}

impl From<SocketAddr> for ScopedIp {
    fn from(address: SocketAddr) -> Self {
        let mut scoped = Self::from(address.ip());
        if let SocketAddr::V6(address) = address {
            // Elsewhere a scope says nothing (RFC 4007).
            scoped.scope = Some(address.scope_id()).filter(|&scope| scope != 0 && scoped.is_link_local());
        }
        scoped
    }
}

impl fmt::Display for ScopedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ip)?;
        self.scope.map_or(Ok(()), |scope| write!(f, "%{scope}"))
    }
}

/// The entries of a port by the files below the device's folder `device` of sysfs.
fn sysfs_port(device: &Path, port: u8, length: u32, layer: LinkLayer, names: &Names) -> Vec<GidEntry> {
    let port_folder = device.join("ports").join(port.to_string());
    let read = |file: &str, index: u32| {
        let text = std::fs::read_to_string(port_folder.join(file).join(index.to_string())).ok()?;
        Some(text.trim().to_owned())
    };
    let entry = |index| {
        // Empty entries have files that cannot be read, or are all zero.
        let gid = Gid(read("gids", index)?.parse::<Ipv6Addr>().ok()?.octets());
        let kind =
            read("gid_attrs/types", index).map_or(GidKind::Other(u32::MAX), |kind| GidKind::from_sysfs(&kind, layer));
        let netdev_name = read("gid_attrs/ndevs", index).filter(|name| !name.is_empty());
        let netdev = netdev_name.as_deref().and_then(|name| names.index_of(name));
        Some(GidEntry { port, index, gid, kind, netdev, netdev_name })
    };
    (0..length).filter_map(entry).filter(|entry| !entry.gid.is_zero()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysfs_is_read_entry_by_entry() {
        let root = std::env::temp_dir().join(format!("zcmi-gids-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = root.join("ports/1").join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("gids/0", "fe80:0000:0000:0000:0202:03ff:fe04:0506\n");
        write("gid_attrs/types/0", "IB/RoCE v1\n");
        write("gid_attrs/ndevs/0", "lo\n");
        write("gids/1", "0000:0000:0000:0000:0000:0000:0000:0000\n");
        write("gids/2", "nonsense\n");
        write("gids/250", "0000:0000:0000:0000:0000:ffff:c000:0201\n");
        write("gid_attrs/types/250", "RoCE v2\n");
        write("gids/251", "2001:0db8:0000:0000:0000:0000:0000:0001\n");
        write("gid_attrs/types/251", "something new\n");
        let names = Names::open().expect("a socket");
        let of = |layer| sysfs_port(&root, 1, 256, layer, &names);
        let (ethernet, infiniband) = (of(LinkLayer::Ethernet), of(LinkLayer::InfiniBand));
        let beyond = sysfs_port(&root, 1, 250, LinkLayer::Ethernet, &names).len();
        std::fs::remove_dir_all(&root).expect("removed");
        assert_eq!(ethernet.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0, 250, 251]);
        assert_eq!(ethernet[0].netdev_name.as_deref(), Some("lo"));
        assert_eq!(ethernet[0].netdev, names.index_of("lo"));
        assert_eq!(ethernet[1].netdev, None);
        assert_eq!(ethernet[1].gid.ip(), Some([192, 0, 2, 1].into()));
        let kinds: Vec<_> = ethernet.iter().chain(&infiniband).map(|entry| entry.kind).collect();
        let unknown = GidKind::Other(u32::MAX);
        assert_eq!(kinds, [GidKind::RoceV1, GidKind::RoceV2, unknown, GidKind::InfiniBand, GidKind::RoceV2, unknown]);
        assert_eq!(beyond, 1);
    }

    #[test]
    fn raw_entries_are_read_as_they_are() {
        let names = Names::open().expect("a socket");
        let raw = ffi::ibv_gid_entry {
            gid: ffi::ibv_gid { raw: [7; 16] },
            gid_index: 300,
            port_num: 2,
            gid_type: 9,
            ndev_ifindex: u32::MAX,
        };
        let entry = GidEntry::from_raw(&raw, &names).expect("a port that there can be");
        assert_eq!((entry.port, entry.index, entry.gid), (2, 300, Gid([7; 16])));
        assert_eq!((entry.kind, entry.netdev, entry.netdev_name), (GidKind::Other(9), Some(u32::MAX), None));
        assert_eq!(GidEntry::from_raw(&ffi::ibv_gid_entry { port_num: 256, ..raw }, &names), None);
    }

    #[test]
    fn scopes_are_kept_for_link_local_addresses_only() {
        let scoped = |text: &str| ScopedIp::from(text.parse::<SocketAddr>().expect("an address"));
        assert_eq!(scoped("[fe80::1%7]:1").to_string(), "fe80::1%7");
        assert_eq!(scoped("[fe80::1]:1").scope(), None);
        assert_eq!(scoped("[2001:db8::1%7]:1").scope(), None);
        assert_eq!(scoped("[::ffff:192.0.2.1]:1").ip(), IpAddr::from([192, 0, 2, 1]));
    }
}
