//! Bytes that are told apart wherever they are found.

/// The byte at `offset` of what `stream` says the `number`th time.
pub(crate) fn byte(stream: u64, number: u64, offset: usize) -> u8 {
    let mixed = (stream ^ number.rotate_left(20) ^ (offset as u64 / 8).rotate_left(40))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> (8 * (offset % 8))) as u8
}

/// Fills `bytes`, which begin at `offset`.
pub(crate) fn fill(stream: u64, number: u64, offset: usize, bytes: &mut [u8]) {
    for (at, place) in bytes.iter_mut().enumerate() {
        *place = byte(stream, number, offset + at);
    }
}

/// Where `bytes`, which begin at `offset`, are not what they should be.
pub(crate) fn difference(stream: u64, number: u64, offset: usize, bytes: &[u8]) -> Option<usize> {
    bytes.iter().enumerate().position(|(at, &found)| found != byte(stream, number, offset + at))
}
