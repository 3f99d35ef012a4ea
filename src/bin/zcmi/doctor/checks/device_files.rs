//! The device files, and whether this user may open them.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::finding::Finding;
use crate::host::{Host, User};

const CHECK: &str = "device-files";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    // Each of a device, and one of rdma_cm's; without their modules there are none.
    let mut names = host.list("/sys/class/infiniband_verbs");
    names.retain(|name| name.starts_with("uverbs"));
    if host.exists("/sys/class/misc/rdma_cm") && !names.is_empty() {
        names.push("rdma_cm".to_owned());
    }
    let findings: Vec<_> = names.iter().filter_map(|name| look_at(host, name)).collect();
    match findings.is_empty() {
        true if names.is_empty() => findings,
        true => vec![Finding::ok(CHECK, format!("this user may open {} in /dev/infiniband", names.join(", ")))],
        false => findings,
    }
}

fn look_at(host: &Host, name: &str) -> Option<Finding> {
    let shown = format!("/dev/infiniband/{name}");
    let path = host.path(&shown);
    let why = if name == "rdma_cm" { "connections cannot be made" } else { "the device cannot be opened" };
    let in_container = "docker run --device=/dev/infiniband …";
    let Ok(file) = path.metadata() else {
        let fix = match host.container() {
            Some(_) => in_container,
            None => "udevadm trigger --action=add --subsystem-match=infiniband_verbs --subsystem-match=misc",
        };
        return Some(Finding::problem(CHECK, format!("{shown} is not there"), why).fix(fix));
    };
    if !may_open(&host.user, &file) {
        let what = format!("user {} may not open {shown}, whose mode is {:04o}", host.user.id, file.mode() & 0o7777);
        return Some(Finding::problem(CHECK, what, why).fix(format!("chmod 0666 {shown}")));
    }
    match (host.open)(Path::new(&path)) {
        Ok(()) => None,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let what =
                format!("{shown} may not be opened though its mode allows it: a control group forbids the device");
            Some(Finding::problem(CHECK, what, why).fix(in_container))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let what = format!("{shown} may not be opened though its mode allows it: {error}");
            Some(Finding::problem(CHECK, what, why).fix(format!("setfacl -b {shown} && chmod 0666 {shown}")))
        }
        Err(error) => {
            let what = format!("{shown} cannot be opened: {error}");
            Some(Finding::problem(CHECK, what, why).fix("dmesg | tail -n 50"))
        }
    }
}

/// Whether the mode of a file lets `user` read and write it.
fn may_open(user: &User, file: &impl MetadataExt) -> bool {
    let bits = if user.id == file.uid() {
        file.mode() >> 6
    } else if user.groups.contains(&file.gid()) {
        file.mode() >> 3
    } else {
        file.mode()
    };
    user.id == 0 || bits & 0o6 == 0o6
}

#[cfg(test)]
mod tests {
    use super::super::testing::{is_well, mended_by, only};
    use super::*;
    use crate::doctor::finding::Level;
    use crate::host::fixture::Fixture;

    /// A host with a user who is neither the owner of the files nor of their group.
    fn host() -> Fixture {
        let mut host = Fixture::with_device();
        let file = host.path("/dev/infiniband/uverbs0").metadata().expect("it is there");
        host.user = User { id: file.uid() + 1, groups: vec![file.gid() + 1] };
        host
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let host = host();
        assert!(is_well(&check(&host)));
        host.remove("/dev/infiniband/rdma_cm");
        assert!(mended_by(&check(&host)).starts_with("udevadm trigger"));
        host.write("/run/.containerenv", "");
        assert!(mended_by(&check(&host)).contains("--device=/dev/infiniband"));
        assert!(check(&Fixture::without_device()).is_empty());
    }

    #[test]
    fn a_mode_that_forbids_is_told() {
        let mut host = host();
        host.device_file("uverbs0", 0o600);
        let findings = check(&host);
        assert_eq!(mended_by(&findings), "chmod 0666 /dev/infiniband/uverbs0");
        assert!(only(&findings, Level::Problem).what.contains("mode is 0600"));
        host.device_file("uverbs0", 0o660);
        assert!(!is_well(&check(&host)));
        host.user.groups[0] -= 1;
        assert!(is_well(&check(&host)), "by its group");
        host.user = User { id: 0, groups: Vec::new() };
        host.device_file("uverbs0", 0o000);
        assert!(is_well(&check(&host)), "as root");
    }

    #[test]
    fn what_forbids_behind_the_mode_is_told() {
        let mut host = host();
        host.remove("/dev/infiniband/rdma_cm");
        host.remove("/sys/class/misc/rdma_cm");
        for (open, fix) in [
            ((|_| Err(io::Error::from_raw_os_error(libc::EPERM))) as fn(&Path) -> io::Result<()>, "docker run"),
            (|_| Err(io::Error::from_raw_os_error(libc::EACCES)), "setfacl -b"),
            (|_| Err(io::Error::from_raw_os_error(libc::ENODEV)), "dmesg"),
        ] {
            host.open = open;
            let findings = check(&host);
            assert!(mended_by(&findings).starts_with(fix), "{findings:?}");
        }
    }
}
