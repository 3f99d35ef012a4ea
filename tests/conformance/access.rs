//! Every right and every operation: what is granted works, what is not is refused, and what that costs is what is documented.

use zcmi::{Access, Buffer, Config, Connection, Error, ErrorKind, ExposedBuffer, Isolation, RemoteBuffer};

use crate::common::{allocate, pattern};
use crate::world::{End, Initiator, Responder, Session, soon};

/// Bytes of the owner's memory, of which some are granted: a word, and what is read and written.
const LENGTH: usize = 4096;
const GRANTED: std::ops::Range<usize> = 1024..1088;
const PIECE: std::ops::Range<u64> = 13..40;
const POISON: u8 = 0xa5;

/// Where the wire layout of a handle has its rights, its key, and its address and length.
const RIGHTS: usize = 1;
const KEY: std::ops::Range<usize> = 4..8;
const PLACE: std::ops::Range<usize> = 24..40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    CompareSwap,
    FetchAdd,
    Read,
    Write,
}

impl Op {
    const ALL: [Self; 4] = [Self::FetchAdd, Self::CompareSwap, Self::Write, Self::Read];

    fn needs(self) -> Access {
        match self {
            Self::CompareSwap | Self::FetchAdd => Access::ATOMIC,
            Self::Read => Access::READ,
            Self::Write => Access::WRITE,
        }
    }

    async fn attempt(self, connection: &Connection, handle: &RemoteBuffer, round: u64) -> Result<(), Error> {
        let length = (PIECE.end - PIECE.start) as usize;
        let mut buffer = allocate(length);
        match self {
            Self::FetchAdd => connection.fetch_add(&handle.at(0)?, 5).await.map(|old| assert_eq!(old, 0)),
            Self::CompareSwap => connection.compare_swap(&handle.at(0)?, 5, 9).await.map(|old| assert_eq!(old, 5)),
            Self::Read => {
                let read = connection.read(buffer, &handle.slice(PIECE)?).await?;
                let written = if handle.access().contains(Access::WRITE) { round } else { 0 };
                assert!(read[..] == contents(written), "{:?}", &read[..]);
                Ok(())
            }
            Self::Write => {
                buffer.copy_from_slice(&contents(round));
                connection.write(buffer, &handle.slice(PIECE)?).await.map(drop).map_err(Error::from)
            }
        }
    }
}

/// What is written in a round; 0 is what was there before.
fn contents(round: u64) -> Vec<u8> {
    pattern(4, round, (PIECE.end - PIECE.start) as usize)
}

/// All that can be granted.
fn rights() -> [Access; 7] {
    let (read, write, atomic) = (Access::READ, Access::WRITE, Access::ATOMIC);
    [read, write, atomic, read | write, read | atomic, write | atomic, Access::ALL]
}

fn memory() -> ExposedBuffer {
    let mut buffer = allocate(LENGTH);
    buffer.fill(POISON);
    buffer[GRANTED].fill(0);
    let start = GRANTED.start + PIECE.start as usize;
    buffer[start..GRANTED.start + PIECE.end as usize].copy_from_slice(&contents(0));
    buffer.expose()
}

/// The same, which its owner gives access to by himself.
fn served_memory() -> ExposedBuffer {
    let mut buffer = Buffer::allocate(LENGTH).expect("memory");
    buffer.fill(POISON);
    buffer[GRANTED].fill(0);
    let start = GRANTED.start + PIECE.start as usize;
    buffer[start..GRANTED.start + PIECE.end as usize].copy_from_slice(&contents(0));
    buffer.expose()
}

/// Asserts that memory is as it was made, but for what `right` allows to be done to it in a round.
fn is_changed_by(exposed: &ExposedBuffer, right: Option<Access>, round: u64) {
    let mut expected = vec![0; LENGTH];
    memory().read_at(0, &mut expected);
    let has = |wanted| right.is_some_and(|right| right.contains(wanted));
    if has(Access::ATOMIC) {
        expected[GRANTED.start..GRANTED.start + 8].copy_from_slice(&9u64.to_ne_bytes());
    }
    if has(Access::WRITE) {
        let start = GRANTED.start + PIECE.start as usize;
        expected[start..GRANTED.start + PIECE.end as usize].copy_from_slice(&contents(round));
    }
    let mut seen = vec![0; LENGTH];
    exposed.read_at(0, &mut seen);
    assert!(seen == expected, "{right:?}: the memory has other bytes");
}

async fn send_handle(connection: &Connection, handle: &RemoteBuffer) {
    soon(connection.send(&handle.to_bytes())).await.expect("sends");
}

async fn receive_handle(connection: &Connection) -> RemoteBuffer {
    RemoteBuffer::from_bytes(&soon(connection.recv()).await.expect("receives")).expect("a handle")
}

/// A handle like `handle` with other bytes in its wire layout at `offset`.
fn forged(handle: &RemoteBuffer, offset: usize, bytes: &[u8]) -> RemoteBuffer {
    let mut wire = handle.to_bytes();
    wire[offset..offset + bytes.len()].copy_from_slice(bytes);
    RemoteBuffer::from_bytes(&wire).expect("well formed")
}

