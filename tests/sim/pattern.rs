//! Bytes that are told apart wherever they are found.

/// The bytes of the word at `place` of what `stream` says the `number`th time.
fn word(stream: u64, number: u64, place: usize) -> [u8; 8] {
    (stream ^ number.rotate_left(20) ^ (place as u64).rotate_left(40))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
        .to_le_bytes()
}

pub(crate) fn fill(stream: u64, number: u64, bytes: &mut [u8]) {
    for (place, bytes) in bytes.chunks_mut(8).enumerate() {
        bytes.copy_from_slice(&word(stream, number, place)[..bytes.len()]);
    }
}

/// Where `bytes` are not what they should be.
pub(crate) fn difference(stream: u64, number: u64, bytes: &[u8]) -> Option<usize> {
    let mut words = bytes.chunks(8).enumerate();
    let (place, found) = words.find(|(place, found)| word(stream, number, *place)[..found.len()] != **found)?;
    let expected = word(stream, number, place);
    Some(place * 8 + found.iter().zip(expected).take_while(|(found, expected)| **found == *expected).count())
}
