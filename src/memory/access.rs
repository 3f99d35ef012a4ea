//! What a peer may do with memory.

use std::fmt;
use std::ops::BitOr;

/// What a grant allows.
///
/// ```
/// use zcmi::Access;
/// let access = Access::READ | Access::ATOMIC;
/// assert!(access.contains(Access::READ) && !access.contains(Access::WRITE));
/// assert_eq!(access.to_string(), "read-atomic");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access(u8);

impl Access {
    /// Reading.
    pub const READ: Self = Self(1);
    /// Writing.
    pub const WRITE: Self = Self(2);
    /// Reading and writing.
    pub const READ_WRITE: Self = Self(3);
    /// Atomic operations on aligned `u64`, which read and write.
    pub const ATOMIC: Self = Self(4);
    /// Everything.
    pub const ALL: Self = Self(7);

    /// Whether all of `other` is allowed.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the memory can change.
    pub(crate) const fn is_writing(self) -> bool {
        self.0 & (Self::WRITE.0 | Self::ATOMIC.0) != 0
    }

    pub(crate) const fn to_byte(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        if byte <= Self::ALL.0 { Some(Self(byte)) } else { None }
    }
}

impl BitOr for Access {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (right, name) in [(Self::READ, "read"), (Self::WRITE, "write"), (Self::ATOMIC, "atomic")] {
            if self.contains(right) {
                write!(f, "{separator}{name}")?;
                separator = "-";
            }
        }
        if separator.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}