pub(crate) async fn each_right_allows_its_operations_and_no_others(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    for (round, right) in (1..).zip(rights()) {
        match end.role {
            Initiator => {
                let handle = receive_handle(connection).await;
                assert_eq!((handle.access(), handle.len()), (right, GRANTED.len() as u64));
                for op in Op::ALL {
                    let outcome = soon(op.attempt(connection, &handle, round)).await;
                    let kind = outcome.map_err(|error| error.kind());
                    let expected = if right.contains(op.needs()) { Ok(()) } else { Err(ErrorKind::AccessDenied) };
                    assert_eq!(kind, expected, "{right}: {op:?}");
                }
            }
            Responder => {
                let exposed = memory();
                let grant = soon(exposed.grant(connection, GRANTED, right)).await.expect("grants");
                send_handle(connection, &grant.remote_buffer()).await;
                // The message behind the accesses.
                end.lives(connection).await;
                is_changed_by(&exposed, Some(right), round);
                continue;
            }
        }
        end.lives(connection).await;
    }
    session.close().await;
}

/// The owner does not believe what a handle says: the connection is lost at both ends, and nothing else.
pub(crate) async fn each_right_is_checked_by_the_owner_too(end: End) {
    let session = end.connected(Config::default()).await;
    let all = rights().into_iter().flat_map(|right| Op::ALL.map(|op| (right, op)));
    for (right, op) in all.filter(|(right, op)| !right.contains(op.needs())) {
        let connection = session.another().await;
        match end.role {
            Initiator => {
                let handle = forged(&receive_handle(&connection).await, RIGHTS, &[7]);
                let error = soon(op.attempt(&connection, &handle, 1)).await.expect_err("it was not granted");
                assert_eq!(error.kind(), ErrorKind::RemoteAccess, "{right}: {op:?}: {error}");
                assert!(error.peer().is_some() && error.device().is_some() && error.hint().is_some(), "{error}");
                let error = soon(connection.send(b"x")).await.expect_err("it is lost");
                assert_eq!((error.kind(), error.operation()), (ErrorKind::RemoteAccess, "send"), "{error}");
                assert!(error.first_failure().is_some(), "a consequence: {error}");
            }
            Responder => {
                // In shared pages the holder, who is trusted, is the only one who checks.
                let exposed = served_memory();
                let grant = soon(exposed.grant(&connection, GRANTED, right)).await.expect("grants");
                send_handle(&connection, &grant.remote_buffer()).await;
                is_lost(&connection).await;
                is_changed_by(&exposed, None, 0);
                assert!(!grant.is_live() || soon(grant.ended()).await.is_ok());
                soon(exposed.into_buffer()).await.expect("the memory comes back");
            }
        }
        end.lives(&session.connection).await;
    }
    session.close().await;
}

/// Its peer was refused an access.
async fn is_lost(connection: &Connection) {
    let error = soon(connection.recv()).await.expect_err("it is lost");
    let kinds = [ErrorKind::ConnectionBroken, ErrorKind::RemoteAccess];
    assert!(kinds.contains(&error.kind()), "{error}");
}

pub(crate) async fn what_is_out_of_bounds_or_misaligned_is_refused_here(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            let handle = receive_handle(connection).await;
            let buffer = |length| allocate(length);
            for length in [GRANTED.len() + 1, LENGTH] {
                let failed = soon(connection.read(buffer(length), &handle)).await.expect_err("beyond the end");
                assert_eq!(failed.error.kind(), ErrorKind::OutOfBounds, "{}", failed.error);
                assert_eq!(failed.buffer.map(|buffer| buffer.len()), Some(length));
                let failed = soon(connection.write(buffer(length), &handle)).await.expect_err("beyond the end");
                assert_eq!(failed.error.kind(), ErrorKind::OutOfBounds, "{}", failed.error);
                assert_eq!(failed.buffer.map(|buffer| buffer.len()), Some(length));
            }
            for (range, kind) in [(60..65, ErrorKind::OutOfBounds), (65..65, ErrorKind::OutOfBounds)] {
                assert_eq!(handle.slice(range).expect_err("not inside").kind(), kind);
            }
            assert_eq!(handle.at::<u64>(57).expect_err("straddles the end").kind(), ErrorKind::OutOfBounds);
            let between = handle.slice(4..20).expect("inside").at::<u64>(0);
            let error = match between {
                Ok(word) => soon(connection.fetch_add(&word, 1)).await.expect_err("between words"),
                Err(error) => error,
            };
            assert_eq!(error.kind(), ErrorKind::Misaligned, "{error}");
            // All of it is inside, and nothing at all is too.
            soon(connection.read(buffer(GRANTED.len()), &handle)).await.expect("reads");
            soon(connection.read(Buffer::default(), &handle)).await.expect("reads nothing");
        }
        Responder => {
            let exposed = memory();
            for range in [LENGTH - 1..LENGTH + 1, 5..5] {
                let error = soon(exposed.grant(connection, range, Access::READ)).await.expect_err("no such range");
                assert_eq!((error.kind(), error.operation()), (ErrorKind::OutOfBounds, "grant"), "{error}");
            }
            let error = soon(exposed.grant(connection, 4..64, Access::ALL)).await.expect_err("between words");
            assert_eq!(error.kind(), ErrorKind::Misaligned, "{error}");
            let grant = soon(exposed.grant(connection, GRANTED, Access::ALL)).await.expect("grants");
            send_handle(connection, &grant.remote_buffer()).await;
            end.meet("done").await;
            is_changed_by(&exposed, None, 0);
        }
    }
    if end.role == Initiator {
        end.meet("done").await;
    }
    end.lives(connection).await;
    session.close().await;
}

