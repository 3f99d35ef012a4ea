//! The results as plots: a line for each test, and for each yardstick.

use super::{Entry, Report};
use crate::bench::test::Measure;
use crate::plot::{Axis, Line, Plot, Scale, Unit};

/// Latencies by size.
pub(crate) fn latency(report: &Report) -> Result<String, String> {
    let y = ("median latency (send, hand_over: half round trip)", Unit::Nanoseconds);
    let value = |entry: &Entry| entry.latency_ns.as_ref().map(|latency| latency.p50);
    plot(report, "Latency", Measure::Latency, y, &value, &|yardstick| yardstick.latency_ns)
}

/// Bandwidths by size.
pub(crate) fn bandwidth(report: &Report) -> Result<String, String> {
    let title = format!("Bandwidth, up to {} in flight", report.options.depth);
    let y = ("bandwidth", Unit::BytesPerSecond);
    plot(report, &title, Measure::Rate, y, &|entry| entry.bytes_per_second, &|yardstick| yardstick.bytes_per_second)
}

fn plot(
    report: &Report,
    title: &str,
    measure: Measure,
    (label, unit): (&str, Unit),
    value: &dyn Fn(&Entry) -> Option<f64>,
    of_yardstick: &dyn Fn(&super::Yardstick) -> Option<f64>,
) -> Result<String, String> {
    let mut lines: Vec<Line> = Vec::new();
    let mut add = |name: String, is_dashed: bool, size: usize, value: Option<f64>| {
        let Some(value) = value else { return };
        let point = (size as f64, value);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name, points: vec![point], is_dashed }),
        }
    };
    for entry in report.results.iter().filter(|entry| entry.measure == measure) {
        add(entry.test.name().to_owned(), false, entry.size, value(entry));
        for yardstick in &entry.yardsticks {
            add(yardstick.name.clone(), true, entry.size, of_yardstick(yardstick));
        }
    }
    let plot = Plot {
        title: format!("{title} over {}", report.way()),
        subtitle: report.place(),
        x: Axis { label: "size".to_owned(), unit: Unit::Bytes, scale: Scale::Logarithmic },
        y: Axis { label: label.to_owned(), unit, scale: Scale::Logarithmic },
        lines,
    };
    plot.svg()
}
