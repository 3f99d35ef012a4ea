//! The checks. Each looks at one thing and says what it found, also where that is well.

mod addresses;
mod cgroups;
mod container;
mod device_files;
mod devices;
mod firewall;
mod huge_pages;
mod libraries;
mod memlock;
mod modules;
mod mtu;
mod open_files;
mod port_state;
mod software;

use super::finding::Finding;
use crate::host::Host;

pub(super) use devices::check as devices;

type Check = fn(&Host) -> Vec<Finding>;

/// In the order in which what they find is mended.
pub(super) const ALL: [Check; 14] = [
    modules::check,
    libraries::check,
    container::check,
    device_files::check,
    port_state::check,
    addresses::check,
    mtu::check,
    firewall::check,
    memlock::check,
    open_files::check,
    cgroups::check,
    huge_pages::check,
    software::shared_memory,
    software::tcp,
];

#[cfg(test)]
mod testing {
    use super::*;
    use crate::doctor::finding::Level;

    /// The one finding of `level` among `findings`.
    pub(super) fn only(findings: &[Finding], level: Level) -> &Finding {
        let found: Vec<_> = findings.iter().filter(|finding| finding.level == level).collect();
        assert_eq!(found.len(), 1, "{findings:#?}");
        found[0]
    }

    pub(super) fn is_well(findings: &[Finding]) -> bool {
        findings.iter().all(|finding| finding.level == Level::Ok)
    }

    /// The command of the only problem.
    pub(super) fn mended_by(findings: &[Finding]) -> &str {
        only(findings, Level::Problem).fix.as_deref().expect("a remedy")
    }
}
