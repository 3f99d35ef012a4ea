//! Modules that are not loaded.

use crate::asking::{HERE, Undo, own_device, shell};

/// Of the two, `ib_uverbs` cannot be missing below a device of Soft-RoCE, which needs it.
#[test]
fn rdma_ucm_is_not_loaded() {
    if own_device().is_none() {
        return;
    }
    let _undo = Undo("modprobe rdma_ucm".to_owned());
    shell("modprobe -r rdma_ucm");
    HERE.finds_and_mends("modules", "rdma_ucm is not loaded");
}
