//! The access matrix at the holder's library: what was not granted is refused before the wire and costs nothing.

use std::time::Duration;

use zcmi::{Access, Buffer, ErrorKind, RemoteBuffer, Revocation};

use crate::case::{Case, Op, Place, Scope, State, Via, rights};
use crate::common::{listen, pair, pattern};
use crate::holder::{Holder, POISON};
use crate::owner::{GRANTED, Memory, Owner, leaving_nothing, quiet_worker};

const PLACES: [Place; 8] = [
    Place::Behind,
    Place::Before,
    Place::BetweenWords,
    Place::First,
    Place::Last,
    Place::Middle,
    Place::StraddlesEnd,
    Place::StraddlesStart,
];

#[test]
fn a_connections_handle_does_what_was_granted_and_nothing_else() {
    leaving_nothing(|address| async move { whole_product(&address, Scope::Connection).await });
}

#[test]
fn a_domains_handle_does_what_was_granted_and_nothing_else() {
    leaving_nothing(|address| async move { whole_product(&address, Scope::Domain).await });
}

async fn whole_product(address: &str, scope: Scope) {
    let owner = Owner::new(address, Duration::from_secs(5)).await;
    let (mut near, mut far) = (Holder::start(), Holder::start());
    let link = near.connect(&Via::Grantee.name(), &owner).await;
    let _links =
        [near.connect(&Via::SameProcess.name(), &owner).await, far.connect(&Via::OtherProcess.name(), &owner).await];
    near.connect_to("connect", &Via::OtherOwner.name(), &far.serve());
    let mut memory = Memory::new();
    let (mut done, mut refused) = (0, 0);
    for right in rights() {
        for &state in State::all(scope) {
            let (handle, living) =
                memory.grant(&link, (scope, right, state), Revocation::Agreed).await.expect("as it must be");
            let (good, bad): (Vec<_>, Vec<_>) =
                cases(scope, right, state).into_iter().partition(|case| case.reasons().is_empty());
            for attempt in 0.. {
                let before = link.packets().await;
                for case in &bad {
                    is_refused(case, case.via.of(&mut near, &mut far), &mut memory, &handle);
                }
                if link.packets().await == before {
                    break;
                }
                // The kernel's connection manager sends too, but not each time.
                assert!(attempt < 3, "{right} of {state:?}: something was sent");
            }
            let before = link.packets().await;
            for case in &good {
                works(case, case.via.of(&mut near, &mut far), &mut memory, &handle);
            }
            let is_counted = good.is_empty() || before.is_none() || link.packets().await > before;
            assert!(is_counted, "the device does not count what was sent");
            for via in Via::ALL {
                let is_alive = via.of(&mut near, &mut far).is_alive(&via.name());
                assert!(is_alive, "{right} of {state:?}: the connection {via:?} is lost");
            }
            (done, refused) = (done + good.len(), refused + bad.len());
            if let Some(grant) = living {
                assert_eq!(grant.revoke().await.expect("revokes"), Revocation::Agreed);
            }
        }
    }
    println!("{scope:?}: {done} done, {refused} refused");
    assert!(done > 0 && refused > done, "{done} done, {refused} refused");
    memory.exposed.into_buffer().await.expect("gives the memory back");
    near.finish();
    far.finish();
}

fn cases(scope: Scope, right: Access, state: State) -> Vec<Case> {
    let mut cases = Vec::new();
    for via in Via::ALL {
        for op in Op::ALL {
            cases.extend(PLACES.map(|place| Case { scope, right, state, via, op, place }));
        }
    }
    cases
}

fn works(case: &Case, holder: &mut Holder, memory: &mut Memory, handle: &RemoteBuffer) {
    let request = memory.request(case.op, case.place);
    let outcome = holder.carry_out(&case.via.name(), handle, &request);
    assert!(outcome.is_done(), "{case:?}: {outcome:?}");
    assert_eq!(outcome.bytes, memory.apply(&request), "{case:?}");
    assert_eq!(memory.difference(), None, "{case:?}");
}

fn is_refused(case: &Case, holder: &mut Holder, memory: &mut Memory, handle: &RemoteBuffer) {
    let request = memory.request(case.op, case.place);
    let outcome = holder.carry_out(&case.via.name(), handle, &request);
    let is_named = |reason: &ErrorKind| outcome.kind == format!("{reason:?}");
    assert!(case.reasons().iter().any(is_named), "{case:?}: {outcome:?}, not one of {:?}", case.reasons());
    assert!(case.op.names().contains(&&*outcome.operation), "{case:?}: {outcome:?}");
    let is_untouched = case.op != Op::Read || outcome.bytes.iter().all(|&byte| byte == POISON);
    assert!(is_untouched, "{case:?}: the destination has changed: {outcome:?}");
    assert_eq!(memory.difference(), None, "{case:?}");
}

/// What cannot be granted is not.
#[test]
fn grants_leave_neither_the_memory_nor_its_alignment() {
    leaving_nothing(|address| async move {
        let worker = quiet_worker();
        let (_client, server) = pair(&worker, &address).await;
        let _listener = listen(&worker, &address).await;
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        exposed.write_at(0, &pattern(1, 0, 4096));
        #[expect(clippy::reversed_empty_ranges, reason = "that is refused")]
        let cases = [
            (0..0, Access::READ, ErrorKind::OutOfBounds),
            (9..8, Access::READ, ErrorKind::OutOfBounds),
            (4089..4097, Access::READ, ErrorKind::OutOfBounds),
            (4096..4104, Access::READ, ErrorKind::OutOfBounds),
            (usize::MAX - 7..usize::MAX, Access::READ, ErrorKind::OutOfBounds),
            (4..64, Access::ATOMIC, ErrorKind::Misaligned),
            (1..64, Access::ALL, ErrorKind::Misaligned),
        ];
        for (range, right, kind) in cases {
            let of_connection = exposed.grant(&server, range.clone(), right).await.map(drop);
            let of_domain = exposed.grant_domain(&server, range.clone(), right).await.map(drop);
            for result in [of_connection, of_domain] {
                let error = result.expect_err(&format!("{range:?} for {right}"));
                assert_eq!((error.kind(), error.operation()), (kind, "grant"), "{range:?} for {right}: {error}");
            }
        }
        // What is beside words can be read and written.
        let grant = exposed.grant(&server, 3..9, Access::READ_WRITE).await.expect("grants");
        assert_eq!(grant.remote_buffer().len(), 6);
        drop(grant);
        exposed.into_buffer().await.expect("gives the memory back");
    });
    assert_eq!((GRANTED.start % 8, GRANTED.start % 16), (0, 8), "at an odd multiple of a word");
}

/// A lease can be over before the key is there: it ends all the same.
#[test]
fn the_shortest_lease_ends() {
    leaving_nothing(|address| async move {
        let worker = quiet_worker();
        let (client, server) = pair(&worker, &address).await;
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        // The service thread looks every 25 ms, and has to come while the key is made.
        for attempt in 0..200 {
            let grant = exposed.grant_leased(&server, 0..8, Access::READ, Duration::ZERO).await.expect("grants");
            let ended = tokio::time::timeout(Duration::from_secs(5), grant.ended()).await;
            let ended = ended.unwrap_or_else(|_| panic!("the lease of grant {attempt} does not end"));
            assert_eq!(ended.expect("ends"), Revocation::Agreed);
        }
        drop(client);
        exposed.into_buffer().await.expect("gives the memory back");
    });
}
