//! What is asked of a host: files below one root, and a few questions that no file answers. Tests put others in their place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod libraries;
mod probes;

pub(crate) use libraries::Libraries;

/// A host to look at.
#[derive(Debug)]
pub(crate) struct Host {
    /// Where `/proc`, `/sys`, `/dev`, `/usr` and the like are.
    pub(crate) root: PathBuf,
    /// Who asks.
    pub(crate) user: User,
    /// `RLIMIT_MEMLOCK` in bytes; `None` if there is no limit.
    pub(crate) memlock: Option<u64>,
    /// `RLIMIT_NOFILE`.
    pub(crate) open_files: Limit,
    /// Opens a device file for reading and writing.
    pub(crate) open: fn(&Path) -> io::Result<()>,
    /// The active MTU of a device's port, in bytes; `None` if it cannot be asked.
    pub(crate) active_mtu: fn(&str, u8) -> Option<u32>,
    /// Whether the dynamic linker has loaded libibverbs; `None` if it was not asked to. Meant for where there is a device: without RDMA in the
    /// kernel the library answers as if it were missing.
    pub(crate) loads: fn() -> Option<bool>,
    /// The rules of the firewall, or why they are not known.
    pub(crate) firewall: fn() -> Result<String, String>,
    /// Makes sealed memory as shared memory needs it.
    pub(crate) sealed_memory: fn() -> io::Result<()>,
    /// Sends a byte through a unix socket.
    pub(crate) unix_socket: fn() -> io::Result<()>,
    /// Sends a byte to this host over TCP.
    pub(crate) loopback: fn() -> io::Result<()>,
}

/// A user and its groups, as permissions are checked against.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) groups: Vec<u32>,
}

/// A limit of this process; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// What binds.
    pub(crate) soft: Option<u64>,
    /// How far its owner may raise it.
    pub(crate) hard: Option<u64>,
}

impl Limit {
    fn of(resource: rustix::process::Resource) -> Self {
        let limit = rustix::process::getrlimit(resource);
        Self { soft: limit.current, hard: limit.maximum }
    }
}

impl Host {
    /// The host that this process runs on.
    pub(crate) fn this() -> Self {
        Self {
            root: "/".into(),
            user: User::this(),
            memlock: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
            open_files: Limit::of(rustix::process::Resource::Nofile),
            open: probes::open,
            active_mtu: probes::active_mtu,
            loads: probes::loads,
            firewall: probes::firewall,
            sealed_memory: probes::sealed_memory,
            unix_socket: probes::unix_socket,
            loopback: probes::loopback,
        }
    }

    /// `path`, which is absolute, below the root.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(crate) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// The text of a file, trimmed; `None` if it cannot be read.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The number in a file.
    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// Names in a folder, sorted; none if it cannot be read.
    pub(crate) fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        // rxe9 before rxe10.
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    /// RDMA devices, whether or not they can be used.
    pub(crate) fn devices(&self) -> Vec<String> {
        self.list("/sys/class/infiniband")
    }

    /// The kernel's release, such as `6.12.57+deb13-amd64`.
    pub(crate) fn kernel(&self) -> Option<String> {
        self.read("/proc/sys/kernel/osrelease")
    }

    /// The container that this is, if it is one; a word such as `docker`.
    pub(crate) fn container(&self) -> Option<&'static str> {
        if self.exists("/.dockerenv") {
            return Some("docker");
        }
        if self.exists("/run/.containerenv") {
            return Some("podman");
        }
        if self.exists("/run/secrets/kubernetes.io") {
            return Some("kubernetes");
        }
        let groups = self.read("/proc/1/cgroup").unwrap_or_default();
        ["kubepods", "docker", "containerd", "libpod", "lxc"].into_iter().find(|word| groups.contains(word))
    }
}

impl User {
    fn this() -> Self {
        let mut groups: Vec<_> =
            rustix::process::getgroups().unwrap_or_default().iter().map(|group| group.as_raw()).collect();
        groups.push(rustix::process::getegid().as_raw());
        Self { id: rustix::process::geteuid().as_raw(), groups }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
