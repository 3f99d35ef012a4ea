//! Metrics, on each transport, as a recorder for Prometheus has them: what is done moves the numbers by exactly that.

mod common;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{
    Peer, Transport, device_address, listen, on_device, on_rdma, pair, play, role, say, shares_pages, worker,
    worker_with,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use zcmi::{Access, Answer, Buffer, Config, Connector, ErrorKind, Exposed, RemoteBuffer, Worker};

/// The numbers of a page, by name and labels.
type Page = BTreeMap<String, f64>;

const LONG: usize = 300_000;

fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&[0.001, 1.0, 60.0]).expect("some classes");
        builder.install_recorder().expect("there is no other")
    })
}

/// What the recorder has now, each line of it parsed.
fn seen() -> Page {
    let page = recorder().render();
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|error| panic!("{error}: {line}")))
        })
        .collect()
}

fn published() -> Page {
    recorder();
    zcmi::telemetry::publish();
    seen()
}

/// The sum of the series of `name` with all of `labels`.
fn sum(page: &Page, name: &str, labels: &[&str]) -> f64 {
    let is_it =
        |series: &str| series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label));
    page.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| value).sum()
}

/// By how much it has grown.
fn growth(before: &Page, after: &Page, name: &str, labels: &[&str]) -> f64 {
    sum(after, name, labels) - sum(before, name, labels)
}

