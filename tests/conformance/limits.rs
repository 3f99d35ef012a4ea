//! What there is a most of, and what comes of it: an error that costs nothing, or waiting.

use zcmi::{Access, Buffer, Config, Connection, ErrorKind, Pool, RemoteBuffer};

use crate::common::{allocate, fill, pattern};
use crate::world::{End, Initiator, Responder, WHILE, soon};

pub(crate) async fn messages_have_a_longest(end: End) {
    let longest = 8192;
    let session = end.connected(Config { max_message_size: longest, ..Config::default() }).await;
    let connection = &session.connection;
    let longest = longest as usize;
    assert_eq!(connection.max_message_size(), longest);
    match end.role {
        Initiator => {
            let error = soon(connection.send(&vec![0; longest + 1])).await.expect_err("too long");
            assert_eq!((error.kind(), error.operation()), (ErrorKind::TooLong, "send"), "{error}");
            assert!(error.hint().is_some(), "{error}");
            let failed = soon(connection.send_owned(vec_buffer(longest + 1))).await.expect_err("too long");
            assert_eq!(failed.error.kind(), ErrorKind::TooLong, "{}", failed.error);
            assert_eq!(failed.buffer.map(|buffer| buffer.len()), Some(longest + 1));
            let short = connection.max_short_message_size();
            let error = connection.try_send(&vec![0; short + 1]).expect_err("it would have to be fetched");
            assert_eq!(error.kind(), ErrorKind::TooLong, "{error}");
            connection.try_send(&pattern(1, 0, short)).expect("there is room");
            soon(connection.send(&pattern(1, 1, longest))).await.expect("sends");
        }
        Responder => {
            let short = soon(connection.recv()).await.expect("receives");
            assert!(short[..] == pattern(1, 0, connection.max_short_message_size()));
            assert!(soon(connection.recv()).await.expect("receives")[..] == pattern(1, 1, longest));
        }
    }
    session.close().await;
}

fn vec_buffer(length: usize) -> Buffer {
    allocate(length)
}

pub(crate) async fn a_full_window_holds_back_its_channel_alone(end: End) {
    let session = end.connected(Config { channel_window: 5000, ..Config::default() }).await;
    let connection = &session.connection;
    let other = connection.channel(1).expect("there is room");
    match end.role {
        Initiator => {
            let mut sent = 0;
            let fill_up = async {
                // That there is room may be learned late: it is full when it stays so.
                while let Ok(()) = connection.send_timeout(&pattern(1, sent, 100), 5 * WHILE).await {
                    sent += 1;
                }
            };
            soon(fill_up).await;
            assert!((1..=50).contains(&sent), "{sent} messages of 100 bytes in a window of 5000");
            let error = connection.try_send(&[0; 100]).expect_err("it is full");
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            let error = connection.send_timeout(&[0; 100], WHILE).await.expect_err("it is full");
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            for number in 0..100u32 {
                soon(other.send(&number.to_le_bytes())).await.expect("sends");
            }
            end.tell(&sent.to_string());
            soon(connection.send(b"there is room again")).await.expect("sends");
        }
        Responder => {
            for number in 0..100u32 {
                assert_eq!(*soon(other.recv()).await.expect("receives"), number.to_le_bytes());
            }
            let sent: u64 = end.hear().await.parse().expect("a number");
            for number in 0..sent {
                assert!(soon(connection.recv()).await.expect("receives")[..] == pattern(1, number, 100));
            }
            // What was given up was not sent.
            assert_eq!(&*soon(connection.recv()).await.expect("receives"), b"there is room again");
        }
    }
    session.close().await;
}

/// Memory of the responder, for the initiator to use.
async fn granted(end: &End, connection: &Connection, length: usize) -> Option<RemoteBuffer> {
    if end.role == Responder {
        let exposed = vec_buffer(length).expose();
        let grant = soon(exposed.grant(connection, 0..length, Access::ALL)).await.expect("grants");
        soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
        end.meet("used").await;
        return None;
    }
    let handle = soon(connection.recv()).await.expect("receives");
    Some(RemoteBuffer::from_bytes(&handle).expect("a handle"))
}

