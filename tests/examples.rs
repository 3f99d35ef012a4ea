//! The examples, as a user runs them: two processes, both formats, exit status, errors, and nothing left behind.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long any process may take.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn ping_pong_prints_json() {
    let _device = device();
    let output = run("ping_pong", &["--format", "json", "--size", "1,64", "--size", "5K", "--iterations", "20"]);
    assert!(output.status.success(), "{output:?}");
    let rows = rows(&output);
    let found: Vec<_> =
        rows.iter().map(|row| (row["test"].as_str().expect("a test"), row["size"].as_u64().expect("a size"))).collect();
    let expected = ["send", "write", "read"].into_iter().flat_map(|test| [1, 64, 5120].map(|size| (test, size)));
    assert_eq!(found, expected.collect::<Vec<_>>());
    for row in rows {
        assert_keys(&row, &["half_round_trip_ns", "iterations", "size", "test", "transport"]);
        assert_eq!((&row["transport"], &row["iterations"]), (&Value::from(transport()), &Value::from(20)));
        let times = &row["half_round_trip_ns"];
        assert_keys(times, &["max", "min", "p50", "p99", "p999"]);
        let times = ["min", "p50", "p99", "p999", "max"].map(|name| times[name].as_u64().expect("nanoseconds"));
        assert!(times[0] > 0 && times.is_sorted(), "{row}");
    }
}

#[test]
fn throughput_prints_json() {
    let _device = device();
    let options = ["--format", "json", "--size", "1,3000", "--depth", "7", "--batch", "3", "--iterations", "50"];
    let output = run("throughput", &options);
    assert!(output.status.success(), "{output:?}");
    let rows = rows(&output);
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert_keys(&row, &["bytes_per_second", "depth", "messages_per_second", "size", "test", "transport"]);
        assert_eq!((&row["transport"], &row["depth"]), (&Value::from(transport()), &Value::from(7)));
        let [bytes, messages, size] =
            ["bytes_per_second", "messages_per_second", "size"].map(|name| row[name].as_u64().expect("a number"));
        assert!(messages > 0 && bytes >= messages * size, "{row}");
    }
}

