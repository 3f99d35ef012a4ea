//! The halves of a connection: each ends its direction when it is dropped. On a real device.

mod common;

use std::future::Future;
use std::time::Duration;

use common::{baseline, nothing_left, on_device, pair, pattern, still_works, worker};
use zcmi::{Access, Buffer, Connection, ErrorKind};

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

async fn notify(connection: &Connection, handle: &zcmi::RemoteBuffer, value: u32) {
    let buffer = Buffer::allocate(64).expect("memory");
    soon(connection.write_notify(buffer, handle, value)).await.expect("writes");
}

#[test]
fn halves_work_in_tasks_of_their_own() {
    on_device(|address| async move {
        let worker = worker();
        let before = baseline(&worker, &address).await;
        let (client, server) = pair(&worker, &address).await;
        let (client_sends, client_receives) = client.split();
        let (server_sends, server_receives) = server.split();
        // An echo, which ends by itself.
        let echo = tokio::spawn(async move {
            loop {
                match server_receives.recv().await {
                    Ok(message) => server_sends.send(&message).await.expect("sends"),
                    Err(error) => return error.kind(),
                }
            }
        });
        let lengths = [0usize, 10, 5_000, 200_000];
        let sending = tokio::spawn(async move {
            for (index, length) in lengths.into_iter().enumerate() {
                client_sends.clone().send(&pattern(1, index as u64, length)).await.expect("sends");
            }
        });
        for (index, length) in lengths.into_iter().enumerate() {
            let message = soon(client_receives.recv()).await.expect("comes back");
            assert!(message[..] == pattern(1, index as u64, length), "{length} bytes");
        }
        soon(sending).await.expect("no panic");
        assert_eq!(soon(echo).await.expect("no panic"), ErrorKind::PeerClosed);
        assert_eq!(soon(client_receives.recv()).await.expect_err("the end").kind(), ErrorKind::PeerClosed);
        drop(client_receives);
        nothing_left(&before).await;
    });
}

#[test]
fn the_last_sender_finishes_behind_all_that_was_sent() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let (sender, receiver) = client.split();
        let other = sender.clone();
        drop(sender);
        // So much that the end finds no room at first.
        let mut sent = 0;
        while other.try_send(&pattern(2, sent, 4_000)).is_ok() {
            sent += 1;
        }
        assert!(sent > 10);
        drop(other);
        let refused = receiver.connection().send(b"x").await.expect_err("finished");
        assert_eq!(refused.kind(), ErrorKind::Closed);
        for index in 0..sent {
            assert!(soon(server.recv()).await.expect("receives")[..] == pattern(2, index, 4_000), "message {index}");
        }
        assert_eq!(soon(server.recv()).await.expect_err("the end").kind(), ErrorKind::PeerClosed);
        // The other direction goes on.
        let sending = tokio::spawn(async move { server.send(&pattern(3, 0, 100_000)).await });
        assert!(soon(receiver.recv()).await.expect("receives")[..] == pattern(3, 0, 100_000));
        soon(sending).await.expect("no panic").expect("sends");
    });
}

#[test]
fn the_last_receiver_declines_what_waits_and_what_comes() {
    on_device(|address| async move {
        let (client, server) = pair(&worker(), &address).await;
        let exposed = Buffer::allocate(64).expect("memory").expose();
        let grant = exposed.grant(&server, 0..64, Access::WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        let channel = client.channel(9).expect("a channel");
        let (sender, receiver) = server.split();
        let other = receiver.clone();
        drop(receiver);
        client.send(b"is received").await.expect("sends");
        assert_eq!(&*soon(other.recv()).await.expect("receives"), b"is received");
        // Waits: short ones, long ones on two channels, notifications.
        for _ in 0..20 {
            client.send(&[7; 1_000]).await.expect("sends");
        }
        notify(&client, &handle, 1).await;
        let long = |connection: Connection| tokio::spawn(async move { connection.send(&[1; 500_000]).await });
        let first = long(client.clone());
        let second = tokio::spawn(async move { channel.send(&[1; 500_000]).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!first.is_finished() && !second.is_finished(), "nobody has received them");
        let waiting = tokio::spawn({
            let channel = other.connection().channel(5).expect("a channel");
            async move { channel.recv().await }
        });
        tokio::task::yield_now().await;
        drop(other);
        for long in [first, second] {
            let declined = soon(long).await.expect("no panic").expect_err("nobody receives");
            assert_eq!(declined.kind(), ErrorKind::PeerClosed);
        }
        assert_eq!(soon(waiting).await.expect("no panic").expect_err("declined").kind(), ErrorKind::Closed);
        // Short ones go, as many as there may be, and long ones do not.
        for round in 0..300 {
            soon(client.send(&[7; 3_000])).await.unwrap_or_else(|error| panic!("message {round}: {error}"));
        }
        let declined = soon(client.send(&[1; 500_000])).await.expect_err("nobody receives");
        assert_eq!(declined.kind(), ErrorKind::PeerClosed);
        for value in 0..600 {
            notify(&client, &handle, value).await;
        }
        // The other direction goes on.
        soon(async {
            let send = sender.send(&[3; 100_000]);
            let (sent, received) = tokio::join!(send, client.recv());
            sent.expect("sends");
            assert_eq!(received.expect("receives").len(), 100_000);
        })
        .await;
        drop(sender);
        assert_eq!(soon(client.recv()).await.expect_err("the end").kind(), ErrorKind::PeerClosed);
    });
}

#[test]
fn a_connection_whose_halves_are_gone_is_gone() {
    on_device(|address| async move {
        let worker = worker();
        let before = baseline(&worker, &address).await;
        for receiver_first in [true, false] {
            let (client, server) = pair(&worker, &address).await;
            let (sender, receiver) = client.split();
            sender.send(b"last words").await.expect("sends");
            if receiver_first {
                drop(receiver);
                drop(sender);
            } else {
                drop(sender);
                drop(receiver);
            }
            assert_eq!(&*soon(server.recv()).await.expect("receives"), b"last words");
            assert_eq!(soon(server.recv()).await.expect_err("the end").kind(), ErrorKind::PeerClosed);
            drop(server);
            nothing_left(&before).await;
        }
        still_works(&address).await;
    });
}
