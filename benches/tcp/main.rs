//! zcmi over TCP next to bare tokio TCP, in the same run: round trips of 64 bytes, and a stream of 1 MiB messages. Two threads, each
//! with a runtime of its own; the two kinds take turns.
//!
//! ```text
//! cargo bench --no-default-features --bench tcp [-- PAIRS]
//! ```

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zcmi::{Buffer, Config, Connection, Connector, Listener, Polling, Worker};

const SMALL: usize = 64;
const ROUND_TRIPS: u32 = 2000;
const LONG: usize = 1 << 20;
const MESSAGES: usize = 256;
/// Messages that are on their way at once.
const DEPTH: usize = 4;

fn main() {
    let pairs = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(20);
    for (name, polling) in [
        ("event", Polling::Event),
        ("adaptive", Polling::Adaptive { spin: Duration::from_micros(20) }),
        ("busy", Polling::Busy),
    ] {
        let (bare, ours) = interleaved(pairs, bare_round_trip, || zcmi_round_trip(polling));
        println!("64 B round trip, {name}: {}", report(&bare, &ours, 1e6, "us"));
    }
    let (bare, ours) = interleaved(pairs, bare_stream, zcmi_stream);
    // More is better: the ratio is that of the times.
    println!("1 MiB messages, time for each: {}", report(&bare, &ours, 1e6, "us"));
}

fn interleaved(
    pairs: usize,
    bare: impl Fn() -> Duration,
    ours: impl Fn() -> Duration,
) -> (Vec<Duration>, Vec<Duration>) {
    (0..pairs).map(|_| (bare(), ours())).unzip()
}

fn report(bare: &[Duration], ours: &[Duration], scale: f64, unit: &str) -> String {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        (values[values.len() / 4], values[values.len() / 2], values[values.len() * 3 / 4])
    };
    let seconds = |times: &[Duration]| median(times.iter().map(Duration::as_secs_f64).collect()).1 * scale;
    let ratios = ours.iter().zip(bare).map(|(ours, bare)| ours.as_secs_f64() / bare.as_secs_f64()).collect();
    let (low, middle, high) = median(ratios);
    let (bare, ours) = (seconds(bare), seconds(ours));
    format!("tokio {bare:.2} {unit}, zcmi {ours:.2} {unit}; ratio {middle:.3} (quartiles {low:.3} to {high:.3})")
}

/// Runs `server` on a thread of its own, which tells the address, and `client` here.
fn both<S, C>(
    server: impl FnOnce(mpsc::Sender<String>) -> S + Send + 'static,
    client: impl FnOnce(String) -> C,
) -> Duration
where
    S: Future<Output = ()>,
    C: Future<Output = Duration>,
{
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (said, hears) = mpsc::channel();
    let serving = std::thread::spawn(move || runtime().block_on(server(said)));
    let took = runtime().block_on(client(hears.recv().expect("an address")));
    serving.join().expect("no panic");
    took
}

fn bare_round_trip() -> Duration {
    both(
        async |said| {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
            said.send(listener.local_addr().expect("an address").to_string()).expect("heard");
            let (mut stream, _) = listener.accept().await.expect("accepts");
            stream.set_nodelay(true).expect("sets");
            let mut bytes = [0; SMALL];
            while stream.read_exact(&mut bytes).await.is_ok() {
                stream.write_all(&bytes).await.expect("writes");
            }
        },
        async |address| {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            stream.set_nodelay(true).expect("sets");
            let mut bytes = [7; SMALL];
            let mut begun = Instant::now();
            for turn in 0..ROUND_TRIPS + ROUND_TRIPS / 10 {
                if turn == ROUND_TRIPS / 10 {
                    begun = Instant::now();
                }
                stream.write_all(&bytes).await.expect("writes");
                stream.read_exact(&mut bytes).await.expect("reads");
            }
            begun.elapsed() / ROUND_TRIPS
        },
    )
}

fn worker(polling: Polling) -> Worker {
    Worker::new(Config { polling, ..Config::default() }).expect("valid settings")
}

async fn accept(said: mpsc::Sender<String>, worker: &Worker) -> Connection {
    let listener = Listener::bind(worker, "tcp://127.0.0.1:0").await.expect("listens");
    said.send(listener.uri()).expect("heard");
    listener.accept().await.expect("accepts")
}

fn zcmi_round_trip(polling: Polling) -> Duration {
    both(
        async move |said| {
            let connection = accept(said, &worker(polling)).await;
            while let Ok(message) = connection.recv().await {
                connection.send(&message).await.expect("sends");
            }
        },
        async |address| {
            let connection = Connector::new(&worker(polling)).connect(&address).await.expect("connects");
            let bytes = [7; SMALL];
            let mut begun = Instant::now();
            for turn in 0..ROUND_TRIPS + ROUND_TRIPS / 10 {
                if turn == ROUND_TRIPS / 10 {
                    begun = Instant::now();
                }
                connection.send(&bytes).await.expect("sends");
                connection.recv().await.expect("receives");
            }
            let took = begun.elapsed() / ROUND_TRIPS;
            connection.close().await.expect("closes");
            took
        },
    )
}

fn bare_stream() -> Duration {
    both(
        async |said| {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
            said.send(listener.local_addr().expect("an address").to_string()).expect("heard");
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut bytes = vec![0; LONG];
            for _ in 0..MESSAGES {
                stream.read_exact(&mut bytes).await.expect("reads");
            }
            stream.write_all(&[1]).await.expect("writes");
        },
        async |address| {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            let bytes = vec![7; LONG];
            let begun = Instant::now();
            for _ in 0..MESSAGES {
                stream.write_all(&bytes).await.expect("writes");
            }
            stream.read_u8().await.expect("reads");
            begun.elapsed() / MESSAGES as u32
        },
    )
}

fn zcmi_stream() -> Duration {
    let polling = Config::default().polling;
    both(
        async move |said| {
            let connection = accept(said, &worker(polling)).await;
            let mut buffer = Buffer::allocate(LONG).expect("memory");
            for _ in 0..MESSAGES {
                let (back, length) = connection.recv_into(buffer).await.expect("receives");
                assert_eq!(length, LONG);
                buffer = back;
            }
            connection.send(&[1]).await.expect("sends");
            let _ = connection.recv().await;
        },
        async |address| {
            let connection = Connector::new(&worker(polling)).connect(&address).await.expect("connects");
            let begun = Instant::now();
            let senders = (0..DEPTH).map(|_| {
                let connection = connection.clone();
                tokio::spawn(async move {
                    let mut buffer = Buffer::allocate(LONG).expect("memory");
                    buffer.fill(7);
                    for _ in 0..MESSAGES / DEPTH {
                        buffer = connection.send_owned(buffer).await.expect("sends");
                    }
                })
            });
            for sender in senders.collect::<Vec<_>>() {
                sender.await.expect("no panic");
            }
            connection.recv().await.expect("receives");
            let took = begun.elapsed() / MESSAGES as u32;
            connection.close().await.expect("closes");
            took
        },
    )
}
