//! Writes that notify.

use zcmi::{Access, Buffer, Config, ErrorKind, RemoteBuffer};

use crate::common::{allocate, fill, pattern};
use crate::world::{End, Initiator, Responder, WHILE, soon, within};

const SLOT: usize = 100;
const SLOTS: usize = 64;
/// Notifications that are kept.
const ROOM: u32 = 256;

pub(crate) async fn they_come_in_order_behind_their_bytes(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let handle = RemoteBuffer::from_bytes(&soon(connection.recv()).await.expect("receives")).expect("a handle");
            for value in 0..3 * SLOTS as u32 {
                let start = value as usize % SLOTS * SLOT;
                let slot = handle.slice(start as u64..(start + SLOT) as u64).expect("inside");
                let mut buffer = allocate(SLOT);
                fill(&mut buffer, 6, value.into());
                soon(connection.write_notify(buffer, &slot, value)).await.expect("writes");
                if (value as usize + 1).is_multiple_of(SLOTS) {
                    // Its bytes are looked at before they are written again.
                    end.meet(&format!("after {value}")).await;
                }
            }
            // Nothing at all can be written, and told.
            let nothing = handle.slice(0..0).expect("inside");
            soon(connection.write_notify(Buffer::default(), &nothing, u32::MAX)).await.expect("writes");
            soon(connection.finish()).await.expect("finishes");
            let failed = soon(connection.write_notify(Buffer::default(), &nothing, 1)).await.expect_err("finished");
            assert_eq!(failed.error.kind(), ErrorKind::Closed, "{}", failed.error);
        }
        Responder => {
            let exposed = allocate(SLOTS * SLOT).expose();
            let grant = soon(exposed.grant(connection, 0..SLOTS * SLOT, Access::WRITE)).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            for value in 0..3 * SLOTS as u32 {
                assert_eq!(soon(connection.notified()).await.expect("a notification"), value);
                let mut bytes = vec![0; SLOT];
                exposed.read_at(value as usize % SLOTS * SLOT, &mut bytes);
                assert!(bytes == pattern(6, value.into(), SLOT), "notification {value} is before its bytes");
                if (value as usize + 1).is_multiple_of(SLOTS) {
                    end.meet(&format!("after {value}")).await;
                }
            }
            assert_eq!(soon(connection.notified()).await.expect("a notification"), u32::MAX);
            assert_eq!(soon(connection.notified()).await.expect_err("the end").kind(), ErrorKind::PeerClosed);
        }
    }
    end.meet("end").await;
    session.close().await;
}

pub(crate) async fn they_are_kept_until_they_are_asked_for(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let handle = RemoteBuffer::from_bytes(&soon(connection.recv()).await.expect("receives")).expect("a handle");
            let notify = |value| connection.write_notify(allocate(8), &handle, value);
            for value in 0..ROOM {
                soon(notify(value)).await.expect("writes");
            }
            let mut one_more = notify(ROOM);
            assert!(within(WHILE, &mut one_more).await.is_none(), "there is no room for it");
            end.tell("full");
            soon(one_more).await.expect("writes");
        }
        Responder => {
            let exposed = allocate(8).expose();
            let grant = soon(exposed.grant(connection, 0..8, Access::WRITE)).await.expect("grants");
            soon(connection.send(&grant.remote_buffer().to_bytes())).await.expect("sends");
            assert_eq!(end.hear().await, "full");
            for value in 0..=ROOM {
                assert_eq!(soon(connection.notified()).await.expect("a notification"), value);
            }
            assert_eq!(connection.try_notified().expect("it lives"), None);
        }
    }
    end.meet("end").await;
    session.close().await;
}
