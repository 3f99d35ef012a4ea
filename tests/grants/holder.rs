//! The holder of a grant, in a process of its own.

use std::time::Duration;

use zcmi::{Buffer, Config, Connection, Connector, ErrorKind, Listener, RemoteBuffer, Worker};

use crate::common::{self, Peer, say, told};

/// Bytes of each read while it is at work.
pub(crate) const PIECE: usize = 1 << 16;
/// Reads that it has in flight while it is at work.
pub(crate) const DEPTH: usize = 8;

/// Connects to us, and does what it is told line by line, answering each:
/// `read` reads once; `work` reads all the time and says so; `rest` stops that and says how many reads there were, or what
/// ended them; `nap` leaves its library alone until it is told something else; `close` closes the connection.
pub(crate) async fn play() {
    let uri = std::env::var("ZCMI_TEST_URI").expect("the test tells its address");
    let worker = crate::common::worker_with(Config::default());
    let connection = Connector::new(&worker).connect(&uri).await.expect("connects");
    let mut told = told();
    let mut handle = None;
    let mut at_work = None;
    while let Some(line) = told.recv().await {
        match line.as_str() {
            "learn" => {
                let message = connection.recv().await.expect("a handle comes");
                handle = Some(RemoteBuffer::from_bytes(&message).expect("a handle"));
                say("learnt");
            }
            "read" => {
                let handle = handle.expect("learnt before");
                let buffer = Buffer::allocate(handle.len().min(64) as usize).expect("memory");
                match connection.read(buffer, &handle).await {
                    Ok(buffer) => say(format!("ok {}", buffer[0])),
                    Err(failed) => say(format!("{:?}", failed.error.kind())),
                }
            }
            "work" => {
                let (stop, stopped) = tokio::sync::oneshot::channel();
                let reading = tokio::spawn(work(connection.clone(), handle.expect("learnt before"), stopped));
                at_work = Some((stop, reading));
                say("at work");
            }
            "rest" => {
                let (stop, reading) = at_work.take().expect("it is at work");
                let _ = stop.send(());
                say(reading.await.expect("no panic"));
            }
            "nap" => {
                say("napping");
                // Not a future of the library is polled, nor is its runtime: as a program that computes.
                std::thread::sleep(Duration::from_millis(1500));
                say("awake");
            }
            "send" => match connection.send(b"still here").await {
                Ok(()) => say("sent"),
                Err(error) => say(format!("{:?}", error.kind())),
            },
            "close" => match connection.close().await {
                Ok(()) => say("closed"),
                Err(error) => say(format!("{error}")),
            },
            other => panic!("told to {other}"),
        }
    }
}

/// Reads until told to stop or refused; tells what came.
async fn work(connection: Connection, handle: RemoteBuffer, mut stopped: tokio::sync::oneshot::Receiver<()>) -> String {
    let piece = handle.slice(..(PIECE as u64).min(handle.len())).expect("inside");
    let read = |buffer| connection.read(buffer, &piece);
    let mut flying: Vec<_> = (0..DEPTH).map(|_| read(crate::common::allocate(piece.len() as usize))).collect();
    let mut count = 0;
    while stopped.try_recv().is_err() {
        match flying.remove(0).await {
            Ok(buffer) => {
                count += 1;
                flying.push(read(buffer));
            }
            Err(failed) => {
                // Those behind it end the same way, and none breaks anything.
                for rest in flying {
                    match rest.await {
                        Ok(_) => count += 1,
                        Err(other) => assert_eq!(other.error.kind(), failed.error.kind(), "{}", other.error),
                    }
                }
                return format!("{:?} {count}", failed.error.kind());
            }
        }
    }
    let mut ended = "ok".to_owned();
    for rest in flying {
        // It may have been told to stop before it has seen that the right is gone.
        match rest.await {
            Ok(_) => count += 1,
            Err(failed) => ended = format!("{:?}", failed.error.kind()),
        }
    }
    format!("{ended} {count}")
}

/// A holder process that is connected to us, and our end.
pub(crate) async fn start(worker: &Worker, address: &str) -> (Peer, Connection) {
    let listener: Listener = common::listen(worker, address).await;
    let mut command = std::process::Command::new(std::env::current_exe().expect("our own path"));
    command
        .args(["--exact", "peer", "--nocapture", "--test-threads=1"])
        .env("ZCMI_TEST_PEER", "holder")
        .env("ZCMI_TEST_URI", listener.uri());
    let peer = Peer::spawn(command);
    let connection = listener.accept().await.expect("accepts");
    (peer, connection)
}

/// Gives the holder a handle.
pub(crate) async fn hand(peer: &mut Peer, connection: &Connection, handle: &RemoteBuffer) {
    connection.send(&handle.to_bytes()).await.expect("sends");
    assert_eq!(ask(peer, "learn").await, "learnt");
}

/// Tells the holder a line and hears its answer, while our own library goes on.
pub(crate) async fn ask(peer: &mut Peer, line: &str) -> String {
    peer.ask_aside(line).await
}

/// Shows that the holder's connection lives and its handle is dead.
pub(crate) async fn is_politely_refused(peer: &mut Peer, connection: &Connection) {
    assert_eq!(ask(peer, "read").await, format!("{:?}", ErrorKind::Revoked));
    assert_eq!(ask(peer, "send").await, "sent");
    let message = tokio::time::timeout(Duration::from_secs(5), connection.recv()).await.expect("in time");
    assert_eq!(&*message.expect("the connection lives on"), b"still here");
}
