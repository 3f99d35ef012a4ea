//! A buffer that is handed to and fro, of sizes from short to long: half of the round trip, whatever lies in the pages.

use std::time::Instant;

use serde_json::{Value, json};
use zcmi::{Buffer, Config, Connection, Connector, Listener, Pool, Worker};

use crate::Arguments;
use crate::peer::Server;

const SIZES: [usize; 3] = [64, 8 << 10, 1 << 20];

/// Both ends share pages.
fn worker(arguments: &Arguments) -> Worker {
    let pool = Pool::builder().shareable(true).build().expect("a pool");
    // SAFETY: the other process is this program too.
    let sharing = unsafe { Config::builder().share_pages_with_peers(&pool) }.build().expect("a shareable pool");
    Worker::new(Config { shared_pages: sharing.shared_pages, ..arguments.config() }).expect("valid settings")
}

/// What goes by itself before it is measured.
fn warm_up(arguments: &Arguments) -> u32 {
    (arguments.iterations / 10).max(100)
}

async fn receive(connection: &Connection) -> Buffer {
    connection.recv().await.expect("receives").into_buffer().expect("a buffer")
}

pub(crate) async fn client(arguments: &Arguments) -> Value {
    let server = Server::start();
    let worker = worker(arguments);
    let connection = Connector::new(&worker).connect(&server.said).await.expect("connects");
    for size in SIZES {
        let mut buffer = connection.allocate(size).expect("memory");
        let mut times = Vec::with_capacity(arguments.iterations as usize);
        for number in 0..warm_up(arguments) + arguments.iterations {
            buffer[0] = number as u8;
            let begun = Instant::now();
            connection.hand_over(buffer).await.expect("hands over");
            buffer = receive(&connection).await;
            let nanoseconds = begun.elapsed().as_nanos() as u64 / 2;
            assert_eq!((buffer.len(), buffer[0]), (size, (number as u8).wrapping_add(1)), "what came back");
            if number >= warm_up(arguments) {
                times.push(nanoseconds);
            }
        }
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let figures = json!({
            "test": "hand_over",
            "transport": connection.transport(),
            "shared": connection.shares_pages(),
            "size": size,
            "iterations": arguments.iterations,
            "half_round_trip_ns": { "min": at(0.0), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0) },
        });
        println!("{figures}");
    }
    connection.close().await.expect("closes");
    server.end();
    Value::Null
}

pub(crate) async fn server(arguments: &Arguments, place: &str) -> Value {
    let worker = worker(arguments);
    let listener = Listener::bind(&worker, place).await.expect("listens");
    println!("{}", listener.uri());
    let connection = listener.accept().await.expect("accepts");
    for _ in 0..SIZES.len() as u32 * (warm_up(arguments) + arguments.iterations) {
        let mut buffer = receive(&connection).await;
        buffer[0] = buffer[0].wrapping_add(1);
        connection.hand_over(buffer).await.expect("hands back");
    }
    // The end of the connection.
    let _ = connection.recv().await;
    Value::Null
}
