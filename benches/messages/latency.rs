//! Messages to and fro, one at a time: half of the round trip, by the asynchronous functions or by those that block.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zcmi::{Connection, Connector, Listener, Result, Worker, blocking};

use crate::peer::Server;
use crate::{Api, Arguments};

/// Round trips before those that are measured, in parts of these.
const BEFORE: u32 = 10;

pub(crate) async fn client(arguments: &Arguments) -> Value {
    let server = Server::start();
    let worker = Worker::new(arguments.config()).expect("valid settings");
    let connector = Connector::new(&worker);
    let connection = connector.connect(&server.said).await.expect("connects");
    let mut idle = Vec::new();
    for _ in 0..arguments.idle {
        idle.push(connector.connect(&server.said).await.expect("connects"));
    }
    // Until they have said all that new ones say.
    tokio::time::sleep(Duration::from_millis(if idle.is_empty() { 0 } else { 500 })).await;
    let payload = vec![7; arguments.size];
    let mut nanoseconds = Vec::with_capacity(arguments.iterations as usize);
    for iterations in [arguments.iterations / BEFORE, arguments.iterations] {
        nanoseconds.clear();
        match arguments.api {
            Api::Async => ask(&connection, &payload, iterations, &mut nanoseconds).await,
            Api::Blocking => ask_blocking(&connection.clone().into(), &payload, iterations, &mut nanoseconds),
        }
        .expect("round trips");
    }
    connection.close().await.expect("closes");
    drop(idle);
    server.end();
    nanoseconds.sort_unstable();
    let rank = |hundredths: usize| nanoseconds[(nanoseconds.len() - 1) * hundredths / 100] as f64 / 2.0;
    json!({
        "size": arguments.size,
        "half_round_trip_ns": { "min": rank(0), "p50": rank(50), "p99": rank(99) },
    })
}

async fn ask(connection: &Connection, payload: &[u8], iterations: u32, nanoseconds: &mut Vec<u64>) -> Result<()> {
    for _ in 0..iterations {
        let begun = Instant::now();
        connection.send(payload).await?;
        connection.recv().await?;
        nanoseconds.push(begun.elapsed().as_nanos() as u64);
    }
    Ok(())
}

fn ask_blocking(
    connection: &blocking::Connection,
    payload: &[u8],
    iterations: u32,
    nanoseconds: &mut Vec<u64>,
) -> Result<()> {
    for _ in 0..iterations {
        let begun = Instant::now();
        connection.send(payload)?;
        connection.recv()?;
        nanoseconds.push(begun.elapsed().as_nanos() as u64);
    }
    Ok(())
}

pub(crate) async fn server(arguments: &Arguments, place: &str) -> Value {
    let worker = Worker::new(arguments.config()).expect("valid settings");
    let listener = Listener::bind(&worker, place).await.expect("listens");
    println!("{}", listener.uri());
    let connection = listener.accept().await.expect("accepts");
    let mut idle = Vec::new();
    for _ in 0..arguments.idle {
        idle.push(listener.accept().await.expect("accepts"));
    }
    // Until the connection ends.
    match arguments.api {
        Api::Async => {
            while let Ok(message) = connection.recv().await
                && connection.send(&message).await.is_ok()
            {}
        }
        Api::Blocking => {
            let connection = blocking::Connection::from(connection);
            while let Ok(message) = connection.recv()
                && connection.send(&message).is_ok()
            {}
        }
    }
    Value::Null
}
