//! Calls and streams, which are made of messages.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zcmi::{ApplicationError, Client, Config, ErrorKind, Stream, serve};

use crate::common::pattern;
use crate::world::{End, Initiator, Responder, soon};

pub(crate) async fn calls_are_answered_each_once(end: End) {
    let session = end.connected(Config::default()).await;
    let channel = session.connection.channel(2).expect("there is room");
    match end.role {
        Initiator => {
            {
                let client = Client::new(channel);
                let client = &client;
                let calls = (0..50u32).map(async |number| client.call::<_, u32>(&number).await);
                for (number, answer) in soon(futures_util::future::join_all(calls)).await.into_iter().enumerate() {
                    match answer {
                        Ok(answer) => assert_eq!((answer, number % 7 == 0), (number as u32 * 2, false)),
                        Err(error) => {
                            assert_eq!((error.kind(), number % 7), (ErrorKind::Application, 0), "{number}: {error}");
                            assert_eq!(error.application().map(|error| error.code()), Some(number as u32));
                        }
                    }
                }
            }
            // It has gone.
            end.meet("served").await;
        }
        Responder => {
            let handle = |number: u32| async move {
                if number.is_multiple_of(7) { Err(ApplicationError::new(number, "of seven")) } else { Ok(number * 2) }
            };
            soon(serve(channel, 8, handle)).await.expect("serves until the client has gone");
            end.meet("served").await;
        }
    }
    session.close().await;
}

pub(crate) async fn a_stream_carries_bytes_both_ways(end: End) {
    const LENGTH: usize = 300_000;
    let session = end.connected(Config::default()).await;
    let stream = Stream::new(session.connection.channel(3).expect("there is room"));
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (own, other) = (end.role as u64, 1 - end.role as u64);
    let writing = async {
        for part in pattern(own, 0, LENGTH).chunks(7_777) {
            writer.write_all(part).await.expect("writes");
        }
        writer.shutdown().await.expect("ends");
    };
    let reading = async {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.expect("reads");
        assert!(all == pattern(other, 0, LENGTH), "{} bytes, or others", all.len());
    };
    soon(async { tokio::join!(writing, reading) }).await;
    end.meet("read").await;
    drop((reader, writer));
    session.close().await;
}
