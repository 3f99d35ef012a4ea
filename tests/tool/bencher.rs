//! A `zcmi bench` that runs, and where it leaves its results.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::LIMIT;

/// A bench on its way.
pub(crate) struct Bencher(pub(crate) Child);

impl Bencher {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zcmi"));
        command.arg("bench").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A group of its own, as a shell makes one.
        Self(command.process_group(0).spawn().expect("it starts"))
    }

    /// Its peer process, once that serves.
    pub(crate) fn peer(&self) -> Pid {
        let id = self.0.id();
        let begun = Instant::now();
        loop {
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("it runs");
            let mut ids = children.split_whitespace();
            if let Some(Ok(id)) = ids.next().map(str::parse) {
                let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
                let words: Vec<_> = line.split(|byte| *byte == 0).collect();
                // It has become the server.
                if words.get(1) == Some(&&b"serve"[..]) {
                    return Pid::from_raw(id).expect("a process");
                }
            }
            assert!(begun.elapsed() < LIMIT, "there is no peer process");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it is there");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("it is ours").is_some()
    }

    /// Its exit status; none if a signal ended it.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("it is ours") {
                return status.code();
            }
            assert!(begun.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn complaint(&mut self) -> String {
        std::io::read_to_string(self.0.stderr.take().expect("piped")).expect("text")
    }
}

impl Drop for Bencher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process is there and no zombie that nobody has waited for.
pub(crate) fn is_running(id: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).unwrap_or_default();
    let is_zombie = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    test_kill_process(id).is_ok() && !is_zombie
}

/// A folder that ends with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("zcmi-bench-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
