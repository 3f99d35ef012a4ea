//! What a user can say.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use zcmi::Polling;

use super::pace::{Amount, Pace};
use super::peer::Transport;
use super::report::Asked;
use super::sizes::Sizes;
use super::test::{Measure, What};
use super::yardstick::Tool;
use crate::Format;

#[derive(Debug, Args)]
#[command(
    after_help = "By default both ends run on this host, as two processes. On two hosts: `zcmi serve` on the one, `zcmi bench --peer HOST` on the other.\n\
    Exit status: 0 all well, 1 failure, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct Options {
    /// What to measure; all by default
    #[arg(value_enum)]
    pub(crate) what: Vec<What>,
    /// Sizes: 64, 4KiB,1MiB or 8..1MiB, by powers of two
    #[arg(long, default_value = "8,64,512,4KiB,32KiB,256KiB,1MiB")]
    pub(crate) size: Sizes,
    /// Latency, one after the other, or rate, many in flight; both by default
    #[arg(long, value_enum)]
    pub(crate) measure: Option<Measure>,
    /// Operations in flight where rates are measured; as many as 8 MiB have room for at most
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) depth: u16,
    /// Which way
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) transport: Transport,
    /// Whom to measure with, where `zcmi serve` runs: HOST, HOST:PORT or an address such as tcp://HOST:PORT
    #[arg(long, value_name = "HOST")]
    pub(crate) peer: Option<String>,
    /// How to wait: busy, event, adaptive or adaptive:20us; of a peer that was not started here its own settings hold
    #[arg(long, value_parser = polling)]
    pub(crate) polling: Option<Polling>,
    /// How long to measure each case in a round: 200ms, 2s
    #[arg(long, default_value = "200ms", value_parser = time, conflicts_with = "iterations")]
    pub(crate) time: Duration,
    /// How many operations to measure instead
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) iterations: Option<u64>,
    /// How long to warm up before; a tenth of the operations with --iterations
    #[arg(long, value_parser = time)]
    pub(crate) warm_up: Option<Duration>,
    /// Rounds; each measures every case, and each yardstick beside it
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Measure these too, in turn with zcmi, on this host: all that are installed, or those that are named
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0.., require_equals = true, default_missing_value = "all", conflicts_with = "peer")]
    pub(crate) compare: Vec<Tool>,
    /// Where ucx_perftest is, if not in PATH
    #[arg(long, value_name = "PATH", env = "UCX_PERFTEST")]
    pub(crate) ucx: Option<PathBuf>,
    /// How to print the results
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Write the results there, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a table there, as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write a plot of the latencies there, as SVG; of the bandwidths with --measure rate
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Write results.json, results.md, latency.svg and bandwidth.svg into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

impl Options {
    pub(crate) fn what(&self) -> Vec<What> {
        if self.what.is_empty() { What::ALL.to_vec() } else { self.what.clone() }
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        self.measure.map_or_else(|| vec![Measure::Latency, Measure::Rate], |measure| vec![measure])
    }

    pub(crate) fn asked(&self) -> Asked {
        Asked {
            what: self.what(),
            sizes: self.size.0.clone(),
            depth: self.depth.into(),
            transport: self.transport,
            rounds: self.repeat,
            milliseconds: self.iterations.is_none().then_some(self.time.as_secs_f64() * 1000.0),
            iterations: self.iterations,
        }
    }

    pub(crate) fn pace(&self) -> Pace {
        let warm_up = match (self.warm_up, self.iterations) {
            (Some(time), _) => Amount::Time(time),
            (None, Some(iterations)) => Amount::Operations((iterations / 10).clamp(1, 1000)),
            (None, None) => Amount::Time((self.time / 4).min(Duration::from_millis(100))),
        };
        Pace { warm_up, measured: self.iterations.map_or(Amount::Time(self.time), Amount::Operations) }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit.trim() {
        "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "min" => 60.0,
        _ => return Err("write a time such as 200ms or 2s".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "write a time such as 200ms or 2s".to_owned())?;
    let time = Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())?;
    if time > Duration::from_secs(600) {
        return Err("10 min at most".to_owned());
    }
    Ok(time)
}

fn polling(text: &str) -> Result<Polling, String> {
    match text.split_once(':') {
        None if text == "busy" => Ok(Polling::Busy),
        None if text == "event" => Ok(Polling::Event),
        None if text == "adaptive" => Ok(zcmi::Config::default().polling),
        Some(("adaptive", spin)) => match time(spin)? {
            spin if spin <= Duration::from_secs(1) => Ok(Polling::Adaptive { spin }),
            _ => Err("it polls for a second at most".to_owned()),
        },
        _ => Err("write busy, event, adaptive or adaptive:20us".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_polling_are_what_they_say() {
        assert_eq!(time("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "5", "ms", "-1s", "1e9s", "11min", "1.2.3s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(polling("busy"), Ok(Polling::Busy));
        assert_eq!(polling("adaptive:5us"), Ok(Polling::Adaptive { spin: Duration::from_micros(5) }));
        for wrong in ["", "lazy", "busy:1us", "adaptive:2s", "adaptive:"] {
            assert!(polling(wrong).is_err(), "{wrong}");
        }
    }
}
