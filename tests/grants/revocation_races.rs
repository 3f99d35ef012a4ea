//! Grants that end while something else ends too: their future, their buffer, their connection, their process.

#![allow(unsafe_code, reason = "forking; each block carries its proof")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use zcmi::{Access, ErrorKind, Revocation};

use crate::common::{baseline, nothing_left, on_device, pair, still_works, worker};

const SOON: Duration = Duration::from_secs(10);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

#[test]
fn the_end_of_a_connection_ends_its_grants() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(4096).expose();
        let grant = exposed.grant(&server, 0..4096, Access::READ).await.expect("grants");
        let of_domain = exposed.grant_domain(&server, 0..4096, Access::READ).await.expect("grants");
        client.close().await.expect("closes");
        drop(client);
        assert_eq!(soon(grant.ended()).await.expect("ends"), Revocation::ConnectionLost);
        assert!(!grant.is_live() && of_domain.is_live());
        let error = exposed.grant(&server, 0..10, Access::READ).await.expect_err("there is no peer");
        assert!(matches!(error.kind(), ErrorKind::PeerClosed | ErrorKind::Closed), "{error}");
        assert_eq!(soon(of_domain.revoke()).await.expect("revokes"), Revocation::Agreed);
        soon(exposed.into_buffer()).await.expect("comes back");
    });
}

/// Whoever is first: both ends, in every order, with what is on its way between them.
#[test]
fn revoking_and_closing_at_once_is_orderly() {
    on_device(|address| async move {
        let worker = worker();
        let before = baseline(&worker, &address).await;
        for round in 0..24u64 {
            let (client, server) = pair(&worker, &address).await;
            let exposed = crate::common::allocate(4096).expose();
            let grant = exposed.grant(&server, 0..4096, Access::READ).await.expect("grants");
            let reading = client.read(crate::common::allocate(4096), &grant.remote_buffer());
            let pause = |turn: u64| tokio::time::sleep(Duration::from_micros(300 * (turn % 8)));
            let close_holder = async {
                pause(round).await;
                client.close().await
            };
            let close_owner = async {
                pause(round / 3).await;
                if round % 3 == 0 { server.close().await } else { Ok(()) }
            };
            let revoke = async {
                pause(7 - round % 8).await;
                grant.revoke().await
            };
            let (read, holder, owner, revoked) =
                soon(async { tokio::join!(reading, close_holder, close_owner, revoke) }).await;
            revoked.expect("no peer can reach it");
            // It was posted before either end closed, or nothing was sent.
            if let Err(failed) = read {
                let kind = failed.error.kind();
                assert!(
                    matches!(kind, ErrorKind::Revoked | ErrorKind::Closed | ErrorKind::PeerClosed),
                    "round {round}: {}",
                    failed.error
                );
            }
            holder.expect("closes");
            owner.expect("closes");
            soon(exposed.into_buffer()).await.expect("comes back");
        }
        still_works(&address).await;
        nothing_left(&before).await;
    });
}

/// Grants of two connections of one worker are made at once, and the busy one's later: neither is taken for the other.
#[test]
fn grants_of_two_connections_are_not_mixed_up() {
    on_device(|address| async move {
        let worker = worker();
        for round in 0..6u8 {
            let (busy, busy_owner) = pair(&worker, &address).await;
            let (idle, idle_owner) = pair(&worker, &address).await;
            let target = crate::common::allocate(1 << 20).expose();
            let back = target.grant(&busy, 0..1 << 20, Access::WRITE).await.expect("grants");
            let exposed = crate::common::allocate(64).expose();
            exposed.write_at(0, &[round; 64]);
            let writes: Vec<_> =
                (0..16).map(|_| busy_owner.write(crate::common::allocate(1 << 20), &back.remote_buffer())).collect();
            let lease = Duration::from_millis(700);
            let (first, second) = soon(async {
                tokio::join!(
                    exposed.grant_leased(&busy_owner, 0..64, Access::READ, lease),
                    exposed.grant(&idle_owner, 0..64, Access::READ)
                )
            })
            .await;
            let (first, second) = (first.expect("grants"), second.expect("grants"));
            for (connection, grant) in [(&busy, &first), (&idle, &second)] {
                let buffer = crate::common::allocate(64);
                // The lease may be over by now, which is polite too.
                match soon(connection.read(buffer, &grant.remote_buffer())).await {
                    Ok(buffer) => assert_eq!(buffer[..], [round; 64]),
                    Err(failed) => assert_eq!(failed.error.kind(), ErrorKind::Revoked, "{}", failed.error),
                }
            }
            for write in writes {
                soon(write).await.expect("writes");
            }
            assert_eq!(soon(first.ended()).await.expect("its lease is over"), Revocation::Agreed);
            assert_eq!(soon(second.revoke()).await.expect("revokes"), Revocation::Agreed);
            for (from, to) in [(&busy, &busy_owner), (&idle, &idle_owner)] {
                from.send(b"lives").await.expect("sends");
                assert_eq!(&*soon(to.recv()).await.expect("receives"), b"lives");
            }
        }
    });
}

