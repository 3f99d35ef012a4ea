//! `zcmi bench`: each thing that it measures, over each transport, what it writes, and how it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::bench_schema::{Bench, Entry, Measure};
use crate::bencher::{Bencher, Folder, is_running, read, text};
use crate::{LIMIT, Server, command, common, finish, has_device, parse, run, text_of};

const TESTS: [&str; 8] = ["send", "hand_over", "read", "write", "fetch_add", "compare_swap", "register", "cache_hit"];

#[test]
fn everything_is_measured_over_each_transport_without_a_device() {
    for (transport, carried, shares) in
        [("shm", "shm", false), ("shm-shared", "shm", true), ("tcp", "tcp", false), ("auto", "shm", false)]
    {
        let bench =
            measured(transport, &["--size", "1,64,64KiB", "--depth", "4", "--iterations", "20", "--repeat", "2"]);
        assert_eq!((bench.transport.as_str(), bench.shares_pages), (carried, shares), "{bench:?}");
        assert_eq!(
            (bench.zcmi.as_str(), bench.peer_zcmi.as_str()),
            (env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(bench.options.transport, transport);
        is_whole(&bench, &[1, 64, 64 << 10], 40);
    }
}

#[test]
fn a_case_ends_when_its_time_is_over() {
    // Groups of messages, and looks at the clock, have lengths of their own.
    for depth in ["1", "3", "32"] {
        let bench = measured(
            "shm",
            &["message", "hand-over", "--size", "64", "--depth", depth, "--time", "20ms", "--repeat", "1"],
        );
        assert_eq!(bench.results.len(), 4);
    }
}

#[test]
fn everything_is_measured_over_rdma() {
    let Some(_host) = common::device_address().filter(|_| has_device()) else { return };
    let bench = measured("verbs", &["--size", "64,16KiB", "--depth", "4", "--iterations", "10", "--repeat", "1"]);
    assert_eq!(bench.transport, "verbs");
    is_whole(&bench, &[64, 16 << 10], 10);
}

#[test]
fn perftest_is_measured_in_turn() {
    let is_installed = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join("ib_send_lat").is_file());
    if !has_device() || !is_installed {
        eprintln!("SKIPPED: there is no RDMA device, or no perftest");
        return;
    }
    let arguments = [
        "bench",
        "message",
        "read",
        "--transport",
        "verbs",
        "--compare=perftest",
        "--size",
        "64",
        "--iterations",
        "20",
    ];
    let output = run(&[&arguments[..], &["--measure", "latency", "--repeat", "1", "--format", "json"]].concat());
    let bench: Bench = parse(&output);
    assert!(output.status.success() && bench.left_out.is_empty(), "{bench:?}");
    for (entry, name) in bench.results.iter().zip(["ib_send_lat", "ib_read_lat"]) {
        let [yardstick] = &entry.yardsticks[..] else { panic!("{entry:?}") };
        assert_eq!((yardstick.name.as_str(), yardstick.rounds, &yardstick.error), (name, 1, &None), "{entry:?}");
        let (theirs, ours) =
            (yardstick.latency_ns.expect("a figure"), entry.latency_ns.as_ref().expect("latencies").p50);
        assert!((yardstick.ratio.expect("a ratio") - ours / theirs).abs() < 1e-6 && theirs > 1000.0, "{entry:?}");
    }
    assert_eq!(bench.results.len(), 2);
}

#[test]
fn a_yardstick_that_is_not_understood_ends_no_bench() {
    let folder = Folder::new("yardstick");
    let program = folder.0.join("ucx_perftest");
    let figures = "Final: 100 2.000 2.5 2.5 388.26 388.26 1000000 2000000";
    for (says, is_good) in [
        (format!("echo {figures}"), true),
        ("echo Final: fast".to_owned(), false),
        ("echo no >&2; exit 3".to_owned(), false),
    ] {
        write_yardstick(&program, &says);
        let arguments = ["--transport", "shm", "--size", "64", "--iterations", "20", "--repeat", "1", "--depth", "4"];
        let output = run(&[
            &["bench", "message", "--format", "json", "--compare=ucx_perftest", "--ucx", text(&program)],
            &arguments[..],
        ]
        .concat());
        let bench: Bench = parse(&output);
        assert!(output.status.success(), "{output:?}");
        for entry in &bench.results {
            let [yardstick] = &entry.yardsticks[..] else { panic!("{entry:?}") };
            let found = (yardstick.latency_ns, yardstick.bytes_per_second);
            let expected = match entry.measure {
                _ if !is_good => (None, None),
                Measure::Latency => (Some(2000.0), None),
                Measure::Rate => (None, Some(128e6)),
            };
            assert_eq!(found, expected, "{says}: {entry:?}");
            assert_eq!(
                (yardstick.rounds, yardstick.ratio.is_some()),
                if is_good { (1, true) } else { (0, false) },
                "{entry:?}"
            );
            let error = yardstick.error.as_deref();
            assert!(
                is_good == error.is_none()
                    && error.is_none_or(|error| error.contains("format") || error.contains("status 3")),
                "{error:?}"
            );
        }
    }
}

#[test]
fn a_yardstick_ends_with_the_bench() {
    let folder = Folder::new("endless");
    let (program, ids) = (folder.0.join("ucx_perftest"), folder.0.join("ids"));
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = fs::remove_file(&ids);
        write_yardstick(&program, &format!("echo $$ >{}; exec sleep 1000", ids.display()));
        let arguments =
            ["message", "--transport", "shm", "--size", "64", "--iterations", "20", "--compare=ucx_perftest", "--ucx"];
        let mut bench = Bencher::start(&[&arguments[..], &[text(&program)]].concat());
        let begun = Instant::now();
        while !fs::read_to_string(&ids).unwrap_or_default().ends_with('\n') {
            assert!(begun.elapsed() < LIMIT, "they do not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        // All that it has started: our peer, and both ends of the yardstick.
        let id = bench.0.id();
        let children = read(Path::new(&format!("/proc/{id}/task/{id}/children")));
        assert_eq!(children.split_whitespace().count(), 3, "{children}");
        bench.signal(signal);
        bench.wait();
        for id in children.split_whitespace() {
            let id = Pid::from_raw(id.parse().expect("an id")).expect("a process");
            while is_running(id) {
                assert!(begun.elapsed() < LIMIT, "{signal:?}: it is still there");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// A program that is called as `ucx_perftest`. Its server listens, and does nothing else; the client does what `script` says.
fn write_yardstick(path: &Path, script: &str) {
    let listening = env!("CARGO_BIN_EXE_zcmi");
    let text = format!(
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" != -p ] || port=$2; last=$1; shift; done\n\
         [ \"$last\" = 127.0.0.1 ] || exec {listening} serve tcp://127.0.0.1:$port\n{script}\n"
    );
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

fn measured(transport: &str, arguments: &[&str]) -> Bench {
    let all: Vec<_> =
        ["bench", "--transport", transport, "--format", "json"].iter().chain(arguments).copied().collect();
    let output = run(&all);
    assert!(output.status.success(), "{transport}: {output:?}");
    assert!(output.stderr.is_empty(), "nobody looks at it: {output:?}");
    parse(&output)
}

/// Whether all that can be measured was, each so often.
fn is_whole(bench: &Bench, sizes: &[usize], operations: u64) {
    for test in TESTS {
        let entries: Vec<&Entry> = bench.results.iter().filter(|entry| entry.test == test).collect();
        let sizes = if matches!(test, "fetch_add" | "compare_swap") { &[8][..] } else { sizes };
        let latencies = of(&entries, Measure::Latency);
        assert_eq!(latencies.iter().map(|entry| entry.size).collect::<Vec<_>>(), sizes, "{test}");
        for entry in latencies {
            let times = entry.latency_ns.as_ref().expect("latencies");
            let row = [times.min, times.p50, times.p90, times.p99, times.p999, times.max];
            assert!(row[0] > 1.0 && row.is_sorted() && times.mean >= times.min && times.mean <= times.max, "{entry:?}");
            assert_eq!(entry.is_half_round_trip, matches!(test, "send" | "hand_over"), "{entry:?}");
            assert_eq!(
                (entry.operations, entry.depth, entry.operations_per_second),
                (operations, 1, None),
                "{entry:?}"
            );
        }
        let rates = of(&entries, Measure::Rate);
        let is_local = matches!(test, "register" | "cache_hit");
        assert_eq!(
            rates.iter().map(|entry| entry.size).collect::<Vec<_>>(),
            if is_local { &[] } else { sizes },
            "{test}"
        );
        for entry in rates {
            let (rate, bytes) = (entry.operations_per_second.expect("a rate"), entry.bytes_per_second.expect("bytes"));
            assert!(rate > 1.0 && (bytes / entry.size as f64 - rate).abs() < rate / 1e6, "{entry:?}");
            assert!(entry.operations >= operations && entry.latency_ns.is_none() && entry.depth == 4, "{entry:?}");
        }
    }
}

fn of<'a>(entries: &[&'a Entry], measure: Measure) -> Vec<&'a Entry> {
    entries.iter().filter(|entry| entry.measure == measure).copied().collect()
}

#[test]
fn results_are_written_as_json_tables_and_plots() {
    let folder = Folder::new("output");
    let place = folder.0.join("results");
    let output = run(&[
        "bench",
        "message",
        "--transport",
        "tcp",
        "--size",
        "64,4KiB",
        "--iterations",
        "20",
        "--output",
        text(&place),
    ]);
    assert!(output.status.success(), "{output:?}");
    let printed = text_of(&output);
    for word in ["latency", "p99.9", "send", "4 KiB", "half round trip", "in flight"] {
        assert!(printed.contains(word), "{word}: {printed}");
    }
    assert!(!printed.contains('\x1b'), "colours, and nobody looks: {printed}");
    let bench: Bench = serde_json::from_str(&read(&place.join("results.json"))).expect("the schema");
    assert_eq!(bench.results.len(), 4);
    let table = read(&place.join("results.md"));
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| send |")).collect();
    assert_eq!(rows.len(), 4, "{table}");
    for row in rows {
        let head = table.lines().take_while(|line| *line != row).filter(|line| line.starts_with("| test")).last();
        assert_eq!(head.map(|head| head.matches('|').count()), Some(row.matches('|').count()), "{table}");
    }
    for (name, words) in
        [("latency.svg", ["Latency over tcp", "send", "4 KiB"]), ("bandwidth.svg", ["bandwidth", "send", "64 B"])]
    {
        let svg = read(&place.join(name));
        let document = roxmltree::Document::parse(&svg).expect("well-formed");
        let texts: Vec<_> =
            document.descendants().filter(|node| node.has_tag_name("text")).filter_map(|node| node.text()).collect();
        for word in words {
            assert!(texts.iter().any(|text| text.trim() == word), "{name}: {word}: {texts:?}");
        }
    }
    let mut names: Vec<_> =
        fs::read_dir(&place).expect("it is there").map(|file| file.expect("a file").file_name()).collect();
    names.sort();
    assert_eq!(names, ["bandwidth.svg", "latency.svg", "results.json", "results.md"]);

    let plot = folder.0.join("rates.svg");
    let output = run(&[
        "bench",
        "write",
        "--transport",
        "shm",
        "--size",
        "64",
        "--iterations",
        "20",
        "--measure",
        "rate",
        "--plot",
        text(&plot),
    ]);
    assert!(output.status.success() && read(&plot).contains("Bandwidth"), "{output:?}");
}

#[test]
fn what_cannot_be_written_is_told_before_anything_is_measured() {
    let folder = Folder::new("unwritable");
    let (nowhere, good) = (folder.0.join("none/results.json"), folder.0.join("good.md"));
    for arguments in [
        ["--json", text(&nowhere)],
        ["--plot", text(&nowhere)],
        ["--markdown", text(&folder.0)],
        ["--output", "/proc/none"],
    ] {
        let begun = Instant::now();
        let mut all = vec!["bench", "--time", "60s", "--markdown", text(&good)];
        if arguments[0] == "--markdown" {
            all.truncate(3);
        }
        all.extend(arguments);
        let output = run(&all);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(arguments[1]) && said.lines().count() == 1, "{said}");
        assert!(begun.elapsed() < Duration::from_secs(20), "it was measured first");
    }
    assert_eq!(fs::read_dir(&folder.0).expect("it is there").count(), 0, "drafts are left");
}

#[test]
fn a_server_measures_with_bench_after_bench() {
    let mut server = Server::start(&["tcp://127.0.0.1:0"]);
    for what in ["message", "read"] {
        let output =
            run(&["bench", what, "--peer", &server.address, "--size", "64", "--iterations", "20", "--format", "json"]);
        assert!(output.status.success(), "{output:?}");
        let bench: Bench = parse(&output);
        assert_eq!((bench.transport.as_str(), bench.results.len()), ("tcp", 2));
        assert!(matches!(server.next(), crate::schema::Event::Served { error: None, .. }));
    }
    // It is the same server that `zcmi doctor` asks.
    assert!(run(&["doctor", &server.address]).status.success());
}

#[test]
fn two_benches_at_once_would_measure_each_other() {
    let server = Server::start(&["tcp://127.0.0.1:0"]);
    let mut first = Bencher::start(&["--peer", &server.address, "message", "--time", "60s"]);
    // Until it is served, which the second finds out.
    let begun = Instant::now();
    loop {
        let output =
            run(&["bench", "message", "--peer", &server.address, "--size", "64", "--iterations", "1", "--repeat", "1"]);
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("another bench"), "{output:?}");
            break;
        }
        assert!(begun.elapsed() < LIMIT, "both are served");
        // It may have come while this one was served.
        if first.has_ended() {
            first = Bencher::start(&["--peer", &server.address, "message", "--time", "60s"]);
        }
    }
    first.signal(Signal::TERM);
    assert_eq!(first.wait(), Some(143));
}

#[test]
fn an_interrupt_leaves_no_process() {
    // SIGKILL too: the kernel ends the peer process then.
    for (signal, status) in [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, None)] {
        let folder = Folder::new("interrupt");
        let mut bench =
            Bencher::start(&["message", "--transport", "shm", "--time", "60s", "--json", text(&folder.0.join("x"))]);
        let peer = bench.peer();
        bench.signal(signal);
        assert_eq!(bench.wait(), status, "{signal:?}");
        let begun = Instant::now();
        while is_running(peer) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{signal:?}: the peer process is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
        if signal != Signal::KILL {
            assert_eq!(fs::read_dir(&folder.0).expect("it is there").count(), 0, "{signal:?}: a draft is left");
        }
    }
}

