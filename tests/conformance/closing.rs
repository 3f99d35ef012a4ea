//! How conversations end, by and by and at once.

use zcmi::{Config, Connection, ErrorKind};

use crate::common::pattern;
use crate::world::{End, Initiator, Responder, soon};

/// Of each kind: short, at the limit of a frame, long.
const LENGTHS: [usize; 4] = [10, 5_000, 0, 200_000];

async fn send_some(connection: &Connection, seed: u64) {
    for (index, length) in LENGTHS.into_iter().enumerate() {
        soon(connection.send(&pattern(seed, index as u64, length))).await.expect("sends");
    }
}

async fn receive_some(connection: &Connection, seed: u64) {
    for (index, length) in LENGTHS.into_iter().enumerate() {
        let message = soon(connection.recv()).await.expect("receives");
        assert!(message[..] == pattern(seed, index as u64, length), "message {index}");
    }
}

/// Nothing more comes: the peer has said so.
async fn receive_the_end(connection: &Connection) {
    for _ in 0..2 {
        let error = soon(connection.recv()).await.expect_err("the end");
        assert_eq!((error.kind(), error.operation()), (ErrorKind::PeerClosed, "receive"), "{error}");
    }
}

pub(crate) async fn each_direction_ends_alone(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let sending = async {
                send_some(connection, 1).await;
                connection.finish().await.expect("finishes");
            };
            soon(sending).await;
            let error = connection.send(b"more").await.expect_err("finished");
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            end.tell("finished");
            receive_some(connection, 2).await;
            receive_the_end(connection).await;
        }
        Responder => {
            receive_some(connection, 1).await;
            receive_the_end(connection).await;
            assert_eq!(end.hear().await, "finished");
            send_some(connection, 2).await;
            soon(connection.finish()).await.expect("finishes");
        }
    }
    session.close().await;
}

pub(crate) async fn what_was_sent_before_the_end_arrives(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let sending = async {
                for number in 0..100u32 {
                    connection.send(&number.to_le_bytes()).await.expect("sends");
                }
                connection.close().await.expect("closes");
            };
            soon(sending).await;
            end.meet("closed").await;
            for error in
                [connection.send(b"x").await.expect_err("closed"), connection.recv().await.expect_err("closed")]
            {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            }
            // To close once more is no error.
            connection.close().await.expect("closes");
        }
        Responder => {
            end.meet("closed").await;
            for number in 0..100u32 {
                assert_eq!(*soon(connection.recv()).await.expect("receives"), number.to_le_bytes());
            }
            receive_the_end(connection).await;
            let error = soon(async {
                loop {
                    if let Err(error) = connection.send(b"is anybody there?").await {
                        return error;
                    }
                }
            });
            let error = error.await;
            assert!([ErrorKind::PeerClosed, ErrorKind::ConnectionBroken].contains(&error.kind()), "{error}");
        }
    }
    session.close().await;
}

pub(crate) async fn both_may_close_at_once(end: End) {
    let session = end.connected(Config::default()).await;
    let seed = end.role as u64;
    let connection = session.connection.clone();
    let all = async { tokio::join!(send_some(&connection, seed), receive_some(&connection, 1 - seed)) };
    soon(all).await;
    end.meet("all").await;
    drop(connection);
    session.close().await;
}

pub(crate) async fn one_that_is_dropped_is_delivered(end: End) {
    let session = end.connected(Config::default()).await;
    // There is one more reference to a session's first.
    let connection = session.another().await;
    match end.role {
        Initiator => {
            for number in 0..20u32 {
                soon(connection.send(&number.to_le_bytes())).await.expect("sends");
            }
            drop(connection);
            end.meet("received").await;
        }
        Responder => {
            for number in 0..20u32 {
                assert_eq!(*soon(connection.recv()).await.expect("receives"), number.to_le_bytes());
            }
            receive_the_end(&connection).await;
            end.meet("received").await;
        }
    }
    session.close().await;
}

pub(crate) async fn an_abort_is_no_end(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = session.another().await;
    match end.role {
        Initiator => {
            soon(connection.send_acknowledged(b"before")).await.expect("sends");
            connection.abort();
            assert_eq!(connection.send(b"x").await.expect_err("aborted").kind(), ErrorKind::Closed);
        }
        Responder => {
            assert_eq!(&*soon(connection.recv()).await.expect("receives"), b"before");
            let error = soon(connection.recv()).await.expect_err("aborted");
            assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
        }
    }
    // Nothing of that is known on another connection.
    end.lives(&session.connection).await;
    session.close().await;
}

pub(crate) async fn halves_end_their_direction(end: End) {
    let session = end.connected(Config::default()).await;
    let (sender, receiver) = session.another().await.split();
    match end.role {
        Initiator => {
            soon(sender.send(b"the last")).await.expect("sends");
            drop(sender);
            assert_eq!(&*soon(receiver.recv()).await.expect("receives"), b"an answer");
            // Who declines is not sent to.
            drop(receiver);
        }
        Responder => {
            assert_eq!(&*soon(receiver.recv()).await.expect("receives"), b"the last");
            assert_eq!(soon(receiver.recv()).await.expect_err("the end").kind(), ErrorKind::PeerClosed);
            soon(sender.send(b"an answer")).await.expect("sends");
            let declined = async {
                loop {
                    if let Err(error) = sender.send(&[7; 100_000]).await {
                        return error;
                    }
                }
            };
            let error = soon(declined).await;
            assert!([ErrorKind::PeerClosed, ErrorKind::ConnectionBroken].contains(&error.kind()), "{error}");
        }
    }
    end.meet("end").await;
    session.close().await;
}
