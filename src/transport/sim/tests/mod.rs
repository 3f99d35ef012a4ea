//! What the simulation promises: of the device, at the seam; of the whole, with the connection layer on it.

mod bugs;
mod control;
mod data;
mod faults;
mod net;

use std::time::Duration;

use super::*;
use crate::{Buffer, Config, Connection, Connector, Listener, RemoteBuffer, Worker};

/// Two nodes with a connection; the first is the connecting end.
async fn connected(name: &str, config: Config) -> (Connection, Task<Connection>) {
    let worker = Worker::new(config).expect("valid");
    let listener = Listener::bind(&worker, &format!("sim://{name}")).await.expect("free");
    let accepted = spawn(async move { listener.accept().await.expect("a peer") });
    let connection = Connector::new(&worker).connect(&format!("sim://{name}")).await.expect("somebody listens");
    (connection, accepted)
}

fn executor(settings: Settings) -> (Executor, NodeId) {
    let mut executor = Executor::new(settings);
    let node = executor.add_node("one", false);
    (executor, node)
}

#[test]
fn messages_and_memory_reach_the_peer_and_nothing_is_left() {
    let (mut executor, node) = executor(Settings::new(1));
    executor.spawn(node, async {
        let (client, server) = connected("peer", Config::default()).await;
        let server = server.await.expect("alive");
        assert_eq!((client.transport(), client.device()), ("sim", "one"));
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        let grant = exposed.grant(&server, 0..4096, crate::Access::ALL).await.expect("a grant");
        server.send(&grant.remote_buffer().to_bytes()).await.expect("sent");
        let handle = RemoteBuffer::from_bytes(&client.recv().await.expect("a message")).expect("a handle");
        let mut buffer = Buffer::allocate(5).expect("memory");
        buffer.copy_from_slice(b"hello");
        client.write(buffer, &handle.slice(100..105).expect("inside")).await.expect("written");
        client.send(b"written").await.expect("sent");
        assert_eq!(&*server.recv().await.expect("a message"), b"written");
        let mut bytes = [0; 5];
        exposed.read_at(100, &mut bytes);
        assert_eq!(&bytes, b"hello");
        let read = client.read(Buffer::allocate(5).expect("memory"), &handle.slice(100..105).expect("inside")).await;
        assert_eq!(&*read.expect("read"), b"hello");
        client.close().await.expect("closed");
        drop((server, grant, exposed));
    });
    executor.run().unwrap_or_else(|ended| panic!("{ended}\n{}", ended.trace.join("\n")));
    assert!(executor.time() > 0);
}

#[test]
fn a_message_that_never_comes_is_a_hang_within_virtual_time() {
    let (mut executor, node) = executor(Settings { patience: Duration::from_secs(30), ..Settings::new(2) });
    executor.spawn(node, async {
        let (client, server) = connected("peer", Config::default()).await;
        let server = server.await.expect("alive");
        let _ = client.recv().await;
        drop(server);
    });
    let ended = executor.run().expect_err("nobody sends");
    assert!(ended.to_string().starts_with("seed 2: HANG"), "{ended}");
}
