//! `zcmi doctor`: what is wrong with this host, why it matters and what mends it.

mod checks;
mod finding;
mod ports;
mod text;

use std::process::ExitCode;

use serde::Serialize;

use crate::Format;
use crate::host::Host;
use crate::output::Output;
use finding::{Finding, Level};

#[derive(Debug, Serialize)]
struct Report {
    zcmi: &'static str,
    /// Whether there is no problem.
    ok: bool,
    problems: usize,
    findings: Vec<Finding>,
}

/// `is_rdma_wanted`: that there is no RDMA is a problem.
pub(crate) fn run(host: &Host, is_rdma_wanted: bool, output: Output) -> ExitCode {
    let report = Report::of(host, is_rdma_wanted);
    match output.format {
        Format::Json => output.json(&report),
        Format::Text => output.print(&text::render(&report, output)),
    }
    ExitCode::from(u8::from(!report.ok))
}

impl Report {
    fn of(host: &Host, is_rdma_wanted: bool) -> Self {
        let mut findings = checks::devices(host, is_rdma_wanted);
        findings.extend(checks::ALL.iter().flat_map(|check| check(host)));
        // What is wrong comes first, in the order in which it is mended.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        let problems = findings.iter().filter(|finding| finding.level == Level::Problem).count();
        Self { zcmi: env!("CARGO_PKG_VERSION"), ok: problems == 0, problems, findings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Fixture;

    fn of(host: &Host, level: Level) -> Vec<Finding> {
        let findings = Report::of(host, false).findings;
        findings.into_iter().filter(|finding| finding.level == level).collect()
    }

    #[test]
    fn where_all_is_well_there_is_no_problem() {
        let host = Fixture::with_device();
        let report = Report::of(&host, true);
        assert!(report.ok && report.problems == 0, "{:#?}", report.findings);
        let bad: Vec<_> = report.findings.iter().filter(|finding| finding.level > Level::Ok).collect();
        assert_eq!(bad.iter().map(|finding| finding.check).collect::<Vec<_>>(), ["rdma-core"], "{bad:#?}");
    }

    #[test]
    fn a_host_without_rdma_is_well_unless_it_is_to_have_it() {
        let host = Fixture::without_device();
        assert!(of(&host, Level::Problem).is_empty(), "{:#?}", of(&host, Level::Problem));
        assert_eq!(of(&host, Level::Notice)[0].check, "devices");
        let wanted = Report::of(&host, true);
        assert!(!wanted.ok && wanted.findings[0].check == "devices", "{:#?}", wanted.findings);
    }

    #[test]
    fn every_fault_comes_with_its_reason_and_a_remedy() {
        let mut host = Fixture::with_device();
        host.memlock = Some(4096);
        host.device_file("uverbs0", 0o600);
        host.write("/sys/class/infiniband/rxe0/ports/1/state", "1: DOWN\n");
        host.remove("/proc/sys/kernel/random/boot_id");
        let report = Report::of(&host, false);
        assert_eq!(report.problems, 4, "{:#?}", report.findings);
        assert!(report.findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.level)), "the worst first");
        for finding in report.findings {
            assert!(!finding.what.is_empty());
            if finding.level == Level::Problem {
                assert!(finding.why.is_some() && finding.fix.is_some(), "{finding:?}");
            }
        }
    }
}
