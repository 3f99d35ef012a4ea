//! `zcmi doctor HOST`: whether the way to a peer works, step by step.

mod address;
mod steps;
mod text;

use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use crate::Format;
use crate::output::{Output, complain};
use address::Peer;

/// What was tried, as JSON has it.
#[derive(Debug, Serialize)]
struct Report {
    zcmi: &'static str,
    /// Where it was tried.
    address: String,
    ok: bool,
    /// `shm`, `verbs` or `tcp`, once connected.
    transport: Option<&'static str>,
    device: Option<String>,
    /// Transports that were tried before it or not at all, each with the reason.
    passed_over: Vec<String>,
    steps: Vec<Step>,
}

/// One thing that was tried. What comes after a failure is not.
#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    ok: bool,
    /// How long it took.
    microseconds: u64,
    /// What was found out.
    detail: Option<String>,
    error: Option<String>,
    /// What probably helps.
    hint: Option<String>,
}

pub(crate) fn run(address: &str, output: Output) -> ExitCode {
    let peer = match Peer::parse(address) {
        Ok(peer) => peer,
        Err(error) => {
            complain(format_args!("{address}: {error}"));
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
    let report = runtime.block_on(steps::all(&peer));
    // A name may still be asked for.
    runtime.shutdown_background();
    match output.format {
        Format::Json => output.json(&report),
        Format::Text => output.print(&text::render(&report, output)),
    }
    ExitCode::from(u8::from(!report.ok))
}

/// The address of a peer that a user names; an error says what is wrong with it.
pub(crate) fn uri(peer: &str) -> Result<String, String> {
    Peer::parse(peer).map(|peer| peer.uri()).map_err(|error| format!("{peer}: {error}"))
}

impl Report {
    fn new(peer: &Peer) -> Self {
        Self {
            zcmi: env!("CARGO_PKG_VERSION"),
            address: peer.uri(),
            ok: true,
            transport: None,
            device: None,
            passed_over: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Notes a step that has `begun` and ended as `result`; gives back what it brought.
    fn note<T>(
        &mut self,
        step: &'static str,
        begun: Instant,
        result: Result<(T, Option<String>), Failure>,
    ) -> Option<T> {
        let microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (value, detail, failure) = match result {
            Ok((value, detail)) => (Some(value), detail, None),
            Err(failure) => (None, None, Some(failure)),
        };
        self.ok &= failure.is_none();
        let (error, hint) = failure.map(|Failure { error, hint }| (error, hint)).unzip();
        self.steps.push(Step { step, ok: value.is_some(), microseconds, detail, error, hint: hint.flatten() });
        value
    }
}

/// Why a step failed, and what probably helps.
#[derive(Debug)]
struct Failure {
    error: String,
    hint: Option<String>,
}

impl From<zcmi::Error> for Failure {
    fn from(error: zcmi::Error) -> Self {
        let text = error.to_string();
        // The hint is told apart.
        let hint = error.hint().map(str::to_owned);
        let error = hint.as_ref().and_then(|hint| text.strip_suffix(&format!(". Hint: {hint}"))).unwrap_or(&text);
        Self { error: error.to_owned(), hint }
    }
}
