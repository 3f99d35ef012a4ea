//! Grants for a time.

use std::time::{Duration, Instant};

use zcmi::{Access, ErrorKind, Revocation};

use crate::common::{on_device, pair, worker};
use crate::holder::{self, PIECE, ask, hand, is_politely_refused};

/// On top of a lease: how late it may end, in the emulator.
const LATE: Duration = Duration::from_secs(2);

#[test]
fn a_lease_that_ends_in_mid_transfer_breaks_nothing() {
    on_device(|address| async move {
        let (mut peer, connection) = holder::start(&worker(), &address).await;
        let exposed = crate::common::allocate(4 * PIECE).expose();
        let lease = Duration::from_millis(400);
        let begun = Instant::now();
        let grant = exposed.grant_leased(&connection, 0..4 * PIECE, Access::READ, lease).await.expect("grants");
        hand(&mut peer, &connection, &grant.remote_buffer()).await;
        assert_eq!(ask(&mut peer, "work").await, "at work");
        assert_eq!(grant.ended().await.expect("ends"), Revocation::Agreed);
        assert!((lease..lease + LATE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert!(!grant.is_live());
        let answer = ask(&mut peer, "rest").await;
        assert!(answer.starts_with("Revoked "), "{answer}");
        is_politely_refused(&mut peer, &connection).await;
        exposed.into_buffer().await.expect("comes back");
        assert!(peer.finish().success());
    });
}

#[test]
fn leases_end_each_at_its_time_and_others_go_on() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(4096).expose();
        let begun = Instant::now();
        let for_ever = exposed.grant(&server, 0..8, Access::READ).await.expect("grants");
        let mut grants = Vec::new();
        for turn in [3u32, 1, 2] {
            let lease = Duration::from_millis(200) * turn;
            grants.push((lease, exposed.grant_leased(&server, 0..8, Access::READ, lease).await.expect("grants")));
        }
        grants.sort_by_key(|(lease, _)| *lease);
        for (lease, grant) in grants {
            assert_eq!(grant.ended().await.expect("ends"), Revocation::Agreed);
            assert!((lease..lease + LATE).contains(&begun.elapsed()), "{lease:?}: {:?}", begun.elapsed());
            let failed = client.read(crate::common::allocate(8), &grant.remote_buffer()).await;
            assert_eq!(failed.expect_err("its lease is over").error.kind(), ErrorKind::Revoked);
        }
        assert!(for_ever.is_live());
        client.read(crate::common::allocate(8), &for_ever.remote_buffer()).await.expect("it has no lease");
    });
}

#[test]
fn a_lease_that_is_over_at_once_or_never_is_one() {
    on_device(|address| async move {
        let worker = worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = crate::common::allocate(64).expose();
        let grant = exposed.grant_leased(&server, 0..64, Access::READ, Duration::ZERO).await.expect("grants");
        assert_eq!(grant.ended().await.expect("ends"), Revocation::Agreed);
        let grant = exposed.grant_leased(&server, 0..64, Access::READ, Duration::MAX).await.expect("grants");
        client.read(crate::common::allocate(64), &grant.remote_buffer()).await.expect("reads");
        assert_eq!(grant.revoke().await.expect("revokes"), Revocation::Agreed);
    });
}
