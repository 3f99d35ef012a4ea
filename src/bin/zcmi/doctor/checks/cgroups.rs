//! What the control groups of this process leave of processes, memory and RDMA's objects; versions 1 and 2.

use std::path::PathBuf;

use super::super::finding::Finding;
use crate::host::Host;

const CHECK: &str = "cgroups";
/// Threads that a program with zcmi has at least, with tokio's.
const THREADS: u64 = 16;
/// Bytes that its pool, rings and queues soon take.
const MEMORY: u64 = 64 << 20;
/// Objects of an RDMA device (queue pairs, queues, regions) that some connections need.
const OBJECTS: u64 = 64;

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let folders = Folders::of(host);
    let mut findings: Vec<_> = folders.pids.iter().filter_map(|folder| pids(host, folder)).collect();
    findings.extend(folders.memory.iter().filter_map(|folder| memory(host, folder)));
    findings.extend(folders.rdma.iter().flat_map(|folder| rdma(host, folder)));
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "room for processes, memory and RDMA objects"));
    }
    findings
}

/// The groups that bind this process, by what they control: its own and those above.
#[derive(Debug, Default)]
struct Folders {
    pids: Vec<PathBuf>,
    memory: Vec<PathBuf>,
    rdma: Vec<PathBuf>,
}

impl Folders {
    fn of(host: &Host) -> Self {
        let mut folders = Self::default();
        for line in host.read("/proc/self/cgroup").unwrap_or_default().lines() {
            // HIERARCHY:CONTROLLERS:PATH, without controllers in version 2 (cgroups(7)).
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let chain = |mount: &str| chain(mount, path);
            if controllers.is_empty() {
                let all: Vec<_> = chain("/sys/fs/cgroup").into_iter().chain(chain("/sys/fs/cgroup/unified")).collect();
                folders.pids.extend(all.iter().cloned());
                folders.memory.extend(all.iter().cloned());
                folders.rdma.extend(all);
            }
            for controller in controllers.split(',') {
                match controller {
                    "pids" => folders.pids.extend(chain("/sys/fs/cgroup/pids")),
                    "memory" => folders.memory.extend(chain("/sys/fs/cgroup/memory")),
                    "rdma" => folders.rdma.extend(chain("/sys/fs/cgroup/rdma")),
                    _ => {}
                }
            }
        }
        folders
    }
}

/// The folder of the group `path` below `mount`, and those above it. What a namespace hides is not there.
fn chain(mount: &str, path: &str) -> Vec<PathBuf> {
    let path = PathBuf::from(path.trim_start_matches('/'));
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return vec![mount.into()];
    }
    path.ancestors().map(|part| PathBuf::from(mount).join(part)).collect()
}

fn pids(host: &Host, folder: &std::path::Path) -> Option<Finding> {
    let file = folder.join("pids.max");
    let (limit, used) = (host.number(&file)?, host.number(folder.join("pids.current"))?);
    let left = limit.saturating_sub(used);
    let what = format!("{} leaves {left} of {limit} threads", file.display());
    let why = "a program cannot start the threads it needs";
    let fix = format!("echo max > {}", file.display());
    (left < THREADS).then(|| Finding::problem(CHECK, what, why).fix(fix))
}

