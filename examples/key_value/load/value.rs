//! Values that say what they are: any byte that is of another key, another PUT or another run is noticed.

/// Bytes of the shortest value.
pub(crate) const SHORTEST: usize = 24;

/// What a value says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The run of the load generator.
    pub(crate) run: u64,
    /// The key.
    pub(crate) key: u64,
    /// Counts the PUTs of that key, from 1 on.
    pub(crate) sequence: u64,
}

impl Label {
    /// A value of `length` bytes, every one of which depends on the label.
    pub(crate) fn value(self, length: usize) -> Vec<u8> {
        let mut value: Vec<u8> =
            [self.run, self.key, self.sequence].into_iter().flat_map(u64::to_le_bytes).take(length).collect();
        let mut state = self.run ^ self.key.rotate_left(24) ^ self.sequence.rotate_left(48);
        while value.len() < length {
            state = mix(state);
            let word = state.to_le_bytes();
            let more = (length - value.len()).min(word.len());
            value.extend_from_slice(&word[..more]);
        }
        value
    }

    /// The label of a value; an error if it is not what that label makes.
    pub(crate) fn of(value: &[u8]) -> Result<Self, String> {
        let word = |at: usize| value.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let (Some(run), Some(key), Some(sequence)) = (word(0), word(8), word(16)) else {
            return Err(format!("a value of {} bytes, which nobody has put", value.len()));
        };
        let label = Self { run, key, sequence };
        let expected = label.value(value.len());
        match value.iter().zip(&expected).position(|(found, expected)| found != expected) {
            None => Ok(label),
            Some(at) => Err(format!("byte {at} of {} is not of PUT {sequence} of key {key}", value.len())),
        }
    }
}

/// The output function of splitmix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
