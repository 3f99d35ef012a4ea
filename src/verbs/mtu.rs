//! Sizes of the packets on the wire.

use std::fmt;

use rdma_sys as ffi;

/// The largest payload of a packet (`enum ibv_mtu`), as a port has it and a queue pair's path uses it. They compare by size.
/// An unknown code is a value.
///
/// ```
/// use zcmi::verbs::Mtu;
///
/// assert_eq!(Mtu::from_bytes(1024), Some(Mtu::Bytes1024));
/// assert_eq!(Mtu::Bytes4096.min(Mtu::Bytes1024).bytes(), Some(1024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mtu {
    // By size, not by name: the order is the comparison's.
    /// 256 bytes.
    Bytes256,
    /// 512 bytes.
    Bytes512,
    /// 1024 bytes.
    Bytes1024,
    /// 2048 bytes.
    Bytes2048,
    /// 4096 bytes.
    Bytes4096,
    /// A code this version does not name; more than the others.
    Other(u32),
}

impl Mtu {
    const KNOWN: [Self; 5] = [Self::Bytes256, Self::Bytes512, Self::Bytes1024, Self::Bytes2048, Self::Bytes4096];

    /// The MTU of exactly `bytes`; `None` if there is none of that size.
    pub fn from_bytes(bytes: u32) -> Option<Self> {
        Self::KNOWN.into_iter().find(|mtu| mtu.bytes() == Some(bytes))
    }

    /// Its bytes; `None` if the code is unknown.
    pub const fn bytes(self) -> Option<u32> {
        match self {
            Self::Bytes256 => Some(256),
            Self::Bytes512 => Some(512),
            Self::Bytes1024 => Some(1024),
            Self::Bytes2048 => Some(2048),
            Self::Bytes4096 => Some(4096),
            Self::Other(_) => None,
        }
    }

    pub(super) const fn from_raw(raw: ffi::ibv_mtu::Type) -> Self {
        match raw {
            ffi::ibv_mtu::IBV_MTU_256 => Self::Bytes256,
            ffi::ibv_mtu::IBV_MTU_512 => Self::Bytes512,
            ffi::ibv_mtu::IBV_MTU_1024 => Self::Bytes1024,
            ffi::ibv_mtu::IBV_MTU_2048 => Self::Bytes2048,
            ffi::ibv_mtu::IBV_MTU_4096 => Self::Bytes4096,
            other => Self::Other(other),
        }
    }

    #[allow(dead_code, reason = "a queue pair's path has it")]
    pub(super) const fn to_raw(self) -> ffi::ibv_mtu::Type {
        match self {
            Self::Bytes256 => ffi::ibv_mtu::IBV_MTU_256,
            Self::Bytes512 => ffi::ibv_mtu::IBV_MTU_512,
            Self::Bytes1024 => ffi::ibv_mtu::IBV_MTU_1024,
            Self::Bytes2048 => ffi::ibv_mtu::IBV_MTU_2048,
            Self::Bytes4096 => ffi::ibv_mtu::IBV_MTU_4096,
            Self::Other(raw) => raw,
        }
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes(), self.to_raw()) {
            (Some(bytes), _) => write!(f, "{bytes} bytes"),
            (None, raw) => write!(f, "unknown code {raw}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_value_and_comes_back() {
        for raw in (0..=10).chain([u32::MAX]) {
            assert_eq!(Mtu::from_raw(raw).to_raw(), raw);
            // Code 1 is 256 bytes, each further one twice as much.
            let bytes = (1..=5).contains(&raw).then(|| 128 << raw);
            assert_eq!(Mtu::from_raw(raw).bytes(), bytes);
            assert_eq!(bytes.and_then(Mtu::from_bytes), bytes.map(|_| Mtu::from_raw(raw)));
        }
    }

    #[test]
    fn sizes_between_the_codes_are_none() {
        assert_eq!([0, 255, 1500, 8192, u32::MAX].map(Mtu::from_bytes), [None; 5]);
    }

    #[test]
    fn they_compare_by_size() {
        assert!(Mtu::KNOWN.is_sorted());
        assert_eq!(Mtu::Other(0).min(Mtu::Bytes4096), Mtu::Bytes4096);
    }

    #[test]
    fn they_say_what_they_are() {
        assert_eq!(Mtu::Bytes1024.to_string(), "1024 bytes");
        assert_eq!(Mtu::Other(9).to_string(), "unknown code 9");
    }
}