fn memory(host: &Host, folder: &std::path::Path) -> Option<Finding> {
    let files = [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")];
    files.into_iter().find_map(|(limit, used)| {
        let file = folder.join(limit);
        let (limit, used) = (host.number(&file)?, host.number(folder.join(used))?);
        // Caches count as used, and are given up; what is left is more than it seems.
        let caches = cached(host, folder);
        let left = limit.saturating_sub(used.saturating_sub(caches));
        let what = format!("{} leaves {left} of {limit} bytes", file.display());
        let why = "memory that is registered or in rings cannot be swapped out; beyond the limit a process is killed";
        let fix = format!("echo {} > {}", limit.saturating_add(1 << 30), file.display());
        (left < MEMORY).then(|| Finding::problem(CHECK, what, why).fix(fix))
    })
}

/// Bytes of files that the group has in memory.
fn cached(host: &Host, folder: &std::path::Path) -> u64 {
    let statistics = host.read(folder.join("memory.stat")).unwrap_or_default();
    let value = |name: &str| statistics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    value("inactive_file ").unwrap_or(0)
}

/// `rdma.max` has a line for each device: `rxe0 hca_handle=2 hca_object=max`.
fn rdma(host: &Host, folder: &std::path::Path) -> Vec<Finding> {
    let file = folder.join("rdma.max");
    let (limits, used) =
        (host.read(&file).unwrap_or_default(), host.read(folder.join("rdma.current")).unwrap_or_default());
    let mut findings = Vec::new();
    for line in limits.lines() {
        let device = line.split_whitespace().next().unwrap_or_default();
        let used = used.lines().find(|line| line.split_whitespace().next() == Some(device)).unwrap_or_default();
        for (name, least) in [("hca_handle", 1), ("hca_object", OBJECTS)] {
            let Some(limit) = value(line, name) else { continue };
            let left = limit.saturating_sub(value(used, name).unwrap_or(0));
            if left < least {
                let what = format!("{} leaves {left} of {limit} {name} of {device}", file.display());
                let why = "the device cannot be opened, or its queues and regions cannot be made";
                let fix = format!("echo '{device} hca_handle=max hca_object=max' > {}", file.display());
                findings.push(Finding::problem(CHECK, what, why).fix(fix));
            }
        }
    }
    findings
}

/// The number of `name=NUMBER` in a line.
fn value(line: &str, name: &str) -> Option<u64> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by};
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn a_group_without_room_for_threads_is_named_also_above() {
        let host = Fixture::with_device();
        host.write("/sys/fs/cgroup/user.slice/pids.max", "100\n");
        host.write("/sys/fs/cgroup/user.slice/pids.current", "50\n");
        host.write("/sys/fs/cgroup/user.slice/session/pids.max", "max\n");
        assert!(is_well(&check(&host)));
        host.write("/sys/fs/cgroup/user.slice/pids.current", "90\n");
        assert_eq!(mended_by(&check(&host)), "echo max > /sys/fs/cgroup/user.slice/pids.max");
    }

    #[test]
    fn memory_counts_without_caches() {
        let host = Fixture::with_device();
        let group = "/sys/fs/cgroup/user.slice/session";
        host.write(&format!("{group}/memory.max"), "1073741824\n");
        host.write(&format!("{group}/memory.current"), "1073000000\n");
        assert!(mended_by(&check(&host)).ends_with("memory.max"));
        host.write(&format!("{group}/memory.stat"), "anon 1\ninactive_file 500000000\n");
        assert!(is_well(&check(&host)));
    }

    #[test]
    fn groups_of_version_1_are_read_too() {
        let host = Fixture::with_device();
        host.write("/proc/self/cgroup", "4:cpu,memory:/box\n8:pids:/\n9:rdma:/../..\n0::/\n");
        host.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        host.write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
        assert!(is_well(&check(&host)));
        host.write("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "2000\n");
        host.write("/sys/fs/cgroup/memory/box/memory.usage_in_bytes", "1000\n");
        assert!(mended_by(&check(&host)).ends_with("memory/box/memory.limit_in_bytes"));
    }

    #[test]
    fn objects_of_the_device_are_counted() {
        let host = Fixture::with_device();
        let group = "/sys/fs/cgroup/user.slice/session";
        host.write(&format!("{group}/rdma.max"), "rxe0 hca_handle=2 hca_object=max\n");
        host.write(&format!("{group}/rdma.current"), "rxe0 hca_handle=1 hca_object=20\n");
        assert!(is_well(&check(&host)));
        host.write(&format!("{group}/rdma.current"), "rxe0 hca_handle=2 hca_object=20\n");
        assert!(mended_by(&check(&host)).starts_with("echo 'rxe0 hca_handle=max"));
        host.write(&format!("{group}/rdma.max"), "rxe0 hca_handle=3 hca_object=30\n");
        assert!(!is_well(&check(&host)));
    }
}