/// Publishes until the growth of something is as expected.
async fn until_grown(before: &Page, name: &str, labels: &[&str], by: f64) -> Page {
    let begun = Instant::now();
    loop {
        let page = published();
        if growth(before, &page, name, labels) == by {
            return page;
        }
        let late = begun.elapsed() > Duration::from_secs(10);
        assert!(!late, "{name} {labels:?} grew by {}", growth(before, &page, name, labels));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn what_is_done_moves_the_numbers_by_that() {
    on_device(|address| async move {
        let before = published();
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let transport = format!("transport=\"{}\"", client.transport());
        let of = [transport.as_str()];
        for _ in 0..50 {
            client.send(&[7; 10]).await.expect("sends");
            server.recv().await.expect("receives");
        }
        let send_long = async { client.send_owned(Buffer::allocate(LONG).expect("memory")).await.expect("sends") };
        tokio::join!(send_long, async { server.recv().await.expect("receives") });
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        let grant = exposed.grant(&server, 0..4096, Access::ALL).await.expect("grants");
        let handle = RemoteBuffer::from_bytes(&grant.remote_buffer().to_bytes()).expect("a handle");
        let buffer =
            client.write(Buffer::allocate(1000).expect("memory"), &handle.slice(0..1000).expect("in it")).await;
        let buffer = client.read(buffer.expect("writes"), &handle.slice(0..1000).expect("in it")).await.expect("reads");
        client.fetch_add(&handle.at(0).expect("in it"), 1).await.expect("adds");
        let during = published();
        for (name, labels, by) in [
            ("zcmi_messages_sent_total", vec![], 51.0),
            ("zcmi_messages_received_total", vec![], 51.0),
            ("zcmi_bytes_sent_total", vec![], (500 + LONG) as f64),
            ("zcmi_bytes_received_total", vec![], (500 + LONG) as f64),
            ("zcmi_long_messages_sent_total", vec![], 1.0),
            ("zcmi_long_messages_received_total", vec![], 1.0),
            ("zcmi_operations_total", vec!["operation=\"write\""], 1.0),
            ("zcmi_operations_total", vec!["operation=\"read\""], 1.0),
            ("zcmi_operations_total", vec!["operation=\"atomic\""], 1.0),
            ("zcmi_operation_bytes_total", vec!["operation=\"read\""], 1000.0),
            ("zcmi_operation_bytes_total", vec!["operation=\"write\""], 1000.0),
            ("zcmi_grants_given_total", vec![], 1.0),
            ("zcmi_connections_opened_total", vec!["role=\"listener\""], 1.0),
            ("zcmi_connections_opened_total", vec!["role=\"connector\""], 1.0),
            ("zcmi_rendezvous_seconds_count", vec!["role=\"sender\""], 1.0),
            ("zcmi_rendezvous_seconds_count", vec!["role=\"receiver\""], 1.0),
            ("zcmi_handshake_seconds_count", vec![], 2.0),
            ("zcmi_accept_seconds_count", vec![], 1.0),
            ("zcmi_grants", vec![], 1.0),
            ("zcmi_connections", vec![], 2.0),
        ] {
            let labels: Vec<_> = labels.iter().copied().chain(of).collect();
            assert_eq!(growth(&before, &during, name, &labels), by, "{name} {labels:?}");
        }
        assert_eq!(growth(&before, &during, "zcmi_connect_seconds_count", &[]), 1.0);
        assert!(growth(&before, &during, "zcmi_frames_sent_total", &of) >= 51.0);
        assert!(growth(&before, &during, "zcmi_pool_allocations_total", &[]) >= 3.0);
        assert!(sum(&during, "zcmi_pool_in_use_bytes", &[]) >= 5000.0);
        let counts = client.snapshot().counts;
        assert_eq!(counts["zcmi_messages_sent_total"], 51, "{counts:?}");
        assert_eq!(counts["zcmi_operations_total{operation=\"read\"}"], 1, "{counts:?}");
        // What has gone still counts, and counts once.
        drop(buffer);
        grant.revoke().await.expect("revokes");
        client.close().await.expect("closes");
        drop((client, server, exposed));
        let after = until_grown(&before, "zcmi_connections", &of, 0.0).await;
        assert_eq!(growth(&before, &after, "zcmi_messages_sent_total", &of), 51.0);
        assert_eq!(growth(&before, &after, "zcmi_grants_ended_total", &["how=\"agreed\"", of[0]]), 1.0);
        assert_eq!(growth(&before, &after, "zcmi_revoke_seconds_count", &of), 1.0);
        assert!(growth(&before, &after, "zcmi_close_seconds_count", &of) >= 1.0);
        let ended = until_grown(&before, "zcmi_connections_ended_total", &of, 2.0).await;
        assert_eq!(growth(&before, &ended, "zcmi_connections_ended_total", &["cause=\"Closed\"", of[0]]), 1.0);
    });
}

#[test]
fn messages_that_share_a_frame_and_senders_that_wait_are_counted() {
    on_device(|address| async move {
        let before = published();
        let worker = worker_with(Config { channel_window: 10_000, ..Config::default() });
        let (client, server) = pair(&worker, &address).await;
        let sending = tokio::spawn({
            let client = client.clone();
            async move {
                for _ in 0..1000 {
                    client.send(&[1; 100]).await.expect("sends");
                }
            }
        });
        // Nobody receives, so it comes to wait.
        let begun = Instant::now();
        while client.snapshot().waiting_to_send == 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "{}", client.snapshot());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..1000 {
            server.recv().await.expect("receives");
        }
        sending.await.expect("no panic");
        let after = published();
        assert!(growth(&before, &after, "zcmi_send_waits_total", &["cause=\"window\""]) >= 1.0, "{after:?}");
        // Through shared memory each is written by itself.
        if Transport::of_test() != Transport::Shm {
            assert!(growth(&before, &after, "zcmi_frames_coalesced_total", &[]) >= 1.0, "{after:?}");
            assert!(growth(&before, &after, "zcmi_frames_sent_total", &[]) < 1000.0, "{after:?}");
        }
    });
}

#[test]
fn long_messages_out_of_shared_bytes_are_registered_once_and_the_cache_tells() {
    on_device(|address| async move {
        let before = published();
        let (client, server) = pair(&worker(), &address).await;
        let mut bytes = bytes::Bytes::from(vec![5; LONG]);
        for _ in 0..3 {
            let sent = async { client.send_owned(bytes.clone()).await.expect("sends") };
            (bytes, _) = tokio::join!(sent, async { server.recv().await.expect("receives") });
        }
        let after = published();
        let misses = growth(&before, &after, "zcmi_cache_misses_total", &[]);
        assert!(misses >= 1.0, "{misses}");
        assert!(growth(&before, &after, "zcmi_cache_hits_total", &[]) >= 1.0);
        assert_eq!(growth(&before, &after, "zcmi_registration_seconds_count", &[]), misses);
        assert!(sum(&after, "zcmi_cache_pinned_bytes", &[]) >= LONG as f64);
    });
}

#[test]
fn what_fails_is_counted_by_its_cause() {
    on_device(|address| async move {
        let before = published();
        let worker = worker();
        let listener = listen(&worker, &address).await.filter(|_| Answer::Refuse("full".to_owned()));
        let (connector, uri) = (Connector::new(&worker), listener.uri());
        let accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
        let error = connector.connect(&uri).await.expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        accepting.abort();
        let after = until_grown(&before, "zcmi_accepts_refused_total", &["reason=\"declined\""], 1.0).await;
        assert_eq!(growth(&before, &after, "zcmi_connects_failed_total", &["cause=\"Rejected\""]), 1.0);
        assert_eq!(growth(&before, &after, "zcmi_handshakes_failed_total", &["cause=\"Rejected\""]), 2.0);
        assert_eq!(growth(&before, &after, "zcmi_connections_opened_total", &[]), 0.0);
        // A grant that is live goes with its connection, which breaks.
        let (client, server) = pair(&worker, &address).await;
        let exposed: Exposed<Buffer> = Buffer::allocate(4096).expect("memory").expose();
        let grant = exposed.grant(&server, 0..4096, Access::READ).await.expect("grants");
        client.abort();
        assert_eq!(server.recv().await.expect_err("broken").kind(), ErrorKind::ConnectionBroken);
        let broken = ["cause=\"ConnectionBroken\""];
        let after = until_grown(&before, "zcmi_connections_ended_total", &broken, 1.0).await;
        // Those of a test before may still have been ending.
        assert!(growth(&before, &after, "zcmi_connections_ended_total", &["cause=\"Closed\""]) >= 1.0);
        until_grown(&before, "zcmi_grants_ended_total", &["how=\"connection_lost\""], 1.0).await;
        drop(grant);
    });
}

#[test]
fn the_service_thread_publishes_by_itself_and_each_connection_if_it_is_told_to() {
    on_device(|address| async move {
        recorder();
        let short = Config { metrics_interval: Duration::from_millis(1), ..Config::default() };
        assert_eq!(Worker::new(short).expect_err("too often").kind(), ErrorKind::Unsupported);
        let interval = Duration::from_millis(20);
        let config = Config { metrics_interval: interval, metrics_per_connection: true, ..Config::default() };
        let (client, server) = pair(&worker_with(config), &address).await;
        client.send(b"hello").await.expect("sends");
        server.recv().await.expect("receives");
        let (id, begun) = (format!("connection=\"{}\"", client.id()), Instant::now());
        let both = |page: &Page| {
            let of = |name| sum(page, name, &[&id]);
            (of("zcmi_connection_messages_sent_total"), of("zcmi_connection_messages_received_total"))
        };
        while both(&seen()) != (1.0, 1.0) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", both(&seen()));
            tokio::time::sleep(interval).await;
        }
        assert!(seen().keys().any(|series| series.contains(&id) && series.contains("peer=\"")));
    });
}

