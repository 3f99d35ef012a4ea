//! What connections take that carry nothing: heap, and buffers of the pool.

use serde_json::{Value, json};
use zcmi::{Connector, Listener, Pool, Worker};

use crate::{Arguments, live};

/// Connections after which tables and caches have their size.
const BEFORE: u32 = 16;

pub(crate) async fn run(arguments: &Arguments, place: &str) -> Value {
    let [clients, servers] = [(); 2].map(|()| Worker::new(arguments.config()).expect("valid settings"));
    let listener = Listener::bind(&servers, place).await.expect("listens");
    let (uri, connector) = (listener.uri(), Connector::new(&clients));
    let used = || (live::bytes(), Pool::global().statistics().in_use_bytes as isize);
    let mut pairs = Vec::with_capacity((BEFORE + arguments.iterations) as usize);
    let mut before = used();
    for number in 0..BEFORE + arguments.iterations {
        if number == BEFORE {
            before = used();
        }
        let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
        pairs.push((client.expect("connects"), server.expect("accepts")));
    }
    let after = used();
    let each = |before: isize, after: isize| (after - before) as f64 / (2.0 * f64::from(arguments.iterations));
    json!({
        "connections": arguments.iterations,
        "heap_bytes_per_end": each(before.0, after.0),
        "pool_bytes_per_end": each(before.1, after.1),
    })
}