#[test]
fn a_peer_process_that_is_killed_is_told() {
    for transport in ["shm", "tcp"] {
        let mut bench = Bencher::start(&["message", "--transport", transport, "--time", "60s"]);
        let peer = bench.peer();
        // It is being measured; or, on a slow machine, connected to.
        std::thread::sleep(Duration::from_millis(500));
        kill_process(peer, Signal::KILL).expect("it is there");
        assert_eq!(bench.wait(), Some(1));
        let said = bench.complaint();
        assert!(said.contains("ended by signal 9"), "{said}");
    }
}

#[test]
fn wrong_usage_of_bench_is_told() {
    for arguments in [
        &["--size", "x"][..],
        &["--size", "0"],
        &["--size", "1GiB"],
        &["nonsense"],
        &["--depth", "0"],
        &["--iterations", "0"],
        &["--time", "1s", "--iterations", "5"],
        &["--polling", "lazy"],
        &["--transport", "carrier-pigeon"],
        &["--peer", "host:port"],
        &["--peer", "host", "--compare"],
        &["--compare=nonsense"],
    ] {
        let all: Vec<_> = ["bench"].iter().chain(arguments).copied().collect();
        let output = run(&all);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    }
    // What is right, and cannot be done.
    for (arguments, word) in [
        (&["--peer", "tcp://127.0.0.1:1"][..], "127.0.0.1:1"),
        (&["--peer", "127.0.0.1:1", "--transport", "shm-shared"], "pages"),
        (&["registration", "--measure", "rate"], "nothing to measure"),
    ] {
        let all: Vec<_> = ["bench"].iter().chain(arguments).copied().collect();
        let output = run(&all);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{output:?}");
    }
    if !has_device() {
        let output = run(&["bench", "--transport", "verbs"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn without_yardsticks_it_is_told_how_to_have_them() {
    let bare = |arguments: &[&str]| {
        let all: Vec<_> =
            ["bench", "message", "--size", "64", "--iterations", "5", "--repeat", "1", "--format", "json"]
                .iter()
                .chain(arguments)
                .copied()
                .collect();
        let mut command = command(&all);
        command.env("PATH", "/nowhere").env_remove("UCX_PERFTEST");
        finish(command)
    };
    let output = bare(&["--compare", "--transport", "shm"]);
    let bench: Bench = parse(&output);
    let found: Vec<_> = bench.left_out.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(found, ["perftest", "fi_pingpong", "ucx_perftest"], "{bench:?}");
    assert!(bench.left_out.iter().all(|tool| tool.why.contains("apt-get install")), "{bench:?}");
    assert!(bench.results.iter().all(|entry| entry.yardsticks.is_empty()));
    let output = bare(&["--compare=ucx_perftest"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("ucx-utils"), "{output:?}");
    let output = bare(&["--compare=ucx_perftest", "--ucx", "/nowhere/ucx"]);
    assert!(
        output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("/nowhere/ucx"),
        "{output:?}"
    );
}

#[test]
fn the_document_has_all_fields_of_a_bench() {
    let document = include_str!("../../docs/tool.md");
    let (_, document) = document.split_once("## `zcmi bench`").expect("the section");
    let fields = "zcmi date host name kernel processor processors transport device address shares_pages passed_over peer_zcmi polling here peer \
        options what sizes depth rounds milliseconds iterations results test measure size operations is_half_round_trip latency_ns min mean p50 p90 \
        p99 p999 max operations_per_second bytes_per_second yardsticks statistic ratio error left_out why";
    for word in fields.split_whitespace().chain(TESTS) {
        assert!(document.contains(&format!("`{word}`")), "{word}");
    }
}
