//! The process that goes on.

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use zcmi::{Access, Buffer, Connection, Error, ErrorKind, RemoteBuffer};

use crate::common::Transport;
use crate::victim::LENGTH;

/// Does its part of what the other process does, until that has died; answers what it is told.
pub(crate) async fn until_it_ends(part: &str, connection: Connection) -> Error {
    match part {
        "receive" | "receive into" | "receive long" => {
            let message = vec![7; if part == "receive" { 100 } else { LENGTH }];
            loop {
                if let Err(error) = connection.send(&message).await {
                    return error;
                }
            }
        }
        "be read" | "be written" | "revoke" => {
            let handle = connection.recv().await.expect("it is not dead yet");
            let handle = RemoteBuffer::from_bytes(&handle).expect("a handle");
            let mut buffer = Buffer::allocate(LENGTH).expect("memory");
            buffer = connection.read(buffer, &handle).await.expect("reads");
            connection.send(b"reading").await.expect("sends");
            loop {
                let accessed = match part {
                    "be written" => connection.write(buffer, &handle),
                    _ => connection.read(buffer, &handle),
                };
                match accessed.await {
                    Ok(read) => buffer = read,
                    Err(failed) => {
                        assert!(failed.buffer.is_some(), "the memory comes back: {}", failed.error);
                        // It has been asked to let go, which is no end.
                        let revoked = failed.error.kind() == ErrorKind::Revoked;
                        return if revoked { receive_all(&connection).await } else { failed.error };
                    }
                }
            }
        }
        "read" | "write" | "let go" => {
            let exposed = Buffer::allocate(LENGTH).expect("memory").expose();
            let grant = exposed.grant(&connection, 0..LENGTH, Access::READ_WRITE).await.expect("grants");
            connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
            assert_eq!(&*connection.recv().await.expect("receives"), b"held");
            let end = async {
                if part == "let go" {
                    grant.revoke().await.expect("ends");
                } else {
                    grant.ended().await.expect("ends with the connection");
                }
            };
            let (error, ()) = tokio::join!(receive_all(&connection), end);
            let back = exposed.into_buffer().await.expect("the memory comes back");
            assert_eq!(back.len(), LENGTH);
            error
        }
        "close" | "drop" => {
            // It has said that nothing more will come, and perhaps no more than that.
            let error = receive_all(&connection).await;
            assert!([ErrorKind::PeerClosed, ErrorKind::ConnectionBroken].contains(&error.kind()), "{error}");
            loop {
                if let Err(error) = connection.send(b"are you there?").await {
                    return error;
                }
            }
        }
        _ => receive_all(&connection).await,
    }
}

async fn receive_all(connection: &Connection) -> Error {
    loop {
        if let Err(error) = connection.recv().await {
            return error;
        }
    }
}

/// Whether an error is what a death can be called.
pub(crate) fn is_fit(error: &Error, part: &str) {
    let kind = error.kind();
    let dead = [ErrorKind::ConnectionBroken, ErrorKind::RemoteAccess, ErrorKind::Unreachable];
    let is_fit = match part {
        // Whose process dies, its kernel closes the sockets of.
        "set up" if kind == ErrorKind::PeerClosed => !Transport::of_test().has_device(),
        "set up" => dead.contains(&kind) || [ErrorKind::Rejected, ErrorKind::ConnectionRefused].contains(&kind),
        "close" | "drop" => kind == ErrorKind::PeerClosed || kind == ErrorKind::ConnectionBroken,
        _ => dead.contains(&kind),
    };
    assert!(is_fit && error.peer().is_some(), "{part}: {kind:?}: {error}");
}

/// When a listener last passed over a peer: it says so in the log, and nowhere else.
static PASSED_OVER: Mutex<Option<Instant>> = Mutex::new(None);

struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if String::from_utf8_lossy(line).contains("a peer could not be accepted") {
            *PASSED_OVER.lock().expect("no panic") = Some(Instant::now());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// From here on it is known when a peer is passed over.
pub(crate) fn listen_to_the_log() {
    let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(|| Log).try_init();
    *PASSED_OVER.lock().expect("no panic") = None;
}

/// Waits until a peer has been passed over; answers when that was.
pub(crate) async fn passed_over() -> Instant {
    loop {
        if let Some(when) = *PASSED_OVER.lock().expect("no panic") {
            return when;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
