//! Control groups that leave too little.

use crate::asking::{Place, Undo, is_possible, own_device};

/// A group of version 2 with one limit, which the place's shell is in.
fn in_group(controller: &str, file: &str, limit: &str, says: &str) {
    let group = "/sys/fs/cgroup/zcmi-fault";
    let make = format!(
        "mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup; echo +{controller} >/sys/fs/cgroup/cgroup.subtree_control; mkdir {group}"
    );
    if !is_possible(&["sh", "-ec", &make]) {
        return;
    }
    let _undo = Undo(format!("rmdir {group}"));
    let setup = format!("echo '{limit}' >{group}/{file}; echo $$ >{group}/cgroup.procs");
    Place { starts: &[], setup: &setup }.finds_and_mends("cgroups", says);
}

#[test]
fn few_processes() {
    if own_device().is_some() {
        in_group("pids", "pids.max", "12", "pids.max leaves");
    }
}

#[test]
fn little_memory() {
    if own_device().is_some() {
        in_group("memory", "memory.max", "50000000", "memory.max leaves");
    }
}

#[test]
fn few_objects_of_the_device() {
    if own_device().is_some() {
        in_group("rdma", "rdma.max", "rxe0 hca_handle=0 hca_object=10", "rdma.max leaves");
    }
}
