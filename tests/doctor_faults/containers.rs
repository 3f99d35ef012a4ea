//! Containers that were not given what RDMA needs, as far as namespaces are all there is to them; and hosts without the libraries.

use crate::asking::{Place, own_device};

/// What a container is known by, seen by the place alone.
const CONTAINER: &str = "mount -t tmpfs tmpfs /run; touch /run/.containerenv; ";

#[test]
fn a_container_without_device_files() {
    if own_device().is_none() {
        return;
    }
    let setup = format!("{CONTAINER} mount -t tmpfs tmpfs /dev/infiniband");
    let place = Place { starts: &["unshare", "--mount"], setup: &setup };
    let fix = place.finds("container", "has no /dev/infiniband");
    assert!(fix.contains("--device=/dev/infiniband"), "{fix}");
    // What docker does then.
    place.is_well_after("umount /dev/infiniband", "container");
}

#[test]
fn a_container_without_the_interface() {
    let Some(netdev) = own_device() else { return };
    let setup = format!("{CONTAINER} umount -l /sys; mount -t sysfs sysfs /sys");
    let place = Place { starts: &["unshare", "--mount", "--net"], setup: &setup };
    let fix = place.finds("container", &format!("{netdev}, the interface of rxe0 port 1, is outside"));
    assert!(fix.contains("--network=host"), "{fix}");
    let place = Place { starts: &["unshare", "--mount"], ..place };
    place.is_well_after("", "container");
}

#[test]
fn libraries_that_are_not_installed() {
    if own_device().is_none() {
        return;
    }
    // A file that is no library.
    let setup = "file=$(readlink -f /usr/lib/*/libibverbs.so.1); mount --bind /dev/null $file";
    let place = Place { starts: &["unshare", "--mount"], setup };
    let fix = place.finds("rdma-core", "libibverbs is installed, and cannot be loaded");
    assert!(fix.starts_with("apt-get install --reinstall libibverbs1 "), "{fix}");
    // A folder that is empty in place of the drivers'.
    let setup = "for folder in /usr/lib/*/libibverbs /usr/lib64/libibverbs; do [ ! -d $folder ] || mount -t tmpfs tmpfs $folder; done";
    let place = Place { starts: &["unshare", "--mount"], setup };
    let fix = place.finds("rdma-core", "the driver's library for rxe is not installed");
    assert_eq!(fix, "apt-get install ibverbs-providers");
    // What the package brings is there again.
    place.is_well_after(
        "for folder in /usr/lib/*/libibverbs /usr/lib64/libibverbs; do umount $folder 2>/dev/null || true; done",
        "rdma-core",
    );
}
