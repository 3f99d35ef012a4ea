//! Many connections of one worker, at once and one after the other; ZCMI_TEST_CONNECTIONS and ZCMI_TEST_CYCLES say how
//! many.
//! `tests/run --long` has a thousand and ten thousand.

mod common;

use std::time::{Duration, Instant};

use common::resources::Resources;
use common::{listen, on_device_within, worker};
use zcmi::{Config, Connector, ErrorKind, Worker};

/// Of the full numbers, on an emulated machine.
const BOUND: Duration = Duration::from_secs(3600);
/// KiB that the process may have more after many connections than after some.
const GROWTH: u64 = 1024;

/// A number of `/proc/self/status` or `/proc/meminfo`, in KiB.
fn kibibytes(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).expect("procfs");
    let line = text.lines().find(|line| line.starts_with(name)).expect("the line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// A number that the environment may say.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |number| number.parse().expect("a number"))
}

#[test]
fn many_connections_of_one_worker_carry_messages() {
    let count = number("ZCMI_TEST_CONNECTIONS", 100);
    on_device_within(BOUND, |address| async move {
        let config = Config { receive_depth: 4, max_message_size: 192, send_depth: 16, ..Config::default() };
        let [clients, servers] = [(); 2].map(|()| Worker::new(config.clone()).expect("valid settings"));
        let listener = listen(&servers, &address).await;
        let (uri, connector) = (listener.uri(), Connector::new(&clients));
        let mut pairs = Vec::new();
        let mut first = None;
        let (mut lap, mut begun) = (Instant::now(), Instant::now());
        for number in 0..count {
            let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
            let (client, server) = (client.expect("connects"), server.expect("accepts"));
            client.send(&number.to_le_bytes()).await.expect("sends");
            assert_eq!(&*server.recv().await.expect("receives"), number.to_le_bytes());
            pairs.push((client, server));
            if number == 9 {
                // What there is once is there.
                first = Some((kibibytes("/proc/self/status", "VmRSS"), kibibytes("/proc/meminfo", "MemAvailable")));
                begun = Instant::now();
            }
            if number % 100 == 99 {
                eprintln!("{} connections; the last hundred in {:?}", number + 1, lap.elapsed());
                lap = Instant::now();
            }
        }
        if let Some((resident, available)) = first.filter(|_| count > 10) {
            let ends = 2 * (count as u64 - 10);
            let resident = kibibytes("/proc/self/status", "VmRSS") - resident;
            let available = available.saturating_sub(kibibytes("/proc/meminfo", "MemAvailable"));
            eprintln!(
                "{:?} each; resident {} bytes an end, of the whole machine {} bytes an end",
                begun.elapsed() / (count as u32 - 10),
                resident * 1024 / ends,
                available * 1024 / ends
            );
        }
        // Each of them works, both ways.
        for (number, (client, server)) in pairs.iter().enumerate() {
            server.send(&number.to_le_bytes()).await.expect("sends");
            assert_eq!(&*client.recv().await.expect("receives"), number.to_le_bytes());
        }
        // One is idle for a second, and the process with it: what does that cost?
        tokio::time::sleep(Duration::from_secs(2)).await;
        let cpu = || std::fs::read_to_string("/proc/self/schedstat").expect("procfs");
        let nanoseconds = |text: String| text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        let before = nanoseconds(cpu());
        tokio::time::sleep(Duration::from_secs(4)).await;
        eprintln!("main thread, nanoseconds in 4 s of doing nothing: {:?} {:?}", before, nanoseconds(cpu()));
        let lap = Instant::now();
        drop(pairs);
        common::aside(common::resources::Resources::settled).await;
        eprintln!("closed in {:?}", lap.elapsed());
    });
}

#[test]
fn connections_come_and_go_without_growth() {
    let cycles = number("ZCMI_TEST_CYCLES", 200);
    on_device_within(BOUND, |address| async move {
        let [clients, servers] = [worker(), worker()];
        let listener = listen(&servers, &address).await;
        let (uri, connector) = (listener.uri(), Connector::new(&clients));
        let mut first = None;
        let begun = Instant::now();
        for cycle in 0..cycles {
            if cycle == cycles / 5 {
                // What there is once is there.
                first = Some(at_rest().await);
            }
            let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
            let (client, server) = (client.expect("connects"), server.expect("accepts"));
            if cycle == 0 {
                common::wait_everywhere(&client).await;
                common::wait_everywhere(&server).await;
            }
            client.send(&cycle.to_le_bytes()).await.expect("sends");
            assert_eq!(&*server.recv().await.expect("receives"), cycle.to_le_bytes());
            // Either end begins, by closing or by going.
            let (one, other) = if cycle % 2 == 0 { (client, server) } else { (server, client) };
            if cycle % 4 < 2 {
                one.close().await.expect("closes");
            }
            drop(one);
            assert_eq!(other.recv().await.expect_err("nothing more").kind(), ErrorKind::PeerClosed);
        }
        let took = begun.elapsed();
        let (resources, memory) = first.expect("there are more than five");
        common::nothing_left(&resources).await;
        let (_, now) = at_rest().await;
        eprintln!("{cycles} connections in {took:.1?}; resident {memory} KiB, then {now} KiB; {resources:?}");
        assert!(now < memory + GROWTH, "resident {memory} KiB after a fifth, {now} KiB after all");
    });
}

/// What there is of the device's objects, descriptors and memory when what ends in the background has ended.
async fn at_rest() -> (Resources, u64) {
    // Receives are given back a second after the last connection has gone.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    (common::aside(Resources::settled).await, kibibytes("/proc/self/status", "VmRSS"))
}
