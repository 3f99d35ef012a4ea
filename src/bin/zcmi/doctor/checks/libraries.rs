//! rdma-core: whether it is there, and what is known of its version.

use super::super::finding::{Finding, Level};
use super::super::ports::Port;
use crate::host::{Host, Libraries};

const CHECK: &str = "rdma-core";
const UPGRADE: &str = "apt-get install --only-upgrade libibverbs1 librdmacm1 ibverbs-providers rdma-core";

/// What is known to be wrong, in which versions, with which driver.
struct Fault {
    /// The first version without it; `None` if there is none yet.
    until: Option<u32>,
    /// The driver that it is in; `None` for all.
    driver: Option<&'static str>,
    what: &'static str,
    why: &'static str,
    fix: Option<&'static str>,
}

const FAULTS: [Fault; 2] = [
    Fault {
        until: Some(32),
        driver: None,
        what: "it has no ibv_query_gid_table",
        why: "GIDs are read from sysfs instead, which is slower and misses other network namespaces",
        fix: Some(UPGRADE),
    },
    Fault {
        until: None,
        driver: Some("rxe"),
        what: "Soft-RoCE",
        why: "a hostile peer can crash the kernel through it, and its memory windows open all of their region: for tests among friends",
        fix: None,
    },
];

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let libraries = Libraries::of(host);
    let devices = host.devices();
    let mut missing = Vec::new();
    // Another folder may be searched, and what is in this one may be of no use.
    let loads = (host.loads)().filter(|_| !devices.is_empty());
    let mut lacks = |what: &str, package: &str| {
        let level = if devices.is_empty() { Level::Notice } else { Level::Problem };
        let finding = Finding::problem(CHECK, format!("{what} is not installed"), "rdma:// needs it");
        missing.push(Finding { level, ..finding.fix(format!("apt-get install {package}")) });
    };
    if libraries.ibverbs.is_none() && loads != Some(true) {
        lacks("libibverbs", "ibverbs-providers librdmacm1");
    }
    if libraries.rdmacm.is_none() {
        lacks("librdmacm", "librdmacm1");
    }
    let is_soft = |device: &String| device.starts_with("rxe");
    if libraries.ibverbs.is_some() && devices.iter().any(is_soft) && !libraries.has_driver("rxe") {
        lacks("the driver's library for rxe", "ibverbs-providers");
    }
    if libraries.ibverbs.is_some() && loads == Some(false) {
        let finding = Finding::problem(CHECK, "libibverbs is installed, and cannot be loaded", "rdma:// needs it");
        missing.push(finding.fix("apt-get install --reinstall libibverbs1 ibverbs-providers; ldconfig"));
    }
    if !missing.is_empty() {
        return missing;
    }
    let mut findings = vec![match libraries.version {
        Some((major, minor)) => Finding::ok(CHECK, format!("version {major}.{minor}")),
        None => Finding::unknown(CHECK, "its version cannot be told", "some versions have faults"),
    }];
    findings.extend(FAULTS.iter().filter(|fault| fault.concerns(&libraries, &Port::all(host))).map(Fault::finding));
    findings
}

impl Fault {
    fn concerns(&self, libraries: &Libraries, ports: &[Port]) -> bool {
        let is_old = self.until.is_none_or(|until| libraries.version.is_some_and(|(major, _)| major < until));
        let has = |driver: &str| ports.iter().any(|port| port.device.starts_with(driver));
        is_old && !ports.is_empty() && self.driver.is_none_or(has)
    }

    fn finding(&self) -> Finding {
        Finding { fix: self.fix.map(str::to_owned), ..Finding::notice(CHECK, self.what, self.why) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{mended_by, only};
    use super::*;
    use crate::host::fixture::Fixture;

    const FOLDER: &str = "/usr/lib/x86_64-linux-gnu";

    #[test]
    fn a_library_that_is_missing_is_named_with_its_package() {
        let host = Fixture::with_device();
        assert_eq!(only(&check(&host), Level::Ok).what, "version 50.0");
        host.remove(&format!("{FOLDER}/libibverbs/librxe-rdmav34.so"));
        assert_eq!(mended_by(&check(&host)), "apt-get install ibverbs-providers");
        host.write(&format!("{FOLDER}/libibverbs/librxe-rdmav57.so"), "");
        host.remove(&format!("{FOLDER}/librdmacm.so.1"));
        assert_eq!(mended_by(&check(&host)), "apt-get install librdmacm1");
        host.write("/usr/lib64/librdmacm.so.1", "");
        host.remove(&format!("{FOLDER}/libibverbs.so.1.14.50.0"));
        assert_eq!(mended_by(&check(&host)), "apt-get install ibverbs-providers librdmacm1");
        assert!(check(&Fixture::without_device()).iter().all(|finding| finding.level == Level::Notice));
    }

    #[test]
    fn what_the_linker_says_counts_more_than_folders() {
        let mut host = Fixture::with_device();
        host.loads = || Some(false);
        assert!(mended_by(&check(&host)).starts_with("apt-get install --reinstall "));
        host.loads = || Some(true);
        host.remove(&format!("{FOLDER}/libibverbs.so.1"));
        assert!(
            only(&check(&host), Level::Unknown).what.contains("version"),
            "it is in a folder that only the linker knows"
        );
    }

    #[test]
    fn known_faults_are_told_to_whom_they_concern() {
        let host = Fixture::with_device();
        assert_eq!(only(&check(&host), Level::Notice).what, "Soft-RoCE");
        let old = format!("{FOLDER}/libibverbs.so.1");
        host.remove(&old);
        host.write(&old, "");
        only(&check(&host), Level::Unknown);
        host.remove(&old);
        host.write(&format!("{old}.8.28.0"), "");
        std::os::unix::fs::symlink("libibverbs.so.1.8.28.0", host.path(&old)).expect("a link");
        assert!(check(&host).iter().any(|finding| finding.fix.as_deref() == Some(UPGRADE)));
    }
}
