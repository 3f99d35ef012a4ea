//! The IP addresses of the host's netdevs, and where the kernel would send from.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ptr::NonNull;

use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::gid_table::ScopedIp;
use super::{Error, Result, sockaddr};

/// UDP port of RoCE v2: routes may depend on it.
const ROCE_V2_PORT: u16 = 4791;

/// An address of a netdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterfaceAddress {
    /// The netdev's index.
    pub(super) netdev: u32,
    pub(super) ip: IpAddr,
    /// Bits of the subnet.
    pub(super) prefix: u8,
}

impl InterfaceAddress {
    /// All addresses of this host (`getifaddrs(3)`).
    pub(super) fn all() -> Result<Vec<Self>> {
        let list = InterfaceList::read()?;
        let names = Names::open()?;
        Ok(list
            .addresses()
            .filter_map(|(name, ip, mask)| {
                Some(Self { netdev: names.index_of(&name)?, ip, prefix: prefix_length(mask) })
            })
            .collect())
    }

    /// Whether `ip` is in the subnet of this address.
    pub(super) fn reaches(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

/// The address that the kernel sends from to reach `peer`. Nothing is sent.
pub(super) fn route_to(peer: ScopedIp) -> std::io::Result<ScopedIp> {
    let (any, peer): (SocketAddr, SocketAddr) = match peer.ip() {
        IpAddr::V4(ip) => ((Ipv4Addr::UNSPECIFIED, 0).into(), (ip, ROCE_V2_PORT).into()),
        IpAddr::V6(ip) => (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            SocketAddrV6::new(ip, ROCE_V2_PORT, 0, peer.scope().unwrap_or(0)).into(),
        ),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    socket.local_addr().map(ScopedIp::from)
}

/// Names and indexes of netdevs.
pub(super) struct Names(std::os::fd::OwnedFd);

impl Names {
    pub(super) fn open() -> Result<Self> {
        socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map(Self)
            .map_err(|errno| Error::returned("socket", errno.raw_os_error()))
    }

    pub(super) fn name_of(&self, index: u32) -> Option<String> {
        index_to_name(&self.0, index).ok()
    }

    pub(super) fn index_of(&self, name: &str) -> Option<u32> {
        name_to_index(&self.0, name).ok()
    }
}

fn prefix_length(mask: IpAddr) -> u8 {
    // A mask with holes, which no kernel makes, is cut at the first.
    match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones() as u8,
        IpAddr::V6(mask) => mask.to_bits().leading_ones() as u8,
    }
}

/// The list of `getifaddrs(3)`, freed on drop.
struct InterfaceList(Option<NonNull<libc::ifaddrs>>);

impl InterfaceList {
    fn read() -> Result<Self> {
        let mut first = std::ptr::null_mut();
        // SAFETY: the pointer is writable for the call.
        if unsafe { libc::getifaddrs(&mut first) } != 0 {
            return Err(Error::last("getifaddrs"));
        }
        Ok(Self(NonNull::new(first)))
    }

    /// Name of the netdev, address and mask of each entry that has them.
    fn addresses(&self) -> impl Iterator<Item = (String, IpAddr, IpAddr)> + '_ {
        let mut next = self.0;
        std::iter::from_fn(move || {
            let entry = next?;
            // SAFETY: the entry is of our list, which is not yet freed.
            let entry = unsafe { entry.as_ref() };
            next = NonNull::new(entry.ifa_next);
            Some(entry)
        })
        .filter_map(|entry| {
            // SAFETY: the C library makes every name end in zero.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_str().ok()?;
            Some((name.to_owned(), ip_of(entry.ifa_addr)?, ip_of(entry.ifa_netmask)?))
        })
    }
}

impl Drop for InterfaceList {
    fn drop(&mut self) {
        if let Some(first) = self.0 {
            // SAFETY: the list came from getifaddrs and is freed once.
            unsafe { libc::freeifaddrs(first.as_ptr()) };
        }
    }
}

/// The IP address of an entry of the list.
fn ip_of(raw: *mut libc::sockaddr) -> Option<IpAddr> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: the C library gives each address the room of its family; the list lives during the call.
    unsafe { sockaddr::parse(raw) }.map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, prefix: u8) -> InterfaceAddress {
        InterfaceAddress { netdev: 1, ip: ip.parse().expect("an address"), prefix }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn subnets_end_where_the_prefix_says() {
        assert!(address("192.0.2.1", 24).reaches(ip("192.0.2.254")));
        assert!(!address("192.0.2.1", 24).reaches(ip("192.0.3.1")));
        assert!(address("192.0.2.1", 23).reaches(ip("192.0.3.1")));
        assert!(address("192.0.2.1", 0).reaches(ip("203.0.113.1")));
        assert!(address("192.0.2.1", 32).reaches(ip("192.0.2.1")));
        assert!(!address("192.0.2.1", 32).reaches(ip("192.0.2.0")));
        assert!(address("2001:db8::1", 64).reaches(ip("2001:db8::ffff:1")));
        assert!(!address("2001:db8::1", 64).reaches(ip("2001:db8:0:1::1")));
        assert!(!address("::", 0).reaches(ip("192.0.2.1")));
    }

    #[test]
    fn masks_become_prefixes() {
        assert_eq!(prefix_length(ip("255.255.254.0")), 23);
        assert_eq!(prefix_length(ip("0.0.0.0")), 0);
        assert_eq!(prefix_length(ip("255.0.255.0")), 8);
        assert_eq!(prefix_length(ip("ffff:ffff:ffff:ffff::")), 64);
        assert_eq!(prefix_length(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")), 128);
    }

    #[test]
    fn this_host_has_its_loopback_address() {
        let all = InterfaceAddress::all().expect("addresses");
        let loopback = all.iter().find(|address| address.ip == ip("127.0.0.1")).expect("lo is up");
        assert_eq!(loopback.prefix, 8);
        let names = Names::open().expect("a socket");
        assert_eq!(names.name_of(loopback.netdev).as_deref(), Some("lo"));
        assert_eq!(names.name_of(0), None);
        assert_eq!(names.index_of("no_such_netdev"), None);
    }

    #[test]
    fn the_route_to_ourselves_is_from_ourselves() {
        let peer = ScopedIp::from(ip("127.0.0.1"));
        assert_eq!(route_to(peer).expect("lo is up").ip(), ip("127.0.0.1"));
    }
}
