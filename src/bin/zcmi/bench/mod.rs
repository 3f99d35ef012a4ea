//! `zcmi bench`: how fast it is, by size and depth, next to other programs that measure the same. `docs/tool.md` tells the rest.

mod answer;
mod device;
mod facts;
mod failure;
mod measure;
mod options;
mod pace;
mod peer;
mod process;
mod progress;
mod report;
mod rounds;
mod samples;
mod session;
mod sizes;
mod test;
mod wire;
mod yardstick;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use zcmi::Config;

use crate::host::Host;
use crate::output::{Output, complain};
use crate::{Format, peer as asked};
use failure::{Failure, Result};
use peer::Ends;
use report::Report;
use report::files::Draft;
use yardstick::Tools;

pub(crate) use answer::{answer, refuse};
pub(crate) use options::Options;
pub(crate) use peer::{SECRET, hello, polling_text, sharing};
pub(crate) use wire::HELLO;

/// What a shell reports of a program that SIGINT has ended, and SIGTERM.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

pub(crate) fn run(host: &Host, options: Options) -> ExitCode {
    let address = match options.peer.as_deref().map(asked::uri).transpose() {
        Ok(address) => address,
        Err(error) => {
            complain(error);
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(until_signal(host, &options, address.as_deref()));
    runtime.shutdown_background();
    match status {
        Ok(status) => status,
        Err(failure) => {
            complain(failure);
            ExitCode::FAILURE
        }
    }
}

/// Whatever ends it, the processes that were started end with what is dropped here.
async fn until_signal(host: &Host, options: &Options, address: Option<&str>) -> Result<ExitCode> {
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = bench(host, options, address) => done.map(|()| ExitCode::SUCCESS),
        _ = interrupted.recv() => Ok(ExitCode::from(INTERRUPTED)),
        _ = terminated.recv() => Ok(ExitCode::from(TERMINATED)),
    }
}

async fn bench(host: &Host, options: &Options, address: Option<&str>) -> Result<()> {
    let drafts = Drafts::begin(options)?;
    let mut tools = Tools::find(&options.compare, options.ucx.as_deref())?;
    let mut config = Config::from_env()?;
    config.polling = options.polling.unwrap_or(config.polling);
    let date = facts::now();
    let here = polling_text(config.polling);
    let ends = match address {
        Some(address) => Ends::at(address, options.transport, config).await,
        None => Ends::here(options.transport, config).await,
    };
    let mut ends = ends?;
    let results = match rounds::run(&ends, options, &mut tools).await {
        Ok(results) => results,
        Err(failure) => return Err(ends.explain(failure).await),
    };
    let connection = &ends.session.connection;
    let report = Report {
        zcmi: env!("CARGO_PKG_VERSION"),
        date,
        host: facts::of(host),
        transport: connection.transport().to_owned(),
        device: connection.device().to_owned(),
        address: ends.address.clone(),
        shares_pages: connection.shares_pages(),
        passed_over: connection.passed_over().to_vec(),
        peer_zcmi: ends.session.peer_version.clone(),
        polling: report::Polling { here, peer: ends.session.peer_polling.clone() },
        options: options.asked(),
        results,
        left_out: tools.left_out,
    };
    drafts.finish(&report)?;
    let output = Output::new(options.format);
    match options.format {
        Format::Json => output.json(&report),
        Format::Text => output.print(&report::text(&report, output)),
    }
    ends.close().await
}

/// Files to be written.
struct Drafts(Vec<(Draft, Kind)>);

#[derive(Clone, Copy)]
enum Kind {
    Bandwidth,
    Json,
    Latency,
    Markdown,
}

impl Drafts {
    /// Finds out whether all that were asked for can be written.
    fn begin(options: &Options) -> Result<Self> {
        let mut drafts = Vec::new();
        let plot = if options.measures() == [test::Measure::Rate] { Kind::Bandwidth } else { Kind::Latency };
        for (path, kind) in [(&options.json, Kind::Json), (&options.markdown, Kind::Markdown), (&options.plot, plot)] {
            if let Some(path) = path {
                drafts.push((Draft::begin(path)?, kind));
            }
        }
        if let Some(folder) = &options.output {
            std::fs::create_dir_all(folder).map_err(|error| Failure::from(error).within(folder.display()))?;
            drafts.push((Draft::begin(&folder.join("results.json"))?, Kind::Json));
            drafts.push((Draft::begin(&folder.join("results.md"))?, Kind::Markdown));
            for measure in options.measures() {
                let (name, kind) = match measure {
                    test::Measure::Latency => ("latency.svg", Kind::Latency),
                    test::Measure::Rate => ("bandwidth.svg", Kind::Bandwidth),
                };
                drafts.push((Draft::begin(&folder.join(name))?, kind));
            }
        }
        Ok(Self(drafts))
    }

    /// Writes them. A plot that would be empty is left out, and that is said.
    fn finish(self, report: &Report) -> Result<()> {
        for (draft, kind) in self.0 {
            let text = match kind {
                Kind::Json => {
                    serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(|error| error.to_string())
                }
                Kind::Markdown => Ok(report::markdown(report)),
                Kind::Latency => report::latency(report),
                Kind::Bandwidth => report::bandwidth(report),
            };
            match text {
                Ok(text) => draft.finish(&text)?,
                Err(why) => complain(why),
            }
        }
        Ok(())
    }
}
