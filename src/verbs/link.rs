//! The link below a port.

/// Physical state of a port (IBTA 1.4, 14.2.5.6). An unknown state is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PhysicalState {
    /// Recovering from errors.
    ErrorRecovery,
    /// Switched off.
    Disabled,
    /// The link is up.
    LinkUp,
    /// Testing.
    PhyTest,
    /// Looking for the other end.
    Polling,
    /// Not looking for the other end.
    Sleep,
    /// Configuring itself with the other end.
    Training,
    /// A value this version does not name.
    Other(u8),
}

impl PhysicalState {
    pub(super) fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Sleep,
            2 => Self::Polling,
            3 => Self::Disabled,
            4 => Self::Training,
            5 => Self::LinkUp,
            6 => Self::ErrorRecovery,
            7 => Self::PhyTest,
            other => Self::Other(other),
        }
    }
}

/// What a port's link is. An unknown one is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkLayer {
    /// Ethernet: RoCE or iWARP.
    Ethernet,
    /// InfiniBand.
    InfiniBand,
    /// The driver does not say; libibverbs takes it for InfiniBand.
    Unspecified,
    /// A value this version does not name.
    Other(u8),
}

impl LinkLayer {
    pub(super) fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::Unspecified,
            1 => Self::InfiniBand,
            2 => Self::Ethernet,
            other => Self::Other(other),
        }
    }
}

/// Lanes of a link (IBTA 1.4, 14.2.5.6). An unknown width is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkWidth {
    // By number of lanes.
    /// One lane.
    X1,
    /// Two lanes.
    X2,
    /// Four lanes.
    X4,
    /// Eight lanes.
    X8,
    /// Twelve lanes.
    X12,
    /// A code this version does not name.
    Other(u8),
}

impl LinkWidth {
    /// The number of lanes; `None` if the code is unknown.
    pub fn lanes(self) -> Option<u8> {
        match self {
            Self::X1 => Some(1),
            Self::X2 => Some(2),
            Self::X4 => Some(4),
            Self::X8 => Some(8),
            Self::X12 => Some(12),
            Self::Other(_) => None,
        }
    }

    pub(super) fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::X1,
            2 => Self::X4,
            4 => Self::X8,
            8 => Self::X12,
            16 => Self::X2,
            other => Self::Other(other),
        }
    }
}

/// Speed of one lane (IBTA 1.4, 14.2.5.6, and later). An unknown speed is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkSpeed {
    // By speed.
    /// Single data rate: 2.5 Gb/s.
    Sdr,
    /// Double data rate: 5 Gb/s.
    Ddr,
    /// Quadruple data rate: 10 Gb/s.
    Qdr,
    /// FDR-10: 10 Gb/s in a tighter code.
    Fdr10,
    /// Fourteen data rate: 14 Gb/s.
    Fdr,
    /// Enhanced data rate: 25 Gb/s.
    Edr,
    /// High data rate: 50 Gb/s.
    Hdr,
    /// Next data rate: 100 Gb/s.
    Ndr,
    /// Extreme data rate: 200 Gb/s.
    Xdr,
    /// A code this version does not name.
    Other(u32),
}

impl LinkSpeed {
    /// Nominal Mb/s of one lane, as sysfs and `ibv_devinfo(1)` name it; `None` if the code is unknown.
    pub fn lane_megabits(self) -> Option<u32> {
        match self {
            Self::Sdr => Some(2_500),
            Self::Ddr => Some(5_000),
            Self::Qdr | Self::Fdr10 => Some(10_000),
            Self::Fdr => Some(14_000),
            Self::Edr => Some(25_000),
            Self::Hdr => Some(50_000),
            Self::Ndr => Some(100_000),
            Self::Xdr => Some(200_000),
            Self::Other(_) => None,
        }
    }

    pub(super) fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Sdr,
            2 => Self::Ddr,
            4 => Self::Qdr,
            8 => Self::Fdr10,
            16 => Self::Fdr,
            32 => Self::Edr,
            64 => Self::Hdr,
            128 => Self::Ndr,
            256 => Self::Xdr,
            other => Self::Other(other),
        }
    }
}
