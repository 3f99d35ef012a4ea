//! Files in `/dev/infiniband` that are not there, or that this user may not open.

use crate::asking::{Place, not_in_container, own_device};

/// The same devices under other modes, for the processes of the place alone.
const OWN_FILES: &str = "cd /dev/infiniband; nodes=$(for f in *; do echo $f $(stat -c '0x%t 0x%T' $f); done); \
    mount -t tmpfs -o mode=755 tmpfs /dev/infiniband; cd /dev/infiniband; \
    echo \"$nodes\" | while read -r f major minor; do mknod -m 666 $f c $((major)) $((minor)); chmod 666 $f; done; cd /; ";
/// The doctor runs as a user who is nobody; what else is typed is root's.
const AS_NOBODY: &str = "nobody=/tmp/zcmi-as-nobody.$$; \
    printf '#!/bin/sh\\nexec setpriv --reuid 65534 --regid 65534 --clear-groups %s \"$@\"\\n' \"$1\" >$nobody; chmod 755 $nobody; set -- $nobody; ";

#[test]
fn files_that_only_root_may_open() {
    if own_device().is_none() {
        return;
    }
    let setup = format!("{OWN_FILES}{AS_NOBODY} chmod 600 /dev/infiniband/*");
    let place = Place { starts: &["unshare", "--mount"], setup: &setup };
    let says = ["user 65534 may not open /dev/infiniband/uverbs0", "user 65534 may not open /dev/infiniband/rdma_cm"];
    place.finds_and_mends_all("device-files", &says);
}

#[test]
fn a_file_that_is_not_there() {
    if own_device().is_none() {
        return;
    }
    let _undo = not_in_container();
    let setup = format!("{OWN_FILES} rm /dev/infiniband/uverbs0");
    let place = Place { starts: &["unshare", "--mount"], setup: &setup };
    // Nobody makes device files in these namespaces: that udev would is not tried.
    let fix = place.finds("device-files", "/dev/infiniband/uverbs0 is not there");
    assert!(fix.starts_with("udevadm trigger "), "{fix}");
}
