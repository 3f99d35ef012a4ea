//! How many bytes operations are about.

use crate::world::random;

/// Of so many pairs of seeds one has sizes up to the longest: what such a world copies takes as long as nine others.
const PAIRS: u64 = 20;
const MIB: usize = 1 << 20;
/// Of one operation.
pub(crate) const LONGEST: usize = 64 * MIB;

/// The sizes in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// Log-uniform up to 1 MiB, and above that in one case of a hundred.
    All,
    /// Messages log-uniform up to 64 KiB, memory up to 2 KiB.
    Moderate,
}

impl Sizes {
    /// Of pairs, so that half of them are without faults.
    pub(crate) fn of_seed(seed: u64) -> Self {
        if seed / 2 % PAIRS == 7 { Self::All } else { Self::Moderate }
    }

    /// Bytes of a message, possibly none.
    pub(crate) fn message(self) -> usize {
        match self {
            Self::All => up_to_the_longest(),
            Self::Moderate => in_octave(random(17)) - 1,
        }
    }

    /// Bytes of memory to be granted, whole words.
    pub(crate) fn memory(self) -> usize {
        let length = match self {
            Self::All => up_to_the_longest().max(64),
            Self::Moderate => 64 + random(2_000) as usize,
        };
        length.next_multiple_of(8)
    }
}

fn up_to_the_longest() -> usize {
    if random(100) == 0 { in_octave(20 + random(6)) + 1 } else { in_octave(random(20)) - 1 }
}

fn in_octave(bits: u64) -> usize {
    (1 << bits) + random(1 << bits) as usize
}
