//! Revocation against holders that cooperate, are slow, stopped, killed or hostile, and the time that each takes.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use zcmi::{Access, ErrorKind, Isolation, RemoteBuffer, Revocation};

use crate::common::{baseline, nothing_left, on_device, pair, patient_worker, still_works, worker};
use crate::holder::{self, PIECE, ask, hand, is_politely_refused};

/// On top of what is configured; the emulator is slow.
const SLACK: Duration = Duration::from_secs(2);

#[test]
fn a_holder_that_waits_agrees_and_its_connection_lives_on() {
    on_device(|address| async move {
        let (mut peer, connection) = holder::start(&worker(), &address).await;
        let exposed = crate::common::allocate(4096).expose();
        exposed.write_at(0, &[7; 4096]);
        let grant = exposed.grant(&connection, 0..4096, Access::READ).await.expect("grants");
        assert!(grant.is_live());
        assert_eq!(grant.isolation(), Isolation::Connection, "rxe has windows");
        hand(&mut peer, &connection, &grant.remote_buffer()).await;
        assert_eq!(ask(&mut peer, "read").await, "ok 7");
        let begun = Instant::now();
        assert_eq!(grant.revoke().await.expect("revokes"), Revocation::Agreed);
        eprintln!("a holder that waits: {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}: it did not agree by itself", begun.elapsed());
        is_politely_refused(&mut peer, &connection).await;
        assert_eq!(exposed.into_buffer().await.expect("comes back")[..], [7; 4096]);
        assert!(peer.finish().success());
    });
}

#[test]
fn a_holder_that_does_something_else_agrees_too() {
    on_device(|address| async move {
        let (mut peer, connection) = holder::start(&worker(), &address).await;
        let exposed = crate::common::allocate(4096).expose();
        let grant = exposed.grant(&connection, 0..4096, Access::READ).await.expect("grants");
        hand(&mut peer, &connection, &grant.remote_buffer()).await;
        assert_eq!(ask(&mut peer, "nap").await, "napping");
        let begun = Instant::now();
        assert_eq!(grant.revoke().await.expect("revokes"), Revocation::Agreed);
        eprintln!("a holder whose program does not wait: {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}: only when it woke up", begun.elapsed());
        assert_eq!(peer.hear_aside().await, "awake");
        is_politely_refused(&mut peer, &connection).await;
        assert!(peer.finish().success());
    });
}

#[test]
fn what_is_in_flight_is_drained_and_breaks_nothing() {
    on_device(|address| async move {
        let (mut peer, connection) = holder::start(&worker(), &address).await;
        let exposed = crate::common::allocate(4 * PIECE).expose();
        for round in 0..5 {
            let grant = exposed.grant(&connection, 0..4 * PIECE, Access::READ).await.expect("grants");
            hand(&mut peer, &connection, &grant.remote_buffer()).await;
            assert_eq!(ask(&mut peer, "work").await, "at work");
            tokio::time::sleep(Duration::from_millis(50 + 17 * round)).await;
            let begun = Instant::now();
            assert_eq!(grant.revoke().await.expect("revokes"), Revocation::Agreed);
            eprintln!("a holder with reads in flight: {:?}", begun.elapsed());
            let answer = ask(&mut peer, "rest").await;
            assert!(answer.starts_with("Revoked "), "{answer}");
            is_politely_refused(&mut peer, &connection).await;
        }
        assert!(peer.finish().success());
    });
}

