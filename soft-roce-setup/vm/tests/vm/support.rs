//! Starting `run`, never waiting for ever, and looking at what it leaves.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any run here may take, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a finished run has left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// One VM at a time: two emulated processors are all that a small machine can feed.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folder of the scripts.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("vm is in soft-roce-setup").to_owned()
}

/// `run` in a VM with these arguments, streams to be chosen.
pub(crate) fn run<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(scripts().join("run"));
    command.arg("--vm").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// An empty folder of this test's own.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the test");
    folder
}

/// Runs to the end, with this standard input.
pub(crate) fn finish(mut command: Command, input: Option<Vec<u8>>) -> Outcome {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().expect("run starts");
    let stdin = child.stdin.take();
    let writer = thread::spawn(move || {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            let _ = stdin.write_all(&input);
        }
    });
    let outcome = wait(child);
    let _ = writer.join();
    outcome
}

/// Waits for the end; a run that does not end is killed and fails the test.
pub(crate) fn wait(mut child: Child) -> Outcome {
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("run can be waited for") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("run has not ended within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(10));
    };
    let stdout = stdout.join().expect("standard output is read");
    let stderr = stderr.join().expect("standard error is read");
    Outcome { status: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

fn collect(source: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Starts a run and waits until its command has printed the line "up".
pub(crate) fn until_up(mut command: Command) -> Child {
    let mut child = command.spawn().expect("run starts");
    let stdout = child.stdout.as_mut().expect("a pipe");
    let mut line = [0; 3];
    stdout.read_exact(&mut line).expect("the command starts");
    assert_eq!(&line, b"up\n");
    child
}

/// The processes that a run has started and that still exist.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Whether all these processes are gone within two seconds.
pub(crate) fn gone(processes: &[u32]) -> bool {
    let exists = |pid: &u32| {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    };
    (0..200).any(|_| {
        thread::sleep(Duration::from_millis(10));
        !processes.iter().any(exists)
    })
}

/// Names in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}
