//! The results, as JSON has them; the others are made of this.

pub(crate) mod files;
mod markdown;
mod plots;
mod text;

use serde::Serialize;

use super::measure::Figures;
use super::peer::Transport;
use super::samples::{Latency, median};
use super::test::{Case, Measure, Test, What};

pub(crate) use markdown::render as markdown;
pub(crate) use plots::{bandwidth, latency};
pub(crate) use text::render as text;

/// One document.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) zcmi: &'static str,
    /// When it began, in UTC.
    pub(crate) date: String,
    pub(crate) host: Host,
    /// `shm`, `verbs` or `tcp`.
    pub(crate) transport: String,
    pub(crate) device: String,
    pub(crate) address: String,
    pub(crate) shares_pages: bool,
    /// Transports that were tried before or not at all, each with the reason.
    pub(crate) passed_over: Vec<String>,
    /// Of the other end.
    pub(crate) peer_zcmi: String,
    pub(crate) polling: Polling,
    pub(crate) options: Asked,
    pub(crate) results: Vec<Entry>,
    /// Yardsticks that were not used, or not everywhere.
    pub(crate) left_out: Vec<LeftOut>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) kernel: Option<String>,
    pub(crate) processor: Option<String>,
    pub(crate) processors: usize,
}

/// How the two ends wait.
#[derive(Debug, Serialize)]
pub(crate) struct Polling {
    pub(crate) here: String,
    pub(crate) peer: String,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    pub(crate) what: Vec<What>,
    pub(crate) sizes: Vec<usize>,
    pub(crate) depth: usize,
    pub(crate) transport: Transport,
    pub(crate) rounds: u32,
    /// Either of them.
    pub(crate) milliseconds: Option<f64>,
    pub(crate) iterations: Option<u64>,
}

/// One case.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) test: Test,
    pub(crate) measure: Measure,
    /// Bytes.
    pub(crate) size: usize,
    pub(crate) depth: usize,
    /// Of all rounds.
    pub(crate) operations: u64,
    /// Whether latencies are half of the time there and back.
    pub(crate) is_half_round_trip: bool,
    pub(crate) latency_ns: Option<Latency>,
    pub(crate) operations_per_second: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) yardsticks: Vec<Yardstick>,
}

/// What another program measured in the same rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Yardstick {
    pub(crate) name: String,
    pub(crate) rounds: usize,
    /// Which of ours it is compared with: `p50` or `mean`, or `bytes_per_second`; none if it measured nothing.
    pub(crate) statistic: Option<&'static str>,
    pub(crate) latency_ns: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    /// zcmi's by its: the median of the rounds.
    pub(crate) ratio: Option<f64>,
    /// Why a round has none.
    pub(crate) error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) name: String,
    pub(crate) why: String,
}

impl Entry {
    /// Of the rounds of a case, at least one.
    pub(crate) fn new(case: &Case, rounds: &[Figures], yardsticks: Vec<Yardstick>) -> Self {
        let latencies: Vec<_> = rounds.iter().filter_map(|round| round.latency.clone()).collect();
        let per_second = median(rounds.iter().filter_map(|round| round.per_second));
        Self {
            test: case.test,
            measure: case.measure,
            size: case.size,
            depth: case.depth,
            operations: rounds.iter().map(|round| round.operations).sum(),
            is_half_round_trip: case.measure == Measure::Latency && case.test.is_round_trip(),
            latency_ns: Latency::of_rounds(&latencies),
            operations_per_second: per_second,
            bytes_per_second: per_second.map(|rate| rate * case.size as f64),
            yardsticks,
        }
    }
}

impl Report {
    /// `shm`, or with what is special about it.
    pub(crate) fn way(&self) -> String {
        let shared = if self.shares_pages { ", shared pages" } else { "" };
        let device = if self.device == self.transport { String::new() } else { format!(" through {}", self.device) };
        format!("{}{device}{shared}", self.transport)
    }

    /// Where and when.
    pub(crate) fn place(&self) -> String {
        let Host { name, kernel, processor, processors } = &self.host;
        let mut parts = vec![name.clone(), format!("zcmi {}", self.zcmi)];
        parts.extend(kernel.as_ref().map(|kernel| format!("Linux {kernel}")));
        parts.push(match processor {
            Some(processor) => format!("{processors} × {processor}"),
            None => format!("{processors} processors"),
        });
        parts.push(self.date.clone());
        parts.join(", ")
    }
}
