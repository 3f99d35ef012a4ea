//! Messages of all sizes, whole and in order.

use std::io::IoSlice;
use std::time::Duration;

use bytes::Bytes;
use zcmi::{Config, Connection, ErrorKind, Registered, SharedMemory};

use crate::common::{allocate, fill, pattern};
use crate::world::{End, Initiator, Responder, WHILE, soon, within};

const CHANNELS: [u32; 3] = [0, 7, u32::MAX];

/// Bytes of a message at both sides of each limit there is.
fn sizes(connection: &Connection, channel: u32) -> Vec<usize> {
    let short = connection.max_short_message_size();
    let mut sizes = vec![0, 1, short - 1, short, short + 1, 64 << 10, (1 << 20) + 3, 0];
    sizes.extend((channel == 0).then_some(16 << 20));
    sizes
}

pub(crate) async fn each_size_arrives_in_order_on_each_channel(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    let seed = |role, channel: u32| u64::from(channel) << 8 | role as u64;
    let send = async |id: u32| {
        let channel = connection.channel(id).expect("there is room");
        for (index, size) in sizes(connection, id).into_iter().enumerate() {
            let bytes = pattern(seed(end.role, id), index as u64, size);
            if index % 2 == 0 {
                channel.send(&bytes).await.expect("sends");
            } else {
                let (first, rest) = bytes.split_at(size / 3);
                channel.send_vectored(&[IoSlice::new(first), IoSlice::new(rest)]).await.expect("sends");
            }
        }
        channel.finish().await.expect("finishes");
    };
    let other = if end.role == Initiator { Responder } else { Initiator };
    let receive = async |id: u32| {
        let channel = connection.channel(id).expect("there is room");
        for (index, size) in sizes(connection, id).into_iter().enumerate() {
            let message = channel.recv().await.expect("receives");
            assert_eq!(message.len(), size, "message {index} of channel {id}");
            let expected = pattern(seed(other, id), index as u64, size);
            assert!(message[..] == expected, "message {index} of channel {id} has other bytes");
        }
        assert_eq!(channel.recv().await.expect_err("the end").kind(), ErrorKind::PeerClosed);
    };
    // Both ways, and on all channels, at once.
    let [a, b, c] = CHANNELS;
    let sending = async { tokio::join!(send(a), send(b), send(c)) };
    let receiving = async { tokio::join!(receive(a), receive(b), receive(c)) };
    soon(async { tokio::join!(sending, receiving) }).await;
    session.close().await;
}

pub(crate) async fn memory_of_every_kind_is_gathered_and_scattered(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    for (round, length) in [100, 5_000, 300_000].into_iter().enumerate() {
        let expected = pattern(round as u64, 0, length);
        match end.role {
            Initiator => soon(send_all(connection, &expected)).await,
            Responder => soon(receive_all(connection, &expected)).await,
        }
    }
    session.close().await;
}

async fn send_all(connection: &Connection, expected: &[u8]) {
    let mut buffer = allocate(expected.len());
    buffer.copy_from_slice(expected);
    let buffer = connection.send_owned(buffer).await.expect("sends");
    assert!(buffer[..] == *expected, "it comes back as it was");
    let frozen = connection.send_owned(buffer.freeze()).await.expect("sends");
    assert!(frozen[..] == *expected, "it comes back as it was");
    connection.send_owned(Bytes::from(expected.to_vec())).await.expect("sends");
    connection.send_owned(SharedMemory::from(expected.to_vec())).await.expect("sends");
    let registered = connection.send_owned(Registered::new(expected.to_vec())).await.expect("sends");
    assert!(registered.into_inner().expect("nobody holds it") == expected);
    let pieces: Vec<_> = expected.chunks(expected.len() / 7 + 1).map(IoSlice::new).collect();
    connection.send_vectored(&pieces).await.expect("sends");
}

async fn receive_all(connection: &Connection, expected: &[u8]) {
    let length = expected.len();
    let message = connection.recv().await.expect("receives");
    assert!(message[..] == *expected);
    assert!(message.into_buffer().expect("memory")[..] == *expected);
    assert!(connection.recv().await.expect("receives").into_bytes() == expected);
    // Into memory that is longer, and what is behind the message stays.
    let mut longer = allocate(length + 50);
    fill(&mut longer, 9, 9);
    let (longer, got) = connection.recv_into(longer).await.expect("receives");
    assert_eq!(got, length);
    assert!(longer[..length] == *expected && longer[length..] == pattern(9, 9, length + 50)[length..]);
    // One that has no room is still there.
    let failed = connection.recv_into(allocate(length - 1)).await.expect_err("no room");
    assert_eq!((failed.error.kind(), failed.buffer.map(|buffer| buffer.len())), (ErrorKind::TooLong, Some(length - 1)));
    let parts = vec![Registered::new(vec![0; length / 2]), Registered::new(vec![0; length])];
    let (parts, got) = connection.recv_into(parts).await.expect("receives");
    assert!(got == length && [&parts[0][..], &parts[1][..]].concat()[..length] == *expected);
    for _ in 0..2 {
        assert!(connection.recv().await.expect("receives")[..] == *expected);
    }
}

/// Its library has it while its program does nothing, and not while its process is stopped.
pub(crate) async fn one_that_is_acknowledged_is_with_the_peers_library(end: End) {
    let session = end.connected(Config { peer_timeout: Duration::from_secs(60), ..Config::default() }).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            soon(connection.send_acknowledged(b"nobody asks for it")).await.expect("sends");
            end.meet("acknowledged").await;
            end.stop(2 * WHILE);
            let mut sending = std::pin::pin!(connection.send_acknowledged(b"to one that is stopped"));
            assert!(within(WHILE, &mut sending).await.is_none(), "a process that is stopped has it");
            end.go_on().await;
            soon(sending).await.expect("sends");
        }
        Responder => {
            end.meet("acknowledged").await;
            for expected in [&b"nobody asks for it"[..], b"to one that is stopped"] {
                assert_eq!(&*soon(connection.recv()).await.expect("receives"), expected);
            }
        }
    }
    end.meet("end").await;
    session.close().await;
}
