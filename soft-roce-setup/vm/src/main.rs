//! `soft-roce-setup/run`: executes a command with a working Soft-RoCE device, in a micro-VM where
//! this machine has none. The same program is the supervisor on the host and the agent in the guest.

mod flow;
mod frame;
mod guest;
mod host;
mod options;
mod port;
mod spec;
mod write;

use std::env;
use std::process::ExitCode;

/// Exit status for failures of `run` itself, as `env(1)` and `timeout(1)` have it.
pub(crate) const FAILED: u8 = 125;
/// Exit status when `--deadline` passed, as `timeout(1)` has it.
pub(crate) const DEADLINE: u8 = 124;

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let _program = arguments.next();
    let status = match env::args_os().nth(1).as_deref().and_then(|first| first.to_str()) {
        Some(guest::AGENT) => guest::agent(),
        Some(guest::EXEC) => guest::exec(arguments.skip(1)),
        Some(host::LAUNCH) => host::launch(arguments.skip(1)),
        _ => host::run(arguments),
    };
    ExitCode::from(status)
}
