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

    /// Checks every byte. An error names the first that is wrong.
    pub(crate) fn check(self, bytes: &[u8]) -> Result<(), String> {
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let expected = self.word(index);
            if *chunk != expected[..chunk.len()] {
                return Err(self.difference(bytes, index * 8));
            }
        }
        Ok(())
    }

    /// The byte at `offset`.
    pub(crate) fn byte(self, offset: usize) -> u8 {
        self.word(offset / 8)[offset % 8]
    }

    fn word(self, index: usize) -> [u8; 8] {
        mix(self.key.wrapping_add(index as u64)).to_le_bytes()
    }

    fn difference(self, bytes: &[u8], from: usize) -> String {
        let wrong = (from..bytes.len()).find(|&offset| bytes[offset] != self.byte(offset)).unwrap_or(from);
        let (found, expected) = (bytes[wrong], self.byte(wrong));
        let note = if found == !expected { ", which is the poison: it was never written" } else { "" };
        format!("byte {wrong} of {} is {found:#04x}, not {expected:#04x}{note}", bytes.len())
    }
}

/// The output function of splitmix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
