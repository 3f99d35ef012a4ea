//! What shared memory and TCP need, taken away in namespaces of the test's own.

use crate::asking::{Place, is_possible, is_slow};

#[test]
fn a_loopback_that_is_down() {
    let starts = ["unshare", "--user", "--map-root-user", "--net"];
    if !is_slow() && is_possible(&[&starts[..], &["true"]].concat()) {
        Place { starts: &starts, setup: "" }.finds_and_mends("tcp", "127.0.0.1");
    }
}

#[test]
fn a_boot_id_that_is_hidden() {
    let starts = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"];
    if !is_slow() && is_possible(&[&starts[..], &["true"]].concat()) {
        let setup = "mount -t tmpfs tmpfs /proc/sys/kernel/random";
        Place { starts: &starts, setup }.finds_and_mends("shm", "boot_id");
    }
}
