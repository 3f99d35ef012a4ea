//! The API that blocks.

use std::time::Duration;

use zcmi::blocking::{self, block_on, block_on_timeout};
use zcmi::{Access, Config, ErrorKind, RemoteBuffer};

use crate::common::{allocate, fill, pattern};
use crate::world::{End, Initiator, Responder, SOON, Session, is_simulated, soon};

pub(crate) async fn all_of_it_without_a_runtime(end: End) {
    let session = end.connected(Config::default()).await;
    if is_simulated() {
        return on_the_only_thread(end, session).await;
    }
    let connection = blocking::Connection::from(session.connection.clone()).with_timeout(SOON);
    match end.role {
        Initiator => use_all(&connection),
        Responder => serve_all(&connection),
    }
}

fn use_all(connection: &blocking::Connection) {
    let (name, handle): (String, RemoteBuffer) = connection.recv_value().expect("receives");
    assert_eq!(name, "memory");
    for length in [0, 100, 5_000, 1 << 20] {
        connection.send(&pattern(1, 0, length)).expect("sends");
        assert!(connection.recv().expect("receives")[..] == pattern(1, 0, length));
    }
    let part = handle.slice(8..108).expect("inside");
    let mut buffer = allocate(100);
    fill(&mut buffer, 2, 0);
    let mut buffer = connection.write(buffer, &part).expect("writes");
    buffer.fill(0);
    assert!(connection.read(buffer, &part).expect("reads")[..] == pattern(2, 0, 100));
    let word = handle.at::<u64>(0).expect("inside");
    connection.write_value(&word, &5).expect("writes");
    assert_eq!(connection.fetch_add(&word, 2).expect("adds"), 5);
    assert_eq!(connection.compare_swap(&word, 7, 9).expect("compares"), 7);
    assert_eq!(connection.read_value(&word).expect("reads"), 9);
    let channel = connection.channel(4).expect("there is room");
    let error = channel.recv_timeout(Duration::from_millis(20)).expect_err("nothing comes");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    channel.send_value(&(1u8, "the last")).expect("sends");
    channel.finish().expect("finishes");
    assert_eq!(&*connection.recv().expect("receives"), b"done");
    connection.close().expect("closes");
}

fn serve_all(connection: &blocking::Connection) {
    let exposed = allocate(4096).expose();
    let grant = block_on(exposed.grant(connection.inner(), 0..4096, Access::ALL)).expect("grants");
    connection.send_value(&("memory", grant.remote_buffer())).expect("sends");
    for _ in 0..4 {
        let message = connection.recv().expect("receives");
        connection.send(&message).expect("sends");
    }
    let channel = connection.channel(4).expect("there is room");
    let value: (u8, String) = channel.recv_value().expect("receives");
    assert_eq!(value, (1, "the last".to_owned()));
    assert_eq!(channel.recv().expect_err("the end").kind(), ErrorKind::PeerClosed);
    let mut bytes = vec![0; 108];
    exposed.read_at(0, &mut bytes);
    assert!(bytes[..8] == 9u64.to_ne_bytes() && bytes[8..] == pattern(2, 0, 100));
    connection.send(b"done").expect("sends");
    assert_eq!(connection.recv().expect_err("the end").kind(), ErrorKind::PeerClosed);
    connection.close().expect("closes");
}

/// One thread runs all of a simulation, so nothing happens while that is blocked: who blocks it is given up, and nothing is lost.
async fn on_the_only_thread(end: End, session: Session) {
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let begun = block_on_timeout(connection.send(b"a short one"), Duration::from_millis(5));
            begun.expect("it is in a frame at once").expect("sends");
        }
        Responder => {
            let received = block_on_timeout(connection.recv(), Duration::from_millis(5));
            assert!(received.is_none_or(|message| &*message.expect("receives") == b"a short one"));
        }
    }
    match end.role {
        Initiator => soon(connection.send(b"the last")).await.expect("sends"),
        Responder => while &*soon(connection.recv()).await.expect("receives") != b"the last" {},
    }
    session.close().await;
}
