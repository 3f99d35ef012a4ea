//! How many files the process may have open: a connection has some, through shared memory and over TCP.

use super::super::finding::Finding;
use crate::host::{Host, Limit};

const CHECK: &str = "open-files";
/// Below that, some dozens of connections meet the limit.
const LEAST: u64 = 256;
/// What shells usually have; enough for hundreds.
const USUAL: u64 = 1024;

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let Limit { soft, hard } = host.open_files;
    let soft = soft.unwrap_or(u64::MAX);
    if soft >= LEAST {
        return vec![Finding::ok(CHECK, format!("{soft} files may be open"))];
    }
    let what = format!("only {soft} files may be open (RLIMIT_NOFILE)");
    let why = "a connection has some, and a program cannot accept or connect beyond the limit (of a service, set LimitNOFILE=65536)";
    let is_allowed = hard.is_none_or(|hard| hard >= USUAL);
    let fix = match host.container() {
        Some(_) if !is_allowed => "docker run --ulimit nofile=65536 …".to_owned(),
        _ if is_allowed => format!("ulimit -Sn {USUAL}"),
        _ => "sudo prlimit --pid $$ --nofile=65536:65536".to_owned(),
    };
    vec![Finding::problem(CHECK, what, why).fix(fix)]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by};
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn a_low_limit_is_raised_as_far_as_this_user_may() {
        let mut host = Fixture::without_device();
        assert!(is_well(&check(&host)));
        host.open_files = Limit { soft: Some(255), hard: None };
        assert_eq!(mended_by(&check(&host)), "ulimit -Sn 1024");
        host.open_files = Limit { soft: Some(20), hard: Some(200) };
        assert!(mended_by(&check(&host)).starts_with("sudo prlimit --pid $$ "));
        host.write("/.dockerenv", "");
        assert!(mended_by(&check(&host)).starts_with("docker run --ulimit nofile"));
        host.open_files = Limit { soft: Some(256), hard: Some(256) };
        assert!(is_well(&check(&host)));
    }
}
