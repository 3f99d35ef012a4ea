//! perftest: `ib_send_lat` and its like, over rdma_cm.

use std::path::Path;

use super::{Figure, Place, Plan, line, number};
use crate::bench::test::{Case, Measure, Test};

const NANOSECONDS: f64 = 1000.0;
/// What perftest calls MB.
const MEGABYTE: f64 = 1_048_576.0;

/// `path` is that of `ib_send_lat`; the others lie beside it.
pub(super) fn plan(path: &Path, case: &Case, place: &Place, operations: u64) -> Option<Plan> {
    if place.transport != "verbs" {
        return None;
    }
    let name = match (case.test, case.measure) {
        (Test::CompareSwap | Test::FetchAdd, Measure::Latency) => "ib_atomic_lat",
        (Test::CompareSwap | Test::FetchAdd, Measure::Rate) => "ib_atomic_bw",
        (Test::Read, Measure::Latency) => "ib_read_lat",
        (Test::Read, Measure::Rate) => "ib_read_bw",
        (Test::Send, Measure::Latency) => "ib_send_lat",
        (Test::Send, Measure::Rate) => "ib_send_bw",
        (Test::Write, Measure::Latency) => "ib_write_lat",
        (Test::Write, Measure::Rate) => "ib_write_bw",
        (Test::CacheHit | Test::HandOver | Test::Register, _) => return None,
    };
    let mut arguments = vec!["-R".to_owned(), "-F".to_owned()];
    let operations = operations.clamp(100.max(2 * case.depth as u64), 1_000_000);
    arguments.extend(["-n".to_owned(), operations.to_string()]);
    match case.test {
        Test::CompareSwap => arguments.extend(["-A", "CMP_AND_SWAP"].map(str::to_owned)),
        Test::FetchAdd => arguments.extend(["-A", "FETCH_AND_ADD"].map(str::to_owned)),
        _ => arguments.extend(["-s".to_owned(), case.size.to_string()]),
    }
    if case.measure == Measure::Rate {
        arguments.extend(["-t".to_owned(), case.depth.to_string()]);
    }
    Some(Plan {
        name,
        program: path.with_file_name(name),
        arguments,
        variables: Vec::new(),
        port: ("-p", "-p"),
        ready: Some("aiting"),
        address: place.address.clone(),
        parse,
    })
}

/// Latency: bytes, iterations, least, greatest, typical, … Bandwidth: bytes, iterations, peak, average, …
fn parse(output: &str, case: &Case) -> Result<Figure, String> {
    let size = case.size.to_string();
    let line = line(output, |line| line.split_whitespace().next() == Some(size.as_str()))?;
    Ok(match case.measure {
        Measure::Rate => Figure::BytesPerSecond(number(line, 3)? * MEGABYTE),
        // It tells half of the time there and back; a write has ended when the peer has acknowledged it.
        Measure::Latency if case.test == Test::Write => Figure::Median(number(line, 4)? * 2.0 * NANOSECONDS),
        Measure::Latency => Figure::Median(number(line, 4)? * NANOSECONDS),
    })
}
