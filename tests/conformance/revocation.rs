//! Rights that are taken back: politely, at a deadline, and when their time is over.

use std::collections::VecDeque;
use std::time::Duration;

use zcmi::{Access, Config, Connection, ErrorKind, RemoteBuffer, Revocation};

use crate::common::{allocate, fill, pattern};
use crate::world::{End, Initiator, Responder, SOON, WHILE, is_simulated, now, soon};

const LENGTH: usize = 2 << 20;

fn patient() -> Config {
    Config { peer_timeout: 2 * SOON, revoke_timeout: SOON, ..Config::default() }
}

async fn handle(connection: &Connection) -> RemoteBuffer {
    RemoteBuffer::from_bytes(&soon(connection.recv()).await.expect("receives")).expect("a handle")
}

/// An access that was granted is refused here, nothing is sent, and the memory comes back.
async fn is_revoked(connection: &Connection, handle: &RemoteBuffer) {
    let buffer = allocate(64);
    let refused = if handle.access().contains(Access::READ) {
        soon(connection.read(buffer, handle)).await
    } else {
        soon(connection.write(buffer, handle)).await
    };
    let failed = refused.expect_err("revoked");
    assert_eq!(failed.error.kind(), ErrorKind::Revoked, "{}", failed.error);
    assert_eq!(failed.buffer.map(|buffer| buffer.len()), Some(64));
}

pub(crate) async fn a_holder_agrees_and_lives_on(end: End) {
    let session = end.connected(patient()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let handle = handle(connection).await;
            let read = soon(connection.read(allocate(64), &handle)).await.expect("reads");
            assert!(read[..] == pattern(1, 0, 64));
            end.meet("read").await;
            end.meet("revoked").await;
            is_revoked(connection, &handle).await;
        }
        Responder => {
            let mut buffer = allocate(64);
            fill(&mut buffer, 1, 0);
            let exposed = buffer.expose();
            let grant = soon(exposed.grant(connection, 0..64, Access::READ_WRITE)).await.expect("grants");
            assert!(grant.is_live());
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            // The holder's program waits for something else when it is asked.
            end.meet("read").await;
            assert_eq!(soon(grant.revoke()).await.expect("revokes"), Revocation::Agreed);
            end.meet("revoked").await;
            assert!(soon(exposed.into_buffer()).await.expect("comes back")[..] == pattern(1, 0, 64));
        }
    }
    end.lives(connection).await;
    session.close().await;
}

pub(crate) async fn what_is_in_flight_is_drained(end: End) {
    let session = end.connected(patient()).await;
    let connection = &session.connection;
    // In a simulation copies are all that takes time.
    let length = if is_simulated() { LENGTH / 32 } else { LENGTH };
    for round in 0..3 {
        match end.role {
            Initiator => {
                let handle = handle(connection).await;
                let read = || connection.read(allocate(length), &handle);
                let mut flying: VecDeque<_> = (0..8).map(|_| read()).collect();
                end.tell("reading");
                let mut done = 0;
                while let Some(next) = flying.pop_front() {
                    match soon(next).await {
                        Ok(buffer) => {
                            assert!(buffer.iter().all(|&byte| byte == 7), "bytes that were not there in round {round}");
                            done += 1;
                            flying.push_back(read());
                        }
                        Err(failed) => {
                            assert_eq!(failed.error.kind(), ErrorKind::Revoked, "{}", failed.error);
                            assert_eq!(failed.buffer.map(|buffer| buffer.len()), Some(length));
                        }
                    }
                }
                assert!(done > 0, "nothing was read in round {round}");
                is_revoked(connection, &handle).await;
            }
            Responder => {
                let mut buffer = allocate(length);
                buffer.fill(7);
                let exposed = buffer.expose();
                let grant = soon(exposed.grant(connection, 0..length, Access::READ)).await.expect("grants");
                soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
                assert_eq!(end.hear().await, "reading");
                crate::world::sleep(WHILE / 10).await;
                assert_eq!(soon(grant.revoke()).await.expect("revokes"), Revocation::Agreed);
                // It is ours alone at once.
                let mut buffer = soon(exposed.into_buffer()).await.expect("comes back");
                buffer.fill(8);
            }
        }
        end.lives(connection).await;
    }
    session.close().await;
}

