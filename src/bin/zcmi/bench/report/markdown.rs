//! The results as tables of Markdown.

use super::{Entry, Report, text};
use crate::plot::Unit;

pub(crate) fn render(report: &Report) -> String {
    let mut text = format!("# zcmi bench: {}\n\n{}.\n", escape(&report.way()), escape(&report.place()));
    text += &format!(
        "Waiting: {} here, {} at the peer. Medians over {} rounds; `min` and `max` are of all.\n",
        report.polling.here,
        escape(&report.polling.peer),
        report.options.rounds
    );
    let latencies: Vec<_> = report.results.iter().filter(|entry| entry.latency_ns.is_some()).collect();
    if !latencies.is_empty() {
        text += "\n## Latency\n\nOf `send` and `hand_over` half of the round trip.\n\n";
        text += "| test | size | min | p50 | p90 | p99 | p99.9 | max | zcmi / yardstick |\n|---|--:|--:|--:|--:|--:|--:|--:|---|\n";
        text.extend(latencies.iter().map(|entry| latency(entry)));
    }
    let rates: Vec<_> = report.results.iter().filter(|entry| entry.operations_per_second.is_some()).collect();
    if !rates.is_empty() {
        text += "\n## Rate\n\n| test | size | in flight | operations | bandwidth | zcmi / yardstick |\n|---|--:|--:|--:|--:|---|\n";
        text.extend(rates.iter().map(|entry| rate(entry)));
    }
    for left_out in &report.left_out {
        text += &format!("\nWithout {}: {}.\n", escape(&left_out.name), escape(&left_out.why));
    }
    text
}

fn latency(entry: &Entry) -> String {
    let mut line = start(entry);
    if let Some(times) = &entry.latency_ns {
        for time in [times.min, times.p50, times.p90, times.p99, times.p999, times.max] {
            line += &format!(" {} |", Unit::Nanoseconds.text(time));
        }
    }
    format!("{line} {} |\n", escape(&text::beside(entry)))
}

fn rate(entry: &Entry) -> String {
    let text = |unit: Unit, value: Option<f64>| value.map_or_else(String::new, |value| unit.text(value));
    format!(
        "{} {} | {} | {} | {} |\n",
        start(entry),
        entry.depth,
        text(Unit::PerSecond, entry.operations_per_second),
        text(Unit::BytesPerSecond, entry.bytes_per_second),
        escape(&text::beside(entry))
    )
}

fn start(entry: &Entry) -> String {
    format!("| {} | {} |", entry.test.name(), Unit::Bytes.text(entry.size as f64))
}

/// What comes from elsewhere must not end a cell or a line.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
