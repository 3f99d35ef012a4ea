//! Huge pages, which pools can be made of.

use super::super::finding::Finding;
use crate::host::Host;

const CHECK: &str = "huge-pages";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let why = "a pool that asks for huge pages gets ordinary ones, or fails if it requires them; others do not care";
    let text = host.read("/proc/meminfo").unwrap_or_default();
    let value = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let (Some(total), Some(free), Some(size)) =
        (value("HugePages_Total:"), value("HugePages_Free:"), value("Hugepagesize:"))
    else {
        return vec![Finding::unknown(CHECK, "/proc/meminfo does not tell of huge pages", why)];
    };
    let more = format!("sysctl -w vm.nr_hugepages={}", total + 64);
    vec![match (total, free) {
        (0, _) => Finding::notice(CHECK, "no huge pages are reserved", why).fix(more),
        (_, 0) => Finding::notice(CHECK, format!("all {total} huge pages are in use"), why).fix(more),
        _ => Finding::ok(CHECK, format!("{free} of {total} huge pages of {size} KiB are free")),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, only};
    use super::*;
    use crate::doctor::finding::Level;
    use crate::host::fixture::Fixture;

    #[test]
    fn none_and_none_left_are_told() {
        let host = Fixture::with_device();
        assert!(is_well(&check(&host)));
        for (total, fix) in [(0, "sysctl -w vm.nr_hugepages=64"), (8, "sysctl -w vm.nr_hugepages=72")] {
            let text =
                format!("HugePages_Total:       {total}\nHugePages_Free:        0\nHugepagesize:       2048 kB\n");
            host.write("/proc/meminfo", &text);
            assert_eq!(only(&check(&host), Level::Notice).fix.as_deref(), Some(fix));
        }
        host.write("/proc/meminfo", "MemTotal: 1 kB\n");
        only(&check(&host), Level::Unknown);
    }
}
