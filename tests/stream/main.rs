//! Streams of bytes: whole, half closed, dropped, held back, hostile; and HTTP over them. On a real device.

#[path = "../common/mod.rs"]
mod common;

mod bytes;
mod dropped;
mod http;
mod messages;

use std::time::Duration;

use zcmi::{Connection, Stream, Worker};

/// Everything here is quick; a wait that is longer is a lost wake-up.
const SOON: Duration = Duration::from_secs(30);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

fn stream(connection: &Connection) -> Stream {
    Stream::new(connection.channel(1).expect("a channel"))
}

/// Both ends of a stream. It keeps its connection.
async fn streams(worker: &Worker, address: &str) -> (Stream, Stream) {
    let (near, far) = common::pair(worker, address).await;
    (stream(&near), stream(&far))
}
