//! The access matrix at the owner's device: a holder that ignores its library's rules uses address and key as it likes,
//! and gets no further.

use std::time::Duration;

use zcmi::{Access, Revocation};

use crate::case::{Case, Op, Place, Scope, State, Via, rights};
use crate::holder::{Holder, POISON};
use crate::owner::{GRANTED, LENGTH, Memory, Owner, leaving_nothing};

/// A plain holder does not agree, so this passes with each revocation.
const REVOKE_TIMEOUT: Duration = Duration::from_millis(10);
const SCOPES: [Scope; 2] = [Scope::Connection, Scope::Domain];

#[test]
fn every_right_allows_its_operations_and_no_other() {
    let mut cases = Vec::new();
    for scope in SCOPES {
        for right in rights() {
            for op in Op::ALL {
                cases.push(Case { scope, right, state: State::Live, via: Via::Grantee, op, place: Place::Middle });
            }
        }
    }
    all(cases);
}

#[test]
fn no_key_opens_bytes_beside_its_range() {
    let places = [
        Place::First,
        Place::Last,
        Place::Before,
        Place::Behind,
        Place::StraddlesStart,
        Place::StraddlesEnd,
        Place::PreviousPage,
        Place::NextPage,
        Place::WholeMemory,
    ];
    let mut cases = Vec::new();
    for scope in SCOPES {
        for op in Op::ALL {
            // Aligned words cannot straddle the start, and atomics have but one.
            let exists =
                |place: &Place| !op.is_atomic() || !matches!(place, Place::StraddlesStart | Place::WholeMemory);
            for place in places.into_iter().filter(exists) {
                cases.push(Case { scope, right: Access::ALL, state: State::Live, via: Via::Grantee, op, place });
            }
        }
    }
    all(cases);
}

#[test]
fn a_windows_key_serves_its_connection_and_a_regions_key_its_domain() {
    let mut cases = Vec::new();
    for scope in SCOPES {
        for via in Via::ALL {
            for op in Op::ALL {
                cases.push(Case { scope, right: Access::ALL, state: State::Live, via, op, place: Place::Middle });
            }
        }
    }
    all(cases);
}

#[test]
fn no_key_outlives_its_grant() {
    let mut cases = Vec::new();
    for scope in SCOPES {
        for &state in State::all(scope) {
            for via in [Via::Grantee, Via::OtherProcess] {
                for op in Op::ALL {
                    cases.push(Case { scope, right: Access::ALL, state, via, op, place: Place::First });
                }
            }
        }
        // With each right alone too, which its operation needs.
        for (right, op) in [(Access::READ, Op::Read), (Access::WRITE, Op::Write), (Access::ATOMIC, Op::FetchAdd)] {
            for &state in State::all(scope) {
                cases.push(Case { scope, right, state, via: Via::Grantee, op, place: Place::First });
            }
        }
    }
    all(cases);
}

/// The neighbours are granted too, and the same bytes with more rights; each key opens what its own grant says.
#[test]
fn grants_side_by_side_keep_their_own_rights() {
    leaving_nothing(|address| async move {
        let owner = Owner::new(&address, REVOKE_TIMEOUT).await;
        let mut near = Holder::start();
        let mut memory = Memory::new();
        let grantee = Via::Grantee.name();
        let beyond = [
            (Op::Write, Place::Middle),
            (Op::CompareSwap, Place::Middle),
            (Op::Read, Place::Before),
            (Op::Read, Place::Behind),
            (Op::Read, Place::StraddlesStart),
            (Op::Read, Place::StraddlesEnd),
        ];
        for (op, place) in beyond {
            let link = near.connect_plainly(&grantee, &owner).await;
            let mut grants = Vec::new();
            let (before, behind) = (0..GRANTED.start, GRANTED.end..LENGTH);
            for (range, right) in
                [(GRANTED, Access::READ), (GRANTED, Access::ALL), (before, Access::ALL), (behind, Access::READ_WRITE)]
            {
                grants.push(memory.exposed.grant(&link.connection, range, right).await.expect("grants"));
            }
            for (grant, op) in grants.iter().zip([Op::Read, Op::FetchAdd]) {
                let request = memory.request(op, Place::Middle);
                let outcome = near.carry_out(&grantee, &grant.remote_buffer(), &request);
                assert!(outcome.is_done(), "{op:?} by the key that allows it: {outcome:?}");
                assert_eq!(outcome.bytes, memory.apply(&request), "{op:?} by the key that allows it");
            }
            let request = memory.request(op, place);
            let outcome = near.carry_out(&grantee, &grants[0].remote_buffer(), &request);
            assert_eq!(outcome.kind, "RemoteAccess", "{op:?} {place:?}: {outcome:?}");
            assert_eq!(memory.difference(), None, "{op:?} {place:?}");
            near.drop_connection(&grantee);
        }
        memory.exposed.into_buffer().await.expect("gives the memory back");
        near.finish();
    });
}

