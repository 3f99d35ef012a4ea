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
    let mut output = stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Other(format!("standard output: {error}")),
    })
}
