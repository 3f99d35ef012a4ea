//! Futures, streams and connections that go away in the middle.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};

use super::{soon, stream, streams};
use crate::common::{baseline, nothing_left, on_device, pair, pattern, worker};

#[test]
fn a_dropped_read_or_write_loses_nothing() {
    on_device(|address| async move {
        let (mut client, mut server) = streams(&worker(), &address).await;
        let bytes = pattern(1, 1, 600_000);
        let wanted = bytes.clone();
        let writing = tokio::spawn(async move {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                // Dropped in the middle, time and again.
                if let Ok(written) = tokio::time::timeout(Duration::from_micros(300), client.write(rest)).await {
                    rest = &rest[written.expect("writes")..];
                }
            }
            client.shutdown().await.expect("shuts down");
        });
        let mut read = Vec::new();
        let mut buffer = vec![0; 5000];
        loop {
            match tokio::time::timeout(Duration::from_micros(300), server.read(&mut buffer)).await {
                Ok(length) => match length.expect("reads") {
                    0 => break,
                    length => read.extend_from_slice(&buffer[..length]),
                },
                Err(_) => tokio::task::yield_now().await,
            }
        }
        soon(writing).await.expect("the task succeeds");
        assert!(read == wanted, "{} of {} bytes, or others", read.len(), wanted.len());
    });
}

#[test]
fn what_was_written_before_the_drop_is_read_and_then_the_end() {
    on_device(|address| async move {
        let (near, far) = pair(&worker(), &address).await;
        for length in [0, 5, 100_000, 400_000] {
            let channel = 100 + length as u32;
            let ends = [&near, &far].map(|end| zcmi::Stream::new(end.channel(channel).expect("a channel")));
            let [mut client, mut server] = ends;
            let bytes = pattern(2, length as u64, length);
            client.write_all(&bytes).await.expect("writes");
            drop(client);
            let mut read = Vec::new();
            soon(server.read_to_end(&mut read)).await.expect("reads to the end");
            assert!(read == bytes, "{} of {length} bytes, or others", read.len());
        }
    });
}

#[test]
fn writing_to_an_end_that_was_dropped_is_an_error() {
    on_device(|address| async move {
        // The connection lives on: nothing but the stream itself tells.
        let (near, far) = pair(&worker(), &address).await;
        let (mut client, mut server) = (stream(&near), stream(&far));
        let uploading = tokio::spawn(async move {
            let piece = vec![1; 100_000];
            loop {
                if let Err(error) = client.write_all(&piece).await {
                    return error;
                }
            }
        });
        server.read_exact(&mut [0; 1000]).await.expect("reads");
        drop(server);
        let error = soon(uploading).await.expect("the task succeeds");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
        assert!(error.to_string().contains("the peer has dropped its end"), "{error}");
        // Also for one that has shut down before.
        let ends = [&near, &far].map(|end| zcmi::Stream::new(end.channel(2).expect("a channel")));
        let [mut client, mut server] = ends;
        server.shutdown().await.expect("shuts down");
        assert_eq!(soon(client.read(&mut [0; 1])).await.expect("the end"), 0);
        let waiting = tokio::spawn(async move {
            let piece = vec![1; 100_000];
            while client.write_all(&piece).await.is_ok() {}
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(server);
        soon(waiting).await.expect("the task succeeds");
    });
}

#[test]
fn shutting_down_is_fine_if_the_peer_has_read_all_and_gone() {
    on_device(|address| async move {
        let (near, far) = pair(&worker(), &address).await;
        let (mut client, mut server) = (stream(&near), stream(&far));
        client.write_all(b"all of it").await.expect("writes");
        client.flush().await.expect("flushes");
        server.read_exact(&mut [0; 9]).await.expect("reads");
        drop(server);
        assert_eq!(soon(client.read(&mut [0; 1])).await.expect("the end"), 0);
        soon(client.shutdown()).await.expect("nothing is lost");
        let error = soon(client.write_all(b"more")).await.expect_err("nobody reads it");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
    });
}

#[test]
fn a_copy_ends_when_one_end_is_dropped() {
    on_device(|address| async move {
        let worker = worker();
        let ((front_near, front_far), (back_near, back_far)) =
            (pair(&worker, &address).await, pair(&worker, &address).await);
        let (mut client, mut front) = (stream(&front_near), stream(&front_far));
        let (mut back, server) = (stream(&back_near), stream(&back_far));
        let copying = tokio::spawn(async move { copy_bidirectional(&mut front, &mut back).await });
        let uploading = tokio::spawn(async move {
            let piece = vec![1; 100_000];
            while client.write_all(&piece).await.is_ok() {}
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(server);
        soon(copying).await.expect("the task succeeds").expect_err("one direction failed");
        // And the other end learns it.
        soon(uploading).await.expect("the task succeeds");
    });
}

#[test]
fn a_connection_that_ends_in_the_middle_is_no_end_of_the_stream() {
    on_device(|address| async move {
        let (near, far) = pair(&worker(), &address).await;
        let (mut client, mut server) = (stream(&near), stream(&far));
        client.write_all(b"half of").await.expect("writes");
        client.flush().await.expect("flushes");
        near.close().await.expect("closes");
        let mut read = Vec::new();
        let error = soon(server.read_to_end(&mut read)).await.expect_err("cut off");
        assert_eq!(read, b"half of");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        assert!(error.to_string().contains("in the middle of the stream"), "{error}");
        let error = async {
            loop {
                if let Err(error) = server.write_all(&[0; 100_000]).await {
                    return error;
                }
            }
        };
        let error = soon(error).await;
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    });
}

#[test]
fn streams_that_end_in_the_middle_leave_nothing_behind() {
    on_device(|address| async move {
        let worker = worker();
        let baseline = baseline(&worker, &address).await;
        for round in 0..6 {
            let (near, far) = pair(&worker, &address).await;
            let (mut client, mut server) = (stream(&near), stream(&far));
            let writing = tokio::spawn(async move { while client.write_all(&[7; 50_000]).await.is_ok() {} });
            server.read_exact(&mut [0; 70_000]).await.expect("reads");
            match round % 3 {
                0 => drop(server),
                // Given up: what is still to be sent finds no room, since nobody reads any more.
                1 => _ = tokio::time::timeout(Duration::from_millis(200), near.close()).await,
                // Both hang as they are.
                _ => writing.abort(),
            }
        }
        nothing_left(&baseline).await;
    });
}
