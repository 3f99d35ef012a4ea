//! What transports differ in: each claim is asserted, whichever it is.

use std::pin::Pin;
use std::time::Duration;

use zcmi::{Access, Capabilities, Config, Connection, ErrorKind, Isolation, Registered, RemoteBuffer};

use crate::common::{allocate, fill, pattern};
use crate::world::{End, Initiator, Responder, SOON, WHILE, is_simulated, sleep, soon, within};

const LENGTH: usize = 1000;

pub(crate) async fn they_are_what_is_documented(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    let Capabilities { isolation, on_demand, one_sided_needs_progress, .. } = connection.capabilities();
    let documented = match (connection.transport(), connection.device()) {
        ("shm" | "tcp", _) => (Isolation::Connection, true, true),
        ("sim", _) => (Isolation::Connection, false, false),
        ("verbs", device) if device.starts_with("rxe") => (Isolation::Connection, false, false),
        // Whatever the device has.
        ("verbs", _) => (isolation, on_demand, false),
        other => panic!("{other:?} has no line here"),
    };
    assert_eq!((isolation, on_demand, one_sided_needs_progress), documented);
    assert_eq!(connection.shares_pages(), crate::common::shares_pages());
    session.close().await;
}

/// The owner's memory, as both ends have it.
async fn granted(end: &End, connection: &Connection, whatever: impl AsyncFnOnce(&RemoteBuffer)) {
    match end.role {
        Initiator => {
            let handle = soon(connection.recv()).await.expect("receives");
            whatever(&RemoteBuffer::from_bytes(&handle).expect("a handle")).await;
            end.meet("used").await;
        }
        Responder => {
            let mut buffer = allocate(LENGTH);
            fill(&mut buffer, 1, 0);
            let exposed = buffer.expose();
            let grant = soon(exposed.grant(connection, 0..LENGTH, Access::ALL)).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            end.meet("used").await;
        }
    }
}

pub(crate) async fn one_sided_operations_need_the_peer_only_where_that_is_declared(end: End) {
    // It is stopped for longer than others are waited for.
    let session = end.connected(Config { peer_timeout: 4 * SOON, ..Config::default() }).await;
    let connection = &session.connection;
    granted(&end, connection, async |handle| {
        let part = |range| handle.slice(range).expect("inside");
        let first = soon(connection.read(allocate(8), &part(0..8))).await.expect("reads");
        let declared = connection.capabilities().one_sided_needs_progress;
        for round in 0..5 {
            // Shared pages are accessed directly; what is posted is flushed by the peer all the same.
            let needs_progress = declared && (round == 4 || !connection.shares_pages());
            end.stop(2 * WHILE);
            let mut operation: Pin<Box<dyn Future<Output = ()>>> = match round {
                0 => Box::pin(async {
                    let read = connection.read(allocate(500), &part(500..1000)).await;
                    assert!(read.expect("reads")[..] == pattern(1, 0, LENGTH)[500..]);
                }),
                1 => Box::pin(async {
                    let mut buffer = allocate(300);
                    fill(&mut buffer, 2, 0);
                    connection.write(buffer, &part(100..400)).await.expect("writes");
                }),
                2 => Box::pin(async {
                    let read = connection.read(allocate(300), &part(100..400)).await;
                    assert!(read.expect("reads")[..] == pattern(2, 0, 300));
                }),
                3 => Box::pin(async {
                    let word = part(0..8).at::<u64>(0).expect("inside");
                    let old = connection.fetch_add(&word, 1).await.expect("adds");
                    assert_eq!(old.to_ne_bytes(), first[..]);
                }),
                _ => Box::pin(async { connection.flush().await.expect("flushes") }),
            };
            // In a simulation it goes on by itself after that.
            let patience = if needs_progress || is_simulated() { WHILE } else { SOON };
            let is_done = within(patience, &mut operation).await.is_some();
            assert_eq!(is_done, !needs_progress, "operation {round}, while the peer is stopped");
            end.go_on().await;
            if !is_done {
                soon(operation).await;
            }
        }
    })
    .await;
    session.close().await;
}

/// Its program computes, and waits for nothing that has to do with the connection.
pub(crate) async fn a_busy_peer_holds_nothing_up(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    let exposed = allocate(LENGTH).expose();
    match end.role {
        Initiator => {
            let handle = soon(connection.recv()).await.expect("receives");
            let handle = RemoteBuffer::from_bytes(&handle).expect("a handle");
            assert_eq!(end.hear().await, "busy");
            for round in 0..5 {
                let mut buffer = allocate(LENGTH);
                fill(&mut buffer, 1, round);
                let mut buffer = soon(connection.write(buffer, &handle)).await.expect("writes");
                buffer.fill(0);
                let buffer = soon(connection.read(buffer, &handle)).await.expect("reads");
                assert!(buffer[..] == pattern(1, round, LENGTH));
            }
            // Its library takes messages, and agrees to what it is asked.
            soon(connection.send_acknowledged(b"hello")).await.expect("sends");
            let grant = soon(exposed.grant(connection, 0..LENGTH, Access::READ)).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            assert_eq!(soon(grant.revoke()).await.expect("revokes"), zcmi::Revocation::Agreed);
            end.tell("enough");
        }
        Responder => {
            let grant = soon(exposed.grant(connection, 0..LENGTH, Access::ALL)).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            end.tell("busy");
            end.compute_until("enough").await;
            assert_eq!(&*soon(connection.recv()).await.expect("receives"), b"hello");
            soon(connection.recv()).await.expect("a handle");
        }
    }
    end.meet("end").await;
    session.close().await;
}

pub(crate) async fn memory_on_demand_is_taken_where_that_is_declared(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    granted(&end, connection, async |handle| {
        let read = soon(connection.read(Registered::on_demand(vec![0; LENGTH]), handle)).await;
        match read {
            Ok(read) if connection.capabilities().on_demand => assert!(read[..] == pattern(1, 0, LENGTH)),
            Err(failed) if !connection.capabilities().on_demand => {
                assert_eq!(failed.error.kind(), ErrorKind::Unsupported, "{}", failed.error);
                assert_eq!(failed.buffer.map(|memory| memory.len()), Some(LENGTH));
            }
            other => panic!("{other:?}, and it says {:?}", connection.capabilities()),
        }
        sleep(Duration::from_millis(1)).await;
    })
    .await;
    session.close().await;
}
