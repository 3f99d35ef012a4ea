//! Standard output: data and nothing else.

use std::io::{ErrorKind, Write, stdout};

use super::{Failure, Result};

/// Prints a line at once.
pub(crate) fn print_line(line: &str) -> Result<()> {
    let mut output = stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Other(format!("standard output: {error}")),
    })
}
