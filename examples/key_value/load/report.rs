//! What the load generator prints.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::drawing;
use super::tally::Kind;
use super::{Distribution, Options, Tally};
use crate::Format;
use crate::common::{Result, print_line};

/// The percentiles that are printed, and their names.
pub(crate) const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9)];

/// The result of a run.
pub(crate) struct Report<'a> {
    options: &'a Options,
    transport: &'static str,
    time: Duration,
    tally: Tally,
}

impl<'a> Report<'a> {
    /// The result of a run that took `time`.
    pub(crate) fn new(options: &'a Options, transport: &'static str, time: Duration, tally: Tally) -> Self {
        Self { options, transport, time, tally }
    }

    /// Draws it into a file.
    pub(crate) fn draw(&self, path: &Path) -> Result<()> {
        drawing::write(path, &self.subtitle(), &self.tally)
    }

    /// Prints it.
    pub(crate) fn print(&self) -> Result<()> {
        match self.options.end.format {
            Format::Json => print_line(&self.json().to_string()),
            Format::Text => self.lines().iter().try_for_each(|line| print_line(line)),
        }
    }

    fn json(&self) -> Value {
        let Self { options, tally, .. } = self;
        json!({
            "test": "key_value",
            "transport": self.transport,
            "clients": options.clients,
            "reads_percent": options.reads,
            "keys": options.keys,
            "distribution": if options.distribution == Distribution::Zipf { "zipf" } else { "uniform" },
            "value_size": options.value_size,
            "seconds": self.time.as_secs_f64(),
            "gets": self.count(Kind::Get),
            "puts": self.count(Kind::Put),
            "gets_per_second": self.rate(Kind::Get),
            "puts_per_second": self.rate(Kind::Put),
            "get_ns": times(self.latencies(Kind::Get)),
            "put_ns": times(self.latencies(Kind::Put)),
            "torn_reads": tally.counts.torn,
            "second_reads": tally.counts.second_reads,
            "asked": tally.counts.asked,
            "absent": tally.absent,
            "verified": self.count(Kind::Get) - tally.absent,
            "lost_connections": tally.losses,
        })
    }

    /// What was done, in a line.
    fn subtitle(&self) -> String {
        let Options { clients, keys, value_size, reads, .. } = self.options;
        let (transport, seconds) = (self.transport, self.time.as_secs_f64());
        format!(
            "{clients} clients over {transport}, {reads} % GETs, {keys} keys, values of {value_size} bytes, {seconds:.1} s"
        )
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            self.subtitle(),
            format!(
                "{:<4} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}",
                "", "operations", "1/s", "p50 us", "p90 us", "p99 us", "p999 us", "max us"
            ),
        ];
        for (name, kind) in [("GET", Kind::Get), ("PUT", Kind::Put)] {
            let latencies = self.latencies(kind);
            let shown = PERCENTILES.map(|(_, percent)| microseconds(latencies.value_at_percentile(percent)));
            let [p50, p90, p99, p999] = shown;
            let max = microseconds(latencies.max());
            let (count, rate) = (self.count(kind), self.rate(kind));
            lines.push(format!("{name:<4} {count:>10} {rate:>10} {p50:>9} {p90:>9} {p99:>9} {p999:>9} {max:>9}"));
        }
        let tally = &self.tally;
        lines.push(format!(
            "torn reads {}, second reads {}, the server asked {}, absent {}, lost connections {}; {} values read, each complete and not too old",
            tally.counts.torn,
            tally.counts.second_reads,
            tally.counts.asked,
            tally.absent,
            tally.losses,
            self.count(Kind::Get) - tally.absent,
        ));
        lines
    }

    fn latencies(&self, kind: Kind) -> &Histogram<u64> {
        &self.tally.latencies[kind as usize]
    }

    fn count(&self, kind: Kind) -> u64 {
        self.latencies(kind).len()
    }

    fn rate(&self, kind: Kind) -> u64 {
        (self.count(kind) as f64 / self.time.as_secs_f64()) as u64
    }
}

fn times(latencies: &Histogram<u64>) -> Value {
    if latencies.is_empty() {
        return Value::Null;
    }
    let mut times = json!({ "min": latencies.min(), "max": latencies.max() });
    for (name, percent) in PERCENTILES {
        times[name] = latencies.value_at_percentile(percent).into();
    }
    times
}

fn microseconds(nanoseconds: u64) -> String {
    format!("{:.1}", nanoseconds as f64 / 1e3)
}
