//! What can go wrong, on a real device: each failure says what, where and why, in its time, and the next
//! connection works.

#[path = "../common/mod.rs"]
mod common;
mod set_up;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::{
    Peer, device_address, listen, on_device, pair, patient_worker, play, role, say, still_works, told, worker,
};
use rustix::process::Signal;
use zcmi::{Access, Buffer, Config, Connector, Error, ErrorKind, RemoteBuffer, Worker};

/// The other process, in the part that a test gives it.
#[test]
fn peer() {
    let Some(part) = role() else { return };
    play(async {
        let address = device_address().expect("the test has found it");
        let worker = worker();
        let listener = listen(&worker, &address).await;
        say(listener.uri());
        let mut told = told();
        match part.as_str() {
            // Listens and never accepts.
            "silent" => drop(told.recv().await),
            // Exposes memory, and closes when told to.
            "exposing" => {
                let connection = listener.accept().await.expect("accepts");
                let exposed = common::allocate(1 << 20).expose();
                let grant = exposed.grant(&connection, 0..1 << 20, Access::READ_WRITE).await.expect("grants");
                connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
                while told.recv().await.as_deref() == Some("close") {
                    connection.close().await.expect("closes");
                    say("closed");
                }
            }
            other => panic!("no part {other}"),
        }
    });
}

/// Asserts what an error must say, all in one place.
fn says(error: &Error, kinds: &[ErrorKind], operation: &str, peer: &str) {
    let text = error.to_string();
    assert!(kinds.contains(&error.kind()), "{:?}: {text}", error.kind());
    assert_eq!(error.operation(), operation, "{text}");
    assert!(error.peer().is_some_and(|said| said.contains(peer)), "peer {peer}: {text}");
    let hint = error.hint().expect("a hint");
    assert!(text.ends_with(&format!(". Hint: {hint}")) && !text.contains('\n'), "{text}");
}

/// What is told too once there is a device, which a connect to nobody may never have.
fn says_where(error: &Error) {
    let (text, transport) = (error.to_string(), common::Transport::of_test());
    assert_eq!(error.device(), Some(transport.device()), "{text}");
    assert_eq!(error.gid().is_some(), transport.has_device(), "{text}");
    let gid = error.gid().map(|gid| format!(", GID {gid}")).unwrap_or_default();
    assert!(text.contains(&format!(" ({}{gid}): ", transport.device())), "{text}");
    if let Some(host) = device_address().filter(|_| transport.has_device()) {
        assert_eq!(error.gid().map(|gid| gid.to_canonical().to_string()), Some(host), "{text}");
    }
}

/// Connects, expecting to fail within `bound`; answers the error.
async fn refused(worker: &Worker, uri: &str, bound: Duration) -> Error {
    let begun = Instant::now();
    let error = Connector::new(worker).connect(uri).await.expect_err(uri);
    assert!(begun.elapsed() < bound, "{:?}: {error}", begun.elapsed());
    error
}

fn quick() -> Worker {
    common::worker_with(Config { connect_timeout: Duration::from_secs(2), ..Config::default() })
}

/// Room for the service thread and an emulated machine, on top of what the library promises.
const SLACK: Duration = Duration::from_secs(2);

async fn exposing() -> (Peer, zcmi::Connection, RemoteBuffer) {
    exposing_to(&worker()).await
}

async fn exposing_to(worker: &Worker) -> (Peer, zcmi::Connection, RemoteBuffer) {
    let peer = Peer::start("exposing");
    let connection = Connector::new(worker).connect(&peer.hear()).await.expect("connects");
    let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
    (peer, connection, handle)
}

