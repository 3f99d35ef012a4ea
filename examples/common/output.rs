//! Standard output has the data, standard error all the rest.

use std::fmt;
use std::io::{ErrorKind, Write, stderr, stdout};

use super::{Failure, Result};

/// Says something on standard error; if that is closed, nobody wants to know.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(stderr().lock(), "{line}");
}

/// Prints a line on standard output at once.
pub(crate) fn print_line(line: &str) -> Result<()> {
    print_bytes(line.as_bytes())
}

/// Prints bytes as they are, and the end of a line.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut output = stdout().lock();
    let printed = output.write_all(bytes).and_then(|()| output.write_all(b"\n")).and_then(|()| output.flush());
    printed.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Other(format!("standard output: {error}")),
    })
}
