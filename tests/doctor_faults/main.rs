//! `zcmi doctor` against the faults that it claims to find, each created for real, in a namespace or on a Soft-RoCE device: it ends with 1, names the
//! check, and the command that it prints mends it.

#[path = "../tool/schema.rs"]
mod schema;

mod asking;
mod blackhole;
mod containers;
mod control_groups;
mod device_files;
mod firewall;
mod limits;
mod modules;
mod ports;
mod software;
