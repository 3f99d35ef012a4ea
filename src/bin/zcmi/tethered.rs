//! A program that ends with the process that started it, however that ends.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::output::complain;

/// Becomes `command`, which the kernel kills when `parent` has ended.
pub(crate) fn run(parent: i32, command: &[OsString]) -> ExitCode {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        complain(error);
        return ExitCode::FAILURE;
    }
    // It may have ended before.
    if getppid().map(Pid::as_raw_nonzero).map(|id| id.get()) != Some(parent) {
        return ExitCode::FAILURE;
    }
    let Some((program, arguments)) = command.split_first() else { return ExitCode::FAILURE };
    let error = Command::new(program).args(arguments).exec();
    complain(format_args!("{}: {error}", program.display()));
    ExitCode::FAILURE
}
