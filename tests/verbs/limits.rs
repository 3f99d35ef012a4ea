//! Limits of a process: the error names the limit, its value and the cure. Each is set in a process of its own.

use std::process::Command;
use std::sync::Arc;

use zcmi::verbs::{
    Access, CompletionChannel, Context, Device, Error, EventChannel, MemoryRegion, ProtectionDomain, Result,
    SharedBytes,
};

use crate::common::{Peer, role, say};
use crate::support::with_device;

/// Runs `part` of [`limited`] through `wrapper`; answers its lines before `end`.
fn limited_to(wrapper: &[&str], part: &str) -> Vec<String> {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(std::env::current_exe().expect("our own path"));
    command.args(["--exact", "limits::limited", "--nocapture", "--test-threads=1"]).env("ZCMI_TEST_PEER", part);
    let peer = Peer::spawn(command);
    let said = std::iter::from_fn(|| Some(peer.hear()).filter(|line| line != "end")).collect();
    assert!(peer.finish().success());
    said
}

/// The part of a test that runs under a limit.
#[test]
fn limited() {
    match role().as_deref() {
        Some("memory") => register(),
        Some("descriptors") => open(),
        _ => {}
    }
}

fn is_root() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        eprintln!("SKIPPED: setting the limit up needs root");
    }
    root
}

fn line(error: &Error) -> String {
    format!("{:?}|{error}", error.errno())
}

fn register() {
    let domain = ProtectionDomain::allocate(&Device::list().expect("devices")[0].open().expect("opens"));
    let domain = domain.expect("a domain");
    let attempt =
        |length| MemoryRegion::register(&domain, SharedBytes::new(vec![0; length]), 0..length, Access::LOCAL_READ);
    let held = attempt(40_000).expect("below the limit");
    say(line(&attempt(300_000).expect_err("above the limit")));
    // What is held already counts.
    say(line(&attempt(40_000).expect_err("above the limit together")));
    drop(held);
    attempt(40_000).expect("below the limit again");
    say("end");
}

#[test]
fn too_little_lockable_memory_is_named_with_the_limit_and_the_cure() {
    with_device(|_| {
        if !is_root() {
            return;
        }
        let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        let wrapper: Vec<&str> = ["prlimit", "--memlock=65536:65536"].into_iter().chain(user).collect();
        let said = limited_to(&wrapper, "memory");
        assert_eq!(said.len(), 2);
        for (text, bytes) in said.iter().zip(["300000", "40000"]) {
            assert!(text.starts_with(&format!("Some({})", libc::ENOMEM)), "{text}");
            for part in
                [bytes, "65536", "RLIMIT_MEMLOCK", "ulimit -l unlimited", "LimitMEMLOCK=", "--ulimit memlock=-1"]
            {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        // 40,000 bytes lie in 10 or 11 pages.
        assert!(said[1].contains("40960 of them in use") || said[1].contains("45056 of them in use"), "{}", said[1]);
    });
}

/// Leaves this process `count` descriptors, of however many it may have.
fn leave(count: usize) -> Vec<std::fs::File> {
    let mut files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(files.len() > count, "the limit is too low for the test itself");
    files.truncate(files.len() - count);
    files
}

fn open() {
    let name = Device::list().expect("devices")[0].name().to_owned();
    let context = Context::open(&name).expect("opens");
    // A list in which the device is missing would be an answer too, and a wrong one.
    let list = || Device::list().map(|list| assert!(!list.is_empty(), "the device is not listed"));
    let attempts: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("list", &list),
        ("open", &|| Context::open(&name).map(drop)),
        ("completion", &|| CompletionChannel::create(&context).map(drop)),
        ("event", &|| EventChannel::create().map(drop)),
    ];
    for (what, attempt) in attempts {
        let mut failures = 0;
        // One descriptor more each time, until there are enough: every step in between can fail.
        for left in 0.. {
            let files = leave(left);
            let result = attempt();
            drop(files);
            match result {
                Ok(()) => break,
                Err(error) => say(format!("{what}|{}", line(&error))),
            }
            failures += 1;
            assert!(failures < 16, "{what} never succeeds");
        }
        assert!(failures > 0, "{what} needs no descriptor");
    }
    assert_eq!(Arc::strong_count(&context), 1);
    say("end");
}

#[test]
fn too_few_descriptors_are_named_with_the_limit_and_the_cure() {
    with_device(|_| {
        let mut seen = Vec::new();
        for said in limited_to(&["prlimit", "--nofile=64:64"], "descriptors") {
            let (what, text) = said.split_once('|').expect("what was tried");
            assert!(text.starts_with(&format!("Some({})", libc::EMFILE)), "{said}");
            for part in ["RLIMIT_NOFILE allows 64", "ulimit -n", "LimitNOFILE=", "--ulimit nofile="] {
                assert!(text.contains(part), "{part}: {said}");
            }
            seen.push(what.to_owned());
        }
        seen.dedup();
        assert_eq!(seen, ["list", "open", "completion", "event"]);
    });
}
