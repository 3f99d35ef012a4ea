//! Kernels, two hosts, and what cannot work. These tests boot real machines.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::support::{alone, finish, folder, names, run, wait};

/// The server's time to listen has no bound while two machines share two cores, so the client asks for it.
const PING: &str = "timeout -s KILL 120 rping -s -a $ZCMI_HOST1 -C 3 & \
                    for _ in $(seq 600); do rdma resource show cm_id | grep -q LISTEN && break; sleep 0.1; done; \
                    timeout -s KILL 120 rping -c -a $ZCMI_HOST1 -C 3 -v && uname -r";

#[test]
fn two_kernels_at_once_carry_data() {
    let _alone = alone();
    let machines = ["6.1", "7"].map(|kernel| {
        let command = run(["--kernel", kernel, "--", "sh", "-c", PING]).spawn();
        (kernel, command.expect("run starts"))
    });
    for (kernel, child) in machines {
        let outcome = wait(child);
        let text = outcome.text();
        assert_eq!(outcome.status, Some(0), "{kernel}: {text}{}", outcome.stderr);
        assert_eq!(text.matches("rdma-ping-").count(), 3, "{kernel}: {text}");
        assert!(text.lines().last().is_some_and(|line| line.starts_with(&format!("{kernel}."))), "{text}");
    }
}

#[test]
fn two_hosts_reach_each_other_over_a_bad_cable() {
    let _alone = alone();
    // Until the peer listens, it refuses.
    let script = "for _ in $(seq 60); do timeout -s KILL 60 rping -c -a $ZCMI_HOST2 -C 5 -v; status=$?; \
                  [ $status = 0 ] && break; sleep 0.5; done; \
                  tc -s qdisc show dev veth1; exit $status";
    let peer = "timeout -s KILL 60 rping -s -a $ZCMI_HOST2 -C 5; echo served; exit 3";
    let outcome = finish(run(["--netem-1", "delay 40ms", "--peer", peer, "--", "sh", "-c", script]), None);
    let text = outcome.text();
    assert_eq!(outcome.status, Some(0), "{text}{}", outcome.stderr);
    assert_eq!(text.matches("rdma-ping-").count(), 5, "{text}");
    assert!(text.contains("delay 40ms"), "{text}");
    assert!(outcome.stderr.contains("[peer] served\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the peer failed with status 3"), "{}", outcome.stderr);
}

#[test]
fn a_peer_that_goes_on_is_stopped_and_has_not_failed() {
    let _alone = alone();
    let peer = "trap 'echo stopped; exit 9' TERM; echo begun; sleep 1000 & wait";
    let start = Instant::now();
    let outcome = finish(run(["--peer", peer, "--", "sh", "-c", "exit 7"]), None);
    assert_eq!((outcome.status, outcome.text().as_str()), (Some(7), ""));
    assert_eq!(outcome.stderr, "[peer] begun\n[peer] stopped\n");
    assert!(start.elapsed().as_secs() < 90);
}

#[test]
fn kernels_that_cannot_do_two_hosts_say_so() {
    for kernel in ["6.1", "6.12"] {
        let outcome = finish(run(["--kernel", kernel, "--hosts", "2", "true"]), None);
        assert_eq!(outcome.status, Some(2));
        assert!(outcome.stderr.contains("7.1 or newer"), "{}", outcome.stderr);
    }
}

#[test]
fn wrong_usage_is_told_at_once() {
    let outcome = finish(run(["--no-such-option", "true"]), None);
    assert_eq!(outcome.status, Some(2));
    assert!(outcome.stderr.contains("--no-such-option") && outcome.stderr.contains("--help"), "{}", outcome.stderr);
}

#[test]
fn without_qemu_the_cure_is_named() {
    let mut command = run(["true"]);
    command.env("PATH", tools("no-qemu"));
    let outcome = finish(command, None);
    assert_eq!(outcome.status, Some(125));
    assert!(outcome.stderr.contains("qemu-system-x86_64") && outcome.stderr.contains("install"), "{}", outcome.stderr);
}

/// A folder with what the scripts need, and no QEMU.
fn tools(name: &str) -> std::path::PathBuf {
    let folder = folder(name);
    for tool in ["sh", "dirname", "find", "env"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().expect("sh runs");
        let found = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        std::os::unix::fs::symlink(found, folder.join(tool)).expect("a link");
    }
    folder
}

#[test]
fn without_network_and_cache_the_cure_is_named_and_nothing_stays() {
    let cache = folder("empty-cache");
    let mut command = run(["true"]);
    // Nobody listens on that port.
    command.env("ZCMI_CACHE", &cache).env("ZCMI_DEBIAN_MIRROR", "http://127.0.0.1:9/debian");
    let outcome = finish(command, None);
    assert_eq!(outcome.status, Some(125));
    assert!(outcome.stderr.contains("check the network"), "{}", outcome.stderr);
    assert_eq!(names(&cache), ["6.12.lock"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let file = folder("no-cache").join("file");
    fs::write(&file, "").expect("a file");
    let mut command = run(["true"]);
    command.env("ZCMI_CACHE", &file);
    let outcome = finish(command, None);
    assert_eq!(outcome.status, Some(125));
    assert!(outcome.stderr.contains("ZCMI_CACHE"), "{}", outcome.stderr);
}

#[test]
fn a_guest_that_does_not_boot_shows_its_last_words() {
    let _alone = alone();
    let cache = folder("broken-cache");
    let kernel = cache.join("6.12");
    fs::create_dir(&kernel).expect("a folder");
    for name in ["vmlinuz", "initramfs", "complete"] {
        fs::write(kernel.join(name), "no such thing").expect("a file");
    }
    let mut command = run(["true"]);
    command.env("ZCMI_CACHE", &cache);
    let outcome = finish(command, None);
    assert_eq!(outcome.status, Some(125));
    assert!(outcome.stderr.contains("does not boot") && outcome.stderr.contains("log"), "{}", outcome.stderr);
}
