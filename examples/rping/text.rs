//! The text of a ping.

use std::io::Write;

use crate::failure::{Failure, Result};

/// What rping sends as ping `number`: a title, then characters 65 to 122 over and over, from a later one each time; the last
/// byte is zero.
pub(crate) fn of_ping(number: u32, size: usize) -> Vec<u8> {
    let mut text = format!("rdma-ping-{}: ", number as i32).into_bytes();
    let first = number % 58;
    text.extend((0..size as u32).map(|index| 65 + ((first + index) % 58) as u8));
    text.truncate(size - 1);
    text.push(0);
    text
}

/// Whether `found` is `expected`, and if not, from where on.
pub(crate) fn compare(number: u32, expected: &[u8], found: &[u8]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let at = expected.iter().zip(found).take_while(|(expected, found)| expected == found).count();
    Err(Failure(format!("ping {number}: the data differ from byte {at} on, of {} and {}", expected.len(), found.len())))
}

/// Prints the text before the first zero.
pub(crate) fn print(title: &str, text: &[u8]) -> Result<()> {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut output = std::io::stdout().lock();
    writeln!(output, "{title}: {}", String::from_utf8_lossy(text))?;
    Ok(output.flush()?)
}
