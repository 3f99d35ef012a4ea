//! The example that serves metrics, scraped as Prometheus does.

use std::io::{BufRead, BufReader, Read};

use crate::programs::{LIMIT, device, host, scheme, soon, start};

#[test]
fn metrics_are_served_and_move_while_messages_are_exchanged() {
    let _device = device();
    let mut process = start("metrics", &["--meet", &format!("{}:0", host()), "--pause", "1", "--seconds", "50"]);
    let mut first = String::new();
    let output = process.0.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut first).expect("it says where");
    let address = first.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics")).expect("a URL");
    let ask = |what: &str| {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a time");
        let request = format!("GET {what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    };
    // Every line is a comment, or a name and a number.
    let sum = |name: &str| {
        let answer = ask("/metrics");
        let (head, page) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
        let mut sum = 0.0;
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                assert!(comment.starts_with("TYPE zcmi_") || comment.starts_with("HELP zcmi_"), "{line}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
            if series.split('{').next() == Some(name) {
                assert!(series.contains(&format!("transport=\"{}\"", scheme().replace("rdma", "verbs"))), "{line}");
                sum += value;
            }
        }
        sum
    };
    for name in ["zcmi_messages_sent_total", "zcmi_bytes_received_total", "zcmi_long_messages_received_total"] {
        let before = soon(|| Some(sum(name)).filter(|sum| *sum > 0.0)).expect("messages are exchanged");
        soon(|| Some(sum(name)).filter(|sum| *sum > before)).expect("it moves");
    }
    assert!(sum("zcmi_rendezvous_seconds_count") > 0.0 && sum("zcmi_connections") == 2.0);
    assert!(ask("/other").starts_with("HTTP/1.1 404"));
    assert!(ask("/").starts_with("HTTP/1.1 404"));
}
