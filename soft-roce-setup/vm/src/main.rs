//! Runs a command with a Soft-RoCE device.
fn main() {}
