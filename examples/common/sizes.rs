//! Sizes on the command line.

/// Longest size that is accepted; what the device can carry at once may be less.
const LONGEST: usize = 1 << 30;

/// Checks a size that a client asks for.
pub(crate) fn check_size(size: u64) -> Result<(), String> {
    match usize::try_from(size) {
        Ok(1..=LONGEST) => Ok(()),
        _ => Err(format!("{size} bytes: a size is 1 byte to 1 GiB")),
    }
}

/// Reads a number of bytes, 1 to 1 GiB: `64`, `4K` (4096), `8M`.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.trim_end_matches(['i', 'B', 'b']).to_ascii_uppercase() {
        text if text.ends_with('K') => (text, 1 << 10),
        text if text.ends_with('M') => (text, 1 << 20),
        text if text.ends_with('G') => (text, 1 << 30),
        text => (text, 1usize),
    };
    let number: usize = digits
        .trim_end_matches(['K', 'M', 'G'])
        .parse()
        .map_err(|_| "a size is a number of bytes such as 64, 4K or 1M".to_owned())?;
    match number.checked_mul(unit) {
        Some(size @ 1..=LONGEST) => Ok(size),
        _ => Err("a size is 1 byte to 1 GiB".to_owned()),
    }
}