#[test]
fn a_peer_that_closes_ends_receives_sends_and_operations() {
    on_device(|address| async move {
        let (mut peer, connection, handle) = exposing().await;
        assert_eq!(peer.ask("close"), "closed");
        let begun = Instant::now();
        let error = connection.recv().await.expect_err("the peer has closed");
        says(&error, &[ErrorKind::PeerClosed], "receive", &address);
        let buffer = common::allocate(100);
        let failed = loop {
            // The disconnect may come after the last message.
            match connection.write(common::allocate(100), &handle).await {
                Ok(_) => assert!(begun.elapsed() < SLACK, "writes go on"),
                Err(failed) => break failed,
            }
        };
        says(
            &failed.error,
            &[ErrorKind::PeerClosed, ErrorKind::Unreachable, ErrorKind::RemoteAccess, ErrorKind::ConnectionBroken],
            "write",
            &address,
        );
        assert_eq!(failed.buffer.as_ref().expect("the buffer comes back").len(), buffer.len());
        let error = connection.send(b"anybody?").await.expect_err("the connection has ended");
        assert_eq!(error.operation(), "send", "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(peer.finish().success());
        still_works(&address).await;
    });
}

#[test]
fn a_peer_killed_in_mid_transfer_fails_what_is_in_flight() {
    on_device(|address| async move {
        let (peer, connection, handle) = exposing().await;
        let write = |buffer| connection.write(buffer, &handle);
        let mut flying: VecDeque<_> = (0..16).map(|_| write(common::allocate(1 << 18))).collect();
        // Some have arrived and others are on their way, all the time, when it is killed.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            peer.kill();
            Instant::now()
        });
        let (mut written, mut failures) = (0, 0);
        let mut begun = Instant::now();
        while let Some(operation) = flying.pop_front() {
            match operation.await {
                Ok(buffer) => {
                    written += 1;
                    assert!(begun.elapsed() < Duration::from_secs(20), "writes go on");
                    flying.push_back(write(buffer));
                }
                Err(failed) => {
                    if failures == 0 {
                        begun = Instant::now();
                    }
                    assert_eq!(failed.buffer.as_ref().expect("the buffer comes back").len(), 1 << 18);
                    let kinds = [ErrorKind::ConnectionBroken, ErrorKind::Unreachable, ErrorKind::RemoteAccess];
                    says(&failed.error, &kinds, "write", &address);
                    failures += 1;
                }
            }
        }
        assert!(written > 0 && failures == 16, "{written} written, {failures} failed");
        let killed = killer.join().expect("the peer was killed");
        assert!(begun.saturating_duration_since(killed) < Duration::from_secs(5), "it took too long to notice");
        let error = connection.recv().await.expect_err("the peer is gone");
        assert_eq!(error.operation(), "receive");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        still_works(&address).await;
    });
}

#[test]
fn a_peer_killed_while_idle_ends_a_receive() {
    on_device(|address| async move {
        let (peer, connection, _) = exposing().await;
        let killer = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            peer.kill();
            Instant::now()
        };
        let (received, killed) = tokio::join!(connection.recv(), killer);
        let error = received.expect_err("the peer is gone");
        says(&error, &[ErrorKind::ConnectionBroken], "receive", &address);
        says_where(&error);
        assert!(error.to_string().contains("without finishing"), "{error}");
        assert!(killed.elapsed() < SLACK, "{:?}", killed.elapsed());
        still_works(&address).await;
    });
}

/// A handle like `handle` with other bytes in its wire layout at `offset`.
fn forged(handle: &RemoteBuffer, offset: usize, bytes: &[u8]) -> RemoteBuffer {
    let mut wire = handle.to_bytes();
    wire[offset..offset + bytes.len()].copy_from_slice(bytes);
    RemoteBuffer::from_bytes(&wire).expect("well formed")
}

#[test]
fn the_device_refuses_a_wrong_key_a_wrong_range_and_a_missing_right() {
    on_device(|address| async move {
        for case in ["key", "beyond", "before", "right"] {
            let worker = worker();
            let (client, server) = pair(&worker, &address).await;
            // Memory that the owner checks itself, also where pages are shared.
            let exposed = Buffer::allocate(8192).expect("memory").expose();
            exposed.write_at(0, &[0x5a; 8192]);
            let access = if case == "right" { Access::READ } else { Access::READ_WRITE };
            let grant = exposed.grant(&server, 1000..5000, access).await.expect("grants");
            let handle = grant.remote_buffer();
            let address_of = u64::from_le_bytes(handle.to_bytes()[24..32].try_into().expect("eight bytes"));
            let bad = match case {
                "key" => forged(&handle, 4, &0x0bad_0bad_u32.to_le_bytes()),
                "beyond" => forged(&handle, 32, &4001u64.to_le_bytes()),
                "before" => forged(&handle, 24, &(address_of - 1).to_le_bytes()),
                _ => forged(&handle, 1, &[3]),
            };
            let begun = Instant::now();
            let failed = client.write(common::allocate(bad.len() as usize), &bad).await;
            let failed = failed.expect_err(case);
            says(&failed.error, &[ErrorKind::RemoteAccess], "write", &address);
            says_where(&failed.error);
            assert_eq!(failed.error.first_failure(), None, "it is the first: {}", failed.error);
            assert!(begun.elapsed() < SLACK, "{case} took {:?}", begun.elapsed());
            // The connection is lost, both ends learn it, and not one byte has changed.
            let later = client.send(b"x").await.expect_err(case);
            says(&later, &[ErrorKind::RemoteAccess], "send", &address);
            says_where(&later);
            assert_eq!(later.first_failure(), Some("write"), "{later}");
            assert!(later.to_string().contains(": ended by an earlier failure, of write: "), "{later}");
            server.recv().await.expect_err(case);
            let mut bytes = [0; 8192];
            exposed.read_at(0, &mut bytes);
            assert!(bytes.iter().all(|&byte| byte == 0x5a), "{case} changed memory");
            let buffer = exposed.into_buffer().await.expect("gives the buffer back");
            assert_eq!(buffer.len(), 8192);
            still_works(&address).await;
        }
    });
}

