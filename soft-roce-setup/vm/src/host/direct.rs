//! Without a VM: this machine has RDMA, or its kernel can make a Soft-RoCE device.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::signals;
use crate::options::Options;

/// A device to run on, and who made it.
#[derive(Debug)]
pub(crate) struct Device {
    address: Option<String>,
    /// The script that removes it, if it was made for this run.
    down: Option<PathBuf>,
}

/// The device of this machine; a new one if its kernel has the module and we may load it.
pub(crate) fn device(scripts: &Path, verbose: bool) -> Option<Device> {
    if let Some(address) = present() {
        return Some(Device { address, down: None });
    }
    let up = scripts.join("up");
    if !rustix::process::geteuid().is_root() || !quiet(Command::new(&up).arg("--check")) {
        return None;
    }
    let output = Command::new(&up).stdin(Stdio::null()).output().ok()?;
    if verbose || !output.status.success() {
        eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    let address = output.status.success().then(present).flatten()?;
    Some(Device { address, down: Some(scripts.join("down")) })
}

fn quiet(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The first RDMA device's address, where its network device has one.
fn present() -> Option<Option<String>> {
    let device = fs::read_dir("/sys/class/infiniband").ok()?.filter_map(Result::ok).next()?;
    let netdev = fs::read_to_string(device.path().join("ports/1/gid_attrs/ndevs/0")).ok();
    Some(netdev.and_then(|netdev| address(netdev.trim())))
}

fn address(netdev: &str) -> Option<String> {
    let output = Command::new("ip").args(["-o", "-4", "addr", "show", "dev", netdev]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace().skip_while(|word| *word != "inet").skip(1);
    Some(words.next()?.split('/').next()?.to_owned())
}

/// Runs the command here.
pub(crate) fn run(command: &[OsString], device: Device, options: &Options) -> Result<u8, String> {
    let (program, arguments) = command.split_first().ok_or("no COMMAND given")?;
    let mut run = Command::new(program);
    run.args(arguments).env("ZCMI_REQUIRE_RDMA", "1").env_remove("ZCMI_SOFT_ROCE_SETUP");
    if let Some(address) = &device.address {
        run.env("ZCMI_HOST1", address);
    }
    let failed = |error: std::io::Error| {
        eprintln!("run: {}: {error}", program.display());
        if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
    };
    if device.down.is_none() && options.deadline.is_none() {
        return Ok(failed(run.exec()));
    }
    // The deadline and signals reach everything the command starts, unless it has a terminal to
    // itself: then it stays in the foreground group.
    if !super::terminal::streams()[0] {
        run.process_group(0);
    }
    let status = match run.spawn() {
        Ok(child) => signals::wait_until(child, options.deadline),
        Err(error) => Ok(failed(error)),
    };
    if let (Ok(crate::DEADLINE), Some(deadline)) = (&status, options.deadline) {
        eprintln!("run: the deadline of {} s passed, COMMAND was stopped", deadline.as_secs_f64());
    }
    if let Some(down) = &device.down
        && !quiet(&mut Command::new(down))
    {
        eprintln!("run: the device made for this run could not be removed; cure: {}", down.display());
    }
    status
}