#[test]
fn tables_are_aligned() {
    let _device = device();
    for (example, columns) in [("ping_pong", 8), ("throughput", 6)] {
        let output = run(example, &["--size", "64,4K", "--iterations", "20"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), said_before(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let table: Vec<_> = text.lines().skip_while(|line| !line.starts_with("test ")).collect();
        assert_eq!(table.len(), 1 + 3 * 2, "{text}");
        for line in &table {
            assert_eq!(line.len(), table[0].len(), "{text}");
            assert_eq!(line.split_whitespace().count(), columns, "{text}");
        }
    }
}

#[test]
fn a_server_serves_client_after_client() {
    let _device = device();
    let mut server = start("ping_pong", &["--bind", &format!("{}://0.0.0.0:0", scheme())]);
    let mut stderr = BufReader::new(server.0.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    // It says more, and would end where nobody reads that.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let port = line.trim().rsplit(':').next().expect("a port");
    let address = format!("{}:{port}", host());

    let client = ["--connect", &address, "--size", "64", "--iterations", "10", "--test", "write"];
    assert!(run("ping_pong", &client).status.success());
    // A client that is killed in the middle does not hold the server up, nor does one of another program.
    let mut killed = start("ping_pong", &["--connect", &address, "--size", "64", "--iterations", "100000000"]);
    sleep(Duration::from_secs(1));
    killed.0.kill().expect("it was running");
    let other = run("throughput", &["--connect", &address]);
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    assert!(one_line(&other).contains("this is a server of ping_pong, not of throughput"), "{other:?}");
    assert!(run("ping_pong", &client).status.success());
}

#[test]
fn through_shared_memory_a_name_or_a_path_is_the_address() {
    let _device = device();
    let path = std::env::temp_dir().join(format!("zcmi-examples-{}", std::process::id()));
    for address in ["shm://".to_owned(), format!("shm://{}", path.display())] {
        for example in ["ping_pong", "throughput"] {
            let mut server = start(example, &["--bind", &address, "--once"]);
            let mut line = String::new();
            BufReader::new(server.0.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
            let uri = line.trim().rsplit(' ').next().expect("an address");
            assert!(uri.len() > "shm://".len() && uri.starts_with(&address), "{line}");
            let client =
                run(example, &["--connect", uri, "--size", "64,100000", "--iterations", "20", "--format", "json"]);
            let said = String::from_utf8_lossy(&client.stdout).into_owned();
            assert!(client.status.success() && said.contains("\"transport\":\"shm\""), "{client:?}");
            assert!(server.output().status.success());
        }
    }
    assert!(!path.exists(), "its socket is left");
}

#[test]
fn two_processes_and_no_orphan() {
    let _device = device();
    let mut parent = start("ping_pong", &["--size", "64", "--iterations", "100000000", "--test", "send"]);
    let server = soon(|| child_of(parent.0.id())).expect("a server process");
    assert_ne!(server, parent.0.id());
    parent.0.kill().expect("it was running");
    parent.0.wait().expect("it was killed");
    soon(|| (!is_running(server)).then_some(())).expect("the server process ends with its parent");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let _device = device();
    let mut child = start("ping_pong", &["--format", "json", "--size", "64,64,64,64", "--iterations", "20"]);
    let mut first = String::new();
    BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    assert!(first.starts_with('{'), "{first}");
    let output = child.output();
    assert!(output.status.success() && output.stderr == said_before().as_bytes(), "{output:?}");
}

#[test]
fn an_error_is_one_line_with_a_hint() {
    // Nobody listens.
    let options = &["--connect", &format!("{}:1", host())];
    for example in ["ping_pong", "throughput"] {
        let output = run(example, options);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let line = one_line(&output);
        assert!(line.starts_with(&format!("{example}: ")) && line.contains(". Hint: "), "{line}");
    }
}

#[test]
fn wrong_options_are_refused() {
    for options in [
        &["--size", "0"][..],
        &["--size", "4X"],
        &["--iterations", "0"],
        &["--bind", "a", "--connect", "b"],
        &["--once"],
        &["--duration", "-1"],
    ] {
        let output = run("throughput", options);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    }
}

/// The right to use the device, or the host's processors, one test at a time. Fails where a device is required and missing.
fn device() -> MutexGuard<'static, ()> {
    static DEVICE: Mutex<()> = Mutex::new(());
    let is_required = std::env::var("ZCMI_REQUIRE_RDMA").as_deref() == Ok("1");
    assert!(!is_required || zcmi_sees_a_device(), "no RDMA device, and ZCMI_REQUIRE_RDMA is set");
    DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(not(feature = "verbs"))]
fn zcmi_sees_a_device() -> bool {
    false
}

#[cfg(feature = "verbs")]
fn zcmi_sees_a_device() -> bool {
    zcmi::verbs::Device::list().is_ok_and(|devices| !devices.is_empty())
}

/// What the examples use: the device if there is one.
fn transport() -> &'static str {
    if zcmi_sees_a_device() { "verbs" } else { "shm" }
}

fn scheme() -> &'static str {
    if zcmi_sees_a_device() { "rdma" } else { "tcp" }
}

/// What an example says first if it was not told where to run.
fn said_before() -> &'static str {
    if zcmi_sees_a_device() {
        ""
    } else {
        "there is no RDMA device to use\nover shm, not verbs: the peer does not offer it\n"
    }
}

/// The device's address, or this host's.
fn host() -> String {
    let device = || std::env::var("ZCMI_HOST1").expect("ZCMI_HOST1, as soft-roce-setup/run sets it");
    let host = if zcmi_sees_a_device() { device() } else { "127.0.0.1".to_owned() };
    format!("{}://{host}", scheme())
}

/// A process that ends with the test.
struct Process(Child);

impl Process {
    /// Waits for the end; what it printed.
    fn output(mut self) -> Output {
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

fn start(example: &str, options: &[&str]) -> Process {
    let mut command = Command::new(path_of(example));
    command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Process(command.spawn().unwrap_or_else(|error| panic!("{example} cannot be started: {error}")))
}

fn run(example: &str, options: &[&str]) -> Output {
    start(example, options).output()
}

/// `target/PROFILE/examples/EXAMPLE`, which `cargo test` builds unless it is told to build one test only.
fn path_of(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = profile.join("examples").join(example);
    assert!(path.exists(), "there is no {}: `cargo build --examples` makes it", path.display());
    path
}

/// Asks until there is an answer, for a bounded time.
fn soon<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match ask() {
            None if Instant::now() < deadline => sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
}

fn rows(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn assert_keys(value: &Value, keys: &[&str]) {
    let found: Vec<_> = value.as_object().expect("an object").keys().collect();
    assert_eq!(found, keys);
}

fn one_line(output: &Output) -> &str {
    let text = std::str::from_utf8(&output.stderr).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end()
}

fn child_of(parent: u32) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.into_iter().find(|&id| field_of(id, 1) == Some(parent.to_string()))
}

fn is_running(process: u32) -> bool {
    field_of(process, 0).is_some_and(|state| state != "Z")
}

/// A field of `/proc/PROCESS/stat` after the name: 0 is the state, 1 the parent.
fn field_of(process: u32, index: usize) -> Option<String> {
    let line = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    line.rsplit_once(") ")?.1.split(' ').nth(index).map(str::to_owned)
}
