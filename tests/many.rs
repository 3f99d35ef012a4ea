//! Very many connections of one worker. Takes long, so it runs only when it is asked for.

mod common;

use std::time::{Duration, Instant};

use common::{listen, on_device_within};
use zcmi::{Config, Connector, Worker};

/// A number of `/proc/self/status` or `/proc/meminfo`, in KiB.
fn kibibytes(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).expect("procfs");
    let line = text.lines().find(|line| line.starts_with(name)).expect("the line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_connections_of_one_worker_carry_messages() {
    let count: usize = std::env::var("ZCMI_TEST_CONNECTIONS").map_or(1000, |count| count.parse().expect("a number"));
    on_device_within(Duration::from_secs(900), |address| async move {
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
