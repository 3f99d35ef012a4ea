//! Low limits of the process.

use crate::asking::{Place, is_possible, is_slow, not_in_container, own_device, problem};
use crate::schema::Level;

/// `sudo` for where this is root already and there is none, as in the VM.
const SUDO: &str = "command -v sudo >/dev/null || sudo() { \"$@\"; }";
/// Root without the right to lock memory beyond the limit.
const WITHOUT_LOCK: [&str; 4] = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "--"];

#[test]
fn few_open_files() {
    if is_slow() {
        return;
    }
    Place { starts: &[], setup: "ulimit -Sn 64" }.finds_and_mends("open-files", "only 64 files");
}

#[test]
fn few_open_files_that_only_root_can_raise() {
    if own_device().is_some() {
        let _undo = not_in_container();
        let setup = format!("{SUDO}; ulimit -n 64");
        Place { starts: &[], setup: &setup }.finds_and_mends("open-files", "only 64 files");
    }
}

#[test]
fn little_memory_that_may_be_locked() {
    if own_device().is_some() {
        let _undo = not_in_container();
        let setup = format!("{SUDO}; prlimit --pid $$ --memlock=65536:65536");
        Place { starts: &WITHOUT_LOCK, setup: &setup }.finds_and_mends("memlock", "only 65536 bytes");
    }
}

#[test]
fn where_there_is_no_device_little_memory_is_good_to_know() {
    let has_device = std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some());
    let place = Place { starts: &WITHOUT_LOCK, setup: "ulimit -l 64" };
    if has_device || !is_possible(&[&WITHOUT_LOCK[..], &["true"]].concat()) {
        return;
    }
    let health = place.doctor("");
    let found = health.findings.iter().find(|finding| finding.check == "memlock").expect("the check");
    assert!(found.what.contains("only 65536 bytes") && found.fix.is_some(), "{found:?}");
    assert!(problem(&health, "memlock").is_none() && found.level == Level::Notice, "{found:?}");
}
