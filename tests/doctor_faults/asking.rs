//! Creating a fault, asking the doctor, doing what it says.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::schema::{Finding, Health, Level};

/// How long any command may take.
const BOUND: Duration = Duration::from_secs(60);

/// A place where commands run: a shell that is started by a command of its own (`unshare`, `prlimit`), and what happens there first.
pub(crate) struct Place<'a> {
    pub(crate) starts: &'a [&'a str],
    pub(crate) setup: &'a str,
}

/// Where everything is as it is.
pub(crate) const HERE: Place<'_> = Place { starts: &[], setup: "" };

impl Place<'_> {
    /// What the doctor finds there, after `fix` if there is one, in the shell that it is typed into.
    pub(crate) fn doctor(&self, fix: &str) -> Health {
        // Of the standard output, all is the doctor's.
        let script = format!("{{ :\n{}\n{fix}\n}} >&2\n\"$1\" doctor --format json", self.setup);
        let output = self.run(&script);
        let text = String::from_utf8(output.stdout.clone()).expect("text");
        let health: Health = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!(output.status.code(), Some(i32::from(health.problems > 0)), "{health:?}");
        assert_eq!(health.ok, health.problems == 0, "{health:?}");
        let problems = health.findings.iter().filter(|finding| finding.level == Level::Problem);
        assert_eq!(problems.count(), health.problems, "{health:?}");
        health
    }

    /// The doctor finds here a problem of `check` that `says` this; answers the command that mends it.
    pub(crate) fn finds(&self, check: &str, says: &str) -> String {
        let health = self.doctor("");
        let found =
            problem(&health, check).unwrap_or_else(|| panic!("no problem of {check}: {}", told(&health, check)));
        assert!(found.what.contains(says), "{says}: {found:?}");
        assert!(found.why.is_some(), "{found:?}");
        found.fix.clone().expect("a remedy")
    }

    /// As [`finds`](Self::finds); then there is no such problem any more where the remedy has been typed in.
    pub(crate) fn finds_and_mends(&self, check: &str, says: &str) {
        let fix = self.finds(check, says);
        println!("{check}: {fix}");
        self.is_well_after(&fix, check);
    }

    /// The same of all problems of `check`, each with what it says.
    pub(crate) fn finds_and_mends_all(&self, check: &str, says: &[&str]) {
        let health = self.doctor("");
        let is_it = |finding: &&Finding| finding.check == check && finding.level == Level::Problem;
        let found: Vec<_> = health.findings.iter().filter(is_it).collect();
        assert_eq!(found.len(), says.len(), "{}", told(&health, check));
        for says in says {
            assert!(found.iter().any(|finding| finding.what.contains(says)), "{says}: {}", told(&health, check));
        }
        let fixes: Vec<_> = found.iter().map(|finding| finding.fix.clone().expect("a remedy")).collect();
        self.is_well_after(&fixes.join("\n"), check);
    }

    /// There is no problem of `check` after the command.
    pub(crate) fn is_well_after(&self, command: &str, check: &str) {
        let health = self.doctor(command);
        assert!(problem(&health, check).is_none(), "after {command}: {}", told(&health, check));
    }

    fn run(&self, script: &str) -> Output {
        let zcmi = env!("CARGO_BIN_EXE_zcmi");
        let mut words = self.starts.to_vec();
        words.extend(["sh", "-ec", script, "sh", zcmi]);
        run(&words)
    }
}

/// The problem of `check`, if there is one.
pub(crate) fn problem<'a>(health: &'a Health, check: &str) -> Option<&'a Finding> {
    health.findings.iter().find(|finding| finding.check == check && finding.level == Level::Problem)
}

/// What the doctor says of `check`, and which other problems there are.
fn told(health: &Health, check: &str) -> String {
    let findings = health.findings.iter().filter(|it| it.check == check || it.level == Level::Problem);
    format!("{:?}", findings.map(|it| (&it.check, &it.level, &it.what, &it.fix)).collect::<Vec<_>>())
}

/// Has this be no container for the doctor, whose remedies differ there. In the VM, which sees the files of this machine, it may look like one.
pub(crate) fn not_in_container() -> Option<Undo> {
    std::fs::remove_file("/.dockerenv").ok().map(|()| Undo("touch /.dockerenv".to_owned()))
}

/// Runs a command to its end, which comes in time. (`timeout` would do, and takes a second where the processor is emulated.)
pub(crate) fn run(words: &[&str]) -> Output {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let id = Pid::from_child(&child);
    let (done, over) = channel::<()>();
    let watch = std::thread::spawn(move || {
        if over.recv_timeout(BOUND) == Err(RecvTimeoutError::Timeout) {
            let _ = kill_process(id, Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("its output");
    drop(done);
    watch.join().expect("no panic");
    output
}

/// Runs a line of shell that has to succeed.
pub(crate) fn shell(line: &str) {
    let output = run(&["sh", "-ec", line]);
    assert!(output.status.success(), "{line}: {output:?}");
}

/// Whether these words succeed; if not, a test that needs them is skipped aloud.
pub(crate) fn is_possible(words: &[&str]) -> bool {
    let is_there = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let is_possible = is_there.as_ref().is_ok_and(|output| output.status.success());
    if !is_possible {
        eprintln!("SKIPPED: {words:?} is not possible here: {is_there:?}");
    }
    is_possible
}

/// Whether this is the VM, where all takes long. What needs no device is tried outside, which `tests/run` does too.
pub(crate) fn is_slow() -> bool {
    let is_vm = std::env::var("ZCMI_HOST1").is_ok_and(|address| address == ADDRESS);
    if is_vm {
        eprintln!("SKIPPED: it needs no device, and is tried outside of the VM");
    }
    is_vm
}

/// Undoes a fault, whatever the test comes to.
pub(crate) struct Undo(pub(crate) String);

impl Drop for Undo {
    fn drop(&mut self) {
        let output = run(&["sh", "-c", &self.0]);
        if !output.status.success() {
            eprintln!("not undone: {}: {output:?}", self.0);
        }
    }
}

/// The network interface of the Soft-RoCE device that soft-roce-setup has made, and no other: faults are made on it, which a device that somebody
/// uses must not have. `None`, said aloud, where it is not there; a panic where it must be.
pub(crate) fn own_device() -> Option<&'static str> {
    let parent = std::fs::read_to_string("/sys/class/infiniband/rxe0/parent").unwrap_or_default();
    let is_required = std::env::var("ZCMI_REQUIRE_RDMA").is_ok_and(|value| value == "1");
    // Of a machine with a device of its own nothing is asked.
    let is_in_vm = std::env::var("ZCMI_HOST1").is_ok_and(|address| address == ADDRESS);
    if parent.trim() == NETDEV && rustix::process::getuid().is_root() {
        return Some(NETDEV);
    }
    assert!(!(is_required && is_in_vm), "ZCMI_REQUIRE_RDMA=1, and there is no rxe0 on {NETDEV}, or this is not root");
    eprintln!("SKIPPED: there is no device for faults: run it with soft-roce-setup/run --vm");
    None
}

/// The private interface of soft-roce-setup/up.
const NETDEV: &str = "zcmi0";
/// Its address.
pub(crate) const ADDRESS: &str = "192.0.2.1";