#[test]
fn a_buffer_that_is_handed_over_is_a_message_and_counted_where_pages_are_shared() {
    on_device(|address| async move {
        let before = published();
        let (client, server) = pair(&worker(), &address).await;
        let buffer = client.allocate(8192).expect("memory");
        let handed = async { client.hand_over(buffer).await.expect("hands over") };
        let ((), received) = tokio::join!(handed, async { server.recv().await.expect("receives") });
        assert_eq!(received.len(), 8192);
        let after = published();
        let hand_overs = growth(&before, &after, "zcmi_hand_overs_total", &[]);
        assert_eq!(hand_overs, f64::from(u8::from(shares_pages())));
        for direction in ["sent", "received"] {
            assert_eq!(growth(&before, &after, &format!("zcmi_messages_{direction}_total"), &[]), 1.0, "{direction}");
            assert_eq!(growth(&before, &after, &format!("zcmi_bytes_{direction}_total"), &[]), 8192.0, "{direction}");
        }
    });
}

/// The other process: accepts one connection, and waits until it ends.
#[test]
fn peer() {
    let Some(_) = role() else { return };
    play(async {
        let listener = listen(&worker(), &device_address().expect("the test has found it")).await;
        say(listener.uri());
        let connection = listener.accept().await.expect("accepts");
        assert!(connection.recv().await.is_err(), "nobody sends");
    });
}

#[test]
fn a_peer_that_falls_silent_is_counted() {
    on_device(|_| async {
        let before = published();
        let peer = Peer::start("silent");
        let config = Config { peer_timeout: Duration::from_secs(2), ..Config::default() };
        let connection = Connector::new(&worker_with(config)).connect(&peer.hear()).await.expect("connects");
        peer.signal(rustix::process::Signal::STOP);
        assert_eq!(connection.recv().await.expect_err("silence").kind(), ErrorKind::Unresponsive);
        let after = until_grown(&before, "zcmi_connections_ended_total", &["cause=\"Unresponsive\""], 1.0).await;
        assert_eq!(growth(&before, &after, "zcmi_heartbeat_timeouts_total", &[]), 1.0);
        peer.kill();
    });
}

#[test]
fn a_device_tells_what_it_counts() {
    on_rdma(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let before = published();
        for _ in 0..10 {
            client.send(b"hello").await.expect("sends");
            server.recv().await.expect("receives");
        }
        let after = published();
        let of = [format!("device=\"{}\"", client.device()), "port=\"1\"".to_owned()];
        let of: Vec<_> = of.iter().map(String::as_str).collect();
        let series = after.keys().filter(|series| series.starts_with("zcmi_device_counter{"));
        assert!(series.count() > 3, "{after:?}");
        assert!(growth(&before, &after, "zcmi_device_counter", &of) >= 10.0, "{after:?}");
    });
}
