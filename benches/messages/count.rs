//! Round trips with both ends in one thread, for a program that counts instructions.

use std::hint::black_box;

use serde_json::{Value, json};
use zcmi::{Connection, Connector, Listener, Worker};

use crate::Arguments;

/// What is counted, so that it is told by its name.
#[inline(never)]
fn measured_round_trip(runtime: &tokio::runtime::Handle, payload: &[u8], ends: &[Connection; 2]) {
    let [client, server] = ends;
    runtime.block_on(async {
        client.send(payload).await.expect("sends");
        let question = server.recv().await.expect("receives");
        server.send(&question).await.expect("sends");
        black_box(client.recv().await.expect("receives"));
    });
}

pub(crate) async fn run(arguments: &Arguments, address: &str) -> Value {
    let worker = Worker::new(arguments.config()).expect("valid settings");
    let listener = Listener::bind(&worker, &format!("rdma://{address}:0")).await.expect("listens");
    let uri = listener.uri();
    let connector = Connector::new(&worker);
    let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
    let ends = [client.expect("connects"), server.expect("accepts")];
    let payload = vec![7; arguments.size];
    let handle = tokio::runtime::Handle::current();
    let iterations = arguments.iterations;
    // A runtime's thread may not block on it.
    std::thread::scope(|scope| {
        scope.spawn(|| (0..iterations).for_each(|_| measured_round_trip(&handle, &payload, &ends)));
    });
    json!({ "iterations": iterations })
}
