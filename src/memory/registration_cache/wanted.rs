//! What a lookup asks for.

use crate::memory::RegionAccess;

/// A range and what it is to be registered for, in one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) base: usize,
    /// Exclusive; beyond `base`.
    pub(super) end: usize,
    /// The cache's number and the access.
    pub(super) owner: u64,
}

const ACCESS_BITS: u32 = 5;

impl Wanted {
    #[inline]
    pub(super) fn new(base: usize, length: usize, cache: u64, access: RegionAccess) -> Self {
        Self { base, end: base + length, owner: cache << ACCESS_BITS | code(access) }
    }

    #[inline]
    pub(super) fn access(&self) -> u64 {
        self.owner & ((1 << ACCESS_BITS) - 1)
    }

    /// Whether a registration of this serves `other`.
    #[inline]
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.owner == other.owner && self.base <= other.base && other.end <= self.end
    }

    /// The bytes that registering it pins: whole pages.
    pub(super) fn pinned(&self) -> usize {
        let page = rustix::param::page_size();
        // Nothing is mapped in the last page of the address space.
        self.end.next_multiple_of(page) - self.base / page * page
    }
}

#[inline]
fn code(access: RegionAccess) -> u64 {
    let bit = |set: bool, bit: u32| u64::from(set) << bit;
    match access {
        RegionAccess::Local => 0,
        RegionAccess::LocalRead => 1,
        RegionAccess::Windows { write } => 2 | bit(write, 0),
        RegionAccess::LocalOnDemand => 4,
        RegionAccess::Remote { access, on_demand } => 8 | bit(on_demand, 4) | u64::from(access.to_byte()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_access_is_another_key() {
        let flags = [false, true];
        let remote = flags.iter().flat_map(|&on_demand| {
            let access = (0..8).filter_map(crate::Access::from_byte);
            access.map(move |access| RegionAccess::Remote { access, on_demand })
        });
        let windows = flags.iter().map(|&write| RegionAccess::Windows { write });
        let all: Vec<u64> = [RegionAccess::Local, RegionAccess::LocalOnDemand, RegionAccess::LocalRead]
            .into_iter()
            .chain(remote)
            .chain(windows)
            .map(code)
            .collect();
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((distinct.len(), all.len()), (21, 21));
        assert!(all.iter().all(|&code| code < 1 << ACCESS_BITS));
    }

    #[test]
    fn pages_are_pinned_whole() {
        let page = rustix::param::page_size();
        let pinned = |base, length| Wanted::new(base, length, 1, RegionAccess::LocalRead).pinned();
        assert_eq!(pinned(page, page), page);
        assert_eq!(pinned(page - 1, 2), 2 * page);
        assert_eq!(pinned(5, 1), page);
    }
}
