//! Peers that die, and peers that are silent.

use std::cell::Cell;
use std::time::Duration;

use zcmi::{Access, Buffer, Config, Connection, Connector, Error, ErrorKind, Failed, RemoteBuffer, Revocation, Worker};

use crate::common::allocate;
use crate::world::{End, Initiator, Responder, SOON, now, sleep, soon, worker};

const LENGTH: usize = 1 << 16;
/// Within this all that was pending has ended.
const BOUND: Duration = Duration::from_secs(10);

/// What a death may be called.
fn is_death(error: &Error) {
    let kinds = [ErrorKind::ConnectionBroken, ErrorKind::RemoteAccess, ErrorKind::Unreachable];
    assert!(kinds.contains(&error.kind()) && error.peer().is_some(), "{error}");
}

/// What a device still does for a dead process, or one that is stopped, is done again until it fails.
async fn until_it_fails<T, E>(mut operation: impl AsyncFnMut() -> Result<T, E>) -> E {
    loop {
        match operation().await {
            Ok(_) => sleep(Duration::from_millis(1)).await,
            Err(error) => return error,
        }
    }
}

fn failed_with_its_memory(failed: Failed<Buffer>) -> Error {
    assert_eq!(failed.buffer.map(|buffer| buffer.len()), Some(LENGTH), "{}", failed.error);
    failed.error
}

fn buffer() -> Buffer {
    allocate(LENGTH)
}

pub(crate) async fn a_killed_peer_ends_all_that_is_pending_once(end: End) {
    // Nobody is noticed only because it has been silent.
    let patience = Config { heartbeat: SOON, peer_timeout: 2 * SOON, revoke_timeout: SOON, ..Config::default() };
    let session = end.connected(patience).await;
    let connection = &session.connection;
    let exposed = buffer().expose();
    let grant = async || soon(exposed.grant(connection, 0..LENGTH, Access::READ_WRITE)).await.expect("grants");
    if end.role == Responder {
        let grant = exposed.grant(connection, 0..LENGTH, Access::ALL).await.expect("grants");
        soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
        // Until it is killed.
        return sleep(2 * SOON).await;
    }
    let handle = RemoteBuffer::from_bytes(&soon(connection.recv()).await.expect("receives")).expect("a handle");
    let (lasting, revoked) = (grant().await, grant().await);
    let (client, server) = end.loopback(&session.worker).await;
    // From here on nothing is answered by its process.
    end.stop(SOON);
    let word = handle.at::<u64>(0).expect("inside");
    let other = connection.channel(1).expect("there is room");
    let long = vec![7; 1 << 20];
    let killed = Cell::new(None);
    let messages = async {
        tokio::join!(
            async { is_death(&connection.recv().await.expect_err("nothing comes")) },
            async { is_death(&failed_with_its_memory(other.recv_into(buffer()).await.expect_err("nothing comes"))) },
            async { is_death(&connection.send(&long).await.expect_err("nobody takes it")) },
            async { is_death(&failed_with_its_memory(other.send_owned(buffer()).await.expect_err("nobody takes it"))) },
            async { is_death(&until_it_fails(async || connection.send_acknowledged(b"short").await).await) },
            async { is_death(&connection.notified().await.expect_err("nothing comes")) },
        )
    };
    let accesses = async {
        tokio::join!(
            async { is_death(&failed_with_its_memory(until_it_fails(|| connection.read(buffer(), &handle)).await)) },
            async { is_death(&failed_with_its_memory(until_it_fails(|| connection.write(buffer(), &handle)).await)) },
            async {
                let notify = || connection.write_notify(buffer(), &handle, 1);
                is_death(&failed_with_its_memory(until_it_fails(notify).await));
            },
            async { is_death(&until_it_fails(|| connection.fetch_add(&word, 1)).await) },
            async { is_death(&until_it_fails(|| connection.flush()).await) },
            async { assert_eq!(lasting.ended().await.expect("ends"), Revocation::ConnectionLost) },
            async { assert_eq!(revoked.revoke().await.expect("ends"), Revocation::ConnectionLost) },
        )
    };
    let killing = async {
        sleep(Duration::from_millis(100)).await;
        end.kill();
        killed.set(Some(now()));
    };
    let is_over = Cell::new(false);
    let pending = async {
        tokio::join!(messages, accesses, killing);
        is_over.set(true);
    };
    // Another connection of the same worker goes on.
    let undisturbed = async {
        let (mut rounds, mut last) = (0u32, 3);
        while last > 0 {
            last -= u32::from(is_over.get());
            client.send(&rounds.to_le_bytes()).await.expect("sends");
            assert_eq!(*server.recv().await.expect("receives"), rounds.to_le_bytes());
            rounds += 1;
            sleep(Duration::from_millis(2)).await;
        }
        assert!(rounds > 3, "{rounds} rounds");
    };
    soon(async { tokio::join!(pending, undisturbed) }).await;
    let took = now() - killed.get().expect("it was killed");
    assert!(took < BOUND, "all has ended only after {took:?}");
    assert_eq!(soon(exposed.into_buffer()).await.expect("the memory comes back").len(), LENGTH);
    // And so does a new one.
    let (client, server) = end.loopback(&session.worker).await;
    soon(client.send(b"still here")).await.expect("sends");
    assert_eq!(&*soon(server.recv()).await.expect("receives"), b"still here");
}

