//! The host's side: decides where the command runs, boots the VM, carries the streams.

mod boot;
mod cache;
mod direct;
mod initramfs;
mod launch;
mod qemu;
mod session;
mod signals;
mod terminal;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use launch::launch;

use crate::options::{self, HELP, Options, Task};

/// First argument that makes this program prepare itself and then become QEMU.
pub(crate) const LAUNCH: &str = "--as-launcher";
const USAGE: u8 = 2;

/// Runs what the command line says and returns the exit status.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> u8 {
    let options = match options::parse(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("run: {error}\nrun: --help tells more");
            return USAGE;
        }
    };
    match perform(&options) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("run: {error}");
            crate::FAILED
        }
    }
}

fn perform(options: &Options) -> Result<u8, String> {
    let scripts = scripts()?;
    let command = match &options.task {
        Task::Help => {
            // Nobody reading any more (`run --help | head`) is no error.
            let _ = crate::write::write_all(rustix::stdio::stdout(), HELP.as_bytes());
            return Ok(0);
        }
        Task::Fetch => {
            let series = options.kernel.map_or(options::Series::ALL.to_vec(), |series| vec![series]);
            for series in series {
                cache::kernel(series, &scripts)?;
            }
            return Ok(0);
        }
        Task::Command(command) => command.clone(),
        Task::Shell => vec![env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh".into())],
    };
    if let Some(results) = &options.results {
        std::fs::create_dir_all(results).map_err(|error| format!("--results {}: {error}", results.display()))?;
    }
    if !options.needs_vm()
        && let Some(device) = direct::device(&scripts, options.verbose)
    {
        return direct::run(&command, device, options);
    }
    session::run(command, options, &scripts)
}

/// The folder of the shell scripts, which the stub that starts this program knows.
fn scripts() -> Result<PathBuf, String> {
    let scripts = env::var_os("ZCMI_SOFT_ROCE_SETUP").map(PathBuf::from);
    scripts.filter(|scripts| scripts.join("up").exists()).ok_or_else(|| "start me as soft-roce-setup/run".into())
}
