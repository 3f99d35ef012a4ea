//! How much memory the process may lock: what is registered with a device is.

use super::super::finding::{Finding, Level};
use crate::host::Host;

const CHECK: &str = "memlock";
/// Below that, a few buffers and queues meet the limit.
const LEAST: u64 = 64 << 20;
/// CAP_IPC_LOCK, which frees from the limit.
const CAPABILITY: u32 = 14;
/// For the shell that it is typed into: its own `ulimit` goes no higher than the hard limit.
const SHELL: &str = "sudo prlimit --pid $$ --memlock=unlimited:unlimited";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let Some(limit) = host.memlock else { return vec![Finding::ok(CHECK, "no limit on locked memory")] };
    if may_exceed(host) {
        return vec![Finding::ok(CHECK, "CAP_IPC_LOCK: the limit on locked memory does not bind")];
    }
    if limit >= LEAST {
        return vec![Finding::ok(CHECK, format!("{limit} bytes of memory may be locked"))];
    }
    let what = format!("only {limit} bytes of memory may be locked (RLIMIT_MEMLOCK)");
    let why = "memory that is registered with an RDMA device is locked; beyond the limit that fails (of a service, set LimitMEMLOCK=infinity)";
    // Without a device nothing is.
    let level = if host.devices().is_empty() { Level::Notice } else { Level::Problem };
    let fix = if host.container().is_some() { "docker run --ulimit memlock=-1 …" } else { SHELL };
    vec![Finding { level, ..Finding::problem(CHECK, what, why).fix(fix) }]
}

fn may_exceed(host: &Host) -> bool {
    let status = host.read("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = field.and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
    capabilities.is_some_and(|capabilities| capabilities >> CAPABILITY & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by, only};
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn a_low_limit_is_told_with_its_value() {
        let mut host = Fixture::with_device();
        assert!(is_well(&check(&host)));
        host.memlock = Some(8 << 20);
        let findings = check(&host);
        assert_eq!(mended_by(&findings), SHELL);
        assert!(only(&findings, Level::Problem).what.contains("8388608"));
        host.write("/.dockerenv", "");
        assert!(mended_by(&check(&host)).contains("--ulimit memlock=-1"));
        host.write("/proc/self/status", "CapEff:\t0000000000004000\n");
        assert!(is_well(&check(&host)));
        let mut host = Fixture::without_device();
        host.memlock = Some(8 << 20);
        only(&check(&host), Level::Notice);
    }
}