pub(crate) async fn a_stopped_peer_is_unresponsive(end: End) {
    let timeout = Duration::from_secs(2);
    let config = Config { heartbeat: timeout / 5, peer_timeout: timeout, ..Config::default() };
    let session = end.connected(config).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let handle = RemoteBuffer::from_bytes(&soon(connection.recv()).await.expect("receives")).expect("a handle");
            // An idle peer that is well lives on.
            sleep(timeout * 3 / 2).await;
            soon(connection.send_acknowledged(b"are you well?")).await.expect("it is");
            end.stop(BOUND);
            let begun = now();
            let unresponsive = |error: &Error| {
                assert_eq!(error.kind(), ErrorKind::Unresponsive, "{error}");
                assert!(now() - begun < BOUND, "only after {:?}", now() - begun);
            };
            let all = async {
                tokio::join!(
                    async { unresponsive(&connection.recv().await.expect_err("nothing comes")) },
                    async { unresponsive(&until_it_fails(|| connection.read(buffer(), &handle)).await.error) },
                    async { unresponsive(&until_it_fails(|| connection.flush()).await) },
                )
            };
            soon(all).await;
            assert!(now() - begun >= timeout / 2, "after {:?}: it may be silent for {timeout:?}", now() - begun);
            end.go_on().await;
        }
        Responder => {
            let exposed = buffer().expose();
            let grant = soon(exposed.grant(connection, 0..LENGTH, Access::READ)).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            soon(connection.recv()).await.expect("receives");
            let error = soon(connection.recv()).await.expect_err("it was given up");
            assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
        }
    }
    // There is nothing wrong with it any more.
    let again = session.another().await;
    end.lives(&again).await;
    end.meet("end").await;
}

async fn refused(worker: &Worker, uri: &str) -> Error {
    let connected: Result<Connection, Error> = soon(Connector::new(worker).connect(uri)).await;
    connected.expect_err("nobody takes it")
}

pub(crate) async fn nobody_listens_and_too_many_come(end: End) {
    let session = end.connected(Config { max_connections: 1, ..Config::default() }).await;
    match end.role {
        Initiator => {
            let worker = worker(Config::default());
            let gone = zcmi::Listener::bind(&worker, &end.address()).await.expect("listens");
            let uri = gone.uri();
            drop(gone);
            let error = refused(&worker, &uri).await;
            assert_eq!((error.kind(), error.operation()), (ErrorKind::ConnectionRefused, "connect"), "{error}");
            assert!(error.hint().is_some() && error.peer().is_some() && error.device().is_some(), "{error}");
            let error = refused(&worker, &session.uri()).await;
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
            end.tell("refused");
        }
        Responder => {
            tokio::select! {
                _ = session.another() => panic!("there is room for one"),
                line = end.hear() => assert_eq!(line, "refused"),
            }
        }
    }
    // What was there before is undisturbed.
    end.lives(&session.connection).await;
    session.close().await;
}
