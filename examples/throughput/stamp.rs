//! The operation's number in the first bytes of what it moves.

use crate::case::Case;
use crate::common::compare;

/// Bytes of a stamp; less where the size is less.
const LENGTH: usize = 8;

/// Writes the stamp of operation `number`.
pub(crate) fn stamp(bytes: &mut [u8], number: u64) {
    let length = bytes.len().min(LENGTH);
    bytes[..length].copy_from_slice(&number.to_le_bytes()[..length]);
}

/// What operation `number` moves, of which all but the stamp is the pattern of `slot`.
pub(crate) fn fill(case: &Case, slot: usize, number: u64, bytes: &mut [u8]) {
    case.pattern(slot).fill(bytes);
    stamp(bytes, number);
}

/// The opposite of what `fill` makes.
pub(crate) fn poison(case: &Case, slot: usize, number: u64, bytes: &mut [u8]) {
    case.pattern(slot).poison(bytes);
    stamp(bytes, !number);
}

/// Compares every byte; an error names the first that is wrong.
pub(crate) fn check(case: &Case, number: u64, found: &[u8], expected: &[u8]) -> Result<(), String> {
    compare(found, expected).map_err(|wrong| case.complain(number, wrong))
}
