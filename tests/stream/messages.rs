//! A stream, and at the other end its messages.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{soon, stream};
use crate::common::{on_device, pair, worker};

fn message(sequence: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    [&sequence.to_le_bytes()[..], &[flags, 0, 0, 0], bytes].concat()
}

#[test]
fn small_writes_share_a_message() {
    on_device(|address| async move {
        let (near, far) = pair(&worker(), &address).await;
        let (mut client, messages) = (stream(&near), far.channel(1).expect("a channel"));
        for index in 0..100u8 {
            client.write_all(&[index; 10]).await.expect("writes");
        }
        client.flush().await.expect("flushes");
        let (mut count, mut bytes) = (0, Vec::new());
        while bytes.len() < 1000 {
            let message = soon(messages.recv()).await.expect("receives");
            assert_eq!(message[..8], [count, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend_from_slice(&message[8..]);
            count += 1;
        }
        assert!(count <= 3, "{count} messages");
        assert!(bytes.chunks(10).enumerate().all(|(index, chunk)| chunk == [index as u8; 10]));
        client.shutdown().await.expect("shuts down");
        assert_eq!(*soon(messages.recv()).await.expect("receives"), message(count.into(), 1, b""));
        drop(client);
        assert_eq!(*soon(messages.recv()).await.expect("receives"), message(u32::from(count) + 1, 2, b""));
        let error = soon(messages.recv()).await.expect_err("the channel is finished");
        assert_eq!(error.kind(), zcmi::ErrorKind::PeerClosed, "{error}");
    });
}

#[test]
fn messages_in_another_order_are_sorted() {
    on_device(|address| async move {
        let (near, far) = pair(&worker(), &address).await;
        let (mut client, messages) = (stream(&near), far.channel(1).expect("a channel"));
        for (sequence, flags, bytes) in [(2, 0, "c"), (1, 0, "b"), (4, 1, ""), (0, 0, "a"), (3, 0, "d")] {
            messages.send(&message(sequence, flags, bytes.as_bytes())).await.expect("sends");
        }
        let mut read = String::new();
        soon(client.read_to_string(&mut read)).await.expect("reads");
        assert_eq!(read, "abcd");
    });
}

#[test]
fn what_no_stream_sends_ends_it_with_an_error() {
    on_device(|address| async move {
        let (near, far) = pair(&worker(), &address).await;
        let hostile: [&[Vec<u8>]; 8] = [
            &[vec![]],
            &[vec![0; 7]],
            &[message(0, 0, b"")],
            &[message(0, 1, b"x")],
            &[message(0, 8, b"x")],
            &[message(64, 0, b"x")],
            &[message(1, 0, b"x"), message(1, 0, b"x")],
            &[message(u32::MAX, 0, b"x")],
        ];
        for (number, hostile) in hostile.into_iter().enumerate() {
            let channel = 10 + number as u32;
            let mut client = zcmi::Stream::new(near.channel(channel).expect("a channel"));
            for message in hostile {
                far.channel(channel).expect("a channel").send(message).await.expect("sends");
            }
            let error = soon(client.read(&mut [0; 8])).await.expect_err("hostile");
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{number}: {error}");
            client.read(&mut [0; 8]).await.expect_err("still");
        }
        // Behind the end there is nothing to read, and a writer that waits would notice.
        let (mut client, messages) = (stream(&near), far.channel(1).expect("a channel"));
        messages.send(&message(0, 1, b"")).await.expect("sends");
        messages.send(&message(1, 0, b"x")).await.expect("sends");
        assert_eq!(soon(client.read(&mut [0; 8])).await.expect("the end"), 0);
        near.send(b"the connection lives on").await.expect("sends");
    });
}
