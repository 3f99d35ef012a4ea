//! Printing the results.

use serde::Serialize;

use crate::case::{Case, Test};
use crate::common::{Failure, Format, Result, print_line};
use crate::pace::Moved;

/// Prints a row for each case as it is done.
pub(crate) struct Report {
    format: Format,
    has_header: bool,
}

/// A row as JSON.
#[derive(Serialize)]
struct Row {
    test: Test,
    transport: &'static str,
    size: u64,
    depth: u32,
    bytes_per_second: u64,
    messages_per_second: u64,
}

impl Report {
    /// A report without rows.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, has_header: false }
    }

    /// Prints the row of a case.
    pub(crate) fn add(&mut self, case: &Case, transport: &'static str, moved: Moved) -> Result<()> {
        let rate = moved.operations as f64 / moved.time.as_secs_f64();
        let &Case { test, size, depth, .. } = case;
        match self.format {
            Format::Json => {
                let bytes_per_second = (rate * size as f64) as u64;
                let row = Row { test, transport, size, depth, bytes_per_second, messages_per_second: rate as u64 };
                let line = serde_json::to_string(&row).map_err(|error| Failure::Other(error.to_string()))?;
                print_line(&line)
            }
            Format::Table => {
                if !self.has_header {
                    self.has_header = true;
                    print_line(&align(
                        ["test", "size", "depth", "operations", "MB/s", "messages/s"].map(str::to_owned),
                    ))?;
                }
                print_line(&align([
                    format!("{test:?}").to_lowercase(),
                    size.to_string(),
                    depth.to_string(),
                    moved.operations.to_string(),
                    format!("{:.2}", rate * size as f64 / 1e6),
                    format!("{rate:.0}"),
                ]))
            }
        }
    }
}

fn align([test, size, depth, operations, megabytes, messages]: [String; 6]) -> String {
    format!("{test:<5} {size:>9} {depth:>5} {operations:>10} {megabytes:>10} {messages:>10}")
}
