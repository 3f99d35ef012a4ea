//! Modules that are not loaded.

use std::path::Path;

use crate::asking::{HERE, Undo, own_device, shell};

/// Both, or `rdma_ucm` alone on older kernels, where Soft-RoCE itself needs `ib_uverbs`.
#[test]
fn the_ways_from_a_program_to_a_device_are_not_loaded() {
    if own_device().is_none() {
        return;
    }
    let _undo = Undo("modprobe rdma_ucm".to_owned());
    // What nobody else needs goes with it.
    shell("modprobe -r rdma_ucm");
    let (devices, connections) = ("module ib_uverbs is not loaded", "module rdma_ucm is not loaded");
    if Path::new("/sys/module/ib_uverbs").exists() {
        HERE.finds_and_mends_all("modules", &[connections]);
    } else {
        HERE.finds_and_mends_all("modules", &[devices, connections]);
    }
}
