//! What one operation of either tier of the verbs layer costs that does not jitter: heap allocations (none) and system
//! calls (one for each call that posts send requests, however many; none to post receives and to poll).

#![allow(unsafe_code, reason = "a counting allocator and the unsafe tier; each block carries its proof")]

#[path = "../common/allocations.rs"]
mod allocations;
#[path = "../common/mod.rs"]
mod common;
mod owned;
mod plain;
#[path = "../verbs/support.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod support;

use std::process::{Command, Stdio};

use allocations::ALLOCATIONS;
use common::{device_address, role};
use support::{Fixture, with_device};

/// Requests of a batch.
const BATCH: usize = 16;
/// Bytes of a message.
const LENGTH: usize = 64;

/// Makes `rounds` rounds of an operation, both ends in one thread.
type Rounds = Box<dyn FnMut(u32)>;

/// Every operation, by name.
const OPERATIONS: [&str; 14] = [
    "safe inline",
    "safe send",
    "safe batch",
    "safe write",
    "safe read",
    "safe fetch_add",
    "safe pieces",
    "safe datagram",
    "safe shared",
    "unsafe inline",
    "unsafe send",
    "unsafe list",
    "unsafe write",
    "unsafe receives",
];

fn rounds(fixture: &Fixture, operation: &str) -> Rounds {
    match operation.split_once(' ') {
        Some(("safe", name)) => owned::rounds(fixture, name),
        Some(("unsafe", name)) => plain::rounds(fixture, name),
        _ => panic!("no operation {operation}"),
    }
}

#[test]
fn no_operation_allocates() {
    for operation in OPERATIONS {
        with_device(|fixture| {
            let mut rounds = rounds(fixture, operation);
            rounds(50);
            let before = ALLOCATIONS.get();
            rounds(300);
            assert_eq!(ALLOCATIONS.get() - before, 0, "allocations of 300 rounds of {operation}");
        });
    }
}

/// Makes rounds of one operation, for a test that counts the system calls of this process.
#[test]
fn drive() {
    let Some(role) = role() else { return };
    let (operation, count) = role.rsplit_once(' ').expect("an operation and a number");
    let device = zcmi::verbs::Device::list().expect("devices").into_iter().next().expect("a device");
    let fixture = Fixture { context: device.open().expect("opens"), address: device_address().expect("its address") };
    rounds(&fixture, operation)(count.parse().expect("a number"));
}

/// System calls of a process that makes so many rounds, its set-up and end included.
fn system_calls(operation: &str, rounds: u32) -> i64 {
    let output = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o", "/dev/stdout"])
        .arg(std::env::current_exe().expect("our own path"))
        .args(["--exact", "drive", "--nocapture", "--test-threads=1"])
        .env("ZCMI_TEST_PEER", format!("{operation} {rounds}"))
        .stdin(Stdio::null())
        .output()
        .expect("strace is installed (soft-roce-setup/install)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let total = text.lines().find(|line| line.trim_end().ends_with("total")).expect("strace's total");
    total.split_whitespace().next().expect("a number").parse().expect("a number")
}

#[test]
fn a_post_is_one_system_call_and_nothing_else_is_any() {
    if device_address().is_none() {
        return;
    }
    for operation in OPERATIONS {
        let (few, many) = (100, 600);
        let difference = system_calls(operation, many) - system_calls(operation, few);
        let each = difference as f64 / f64::from(many - few);
        eprintln!("{operation}: {each} system calls a round");
        // What jitters is the set-up and the end of the process.
        assert!((0.9..1.1).contains(&each), "{operation}: {each} system calls a round");
    }
}
