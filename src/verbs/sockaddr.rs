//! Socket addresses in the C layout and back.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A C socket address of either family.
#[repr(C)]
pub(super) union RawAddress {
    any: libc::sockaddr,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    pub(super) fn new(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(v6) => Self {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as u16,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                },
            },
        }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut *self).cast()
    }
}

/// Reads an address; `None` if it is of neither IP family.
///
/// # Safety
/// `raw` points to storage that is large enough for the family it names, for the duration of the call.
pub(super) unsafe fn parse(raw: *const libc::sockaddr) -> Option<SocketAddr> {
    // SAFETY: the caller promises at least the family.
    let family = unsafe { (*raw).sa_family };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is its layout.
            let v4 = unsafe { raw.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is its layout.
            let v6 = unsafe { raw.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["192.0.2.1:7471", "[2001:db8::1%7]:65535", "[::]:0", "0.0.0.0:1"] {
            let address: SocketAddr = text.parse().expect("a literal address");
            let mut raw = RawAddress::new(address);
            // SAFETY: the union is as large as the family it was made for.
            assert_eq!(unsafe { parse(raw.as_mut_ptr()) }, Some(address));
        }
    }

    #[test]
    fn another_family_is_no_address() {
        let mut raw = RawAddress::new("0.0.0.0:0".parse().expect("a literal address"));
        // SAFETY: the pointer is of our own union.
        unsafe { (*raw.as_mut_ptr()).sa_family = libc::AF_UNIX as u16 };
        // SAFETY: as above.
        assert_eq!(unsafe { parse(raw.as_mut_ptr()) }, None);
    }
}