pub(crate) async fn a_stopped_holder_loses_its_right_at_the_deadline(end: End) {
    let session = end.connected(patient()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let mut buffer = allocate(64);
            fill(&mut buffer, 2, 0);
            let exposed = buffer.expose();
            let grant = soon(exposed.grant(connection, 0..64, Access::READ_WRITE)).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            end.meet("held").await;
            end.stop(10 * WHILE);
            let begun = now();
            assert_eq!(soon(grant.revoke_within(WHILE)).await.expect("revokes"), Revocation::Forced);
            assert!(now() - begun >= WHILE, "it had {WHILE:?}");
            // Its memory is free while it is still stopped.
            assert!(soon(exposed.into_buffer()).await.expect("comes back")[..] == pattern(2, 0, 64));
            end.go_on().await;
            end.meet("awake").await;
        }
        Responder => {
            let handle = handle(connection).await;
            soon(connection.read(allocate(64), &handle)).await.expect("reads");
            end.meet("held").await;
            end.meet("awake").await;
            if !connection.shares_pages() {
                // It is told before it sends anything.
                is_revoked(connection, &handle).await;
            }
        }
    }
    if connection.shares_pages() {
        // Nobody can take pages from a process that has them: the owner goes on with a copy, and without this holder.
        let error = soon(connection.recv()).await.expect_err("it is lost");
        assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
        return;
    }
    end.lives(connection).await;
    session.close().await;
}

pub(crate) async fn a_lease_ends_by_itself(end: End) {
    let session = end.connected(patient()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let handle = handle(connection).await;
            // Until it is over, which may be at once on a machine that is busy.
            let over = async {
                loop {
                    let buffer = allocate(64);
                    if let Err(failed) = connection.read(buffer, &handle).await {
                        return failed.error;
                    }
                    crate::world::sleep(Duration::from_millis(1)).await;
                }
            };
            let error = soon(over).await;
            assert_eq!(error.kind(), ErrorKind::Revoked, "{error}");
            end.meet("over").await;
        }
        Responder => {
            let exposed = allocate(64).expose();
            let begun = now();
            let granted = exposed.grant_leased(connection, 0..64, Access::READ, WHILE);
            let grant = soon(granted).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            assert_eq!(soon(grant.ended()).await.expect("ends"), Revocation::Agreed);
            assert!(now() - begun >= WHILE && !grant.is_live());
            end.meet("over").await;
            // One without an end lasts.
            let granted = exposed.grant_leased(connection, 0..64, Access::READ, Duration::MAX);
            assert!(soon(granted).await.expect("grants").is_live());
        }
    }
    end.lives(connection).await;
    session.close().await;
}

pub(crate) async fn memory_comes_back_as_it_was_left(end: End) {
    let session = end.connected(patient()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let handles = [handle(connection).await, handle(connection).await];
            for (index, handle) in (0..).zip(&handles) {
                let mut buffer = allocate(handle.len() as usize);
                fill(&mut buffer, 3, index);
                soon(connection.write(buffer, handle)).await.expect("writes");
            }
            end.meet("written").await;
            end.meet("back").await;
            for handle in &handles {
                is_revoked(connection, handle).await;
            }
        }
        Responder => {
            let exposed = allocate(LENGTH).expose();
            let mut grants = Vec::new();
            for range in [0..1000, 1000..LENGTH] {
                let grant = soon(exposed.grant(connection, range, Access::WRITE)).await.expect("grants");
                soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
                grants.push(grant);
            }
            end.meet("written").await;
            // All grants end with it.
            let buffer = soon(exposed.into_buffer()).await.expect("comes back");
            assert!(buffer[..1000] == pattern(3, 0, 1000) && buffer[1000..] == pattern(3, 1, LENGTH - 1000));
            assert!(grants.iter().all(|grant| !grant.is_live()));
            end.meet("back").await;
        }
    }
    end.lives(connection).await;
    session.close().await;
}
