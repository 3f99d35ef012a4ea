//! Makes the guest a usable machine: mounts, modules, network, RDMA devices.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::finit_module;

use crate::spec::Spec;

/// Network namespaces of the two hosts.
pub(super) const HOSTS: [&str; 2] = ["host1", "host2"];
/// Addresses from the ranges kept for documentation and private use: they collide with nothing.
pub(super) const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const ADDRESSES_6: [&str; 2] = ["fd00:7a63:6d69::1", "fd00:7a63:6d69::2"];
/// Where the administrator's tools are, whatever the caller's `PATH` says.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What the initramfs leaves to do before the supervisor is asked.
pub(super) fn basics() {
    let _ = rustix::system::sethostname(b"soft-roce");
    for (kind, target, data) in
        [("devpts", c"/dev/pts", c"gid=5,mode=620,ptmxmode=666"), ("tmpfs", c"/dev/shm", c"mode=1777")]
    {
        drop(fs::create_dir_all(OsStr::new(target.to_str().unwrap_or_default())));
        if let Err(error) = mount(kind, target, kind, MountFlags::NOSUID, data) {
            eprintln!("agent: mount of {kind}: {error}");
        }
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        drop(symlink(target, Path::new("/dev").join(link)));
    }
}

/// The rest, as the supervisor wants it.
pub(super) fn machine(spec: &Spec) -> Result<(), String> {
    let limit = |limit| (limit != u64::MAX).then_some(limit);
    let open_files = Rlimit { current: limit(spec.open_files.0), maximum: limit(spec.open_files.1) };
    let _ = setrlimit(Resource::Nofile, open_files);
    let modules = Path::new(&spec.modules);
    load_modules(modules)?;
    link_modules(modules).map_err(|error| format!("no place for the kernel's modules: {error}"))?;
    if let Some(results) = &spec.results {
        mount_results(results).map_err(|error| format!("--results {}: mount in the VM: {error}", results.display()))?;
    }
    match spec.two_hosts {
        false => one_host(spec),
        true => two_hosts(spec),
    }
}

/// Loads the modules for RDMA; a process for each, as `modprobe` would be, takes seconds when emulated.
fn load_modules(cached: &Path) -> Result<(), String> {
    let failed = |name: &Path, error: io::Error| format!("kernel module {}: {error}", name.display());
    let order = cached.join("rdma.order");
    for name in fs::read_to_string(&order).map_err(|error| failed(&order, error))?.lines() {
        let path = cached.join(name);
        let file = File::open(&path).map_err(|error| failed(&path, error))?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(&path, error.into())),
        }
    }
    Ok(())
}

/// Lets `modprobe` find the modules of this kernel, which the host does not have installed.
fn link_modules(cached: &Path) -> io::Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    fs::create_dir_all("/lib/modules")?;
    match symlink(cached.join(&release), Path::new("/lib/modules").join(&release)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn mount_results(results: &OsStr) -> io::Result<()> {
    fs::create_dir_all(results)?;
    // Not cached: what the command has written is on the host when it ends.
    let data = c"trans=virtio,version=9p2000.L,msize=524288,cache=none";
    Ok(mount(super::RESULTS, results, "9p", MountFlags::empty(), data)?)
}

fn one_host(spec: &Spec) -> Result<(), String> {
    let up = Path::new(&spec.scripts).join("up");
    tool(&up, ["--device", "rxe0", "--netdev", "dummy", "--address", ADDRESSES[0], "--address6", ADDRESSES_6[0]])
}

fn two_hosts(spec: &Spec) -> Result<(), String> {
    // Both devices are visible on both hosts: in the kernel's "exclusive" mode, which would hide the
    // other's, rxe cannot make its management queue pair (7.3), and connections fail.
    for host in HOSTS {
        tool("ip", ["netns", "add", host])?;
    }
    let [first, second] = HOSTS;
    let pair = ["link", "add", "name", "veth1", "netns", first, "mtu", "9000"];
    tool("ip", pair.into_iter().chain(["type", "veth", "peer", "name", "veth2", "netns", second, "mtu", "9000"]))?;
    let up = Path::new(&spec.scripts).join("up").into_os_string();
    for (index, host) in HOSTS.into_iter().enumerate() {
        let netdev = format!("veth{}", index + 1);
        let address = format!("{}/24", ADDRESSES[index]);
        let address6 = format!("{}/64", ADDRESSES_6[index]);
        tool("ip", ["-n", host, "link", "set", "lo", "up"])?;
        tool("ip", ["-n", host, "link", "set", &netdev, "up"])?;
        tool("ip", ["-n", host, "addr", "add", &address, "dev", &netdev])?;
        tool("ip", ["-n", host, "addr", "add", &address6, "dev", &netdev, "nodad"])?;
        let device = format!("rxe{}", index + 1);
        let inside = ["netns", "exec", host].map(OsString::from).into_iter().chain([up.clone()]);
        tool("ip", inside.chain(["--device", &device, "--netdev", &netdev].map(OsString::from)))?;
    }
    for (index, (host, netem)) in HOSTS.into_iter().zip(&spec.netem).enumerate() {
        let Some(netem) = netem else { continue };
        let netdev = format!("veth{}", index + 1);
        let netem = netem.to_string_lossy();
        let add = ["-n", host, "qdisc", "add", "dev", &netdev, "root", "netem"];
        tool("tc", add.into_iter().chain(netem.split_whitespace())).map_err(|error| format!("--netem: {error}"))?;
    }
    Ok(())
}

/// Where one of the administrator's tools is.
pub(super) fn find(tool: &str) -> PathBuf {
    PATH.split(':').map(|folder| Path::new(folder).join(tool)).find(|path| path.exists()).unwrap_or(tool.into())
}

/// A command that the guest needs, with the administrator's path.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn tool<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> Result<(), String> {
    let program = program.as_ref();
    let name = Path::new(program).file_name().unwrap_or(program).display();
    let output = command(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("'{name}' cannot be executed: {error}; cure: soft-roce-setup/install"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("'{name}' failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
