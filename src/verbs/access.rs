//! What registered memory may be used for.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use rdma_sys as ffi;

/// What a region or a window may be used for (`ibv_reg_mr(3)`, `ibv_bind_mw(3)`). Local reading is always allowed.
///
/// ```
/// use zcmi::verbs::Access;
/// let access = Access::REMOTE_READ | Access::REMOTE_WRITE;
/// assert!(access.contains(Access::LOCAL_WRITE), "what a peer may write, the device must be able to");
/// assert_eq!(access.to_string(), "LOCAL_WRITE | REMOTE_READ | REMOTE_WRITE");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access(u32);

impl Access {
    /// Huge pages lie behind the memory; speeds up registering on demand where the driver uses it.
    pub const HUGETLB: Self = Self(ffi::ibv_access_flags::IBV_ACCESS_HUGETLB.0);
    /// Reading by this process' own queue pairs only.
    pub const LOCAL_READ: Self = Self(0);
    /// Writing by this process' own queue pairs: receives, and destinations of reads.
    pub const LOCAL_WRITE: Self = Self(ffi::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0);
    /// Windows may be bound to the region.
    pub const MW_BIND: Self = Self(ffi::ibv_access_flags::IBV_ACCESS_MW_BIND.0);
    /// Pages are not pinned but faulted in when the device touches them. Only where the device can
    /// ([`MemoryRegion::supports_on_demand`](super::MemoryRegion::supports_on_demand)).
    ///
    /// Soft-RoCE (Linux 7.3) ignores where in its page an access to such memory begins: only what begins at a page, in packets
    /// of whole pages, is right there.
    pub const ON_DEMAND: Self = Self(ffi::ibv_access_flags::IBV_ACCESS_ON_DEMAND.0);
    /// The device may let accesses pass each other, which some hosts serve faster. A hint: where kernel or
    /// device do not know it, it is left out.
    pub const RELAXED_ORDERING: Self = Self(ffi::ibv_access_flags::IBV_ACCESS_RELAXED_ORDERING.0);
    /// Atomic operations by peers that have the key. Implies local writing (IBTA 1.4, 10.6.3.1).
    pub const REMOTE_ATOMIC: Self =
        Self(ffi::ibv_access_flags::IBV_ACCESS_REMOTE_ATOMIC.0 | ffi::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0);
    /// Reading by peers that have the key.
    pub const REMOTE_READ: Self = Self(ffi::ibv_access_flags::IBV_ACCESS_REMOTE_READ.0);
    /// Writing by peers that have the key. Implies local writing (IBTA 1.4, 10.6.3.1).
    pub const REMOTE_WRITE: Self =
        Self(ffi::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0 | ffi::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0);
    /// Addresses are counted from 0, the first byte of the region or window. A region's first byte must
    /// then begin a page.
    pub const ZERO_BASED: Self = Self(ffi::ibv_access_flags::IBV_ACCESS_ZERO_BASED.0);

    /// Whether all of `other` is allowed.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the device may write, for us or for a peer.
    pub const fn is_writing(self) -> bool {
        self.contains(Self::LOCAL_WRITE)
    }

    /// What is left when the flags of `other` are taken away.
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> u32 {
        self.0
    }
}

impl BitOr for Access {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Access {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ffi::ibv_access_flags as flags;
        const NAMES: [(u32, &str); 9] = [
            (flags::IBV_ACCESS_HUGETLB.0, "HUGETLB"),
            (flags::IBV_ACCESS_LOCAL_WRITE.0, "LOCAL_WRITE"),
            (flags::IBV_ACCESS_MW_BIND.0, "MW_BIND"),
            (flags::IBV_ACCESS_ON_DEMAND.0, "ON_DEMAND"),
            (flags::IBV_ACCESS_RELAXED_ORDERING.0, "RELAXED_ORDERING"),
            (flags::IBV_ACCESS_REMOTE_ATOMIC.0, "REMOTE_ATOMIC"),
            (flags::IBV_ACCESS_REMOTE_READ.0, "REMOTE_READ"),
            (flags::IBV_ACCESS_REMOTE_WRITE.0, "REMOTE_WRITE"),
            (flags::IBV_ACCESS_ZERO_BASED.0, "ZERO_BASED"),
        ];
        if *self == Self::LOCAL_READ {
            return f.write_str("LOCAL_READ");
        }
        let mut separator = "";
        for (flag, name) in NAMES {
            if self.0 & flag != 0 {
                write!(f, "{separator}{name}")?;
                separator = " | ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_its_name() {
        assert_eq!(Access::LOCAL_READ.to_string(), "LOCAL_READ");
        assert_eq!(format!("{:?}", Access::REMOTE_ATOMIC), "Access(LOCAL_WRITE | REMOTE_ATOMIC)");
        let mut all = Access::HUGETLB | Access::MW_BIND | Access::ON_DEMAND | Access::RELAXED_ORDERING;
        all |= Access::REMOTE_ATOMIC | Access::REMOTE_READ | Access::REMOTE_WRITE | Access::ZERO_BASED;
        assert_eq!(
            all.to_string(),
            "HUGETLB | LOCAL_WRITE | MW_BIND | ON_DEMAND | RELAXED_ORDERING | REMOTE_ATOMIC | REMOTE_READ | \
             REMOTE_WRITE | ZERO_BASED"
        );
    }

    #[test]
    fn remote_writing_and_atomics_imply_local_writing() {
        for access in [Access::REMOTE_WRITE, Access::REMOTE_ATOMIC] {
            assert!(access.is_writing());
        }
        for access in [Access::LOCAL_READ, Access::REMOTE_READ, Access::MW_BIND, Access::ON_DEMAND] {
            assert!(!access.is_writing());
        }
        let window = Access::REMOTE_WRITE.without(Access::LOCAL_WRITE);
        assert!(!window.is_writing() && !window.contains(Access::REMOTE_WRITE));
    }
}
