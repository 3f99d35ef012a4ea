//! Running the examples: processes that end with the test, and what they print.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long any process may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The right to use the device, or the host's processors, one test at a time. Fails where a device is required and missing.
pub(crate) fn device() -> MutexGuard<'static, ()> {
    static DEVICE: Mutex<()> = Mutex::new(());
    let is_required = std::env::var("ZCMI_REQUIRE_RDMA").as_deref() == Ok("1");
    assert!(!is_required || zcmi_sees_a_device(), "no RDMA device, and ZCMI_REQUIRE_RDMA is set");
    DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(not(feature = "verbs"))]
pub(crate) fn zcmi_sees_a_device() -> bool {
    false
}

#[cfg(feature = "verbs")]
pub(crate) fn zcmi_sees_a_device() -> bool {
    zcmi::verbs::Device::list().is_ok_and(|devices| !devices.is_empty())
}

/// What the examples use: the device if there is one.
pub(crate) fn transport() -> &'static str {
    if zcmi_sees_a_device() { "verbs" } else { "shm" }
}

pub(crate) fn scheme() -> &'static str {
    if zcmi_sees_a_device() { "rdma" } else { "tcp" }
}

/// The device's address, or this host's.
pub(crate) fn host() -> String {
    let device = || std::env::var("ZCMI_HOST1").expect("ZCMI_HOST1, as soft-roce-setup/run sets it");
    let host = if zcmi_sees_a_device() { device() } else { "127.0.0.1".to_owned() };
    format!("{}://{host}", scheme())
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Waits for the end; what it printed.
    pub(crate) fn output(mut self) -> Output {
        let ended = soon(|| self.0.try_wait().expect("it can be waited for"));
        let status = ended.unwrap_or_else(|| panic!("it did not end within {LIMIT:?}"));
        let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
        // Short enough to wait in the pipes meanwhile.
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_end(&mut output.stdout).expect("its output");
        }
        if let Some(mut pipe) = self.0.stderr.take() {
            pipe.read_to_end(&mut output.stderr).expect("its errors");
        }
        output
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(example: &str, options: &[&str]) -> Process {
    let mut command = Command::new(path_of(example));
    command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Process(command.spawn().unwrap_or_else(|error| panic!("{example} cannot be started: {error}")))
}

pub(crate) fn run(example: &str, options: &[&str]) -> Output {
    start(example, options).output()
}

/// `target/PROFILE/examples/EXAMPLE`, which `cargo test` builds unless it is told to build one test only.
pub(crate) fn path_of(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = profile.join("examples").join(example);
    assert!(path.exists(), "there is no {}: `cargo build --examples` makes it", path.display());
    path
}

/// Asks until there is an answer, for a bounded time.
pub(crate) fn soon<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match ask() {
            None if Instant::now() < deadline => sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
}

pub(crate) fn rows(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub(crate) fn assert_keys(value: &Value, keys: &[&str]) {
    let found: Vec<_> = value.as_object().expect("an object").keys().collect();
    assert_eq!(found, keys);
}

pub(crate) fn one_line(output: &Output) -> &str {
    let text = std::str::from_utf8(&output.stderr).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end()
}

/// Where a server of the test may listen: by the device, or else by each transport that needs none.
pub(crate) fn places() -> Vec<String> {
    match zcmi_sees_a_device() {
        true => vec![format!("{}:0", host())],
        false => vec!["tcp://127.0.0.1:0".to_owned(), "shm://".to_owned()],
    }
}

/// A server that listens, and where. What it says later is of no use here, and must not fill the pipe.
pub(crate) fn serve(example: &str, options: &[&str]) -> (Process, String) {
    let mut server = start(example, &[&["serve"], options].concat());
    let mut said = BufReader::new(server.0.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    let uri = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    assert!(line.contains("listening at") && uri.contains("://"), "{line}");
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    (server, uri)
}

/// A folder of the test's own, which goes with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("zcmi-examples-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder of its own");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is of no use, and in the way of nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
