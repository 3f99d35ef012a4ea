//! The results for people.

use super::{Entry, Report};
use crate::output::{Colour, Output, table};
use crate::plot::Unit;

pub(crate) fn render(report: &Report, output: Output) -> String {
    let mut text = format!("{}\n{}\n", output.colour(Colour::Bold, &report.way()), report.place());
    text += &format!("waiting: {} here, {} at the peer\n", report.polling.here, report.polling.peer);
    let latencies: Vec<_> = report.results.iter().filter(|entry| entry.latency_ns.is_some()).collect();
    if !latencies.is_empty() {
        text += &format!("\n{}\n", output.colour(Colour::Bold, "latency"));
        let mut rows = vec![cells(&["test", "size", "min", "p50", "p90", "p99", "p99.9", "max", "", ""])];
        rows.extend(latencies.iter().map(|entry| latency(entry)));
        text += &table(2, &rows);
    }
    let rates: Vec<_> = report.results.iter().filter(|entry| entry.operations_per_second.is_some()).collect();
    if !rates.is_empty() {
        text += &format!("\n{}\n", output.colour(Colour::Bold, "rate"));
        let mut rows = vec![cells(&["test", "size", "in flight", "operations", "bandwidth", ""])];
        rows.extend(rates.iter().map(|entry| rate(entry)));
        text += &table(2, &rows);
    }
    for left_out in &report.left_out {
        text += &format!("\n{} {}: {}\n", output.colour(Colour::Yellow, "without"), left_out.name, left_out.why);
    }
    text
}

/// What a ratio says, in words.
pub(super) fn beside(entry: &Entry) -> String {
    let parts = entry.yardsticks.iter().map(|yardstick| match (yardstick.ratio, &yardstick.error) {
        (Some(ratio), _) => format!("{ratio:.2} × {}", yardstick.name),
        (None, Some(error)) => format!("{}: {error}", yardstick.name),
        (None, None) => yardstick.name.clone(),
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn latency(entry: &Entry) -> Vec<String> {
    let mut row = vec![entry.test.name().to_owned(), Unit::Bytes.text(entry.size as f64)];
    if let Some(times) = &entry.latency_ns {
        let times = [times.min, times.p50, times.p90, times.p99, times.p999, times.max];
        row.extend(times.map(|time| Unit::Nanoseconds.text(time)));
    }
    row.push(if entry.is_half_round_trip { "half round trip".to_owned() } else { String::new() });
    row.push(beside(entry));
    row
}

fn rate(entry: &Entry) -> Vec<String> {
    let text = |unit: Unit, value: Option<f64>| value.map_or_else(String::new, |value| unit.text(value));
    vec![
        entry.test.name().to_owned(),
        Unit::Bytes.text(entry.size as f64),
        entry.depth.to_string(),
        text(Unit::PerSecond, entry.operations_per_second),
        text(Unit::BytesPerSecond, entry.bytes_per_second),
        beside(entry),
    ]
}

fn cells(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}
