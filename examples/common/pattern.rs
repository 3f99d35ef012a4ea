//! The bytes that travel: any byte that is missing, misplaced or of another iteration is noticed.

/// A sequence of bytes that depends on a seed, on who sends it, on the iteration and on each byte's offset.
#[derive(Clone, Copy)]
pub(crate) struct Pattern {
    key: u64,
}

impl Pattern {
    /// The pattern of `iteration` in `stream`, a number for each direction or purpose.
    pub(crate) fn new(seed: u64, stream: u64, iteration: u64) -> Self {
        Self { key: mix(mix(mix(seed) ^ stream) ^ iteration) }
    }

    /// Fills `bytes` with the pattern.
    pub(crate) fn fill(self, bytes: &mut [u8]) {
        for (index, chunk) in bytes.chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&self.word(index)[..chunk.len()]);
        }
    }

    /// Fills `bytes` so that each of them differs from the pattern: one that is not overwritten is noticed.
    pub(crate) fn poison(self, bytes: &mut [u8]) {
        self.fill(bytes);
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }

    fn word(self, index: usize) -> [u8; 8] {
        mix(self.key.wrapping_add(index as u64)).to_le_bytes()
    }
}

/// Compares every byte; an error names the first that is wrong.
pub(crate) fn compare(found: &[u8], expected: &[u8]) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let length = expected.len();
    let Some(at) = found.iter().zip(expected).position(|(found, expected)| found != expected) else {
        return Err(format!("{} bytes came, not {length}", found.len()));
    };
    let (found, expected) = (found[at], expected[at]);
    let note = if found == !expected { ", which is the poison: it was never written" } else { "" };
    Err(format!("byte {at} of {length} is {found:#04x}, not {expected:#04x}{note}"))
}

/// The output function of splitmix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
