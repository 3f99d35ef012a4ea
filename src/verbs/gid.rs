//! Global identifiers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use rdma_sys as ffi;

use super::{Context, Error, Result};

impl Context {
    /// The entry of a port's GID table at `index` (`ibv_query_gid(3)`); all zero if it is empty.
    pub fn gid(&self, port: u8, index: u32) -> Result<Gid> {
        let mut raw = ffi::ibv_gid { raw: [0; 16] };
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        // SAFETY: the context is open and `raw` is writable for the call.
        let answer = unsafe { ffi::ibv_query_gid(self.raw(), port, index, &mut raw) };
        Error::check("ibv_query_gid", answer)?;
        // SAFETY: every bit pattern is a valid array of bytes.
        Ok(Gid(unsafe { raw.raw }))
    }
}

/// A global identifier, 16 bytes in network order. On RoCE v2 it is the IP address of the netdev.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// The IP address that the GID stands for, an IPv4-mapped one as IPv4; `None` if the entry is empty.
    pub fn ip(&self) -> Option<IpAddr> {
        (!self.is_zero()).then(|| Ipv6Addr::from(self.0).to_canonical())
    }

    /// Whether it is all zero, as in an empty entry of a table.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl From<IpAddr> for Gid {
    /// The GID that stands for an address on RoCE.
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self(ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => Self(ip.octets()),
        }
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv6Addr::from(self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_gids_and_come_back() {
        for text in ["192.0.2.1", "2001:db8::1", "fe80::1"] {
            let ip: IpAddr = text.parse().expect("an address");
            assert_eq!(Gid::from(ip).ip(), Some(ip));
        }
        assert_eq!(Gid::from(IpAddr::from([192, 0, 2, 1])).to_string(), "::ffff:192.0.2.1");
        assert_eq!(Gid([0; 16]).ip(), None);
    }
}
