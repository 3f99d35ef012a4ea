//! `ping_pong` and `throughput`: both formats, exit status, errors, and nothing left behind.

use std::io::{BufRead, BufReader};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::programs::{
    assert_keys, device, host, one_line, rows, run, scheme, soon, start, transport, zcmi_sees_a_device,
};

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

/// What an example says first if it was not told where to run.
fn said_before() -> &'static str {
    if zcmi_sees_a_device() {
        ""
    } else {
        "there is no RDMA device to use\nover shm, not verbs: the peer does not offer it\n"
    }
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