pub(crate) async fn a_handle_is_good_on_its_connection_alone(end: End) {
    let session = end.connected(Config::default()).await;
    let other = session.another().await;
    match end.role {
        Initiator => {
            let handle = receive_handle(&session.connection).await;
            for op in Op::ALL {
                let error = soon(op.attempt(&other, &handle, 1)).await.expect_err("it is of another connection");
                assert_eq!(error.kind(), ErrorKind::Foreign, "{op:?}: {error}");
            }
            for op in Op::ALL {
                soon(op.attempt(&session.connection, &handle, 1)).await.expect("it is of this one");
            }
        }
        Responder => {
            let exposed = memory();
            let grant = soon(exposed.grant(&session.connection, GRANTED, Access::ALL)).await.expect("grants");
            send_handle(&session.connection, &grant.remote_buffer()).await;
            end.meet("done").await;
            is_changed_by(&exposed, Some(Access::ALL), 1);
        }
    }
    if end.role == Initiator {
        end.meet("done").await;
    }
    end.lives(&other).await;
    session.close().await;
}

/// Two grants to two connections of one process, and on the second the key of the first.
async fn with_the_key_of_another(end: &End, session: &Session) -> Result<(), Error> {
    let (first, second) = (&session.connection, session.another().await);
    match end.role {
        Initiator => {
            let (theirs, own) = (receive_handle(first).await, receive_handle(&second).await);
            let stolen = forged(&own, KEY.start, &theirs.to_bytes()[KEY]);
            let stolen = forged(&stolen, PLACE.start, &theirs.to_bytes()[PLACE]);
            soon(Op::Read.attempt(&second, &stolen, 0)).await
        }
        Responder => {
            let (exposed, other) = (memory(), memory());
            let grant = soon(exposed.grant(first, GRANTED, Access::READ)).await.expect("grants");
            assert_eq!(grant.isolation(), first.capabilities().isolation);
            let own = soon(other.grant(&second, GRANTED, Access::READ)).await.expect("grants");
            send_handle(first, &grant.remote_buffer()).await;
            send_handle(&second, &own.remote_buffer()).await;
            end.meet("done").await;
            Ok(())
        }
    }
}

pub(crate) async fn a_key_opens_as_much_as_is_declared(end: End) {
    let session = end.connected(Config::default()).await;
    let outcome = with_the_key_of_another(&end, &session).await;
    if end.role == Initiator {
        end.meet("done").await;
        match session.connection.capabilities().isolation {
            // The holder, who is trusted, looks up nothing.
            _ if session.connection.shares_pages() => outcome.expect("it has the pages"),
            Isolation::Connection => {
                let error = outcome.expect_err("the key is of another connection");
                assert_eq!(error.kind(), ErrorKind::RemoteAccess, "{error}");
            }
            Isolation::Domain => outcome.expect("the key is the domain's"),
        }
    }
    end.lives(&session.connection).await;
    session.close().await;
}

pub(crate) async fn a_domains_handle_is_good_on_all_connections_to_it(end: End) {
    let session = end.connected(Config::default()).await;
    let other = session.another().await;
    match end.role {
        Initiator => {
            let handle = receive_handle(&session.connection).await;
            for (op, connection) in [
                (Op::FetchAdd, &session.connection),
                (Op::CompareSwap, &other),
                (Op::Write, &session.connection),
                (Op::Read, &other),
            ] {
                soon(op.attempt(connection, &handle, 1)).await.expect("it is the domain's");
            }
            end.meet("used").await;
            end.meet("revoked").await;
            for connection in [&session.connection, &other] {
                let error = soon(Op::Write.attempt(connection, &handle, 1)).await.expect_err("revoked");
                assert_eq!(error.kind(), ErrorKind::Revoked, "{error}");
            }
        }
        Responder => {
            let exposed = memory();
            let grant = soon(exposed.grant_domain(&session.connection, GRANTED, Access::ALL)).await.expect("grants");
            assert_eq!(grant.isolation(), Isolation::Domain);
            send_handle(&session.connection, &grant.remote_buffer()).await;
            end.meet("used").await;
            is_changed_by(&exposed, Some(Access::ALL), 1);
            soon(grant.revoke()).await.expect("revokes");
            end.meet("revoked").await;
        }
    }
    end.lives(&other).await;
    session.close().await;
}
