//! What the examples share: the two ends, how they meet, and the pattern by which every byte is checked.

mod address;
mod arguments;
mod both_ends;
mod client;
mod control;
mod failure;
mod output;
mod pattern;
mod program;
mod progress;
mod server;
mod sizes;

use std::process::ExitCode;

pub(crate) use arguments::{Ends, Format};
pub(crate) use client::Client;
pub(crate) use control::{decode, encode, hear, tell};
pub(crate) use failure::{Failure, Result};
pub(crate) use output::{print_line, say};
pub(crate) use pattern::{Pattern, compare};
pub(crate) use program::{Channel, Program};
pub(crate) use progress::Progress;
pub(crate) use sizes::{check_size, parse_size};

use both_ends::ServerProcess;

/// Runs one end, or both if `ends` names no address; `measure` is what the client does. Answers the exit status.
pub(crate) fn run<P: Program>(ends: &Ends, measure: impl AsyncFnOnce(Client<'_, P>) -> Result<()>) -> ExitCode {
    let level = if ends.verbose { tracing::Level::DEBUG } else { tracing::Level::WARN };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report::<P>(&Failure::Other(format!("no asynchronous runtime: {error}"))),
    };
    match runtime.block_on(run_ends(ends, measure)) {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(failure) => report::<P>(&failure),
    }
}

async fn run_ends<P: Program>(ends: &Ends, measure: impl AsyncFnOnce(Client<'_, P>) -> Result<()>) -> Result<()> {
    if let Some(address) = &ends.bind {
        return server::serve::<P>(ends, &address::complete(address)).await;
    }
    if let Some(address) = &ends.connect {
        return measure(Client::connect(ends, &address::complete(address)).await?).await;
    }
    let mut server = ServerProcess::start(ends, &address::of_host())?;
    let measured = async { measure(Client::connect(ends, server.address()).await?).await }.await;
    // What the client met is nearer to the cause than how the server ended.
    measured.and(server.finish())
}

fn report<P: Program>(failure: &Failure) -> ExitCode {
    if !matches!(failure, Failure::Told) {
        say(format_args!("{}: {failure}", P::NAME));
    }
    ExitCode::FAILURE
}
