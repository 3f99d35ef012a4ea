//! The system calls of a process, counted by strace.

use std::process::{Command, Stdio};

use crate::common::Peer;

/// System calls of this test binary in the role `drive`, which its `drive` test plays with a peer in the role `peer`, set-up and end included. What a busy
/// waiter does once a millisecond to let others run (`epoll_wait`), and the service thread every 25 ms (`epoll_pwait`), is left out.
pub(crate) fn system_calls(peer: &str, drive: &str) -> i64 {
    let peer = Peer::start(peer);
    let output = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o", "/dev/stdout", "-e", "trace=!epoll_wait,epoll_pwait"])
        .arg(std::env::current_exe().expect("our own path"))
        .args(["--exact", "drive", "--nocapture", "--test-threads=1"])
        .env("ZCMI_TEST_PEER", drive)
        .env("ZCMI_TEST_URI", peer.hear())
        .stdin(Stdio::null())
        .output()
        .expect("strace is installed (soft-roce-setup/install)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(peer.finish().success());
    let total = text.lines().find(|line| line.trim_end().ends_with("total")).expect("strace's total");
    total.split_whitespace().next().expect("a number").parse().expect("a number")
}
