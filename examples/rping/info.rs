//! The one message of the protocol.

use zcmi::verbs::{ExposedRegion, Remote};

/// Where a buffer is; the server's messages carry one that says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// First byte and remote key.
    pub(crate) place: Remote,
    /// Bytes.
    pub(crate) size: u32,
}

impl Info {
    /// Bytes on the wire: address (8), key (4) and size (4), in network order.
    pub(crate) const LENGTH: usize = 16;

    pub(crate) fn of(region: &ExposedRegion) -> Self {
        Self { place: region.remote(), size: region.length() as u32 }
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::LENGTH] {
        let number = u128::from(self.place.address) << 64 | u128::from(self.place.key) << 32 | u128::from(self.size);
        number.to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        let number = u128::from_be_bytes(bytes);
        let place = Remote { address: (number >> 64) as u64, key: (number >> 32) as u32 };
        Self { place, size: number as u32 }
    }
}
