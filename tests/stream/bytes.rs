//! What is written is read: in both directions, in pieces, to the end.

use std::io::IoSlice;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};

use super::{soon, streams};
use crate::common::{on_device, pattern, worker};

const MIB: usize = 1 << 20;

/// Writes in pieces of all sizes, and shuts down.
async fn write_all(mut to: impl AsyncWrite + Unpin, bytes: Vec<u8>) {
    let mut rest = &bytes[..];
    for length in [1, 10, 1000, 8192, 100_000, 300_000].into_iter().cycle() {
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        to.write_all(piece).await.expect("writes");
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    to.shutdown().await.expect("shuts down");
}

async fn read_all(mut from: impl AsyncRead + Unpin, wanted: Vec<u8>) {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.expect("reads");
    assert_eq!(bytes.len(), wanted.len());
    assert!(bytes == wanted, "other bytes");
}

#[test]
fn both_directions_are_copied_byte_for_byte_to_the_end() {
    on_device(|address| async move {
        let worker = worker();
        let (client, mut front) = streams(&worker, &address).await;
        let (mut back, server) = streams(&worker, &address).await;
        let (there, here) = (pattern(1, 1, 4 * MIB + 17), pattern(2, 2, 3 * MIB + 1));
        let proxy = tokio::spawn(async move { copy_bidirectional(&mut front, &mut back).await });
        // A task for each of the four.
        let (client_reads, client_writes) = tokio::io::split(client);
        let (server_reads, server_writes) = tokio::io::split(server);
        let tasks = [
            tokio::spawn(write_all(client_writes, there.clone())),
            tokio::spawn(read_all(server_reads, there.clone())),
            tokio::spawn(write_all(server_writes, here.clone())),
            tokio::spawn(read_all(client_reads, here.clone())),
        ];
        for task in tasks {
            soon(task).await.expect("the task succeeds");
        }
        let copied = soon(proxy).await.expect("the task succeeds").expect("copies");
        assert_eq!(copied, (there.len() as u64, here.len() as u64));
    });
}

#[test]
fn many_threads_can_share_the_halves() {
    let Some(address) = crate::common::device_address() else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, server) = streams(&worker(), &address).await;
        let bytes = pattern(3, 3, 2 * MIB);
        let ((client_reads, client_writes), (server_reads, server_writes)) =
            (tokio::io::split(client), tokio::io::split(server));
        let tasks = [
            tokio::spawn(write_all(client_writes, bytes.clone())),
            tokio::spawn(write_all(server_writes, bytes.clone())),
            tokio::spawn(read_all(client_reads, bytes.clone())),
            tokio::spawn(read_all(server_reads, bytes.clone())),
        ];
        for task in tasks {
            soon(task).await.expect("the task succeeds");
        }
    });
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    on_device(|address| async move {
        let (mut client, mut server) = streams(&worker(), &address).await;
        client.write_all(b"a question").await.expect("writes");
        client.shutdown().await.expect("shuts down");
        client.shutdown().await.expect("twice is once");
        let error = client.write_all(b"more").await.expect_err("it was shut down");
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
        let mut question = String::new();
        soon(server.read_to_string(&mut question)).await.expect("reads to the end");
        assert_eq!(question, "a question");
        assert_eq!(soon(server.read(&mut [0; 8])).await.expect("still the end"), 0);
        server.write_all(b"an answer").await.expect("writes");
        server.flush().await.expect("flushes");
        let mut answer = [0; 9];
        soon(client.read_exact(&mut answer)).await.expect("reads");
        assert_eq!(&answer, b"an answer");
        server.shutdown().await.expect("shuts down");
        assert_eq!(soon(client.read(&mut answer)).await.expect("the end"), 0);
    });
}

#[test]
fn what_is_not_flushed_arrives_all_the_same() {
    on_device(|address| async move {
        let (mut client, mut server) = streams(&worker(), &address).await;
        let mut byte = [0; 5];
        client.write_all(b"first").await.expect("writes");
        // The writer does nothing else.
        soon(server.read_exact(&mut byte)).await.expect("reads");
        assert_eq!(&byte, b"first");
        // The writer reads.
        client.write_all(b"again").await.expect("writes");
        let reading = async { client.read_exact(&mut [0; 5]).await.map(drop) };
        let answering = async {
            server.read_exact(&mut byte).await.expect("reads");
            server.write_all(b"reply").await.expect("writes");
            server.flush().await
        };
        let both = soon(async { tokio::try_join!(reading, answering) }).await;
        both.expect("asks and answers");
        assert_eq!(&byte, b"again");
    });
}

#[test]
fn several_pieces_can_be_written_at_once() {
    on_device(|address| async move {
        let (mut client, mut server) = streams(&worker(), &address).await;
        assert!(client.is_write_vectored());
        let bytes = pattern(4, 4, 200_000);
        let slices = [&bytes[..10], &[], &bytes[10..100_000], &bytes[100_000..]].map(IoSlice::new);
        let written = client.write_vectored(&slices).await.expect("writes");
        assert!(
            (100_000..200_000).contains(&written),
            "more than the first pieces, and no more than a message: {written}"
        );
        let rest = bytes[written..].to_vec();
        let writing = async move {
            client.write_all(&rest).await.expect("writes");
            client.shutdown().await.expect("shuts down");
        };
        soon(async { tokio::join!(writing, read_all(&mut server, bytes)) }).await;
    });
}

#[test]
fn a_reader_that_does_not_read_holds_the_writer_back() {
    on_device(|address| async move {
        let (mut client, mut server) = streams(&worker(), &address).await;
        let piece = pattern(5, 5, 64 << 10);
        let mut written = Vec::new();
        while let Ok(result) = tokio::time::timeout(Duration::from_millis(300), client.write(&piece)).await {
            let length = result.expect("writes");
            written.extend_from_slice(&piece[..length]);
            assert!(written.len() < 8 * MIB, "nobody holds it back");
        }
        let reading = async {
            let mut bytes = vec![0; written.len()];
            server.read_exact(&mut bytes).await.expect("reads");
            bytes
        };
        let (flushed, bytes) = soon(async { tokio::join!(client.flush(), reading) }).await;
        flushed.expect("flushes");
        assert!(bytes == written, "other bytes");
    });
}
