//! One QEMU process and what we hold of it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::cache::Kernel;
use super::{initramfs, launch};
use crate::guest::{PORT, RESULTS};

pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
/// Spares the guest what costs time and serves nobody here.
const BOOT: &str = "mitigations=off nokaslr random.trust_cpu=on no_timer_check tsc=reliable audit=0 \
                    cryptomgr.notests rcupdate.rcu_expedited=1 8250.nr_uarts=1";

/// How QEMU executes the guest's instructions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Accelerator {
    Kvm,
    Tcg,
}

/// What the machine is made of.
#[derive(Clone, Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) memory: u32,
    pub(crate) cpus: u32,
    pub(crate) results: Option<&'a Path>,
    /// Start the unpacked kernel if there is one.
    pub(crate) unpacked: bool,
    /// Let the kernel tell everything it does.
    pub(crate) talkative: bool,
}

/// A running QEMU; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
}

/// Our ends of the machine's lines.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) port: OwnedFd,
    pub(crate) console: OwnedFd,
    /// QEMU's own messages.
    pub(crate) messages: std::process::ChildStderr,
}

/// Starts the machine. Call it from the main thread: QEMU dies with the thread that started it.
pub(crate) fn start(machine: &Machine<'_>, accelerator: Accelerator) -> io::Result<(Qemu, Lines)> {
    let initramfs = initramfs::make(&machine.kernel.initramfs)?;
    let (port, port_qemu) = line()?;
    let (console, console_qemu) = line()?;
    for inherited in [&port_qemu, &console_qemu] {
        fcntl_setfd(inherited, FdFlags::empty())?;
    }
    let mut command = launch::command();
    command.arg(PROGRAM).args(arguments(machine, accelerator, &initramfs, &port_qemu, &console_qemu));
    // In a group of its own: the terminal's Ctrl-C is ours to handle.
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let messages = child.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?;
    Ok((Qemu { child }, Lines { port, console, messages }))
}

/// A connected pair of sockets: nothing of it is ever in a file system.
fn line() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

fn arguments(
    machine: &Machine<'_>,
    accelerator: Accelerator,
    initramfs: &OwnedFd,
    port: &OwnedFd,
    console: &OwnedFd,
) -> Vec<OsString> {
    let loglevel = if machine.talkative { "loglevel=7" } else { "quiet" };
    let append = format!("console=ttyS0 {loglevel} panic=-1 {BOOT} rdinit=/init");
    let accelerator = match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg,thread=multi",
    };
    let mut arguments: Vec<OsString> = [
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-accel",
        accelerator,
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-no-user-config",
    ]
    .map(OsString::from)
    .to_vec();
    let mut add = |option: &str, value: OsString| arguments.extend([option.into(), value]);
    add("-m", machine.memory.to_string().into());
    add("-smp", machine.cpus.to_string().into());
    let unpacked = machine.kernel.unpacked.as_ref().filter(|_| machine.unpacked);
    add("-kernel", unpacked.unwrap_or(&machine.kernel.image).into());
    add("-initrd", format!("/proc/self/fd/{}", initramfs.as_raw_fd()).into());
    add("-append", append.into());
    add("-chardev", format!("socket,id=console,fd={}", console.as_raw_fd()).into());
    add("-serial", "chardev:console".into());
    add("-device", "virtio-serial-pci,max_ports=2".into());
    add("-chardev", format!("socket,id=port,fd={}", port.as_raw_fd()).into());
    add("-device", format!("virtserialport,chardev=port,name={PORT}").into());
    add("-device", "virtio-rng-pci".into());
    add("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap".into());
    add("-device", "virtio-9p-pci,fsdev=root,mount_tag=root".into());
    if let Some(results) = machine.results {
        let mut fsdev = OsString::from("local,id=results,security_model=none,multidevs=remap,path=");
        // A comma in a value of QEMU's options is written twice.
        fsdev.push(results.to_string_lossy().replace(',', ",,"));
        add("-fsdev", fsdev);
        add("-device", format!("virtio-9p-pci,fsdev=results,mount_tag={RESULTS}").into());
    }
    arguments
}

impl Qemu {
    /// Stops the machine at once and collects the process; its exit status for a message.
    pub(crate) fn stop(mut self) -> String {
        self.end()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    fn end(&mut self) -> String {
        drop(self.child.kill());
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether QEMU is installed.
pub(crate) fn installed() -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file()))
}

/// Memory for the guest, in MiB: the usual, or half of what a small host has.
pub(crate) fn memory() -> u32 {
    const USUAL: u32 = 4096;
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    total.map_or(USUAL, |kib| USUAL.min(u32::try_from(kib / 2048).unwrap_or(USUAL)).max(512))
}
