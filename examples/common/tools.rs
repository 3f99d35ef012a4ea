//! What programs with options of their own take from here: addresses, output, failures, and how they start.

mod accepting;
#[allow(dead_code, reason = "these programs use a part of it")]
mod address;
#[allow(dead_code, reason = "these programs use a part of it")]
mod failure;
mod loss;
mod output;
#[allow(dead_code, reason = "these programs use a part of it")]
mod sizes;

use std::process::ExitCode;

pub(crate) use accepting::serve_each;
pub(crate) use address::complete;
pub(crate) use failure::{Failure, Result};
pub(crate) use loss::{is_loss, patiently};
#[allow(unused_imports, reason = "these programs use a part of it")]
pub(crate) use output::{print_bytes, print_line, say};
#[allow(unused_imports, reason = "these programs use a part of it")]
pub(crate) use sizes::parse_size;

/// Runs `work` on a runtime of many threads and answers the exit status; `name` is the program's.
pub(crate) fn run(name: &str, is_verbose: bool, work: impl Future<Output = Result<()>>) -> ExitCode {
    let level = if is_verbose { tracing::Level::DEBUG } else { tracing::Level::WARN };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(name, &Failure::Other(format!("no asynchronous runtime: {error}"))),
    };
    match runtime.block_on(work) {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(failure) => report(name, &failure),
    }
}

fn report(name: &str, failure: &Failure) -> ExitCode {
    say(format_args!("{name}: {failure}"));
    ExitCode::FAILURE
}