#[test]
fn a_stopped_holder_loses_the_right_at_the_deadline_and_nothing_else() {
    on_device(|address| async move {
        // On a slow machine it is stopped for seconds.
        let (mut peer, connection) = holder::start(&patient_worker(), &address).await;
        let exposed = crate::common::allocate(4096).expose();
        let grant = exposed.grant(&connection, 0..4096, Access::READ_WRITE).await.expect("grants");
        hand(&mut peer, &connection, &grant.remote_buffer()).await;
        assert_eq!(ask(&mut peer, "read").await, "ok 0");
        peer.signal(Signal::STOP);
        let (begun, patience) = (Instant::now(), Duration::from_millis(300));
        assert_eq!(grant.revoke_within(patience).await.expect("revokes"), Revocation::Forced);
        eprintln!("a stopped holder that had 300 ms: {:?}", begun.elapsed());
        assert!((patience..patience + SLACK).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        // Its memory is free while it is still stopped.
        let buffer = exposed.into_buffer().await.expect("comes back");
        assert_eq!(buffer.len(), 4096);
        peer.signal(Signal::CONT);
        if crate::common::shares_pages() {
            // Only the end of the connection keeps it from what it has mapped, unless it hears the question first.
            let answer = ask(&mut peer, "read").await;
            assert!(answer == "ConnectionBroken" || answer.starts_with("Revoked"), "{answer}");
        } else {
            is_politely_refused(&mut peer, &connection).await;
        }
        assert!(peer.finish().success());
    });
}

#[test]
fn a_killed_holder_holds_nothing_up() {
    on_device(|address| async move {
        let worker = worker();
        let before = baseline(&worker, &address).await;
        {
            let (mut peer, connection) = holder::start(&worker, &address).await;
            let exposed = crate::common::allocate(4 * PIECE).expose();
            let grant = exposed.grant(&connection, 0..4 * PIECE, Access::READ).await.expect("grants");
            hand(&mut peer, &connection, &grant.remote_buffer()).await;
            assert_eq!(ask(&mut peer, "work").await, "at work");
            let begun = Instant::now();
            let revoking = grant.revoke();
            peer.kill();
            let how = revoking.await.expect("revokes");
            eprintln!("a killed holder: {how:?} after {:?}", begun.elapsed());
            assert!(begun.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", begun.elapsed());
            assert_eq!(exposed.into_buffer().await.expect("comes back").len(), 4 * PIECE);
        }
        still_works(&address).await;
        nothing_left(&before).await;
    });
}

/// Its library agrees, and it goes on all the same: here by a handle that names another grant.
#[test]
fn a_hostile_holder_is_refused_by_the_device_and_loses_its_connection() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let (other, other_server) = pair(&worker, &address).await;
        // Memory that the owner checks itself, also where pages are shared.
        let exposed = zcmi::Buffer::allocate(8192).expect("memory").expose();
        exposed.write_at(0, &[0x5a; 8192]);
        let grant = exposed.grant(&server, 1000..5000, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        client.write(crate::common::allocate(8), &handle).await.expect("it is live");
        exposed.write_at(1000, &[0x5a; 8]);
        assert_eq!(grant.revoke().await.expect("revokes"), Revocation::Agreed);
        let mut forged = handle.to_bytes();
        // The slot.
        forged[16..20].copy_from_slice(&77u32.to_le_bytes());
        let forged = RemoteBuffer::from_bytes(&forged).expect("well formed");
        let failed = client.write(crate::common::allocate(100), &forged).await.expect_err("refused");
        assert_eq!(failed.error.kind(), ErrorKind::RemoteAccess, "{}", failed.error);
        server.recv().await.expect_err("its connection is lost");
        let mut bytes = [0; 8192];
        exposed.read_at(0, &mut bytes);
        assert!(bytes.iter().all(|&byte| byte == 0x5a), "memory was changed");
        other.send(b"undisturbed").await.expect("sends");
        assert_eq!(&*other_server.recv().await.expect("receives"), b"undisturbed");
        exposed.into_buffer().await.expect("comes back");
    });
}

/// A window has 255 keys, and then it is retired; whatever was granted before stays dead.
#[test]
fn keys_are_not_used_again_too_early() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(64).expose();
        let mut old = Vec::new();
        let mut buffer = crate::common::allocate(8);
        for round in 0..600u64 {
            exposed.write_at(0, &round.to_ne_bytes());
            let grant = exposed.grant(&server, 0..64, Access::READ).await.expect("grants");
            let handle = grant.remote_buffer();
            buffer = client.read(buffer, &handle).await.expect("reads");
            assert_eq!(buffer[..], round.to_ne_bytes());
            let key = handle.to_bytes()[4..8].to_vec();
            assert!(!old.iter().rev().take(250).any(|(_, used)| *used == key), "a key came again in round {round}");
            assert_eq!(grant.revoke().await.expect("revokes"), Revocation::Agreed);
            old.push((handle, key));
        }
        for (handle, _) in old.iter().step_by(37) {
            let failed = client.read(crate::common::allocate(8), handle).await.expect_err("revoked");
            assert_eq!(failed.error.kind(), ErrorKind::Revoked);
        }
        client.send(b"lives").await.expect("sends");
        assert_eq!(&*server.recv().await.expect("receives"), b"lives");
    });
}

#[test]
fn many_grants_of_one_buffer_end_together() {
    on_device(|address| async move {
        let worker = worker();
        let before = baseline(&worker, &address).await;
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(1 << 16).expose();
        let mut grants = Vec::new();
        for index in 0..300 {
            let range = index * 64..index * 64 + 64;
            grants.push(exposed.grant(&server, range, Access::READ_WRITE).await.expect("grants"));
        }
        for (index, grant) in grants.iter().enumerate() {
            let mut buffer = crate::common::allocate(64);
            buffer.fill(index as u8);
            client.write(buffer, &grant.remote_buffer()).await.expect("writes");
        }
        let begun = Instant::now();
        let buffer = exposed.into_buffer().await.expect("comes back");
        eprintln!("300 grants end in {:?}", begun.elapsed());
        assert!(buffer.chunks(64).take(300).enumerate().all(|(index, part)| part == [index as u8; 64]));
        assert!(grants.iter().all(|grant| !grant.is_live()));
        let failed = client.read(crate::common::allocate(8), &grants[150].remote_buffer()).await;
        assert_eq!(failed.expect_err("revoked").error.kind(), ErrorKind::Revoked);
        client.close().await.expect("closes");
        drop((client, server, grants, buffer));
        nothing_left(&before).await;
    });
}