#[test]
fn what_was_in_flight_behind_the_first_failure_says_that_it_is_a_consequence() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        let grant = exposed.grant(&server, 0..4096, Access::READ_WRITE).await.expect("grants");
        let good = grant.remote_buffer();
        let bad = forged(&good, 4, &0x0bad_0bad_u32.to_le_bytes());
        let first = client.read(Buffer::allocate(4096).expect("memory"), &bad);
        let behind = client.write(Buffer::allocate(4096).expect("memory"), &good);
        let (first, behind) = tokio::join!(first, behind);
        let first = first.expect_err("a wrong key").error;
        says(&first, &[ErrorKind::RemoteAccess], "read", &address);
        assert_eq!(first.first_failure(), None, "{first}");
        let behind = behind.expect_err("the connection has ended").error;
        says(&behind, &[ErrorKind::RemoteAccess], "write", &address);
        says_where(&behind);
        assert_eq!(behind.first_failure(), Some("read"), "{behind}");
    });
}

#[test]
fn what_the_handle_does_not_allow_is_refused_here_and_the_connection_lives_on() {
    on_device(|address| async move {
        let worker = common::worker_with(Config { max_message_size: 8192, ..Config::default() });
        let (client, server) = pair(&worker, &address).await;
        let (other, _other_server) = pair(&worker, &address).await;
        let exposed = common::allocate(4096).expose();
        let grant = exposed.grant(&server, 0..4096, Access::READ).await.expect("grants");
        let handle = grant.remote_buffer();
        let buffer = |length| common::allocate(length);

        let failed = client.write(buffer(10), &handle).await.expect_err("may only read");
        says(&failed.error, &[ErrorKind::AccessDenied], "write", &address);
        says_where(&failed.error);
        let failed = client.read(buffer(4097), &handle).await.expect_err("beyond the end");
        says(&failed.error, &[ErrorKind::OutOfBounds], "read", &address);
        assert_eq!(failed.buffer.as_ref().expect("the buffer comes back").len(), 4097);
        let failed = other.read(buffer(10), &handle).await.expect_err("of another connection");
        says(&failed.error, &[ErrorKind::Foreign], "read", &address);
        let error = client.send(&vec![0; 8193]).await.expect_err("too long");
        says(&error, &[ErrorKind::TooLong], "send", &address);
        for (range, access) in [(0..4097, Access::READ), (5..5, Access::READ)] {
            let error = exposed.grant(&server, range, access).await.expect_err("no such range");
            says(&error, &[ErrorKind::OutOfBounds], "grant", common::Transport::of_test().peer(&address));
            says_where(&error);
        }
        client.read(buffer(4096), &handle).await.expect("what is allowed works");
        let longest = vec![7; 8192];
        let (sent, received) = tokio::join!(client.send(&longest), server.recv());
        sent.expect("the longest message");
        assert_eq!(received.expect("receives").len(), 8192);
    });
}

#[test]
fn a_broken_connection_takes_no_other_with_it() {
    on_device(|address| async move {
        let worker = worker();
        let (good, good_server) = pair(&worker, &address).await;
        let (bad, bad_server) = pair(&worker, &address).await;
        let exposed = Buffer::allocate(100).expect("memory").expose();
        let grant = exposed.grant(&bad_server, 0..100, Access::READ).await.expect("grants");
        let wrong = forged(&grant.remote_buffer(), 4, &1u32.to_le_bytes());
        bad.read(common::allocate(100), &wrong).await.expect_err("a wrong key");
        for round in 0..100u32 {
            good.send(&round.to_le_bytes()).await.expect("sends");
            assert_eq!(&*good_server.recv().await.expect("receives"), &round.to_le_bytes());
        }
    });
}

#[test]
fn a_stopped_peer_holds_up_nobody_else() {
    on_device(|address| async move {
        // It is stopped for longer than a peer may be silent.
        let (peer, connection, _) = exposing_to(&patient_worker()).await;
        peer.signal(Signal::STOP);
        // Messages go on until its room is used up, then they wait.
        let mut sent = 0;
        let waited = tokio::time::timeout(Duration::from_secs(2), async {
            loop {
                connection.send(b"more").await.expect("a stopped peer is not a broken one");
                sent += 1;
            }
        });
        waited.await.expect_err("there is room for so many only");
        let (least, most) = (Config::default().receive_depth, Config::default().channel_window / 64);
        assert!((least..=most).contains(&sent), "{sent} messages");
        still_works(&address).await;
        peer.signal(Signal::CONT);
        assert!(peer.finish().success());
    });
}
