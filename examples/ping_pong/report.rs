//! Printing the results.

use serde::Serialize;

use crate::case::{Case, Test};
use crate::common::{Failure, Format, Result, print_line};
use crate::samples::{Distribution, Samples};

/// Prints a row for each case as it is done.
pub(crate) struct Report {
    format: Format,
    has_header: bool,
}

/// A row as JSON. The name of the times is the same for all tests; those of reads are full times.
#[derive(Serialize)]
struct Row {
    test: Test,
    transport: &'static str,
    size: u64,
    iterations: u32,
    half_round_trip_ns: Distribution,
}

impl Report {
    /// A report without rows.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, has_header: false }
    }

    /// Prints the row of a case.
    pub(crate) fn add(&mut self, case: &Case, transport: &'static str, samples: Samples) -> Result<()> {
        let nothing = || Failure::Other("nothing was measured".to_owned());
        let times = samples.distribution().ok_or_else(nothing)?;
        let &Case { test, size, iterations, .. } = case;
        match self.format {
            Format::Json => {
                let row = Row { test, transport, size, iterations, half_round_trip_ns: times };
                let line = serde_json::to_string(&row).map_err(|error| Failure::Other(error.to_string()))?;
                print_line(&line)
            }
            Format::Table => {
                if !self.has_header {
                    self.has_header = true;
                    print_line("microseconds: half a round trip (send, write), the whole operation (read)")?;
                    let columns = ["test", "size", "iterations", "min", "p50", "p99", "p99.9", "max"];
                    print_line(&align(columns.map(str::to_owned)))?;
                }
                let micro = |nanoseconds: u64| format!("{:.2}", nanoseconds as f64 / 1000.0);
                print_line(&align([
                    format!("{test:?}").to_lowercase(),
                    size.to_string(),
                    iterations.to_string(),
                    micro(times.min),
                    micro(times.p50),
                    micro(times.p99),
                    micro(times.p999),
                    micro(times.max),
                ]))
            }
        }
    }
}

fn align([test, size, iterations, times @ ..]: [String; 8]) -> String {
    let times: String = times.iter().map(|time| format!(" {time:>11}")).collect();
    format!("{test:<5} {size:>9} {iterations:>10}{times}")
}
