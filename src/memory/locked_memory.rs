//! How much memory the process may lock, as far as the host tells.

use std::path::{Component, Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// What the registration cache keeps pinned by default: never more than 1 GiB, half of what `RLIMIT_MEMLOCK` allows
/// or a quarter of what the control group may use.
pub(super) fn default_cache_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let locked = getrlimit(Resource::Memlock).current.filter(|_| !may_exceed_locked_memory(&status));
    share(locked, cgroup_limit())
}

fn share(locked: Option<u64>, cgroup: Option<u64>) -> usize {
    const MOST: u64 = 1 << 30;
    let share = MOST.min(locked.unwrap_or(u64::MAX) / 2).min(cgroup.unwrap_or(u64::MAX) / 4);
    usize::try_from(share).unwrap_or(usize::MAX)
}

/// `memory.max` of the process' control group (version 2) or the closest of its ancestors: the smallest binds.
fn cgroup_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = unified_group(&groups)?;
    // The second is where hosts that still have version 1 mount version 2.
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .flat_map(|root| group.ancestors().map(move |part| Path::new(root).join(part).join("memory.max")))
        .filter_map(|file| parse_limit(&std::fs::read_to_string(file).ok()?))
        .min()
}

/// The group of the hierarchy 0 in the text of `/proc/self/cgroup`, relative to where it is mounted.
fn unified_group(text: &str) -> Option<PathBuf> {
    let path = Path::new(text.lines().find_map(|line| line.strip_prefix("0::/"))?);
    // A process outside of its namespace's root sees `..` there: nothing that could be read.
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| path.to_owned())
}

/// The bytes in the text of `memory.max`; `None` if there is no limit or no sense in it.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Whether the process has CAP_IPC_LOCK, the 15th capability, by the text of `/proc/self/status`.
fn may_exceed_locked_memory(status: &str) -> bool {
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = field.and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
    capabilities.is_some_and(|capabilities| capabilities >> 14 & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_counts() {
        assert_eq!(share(None, None), 1 << 30);
        assert_eq!(share(Some(8 << 20), None), 4 << 20);
        assert_eq!(share(Some(8 << 20), Some(4 << 20)), 1 << 20);
        assert_eq!(share(Some(u64::MAX), Some(64 << 30)), 1 << 30);
        assert_eq!(share(Some(0), Some(1 << 20)), 0);
        assert!(default_cache_bytes() <= 1 << 30);
    }

    #[test]
    fn the_group_is_that_of_version_2() {
        let group = |text| unified_group(text).map(|path| path.to_string_lossy().into_owned());
        assert_eq!(group("0::/user.slice/a b\n").as_deref(), Some("user.slice/a b"));
        assert_eq!(group("4:memory:/x\n1:name=systemd:/y\n0::/\n").as_deref(), Some(""));
        for without in ["", "4:memory:/x\n", "0::", "0::/../..", "0:/x", "garbage\0\n"] {
            assert_eq!(group(without), None, "{without:?}");
        }
    }

    #[test]
    fn a_limit_is_a_number() {
        assert_eq!(parse_limit("1073741824\n"), Some(1 << 30));
        for without in ["max\n", "", "\n", "-1", "12 kB", "99999999999999999999999"] {
            assert_eq!(parse_limit(without), None, "{without:?}");
        }
    }

    #[test]
    fn the_capability_is_bit_14() {
        assert!(may_exceed_locked_memory("Name:\tx\nCapEff:\t0000000000004000\n"));
        for without in ["", "CapEff:\n", "CapEff:\tzz\n", "CapEff:\t000001ffffffbfff\n", "CapPrm:\t4000\n"] {
            assert!(!may_exceed_locked_memory(without), "{without:?}");
        }
    }
}
