//! Hosts that tests make: a folder with the files of one, and answers to what files do not tell.

use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Host, Limit, User};

/// A made host; its folder goes with it.
pub(crate) struct Fixture(Host);

impl Fixture {
    /// A host with no files at all, where everything that is tried works.
    pub(crate) fn empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("zcmi-host-{}-{number}", std::process::id()));
        fs::create_dir_all(&root).expect("a folder");
        Self(Host {
            root,
            user: User { id: 1000, groups: vec![1000] },
            memlock: None,
            open_files: Limit { soft: Some(1024), hard: Some(4096) },
            open: |_| Ok(()),
            active_mtu: |_, _| Some(1024),
            loads: || None,
            firewall: || Ok("table inet filter {\n}\n".to_owned()),
            sealed_memory: || Ok(()),
            unix_socket: || Ok(()),
            loopback: || Ok(()),
        })
    }

    /// A host without RDMA where all is well.
    pub(crate) fn without_device() -> Self {
        let host = Self::empty();
        host.write("/proc/sys/kernel/osrelease", "6.12.1\n");
        host.write("/proc/sys/kernel/random/boot_id", "0d6b2f2e-7d43-4f5c-a5b9-9d3e3c6a1f00\n");
        host.write("/proc/self/status", "Name:\tzcmi\nCapEff:\t0000000000000000\n");
        host.write("/proc/self/cgroup", "0::/user.slice/session\n");
        host.write(
            "/proc/meminfo",
            "HugePages_Total:       8\nHugePages_Free:        8\nHugepagesize:       2048 kB\n",
        );
        let local = "  |-- 192.0.2.1\n     /32 host LOCAL\n  |-- 127.0.0.1\n     /32 host LOCAL\n";
        host.write("/proc/net/fib_trie", local);
        let v6 = "fe800000000000000202030405060708 02 40 20 80    rnet0\n";
        host.write("/proc/net/if_inet6", v6);
        host.write("/sys/class/net/lo/operstate", "unknown\n");
        host.write("/sys/class/net/rnet0/operstate", "up\n");
        host.write("/sys/class/net/rnet0/mtu", "1500\n");
        host.write("/lib/modules/6.12.1/modules.dep", "kernel/drivers/infiniband/sw/rxe/rdma_rxe.ko.xz:\n");
        host
    }

    /// A host with one Soft-RoCE device where all is well.
    pub(crate) fn with_device() -> Self {
        let host = Self::without_device();
        let port = "/sys/class/infiniband/rxe0/ports/1";
        host.write("/sys/class/infiniband/rxe0/parent", "rnet0\n");
        host.write(&format!("{port}/state"), "4: ACTIVE\n");
        host.write(&format!("{port}/link_layer"), "Ethernet\n");
        host.gid(0, "fe80:0000:0000:0000:0202:0304:0506:0708");
        host.gid(1, "0000:0000:0000:0000:0000:ffff:c000:0201");
        host.write("/sys/class/infiniband_verbs/uverbs0/ibdev", "rxe0\n");
        host.write("/sys/class/misc/rdma_cm/dev", "10:120\n");
        host.device_file("uverbs0", 0o666);
        host.device_file("rdma_cm", 0o666);
        host.write("/usr/lib/x86_64-linux-gnu/libibverbs.so.1.14.50.0", "");
        host.link("/usr/lib/x86_64-linux-gnu/libibverbs.so.1", "libibverbs.so.1.14.50.0");
        host.write("/usr/lib/x86_64-linux-gnu/librdmacm.so.1", "");
        host.write("/usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so", "");
        host
    }

    /// Writes a file, and the folders that lead to it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    /// Removes a file or a folder with all that is in it.
    pub(crate) fn remove(&self, path: &str) {
        let path = self.path(path);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.expect("it was there");
    }

    /// A RoCE v2 entry of the device's GID table.
    pub(crate) fn gid(&self, index: u32, gid: &str) {
        let port = "/sys/class/infiniband/rxe0/ports/1";
        self.write(&format!("{port}/gids/{index}"), &format!("{gid}\n"));
        self.write(&format!("{port}/gid_attrs/types/{index}"), "RoCE v2\n");
        self.write(&format!("{port}/gid_attrs/ndevs/{index}"), "rnet0\n");
    }

    /// A file below `/dev/infiniband`.
    pub(crate) fn device_file(&self, name: &str, mode: u32) {
        let path = format!("/dev/infiniband/{name}");
        self.write(&path, "");
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(mode)).expect("a mode");
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.path(path)).expect("a link");
    }
}

impl Deref for Fixture {
    type Target = Host;
    fn deref(&self) -> &Host {
        &self.0
    }
}

impl DerefMut for Fixture {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.0
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let removed: io::Result<()> = fs::remove_dir_all(&self.0.root);
        drop(removed);
    }
}