/// More grants than one request can name, one of them in long use: the others are let go at once.
#[test]
fn a_slow_grant_holds_up_no_other() {
    on_device(|address| async move {
        let settings = zcmi::Config { max_message_size: 64, ..Default::default() };
        let worker = crate::common::worker_with(settings);
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(8 << 20).expose();
        let long = exposed.grant(&server, 0..8 << 20, Access::READ).await.expect("grants");
        let mut grants = Vec::new();
        for index in 0..120 {
            grants.push(exposed.grant(&server, index * 8..index * 8 + 8, Access::READ).await.expect("grants"));
        }
        let reads: Vec<_> =
            (0..8).map(|_| client.read(crate::common::allocate(8 << 20), &long.remote_buffer())).collect();
        let revoking_long = tokio::spawn(long.revoke_within(Duration::from_secs(60)));
        for grant in grants {
            assert_eq!(soon(grant.revoke_within(Duration::from_secs(60))).await.expect("revokes"), Revocation::Agreed);
        }
        for read in reads {
            // Posted before it was revoked.
            read.await.expect("reads");
        }
        assert_eq!(soon(revoking_long).await.expect("no panic").expect("revokes"), Revocation::Agreed);
        client.send(b"lives").await.expect("sends");
        assert_eq!(&*soon(server.recv()).await.expect("receives"), b"lives");
    });
}

#[test]
fn a_dropped_grant_and_a_dropped_exposure_revoke_in_the_background() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let handle = {
            let exposed = crate::common::allocate(4096).expose();
            let grant = exposed.grant(&server, 0..4096, Access::READ).await.expect("grants");
            let handle = grant.remote_buffer();
            soon(client.read(crate::common::allocate(8), &handle)).await.expect("it is live");
            drop(grant);
            is_revoked_soon(&client, &handle).await;
            let second = exposed.grant(&server, 0..4096, Access::READ).await.expect("grants");
            let handle = second.remote_buffer();
            soon(client.read(crate::common::allocate(8), &handle)).await.expect("it is live");
            // The exposure goes, the grant is still in hand.
            drop(exposed);
            assert!(soon(second.ended()).await.is_ok());
            handle
        };
        is_revoked_soon(&client, &handle).await;
        client.send(b"lives").await.expect("sends");
        assert_eq!(&*server.recv().await.expect("receives"), b"lives");
    });
}

async fn is_revoked_soon(client: &zcmi::Connection, handle: &zcmi::RemoteBuffer) {
    let begun = Instant::now();
    loop {
        match soon(client.read(crate::common::allocate(8), handle)).await {
            Ok(_) => assert!(begun.elapsed() < SOON, "it is never revoked"),
            Err(failed) => return assert_eq!(failed.error.kind(), ErrorKind::Revoked, "{}", failed.error),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Each future is polled a number of times and then dropped: whatever it had begun is ended, and nothing is left behind.
#[test]
fn futures_that_are_dropped_at_any_point_leave_nothing_behind() {
    on_device(|address| async move {
        let worker = worker();
        let before = baseline(&worker, &address).await;
        let (client, server) = pair(&worker, &address).await;
        for polls in 0..6 {
            let exposed = crate::common::allocate(4096).expose();
            let granted = poll_times(polls, pin!(exposed.grant(&server, 0..64, Access::READ)));
            if let Poll::Ready(granted) = granted {
                let grant = granted.expect("grants");
                let handle = grant.remote_buffer();
                soon(client.read(crate::common::allocate(8), &handle)).await.expect("reads");
                // One that was never polled has begun nothing, but it drops the grant.
                let _ = poll_times(polls % 3, pin!(grant.revoke()));
                is_revoked_soon(&client, &handle).await;
            }
            let second = exposed.grant(&server, 0..64, Access::READ).await.expect("grants");
            let _ = poll_times(polls, pin!(exposed.into_buffer()));
            drop(second);
            client.send(b"x").await.expect("sends");
            assert_eq!(&*soon(server.recv()).await.expect("receives"), b"x");
        }
        client.close().await.expect("closes");
        drop((client, server));
        nothing_left(&before).await;
    });
}

fn poll_times<T>(times: usize, mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    for _ in 0..times {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Poll::Ready(output);
        }
    }
    Poll::Pending
}

/// A forked child has the grants' values and none of their memory; what it drops is its parent's.
#[test]
fn a_forked_child_revokes_nothing() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(4096).expose();
        let grant = exposed.grant(&server, 0..4096, Access::READ_WRITE).await.expect("grants");
        let handle = grant.remote_buffer();
        // SAFETY: the child drops what it has inherited, which takes no lock there, and exits at once.
        match unsafe { libc::fork() } {
            0 => {
                drop((grant, exposed));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
            child => {
                let mut status = -1;
                // SAFETY: waits for the child just made; `status` is writable.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0, "the child did not end well");
            }
        }
        let mut buffer = crate::common::allocate(8);
        buffer.fill(3);
        soon(client.write(buffer, &handle)).await.expect("the grant lives");
        let mut bytes = [0; 8];
        exposed.read_at(0, &mut bytes);
        assert_eq!(bytes, [3; 8]);
        assert_eq!(soon(grant.revoke()).await.expect("revokes"), Revocation::Agreed);
    });
}
