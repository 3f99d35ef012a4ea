//! The last step before QEMU and the fetch: they die with the supervisor and leave no core file.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

/// A command to which program and arguments are still to be added. Start it from the main thread:
/// what it starts dies with the thread that did.
pub(crate) fn command() -> Command {
    // Our own program, even if a new build has replaced its file.
    let mut command = Command::new("/proc/self/exe");
    command.arg(super::LAUNCH).arg(std::process::id().to_string());
    command
}

/// Becomes `arguments[1..]`; `arguments[0]` is the supervisor's process id.
pub(crate) fn launch(mut arguments: impl Iterator<Item = OsString>) -> u8 {
    let (Some(supervisor), Some(program)) = (arguments.next(), arguments.next()) else {
        return crate::FAILED;
    };
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return crate::FAILED;
    }
    // It may have died before the line above took effect.
    let parent = getppid().map(Pid::as_raw_pid).unwrap_or(0).to_string();
    if supervisor != *parent {
        return crate::FAILED;
    }
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("{}: {error}", program.display());
    match error.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    }
}
