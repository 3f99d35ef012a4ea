//! Messages one way, as many as may be in flight; the server answers each half of them with an empty one.

use std::hint::black_box;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use zcmi::{Buffer, Connection, Connector, Listener, Result, Worker};

use crate::Arguments;
use crate::peer::Server;

/// Messages that the server answers at once.
fn group(arguments: &Arguments) -> u32 {
    (arguments.depth / 2).max(1)
}

/// What is measured, and as much before it that goes by itself.
fn rounds(arguments: &Arguments) -> [u32; 2] {
    let whole = |messages: u32| messages.next_multiple_of(group(arguments));
    [whole(arguments.depth * 4), whole(arguments.iterations)]
}

pub(crate) async fn client(arguments: &Arguments) -> Value {
    let server = Server::start();
    let worker = Worker::new(arguments.config()).expect("valid settings");
    let connection = Connector::new(&worker).connect(&server.said).await.expect("connects");
    let is_short = arguments.size <= connection.max_short_message_size();
    let mut seconds = 0.0;
    for messages in rounds(arguments) {
        let begun = Instant::now();
        let sent = if is_short {
            short(arguments, &connection, messages).await
        } else {
            long(arguments, &connection, messages).await
        };
        sent.expect("sends");
        seconds = begun.elapsed().as_secs_f64();
    }
    connection.close().await.expect("closes");
    server.end();
    let messages = f64::from(rounds(arguments)[1]);
    json!({
        "size": arguments.size,
        "messages_per_second": messages / seconds,
        "bytes_per_second": messages * arguments.size as f64 / seconds,
        "memcpy_bytes_per_second": copying(arguments.size),
    })
}

/// Bytes that one thread copies in a second, so many at a time, the fastest of ten tries.
fn copying(size: usize) -> f64 {
    let (from, mut to) = (vec![7; size], vec![0; size]);
    let times = (64 << 20) / size.max(1) + 1;
    let tries = (0..10).map(|_| {
        let begun = Instant::now();
        for _ in 0..times {
            black_box(&mut to).copy_from_slice(black_box(&from));
        }
        begun.elapsed().as_secs_f64()
    });
    (times * size) as f64 / tries.fold(f64::INFINITY, f64::min)
}

async fn short(arguments: &Arguments, connection: &Connection, messages: u32) -> Result<()> {
    let payload = vec![7; arguments.size];
    let mut in_flight = 0;
    for _ in 0..messages {
        while in_flight + 1 > arguments.depth {
            connection.recv().await?;
            in_flight -= group(arguments);
        }
        connection.send(&payload).await?;
        in_flight += 1;
    }
    while in_flight > 0 {
        connection.recv().await?;
        in_flight -= group(arguments).min(in_flight);
    }
    Ok(())
}

/// Each out of memory of its own, which comes back when it was read.
async fn long(arguments: &Arguments, connection: &Connection, messages: u32) -> Result<()> {
    let mut sending = FuturesUnordered::new();
    let mut left = messages;
    for _ in 0..arguments.depth.min(messages) {
        sending.push(connection.send_owned(Buffer::allocate(arguments.size)?));
        left -= 1;
    }
    while let Some(sent) = sending.next().await {
        let buffer = sent.map_err(|failed| failed.error)?;
        if left > 0 {
            sending.push(connection.send_owned(buffer));
            left -= 1;
        }
    }
    for _ in 0..messages / group(arguments) {
        connection.recv().await?;
    }
    Ok(())
}

pub(crate) async fn server(arguments: &Arguments, place: &str) -> Value {
    let worker = Worker::new(arguments.config()).expect("valid settings");
    let listener = Listener::bind(&worker, place).await.expect("listens");
    println!("{}", listener.uri());
    let connection = listener.accept().await.expect("accepts");
    let messages: u32 = rounds(arguments).iter().sum();
    for number in 1..=messages {
        let message = connection.recv().await.expect("receives");
        assert_eq!(message.len(), arguments.size);
        drop(message);
        if number % group(arguments) == 0 {
            connection.send(&[]).await.expect("answers");
        }
    }
    // The end of the connection.
    let _ = connection.recv().await;
    Value::Null
}