pub(crate) async fn more_in_flight_than_there_is_room_for_waits(end: End) {
    const COUNT: usize = 200;
    const EACH: usize = 4096;
    let session = end.connected(Config { send_depth: 16, ..Config::default() }).await;
    let connection = &session.connection;
    if let Some(handle) = granted(&end, connection, COUNT * EACH).await {
        let part = |index: usize| handle.slice((index * EACH) as u64..((index + 1) * EACH) as u64).expect("inside");
        let write = |index: usize| {
            let mut buffer = vec_buffer(EACH);
            fill(&mut buffer, 1, index as u64);
            connection.write(buffer, &part(index))
        };
        // A device may have done the first before the last are posted; a process that is stopped has not.
        let needs_progress = connection.capabilities().one_sided_needs_progress && !connection.shares_pages();
        if needs_progress {
            end.stop(WHILE);
        }
        let writing: Vec<_> = (0..COUNT).map(write).collect();
        let posted = writing.iter().filter(|operation| operation.is_posted()).count();
        assert!(posted >= 1 && (!needs_progress || posted <= 16), "{posted} of {COUNT} found room for 16");
        if needs_progress {
            end.go_on().await;
        }
        for operation in writing {
            soon(operation).await.expect("writes");
        }
        let reading: Vec<_> = (0..COUNT).map(|index| connection.read(vec_buffer(EACH), &part(index))).collect();
        for (index, operation) in reading.into_iter().enumerate() {
            assert!(soon(operation).await.expect("reads")[..] == pattern(1, index as u64, EACH), "part {index}");
        }
        end.meet("used").await;
    }
    session.close().await;
}

pub(crate) async fn pieces_and_channels_have_a_most(end: End) {
    let session = end.connected(Config { max_channels: 3, ..Config::default() }).await;
    let connection = &session.connection;
    if let Some(handle) = granted(&end, connection, 4096).await {
        let pieces = |count: usize| (0..count).map(|_| vec_buffer(8)).collect::<Vec<_>>();
        let most = connection.max_segments();
        let failed = soon(connection.read(pieces(most + 1), &handle)).await.expect_err("too many pieces");
        assert_eq!(failed.error.kind(), ErrorKind::TooLong, "{}", failed.error);
        assert_eq!(failed.buffer.map(|pieces| pieces.len()), Some(most + 1));
        soon(connection.write(pieces(most), &handle)).await.expect("writes");
        // With the first there are three.
        let _two = [5, 6].map(|id| connection.channel(id).expect("there is room"));
        let error = connection.channel(7).expect_err("there are three");
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        connection.channel(5).expect("one that is there");
        end.meet("used").await;
    }
    session.close().await;
}

pub(crate) async fn a_pool_that_is_used_up_says_so_and_goes_on(end: End) {
    const EACH: usize = 64 << 10;
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    if let Some(handle) = granted(&end, connection, EACH).await {
        let pool = Pool::builder().limit(1 << 20).build().expect("a pool");
        let mut writing = Vec::new();
        let error = loop {
            match pool.allocate(EACH) {
                Ok(buffer) => writing.push(connection.write(buffer, &handle)),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::PoolExhausted, "{error}");
        assert!(error.hint().is_some() && writing.len() > 4, "{} fit: {error}", writing.len());
        let write_all = async {
            for operation in writing {
                operation.await.expect("writes");
            }
        };
        // Who waits is given what comes back.
        let (_, waited) = soon(async { tokio::join!(write_all, pool.allocate_async(EACH)) }).await;
        drop(waited.expect("some has come back"));
        assert_eq!(pool.statistics().in_use_bytes, 0);
        end.meet("used").await;
    }
    session.close().await;
}
