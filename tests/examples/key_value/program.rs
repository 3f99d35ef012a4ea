//! The program, over every transport that there is.

use std::process::Output;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::programs::{
    Scratch, assert_keys, device, host, one_line, places, rows, run, serve, soon, start, zcmi_sees_a_device,
};

const NAME: &str = "key_value";
/// How long a server is stopped.
const STOPPED: Duration = Duration::from_secs(2);

#[test]
fn values_are_put_read_and_deleted() {
    let _device = device();
    for place in places() {
        let (_server, uri) = serve(NAME, &["--bind", &place]);
        let ask = |command: &str, words: &[&str]| run(NAME, &[&[command, "--connect", &uri], words].concat());
        assert!(ask("put", &["key", "value"]).status.success());
        assert_eq!(ask("get", &["key"]).stdout, b"value\n");
        assert!(ask("put", &["key", "another"]).status.success());
        let got = json(&ask("get", &["key", "--format", "json"]));
        assert_keys(&got, &["by", "key", "transport", "value"]);
        assert_eq!((&got["value"], &got["by"]), (&"another".into(), &"read".into()), "{got}");
        assert!(uri.starts_with(match got["transport"].as_str() {
            Some("verbs") => "rdma",
            other => other.expect("a transport"),
        }));

        assert!(ask("delete", &["key"]).status.success());
        for command in ["get", "delete"] {
            let absent = ask(command, &["key"]);
            assert_eq!(absent.status.code(), Some(1));
            assert_eq!(one_line(&absent), "key_value: there is no key \"key\"");
        }
        // What does not fit one slot is refused, and what just does is not.
        let (longest, longer) = ("x".repeat(989), "x".repeat(990));
        assert!(ask("put", &["key", &longest]).status.success());
        assert_eq!(ask("get", &["key"]).stdout, format!("{longest}\n").as_bytes());
        let refused = ask("put", &["key", &longer]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(one_line(&refused).contains("a value of 990 bytes: beside this key of 3 there is room for 989"));
        assert!(one_line(&ask("get", &[&"k".repeat(257)])).contains("a key of 257 bytes: it must have 1 to 256"));
    }
}

#[test]
fn every_value_that_is_read_under_load_is_one_that_was_put() {
    let _device = device();
    for place in places() {
        let (_server, uri) = serve(NAME, &["--bind", &place]);
        let load = |words: &[&str]| {
            json(&run(NAME, &[&["load", "--connect", &uri, "--format", "json", "--seconds", "1"], words].concat()))
        };
        // One slot, read while it is put; then many.
        let hammered = load(&["--keys", "1", "--clients", "3", "--reads", "50", "--value-size", "950"]);
        assert!(count(&hammered, "verified") > 0 && count(&hammered, "puts") > 0, "{hammered}");
        assert_eq!(count(&hammered, "absent"), 0, "{hammered}");
        let scratch = Scratch::new();
        let plot = scratch.path("load.svg");
        let words = ["--keys", "300", "--clients", "3", "--distribution", "uniform", "--plot"];
        let many = load(&[&words[..], &[plot.to_str().expect("text")]].concat());
        assert_eq!(count(&many, "verified"), count(&many, "gets"), "{many}");
        assert!(count(&many, "gets") > count(&many, "puts"), "{many}");
        assert_keys(&many["get_ns"], &["max", "min", "p50", "p90", "p99", "p999"]);
        let drawn = std::fs::read_to_string(&plot).expect("a plot");
        let drawn = roxmltree::Document::parse(&drawn).expect("well-formed");
        let texts: Vec<_> = drawn.descendants().filter_map(|node| node.text()).map(str::trim).collect();
        assert!(
            ["Throughput", "Latency", "GET", "PUT", "seconds"].iter().all(|word| texts.contains(word)),
            "{texts:?}"
        );
        // Reading tells nearly always.
        assert!(count(&many, "asked") * 10 < count(&many, "gets"), "{many}");
    }
}

#[test]
fn a_client_that_dies_does_not_disturb_the_others() {
    let _device = device();
    for place in places() {
        let (_server, uri) = serve(NAME, &["--bind", &place]);
        let load = |words: &[&str]| {
            let common = ["load", "--connect", &uri, "--reads", "50", "--keys", "10", "--format", "json"];
            start(NAME, &[&common, words].concat())
        };
        let mut killed = load(&["--seconds", "60"]);
        let survivor = load(&["--seconds", "1", "--prefix", "another"]);
        soon(|| is_there(&uri, "load-0000009")).expect("it is at work");
        killed.0.kill().expect("it was running");
        let survived = json(&survivor.output());
        assert_eq!((count(&survived, "lost_connections"), count(&survived, "absent")), (0, 0), "{survived}");
        assert!(run(NAME, &["put", "--connect", &uri, "key", "value"]).status.success());
        assert_eq!(run(NAME, &["get", "--connect", &uri, "key"]).stdout, b"value\n");
    }
}

#[test]
fn clients_connect_again_when_the_server_was_started_again() {
    let _device = device();
    for place in places() {
        let (mut server, uri) = serve(NAME, &["--bind", &place]);
        let load = start(
            NAME,
            &[
                &["load", "--connect", &uri, "--seconds", "15", "--keys", "20", "--clients", "2"][..],
                &["--patience", "60", "--format", "json"],
            ]
            .concat(),
        );
        // All keys are there, and it goes on.
        for key in ["load-0000018", "load-0000019"] {
            soon(|| is_there(&uri, key)).expect("each of both clients has put all of its keys");
        }
        server.0.kill().expect("it was running");
        server.0.wait().expect("it was killed");
        let (_again, _) = serve(NAME, &["--bind", &uri]);
        let output = load.output();
        let result = json(&output);
        assert!(count(&result, "lost_connections") >= 2, "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.lines().all(|line| line.ends_with("; connecting again")), "{said}");
        // The table is empty then, and filled by PUTs.
        assert!(count(&result, "absent") > 0 && count(&result, "verified") > 0, "{result}");
    }
}

#[test]
fn a_server_that_does_not_come_back_is_waited_for_as_long_as_is_said() {
    let place = places().pop().expect("there is one everywhere");
    let _device = device();
    let (mut server, uri) = serve(NAME, &["--bind", &place]);
    let options = ["--seconds", "300", "--keys", "2", "--clients", "1", "--patience", "1"];
    let load = start(NAME, &[&["load", "--connect", &uri][..], &options].concat());
    soon(|| is_there(&uri, "load-0000001")).expect("it is at work");
    server.0.kill().expect("it was running");
    server.0.wait().expect("it was killed");
    let output = load.output();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.lines().last().is_some_and(|line| line.contains("no server for 1 s")), "{said}");
}

#[test]
fn over_a_device_values_are_read_while_the_server_is_stopped() {
    let _device = device();
    if !zcmi_sees_a_device() {
        eprintln!("skipped: in software the server's process serves its memory");
        return;
    }
    let (server, uri) = serve(NAME, &["--bind", &places()[0]]);
    let options = ["--seconds", "8", "--keys", "20", "--clients", "1", "--reads", "100", "--format", "json"];
    let load = start(NAME, &[&["load", "--connect", &uri][..], &options].concat());
    soon(|| is_there(&uri, "load-0000019")).expect("it puts each key");
    let process = rustix::process::Pid::from_child(&server.0);
    // Shorter than the time after which its peers ask whether it is alive.
    rustix::process::kill_process(process, rustix::process::Signal::STOP).expect("it runs");
    sleep(STOPPED);
    rustix::process::kill_process(process, rustix::process::Signal::CONT).expect("it is stopped");
    let result = json(&load.output());
    assert_eq!((count(&result, "asked"), count(&result, "lost_connections")), (0, 0), "{result}");
    let longest = Duration::from_nanos(result["get_ns"]["max"].as_u64().expect("a time"));
    assert!(longest < STOPPED / 2, "a GET took {longest:?}");
}

#[test]
fn what_is_no_store_is_named() {
    let _device = device();
    let nobody = run(NAME, &["get", "--connect", &format!("{}:1", host()), "key"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(one_line(&nobody).starts_with("key_value: ") && one_line(&nobody).contains(". Hint: "), "{nobody:?}");
    for options in
        [&["load", "--clients", "0"][..], &["load", "--value-size", "5"], &["load", "--reads", "101"], &["get"], &[]]
    {
        let output = run(NAME, options);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {output:?}");
    }
}

/// Whether the store has this key.
fn is_there(uri: &str, key: &str) -> Option<()> {
    run(NAME, &["get", "--connect", uri, key]).status.success().then_some(())
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    let mut rows = rows(output);
    assert_eq!(rows.len(), 1, "{output:?}");
    rows.remove(0)
}

fn count(result: &Value, name: &str) -> u64 {
    result[name].as_u64().unwrap_or_else(|| panic!("no {name} in {result}"))
}
