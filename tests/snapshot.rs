//! Snapshots of connections, on each transport: what is in them while all is well, while the peer is stopped, and afterwards.

mod common;

use std::time::{Duration, Instant};

use common::{Peer, Transport, device_address, listen, on_device, pair, play, role, say, told, worker};
use rustix::process::Signal;
use serde_json::Value;
use zcmi::telemetry::{ChannelSnapshot, ConnectionSnapshot, ConnectionState, GrantPhase, OperationKind, Window};
use zcmi::{Access, Buffer, Config, Connection, Connector, ErrorKind, RemoteBuffer, Worker};

const LONG: usize = 1 << 20;

/// The other process: grants 1 MiB, says what it calls the connection, and receives until it ends.
#[test]
fn peer() {
    let Some(_) = role() else { return };
    play(async {
        let listener = listen(&worker(), &device_address().expect("the test has found it")).await;
        say(listener.uri());
        let mut told = told();
        let connection = listener.accept().await.expect("accepts");
        say(connection.id());
        let exposed = Buffer::allocate(LONG).expect("memory").expose();
        let grant = exposed.grant(&connection, 0..LONG, Access::READ_WRITE).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        while connection.recv().await.is_ok() {}
        drop(told.recv().await);
    });
}

/// A snapshot, which never takes long.
fn look(connection: &Connection) -> ConnectionSnapshot {
    let begun = Instant::now();
    let snapshot = connection.snapshot();
    // It would take as long as the peer is stopped, if it asked it; an emulated processor may be taken away for a while.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    snapshot
}

fn channel_7(snapshot: &ConnectionSnapshot) -> Option<&ChannelSnapshot> {
    snapshot.channels.iter().find(|channel| channel.channel == 7)
}

/// Looks until `is_so`.
async fn until(connection: &Connection, is_so: impl Fn(&ConnectionSnapshot) -> bool) -> ConnectionSnapshot {
    let begun = Instant::now();
    loop {
        let snapshot = look(connection);
        if is_so(&snapshot) {
            return snapshot;
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "{snapshot}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_stopped_peer_is_seen_by_operations_that_grow_old_and_afterwards_why_it_broke() {
    on_device(|_| async {
        let peer = Peer::start("stopped");
        let uri = peer.hear();
        let config = Config { peer_timeout: Duration::from_secs(10), ..Config::default() };
        let connection = Connector::new(&Worker::new(config).expect("valid")).connect(&uri).await.expect("connects");
        assert_eq!(peer.hear(), connection.id().to_string(), "both ends call it so");
        let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
        let well = look(&connection);
        assert_eq!((well.state, well.operations_total), (ConnectionState::Open, 0), "{well}");
        peer.signal(Signal::STOP);
        let sending = tokio::spawn({
            let connection = connection.clone();
            async move { connection.send_owned(Buffer::allocate(LONG).expect("memory")).await.map(drop) }
        });
        // A device carries it out by itself, a stopped process does not.
        let reading = connection.read(Buffer::allocate(4096).expect("memory"), &handle);
        let kinds = |snapshot: &ConnectionSnapshot| -> Vec<_> {
            snapshot.operations.iter().map(|operation| (operation.kind, operation.length)).collect()
        };
        let young = until(&connection, |snapshot| kinds(snapshot).contains(&(OperationKind::Offer, LONG as u64))).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let old = look(&connection);
        eprintln!("{old}");
        let age = |snapshot: &ConnectionSnapshot, kind| {
            let of_kind = snapshot.operations.iter().find(|operation| operation.kind == kind);
            of_kind.map_or(Duration::ZERO, |operation| operation.age)
        };
        let aged = age(&old, OperationKind::Offer) - age(&young, OperationKind::Offer);
        assert!(aged >= Duration::from_millis(1400) && aged < Duration::from_secs(8), "{aged:?}");
        assert!(old.silence >= Duration::from_millis(1200), "{old}");
        assert_eq!(old.state, ConnectionState::Open, "{old}");
        if !Transport::of_test().has_device() {
            assert!(kinds(&old).contains(&(OperationKind::Read, 4096)), "{old}");
            assert!(age(&old, OperationKind::Read) >= Duration::from_millis(1400), "{old}");
            assert_eq!((old.reads.used, old.grants_held.len()), (1, 1), "{old}");
        }
        let broken = until(&connection, |snapshot| snapshot.state == ConnectionState::Broken).await;
        assert!(peer.is_stopped(), "all the time");
        let ending = broken.ending.expect("why");
        assert_eq!(ending.kind, format!("{:?}", ErrorKind::Unresponsive), "{ending:?}");
        assert!(sending.await.expect("no panic").is_err());
        assert_eq!(reading.await.is_err(), !Transport::of_test().has_device());
        let over = until(&connection, |snapshot| snapshot.operations_total == 0).await;
        assert_eq!((over.grants_held_total, over.waiting_to_send), (0, 0), "{over}");
        peer.signal(Signal::CONT);
        assert!(peer.finish().success());
    });
}

#[test]
fn a_receiver_that_does_not_receive_is_seen_at_both_ends() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let channel = client.channel(7).expect("a channel");
        let sending = tokio::spawn(async move {
            loop {
                channel.send(&[7; 1000]).await?;
            }
            #[expect(unreachable_code, reason = "says what an error is")]
            Ok::<(), zcmi::Error>(())
        });
        // Before that it may wait for credits, or for room.
        let is_full = |window: Window| window.limit > 0 && window.used + 1064 > window.limit;
        let stuck = until(&client, |snapshot| {
            snapshot.waiting_to_send > 0 && channel_7(snapshot).is_some_and(|channel| is_full(channel.send))
        })
        .await;
        let there =
            until(&server, |snapshot| channel_7(snapshot).is_some_and(|channel| is_full(channel.receive))).await;
        let waits = channel_7(&there).expect("it is in use");
        assert!(waits.messages > 200 && waits.waiting_to_receive == 0, "{there}");
        assert_eq!((stuck.connection, stuck.channels_total), (there.connection, 2));
        client.abort();
        assert!(sending.await.expect("no panic").is_err());
        assert_eq!(look(&client).state, ConnectionState::Closed);
    });
}

#[test]
fn grants_are_shown_by_their_names_and_not_by_their_keys() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = Buffer::allocate(8192).expect("memory").expose();
        let grant = exposed.grant(&client, 0..5000, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer().to_bytes();
        let snapshot = look(&client);
        let [given] = &snapshot.grants_given[..] else { panic!("{snapshot}") };
        assert_eq!((given.length, given.phase), (5000, GrantPhase::Live), "{snapshot}");
        let json = serde_json::to_string(&snapshot).expect("plain data");
        let value: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["grants_given"][0]["grant"], Value::from(given.grant.to_string()));
        assert_eq!(value["connection"], Value::from(client.id().to_string()));
        assert!(value["age_seconds"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{json}");
        let key = u32::from_le_bytes(handle[4..8].try_into().expect("four bytes"));
        for text in [json, snapshot.to_string(), format!("{snapshot:?}")] {
            let digits = [key.to_string(), format!("{key:x}")];
            // A short number may be there for another reason.
            let has_key = digits.iter().any(|digits| digits.len() > 5 && text.contains(digits.as_str()));
            assert!(!has_key, "{key}: {text}");
        }
        grant.revoke().await.expect("revokes");
        let over = look(&client);
        assert_eq!(over.grants_given_total, 0, "{over}");
        server.close().await.expect("closes");
        until(&client, |snapshot| snapshot.state == ConnectionState::Closed).await;
    });
}
