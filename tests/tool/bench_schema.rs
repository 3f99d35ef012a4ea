//! What `zcmi bench` writes as JSON: exactly these fields, as `docs/tool.md` has them.

#![allow(dead_code, reason = "a schema; not every field has an assertion of its own")]

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bench {
    pub(crate) zcmi: String,
    pub(crate) date: String,
    pub(crate) host: Host,
    pub(crate) transport: String,
    pub(crate) device: String,
    pub(crate) address: String,
    pub(crate) shares_pages: bool,
    pub(crate) passed_over: Vec<String>,
    pub(crate) peer_zcmi: String,
    pub(crate) polling: Polling,
    pub(crate) options: Options,
    pub(crate) results: Vec<Entry>,
    pub(crate) left_out: Vec<LeftOut>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) kernel: Option<String>,
    pub(crate) processor: Option<String>,
    pub(crate) processors: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Polling {
    pub(crate) here: String,
    pub(crate) peer: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    pub(crate) what: Vec<String>,
    pub(crate) sizes: Vec<usize>,
    pub(crate) depth: usize,
    pub(crate) transport: String,
    pub(crate) rounds: u32,
    pub(crate) milliseconds: Option<f64>,
    pub(crate) iterations: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) test: String,
    pub(crate) measure: Measure,
    pub(crate) size: usize,
    pub(crate) depth: usize,
    pub(crate) operations: u64,
    pub(crate) is_half_round_trip: bool,
    pub(crate) latency_ns: Option<Latency>,
    pub(crate) operations_per_second: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) yardsticks: Vec<Yardstick>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Measure {
    Latency,
    Rate,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latency {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Yardstick {
    pub(crate) name: String,
    pub(crate) rounds: usize,
    pub(crate) statistic: Option<String>,
    pub(crate) latency_ns: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) ratio: Option<f64>,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeftOut {
    pub(crate) name: String,
    pub(crate) why: String,
}