/// Carries all cases out and reports those that are not as they must be.
fn all(cases: Vec<Case>) {
    leaving_nothing(|address| async move {
        let owner = Owner::new(&address, REVOKE_TIMEOUT).await;
        let (mut near, mut far) = (Holder::start(), Holder::start());
        let elsewhere = far.serve();
        let mut memory = Memory::new();
        let (mut wrong, mut done) = (Vec::new(), 0);
        for case in &cases {
            let check = check(case, &owner, &mut near, &mut far, &elsewhere, &mut memory);
            let checked = tokio::time::timeout(Duration::from_secs(10), check).await;
            if let Err(reason) = checked.unwrap_or_else(|_| Err("it hangs".to_owned())) {
                wrong.push(format!("{case:?}: {reason}"));
                memory.accept_as_it_is();
            }
            done += usize::from(case.reasons().is_empty());
        }
        assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        println!("{done} done, {} refused", cases.len() - done);
        memory.exposed.into_buffer().await.expect("gives the memory back");
        near.finish();
        far.finish();
    });
}

/// Carries a case out on connections of its own, for a refusal breaks one.
async fn check(
    case: &Case,
    owner: &Owner,
    near: &mut Holder,
    far: &mut Holder,
    elsewhere: &str,
    memory: &mut Memory,
) -> Result<(), String> {
    let (grantee, user) = (Via::Grantee.name(), case.via.name());
    let link = near.connect_plainly(&grantee, owner).await;
    let users_link = match case.via {
        Via::Grantee => None,
        Via::OtherOwner => {
            near.connect_to("plain", &user, elsewhere);
            None
        }
        Via::OtherProcess => Some(far.connect_plainly(&user, owner).await),
        Via::SameProcess => Some(near.connect_plainly(&user, owner).await),
    };
    let (handle, living) = memory.grant(&link, (case.scope, case.right, case.state), Revocation::Forced).await?;
    if let Some(grant) = living.as_ref().filter(|_| case.state == State::Reused) {
        // Who has the slot or the window now, can use it.
        let request = memory.request(Op::FetchAdd, Place::Middle);
        if case.right.contains(Access::ATOMIC) {
            let outcome = near.carry_out(&grantee, &grant.remote_buffer(), &request);
            let expected = memory.apply(&request);
            ensure(outcome.is_done() && outcome.bytes == expected, || format!("the new grant: {outcome:?}"))?;
        }
    }
    let request = memory.request(case.op, case.place);
    let holder = case.via.of(near, far);
    let outcome = holder.carry_out(&user, &handle, &request);
    let is_allowed = case.reasons().is_empty();
    if is_allowed {
        let expected = memory.apply(&request);
        ensure(outcome.is_done() && outcome.bytes == expected, || format!("{outcome:?}, not {expected:02x?}"))?;
    } else {
        ensure(outcome.kind == "RemoteAccess", || format!("{outcome:?}"))?;
        let is_untouched = case.op == Op::Write || outcome.bytes.iter().all(|&byte| byte == POISON);
        // An answer of one packet comes or does not; of a longer one, the destination's contents are undefined.
        let can_be_undefined = request.length > 256 && !memory.is_in(&outcome.bytes);
        ensure(is_untouched || can_be_undefined, || format!("the destination has changed: {outcome:?}"))?;
    }
    ensure(memory.difference().is_none(), || memory.difference().unwrap_or_default())?;
    // What was refused has broken its own connection and no other.
    ensure(holder.is_alive(&user) == is_allowed, || format!("its connection is alive: {}", !is_allowed))?;
    if case.via != Via::Grantee {
        ensure(near.is_alive(&grantee), || "the grantee's connection is lost".to_owned())?;
        near.drop_connection(&grantee);
    }
    let owners_end = if case.via == Via::Grantee { Some(&link) } else { users_link.as_ref() };
    if let Some(link) = owners_end.filter(|_| !is_allowed) {
        let told = tokio::time::timeout(Duration::from_secs(5), link.connection.recv()).await;
        ensure(matches!(told, Ok(Err(_))), || format!("the owner's end: {told:?}"))?;
    }
    case.via.of(near, far).drop_connection(&user);
    drop(living);
    Ok(())
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
