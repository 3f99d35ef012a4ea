//! What is known of memory that a peer may access.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::{Rc, Weak};

use crate::world::random;
use zcmi::{Access, Buffer, Error, ErrorKind, ExposedBuffer, Failed, Grant, Revocation};

use crate::session::{Actor, Handle};

/// The bytes of a grant, as far as both ends know.
pub(crate) struct Model {
    pub(crate) access: Access,
    bytes: RefCell<Vec<Option<u8>>>,
    /// The grant has ended: nothing that is there is the holder's.
    has_ended: Cell<bool>,
    /// Where the bytes are, if a holder may look.
    owner: RefCell<Weak<ExposedBuffer>>,
}

impl Model {
    pub(crate) fn new(access: Access, bytes: &[u8]) -> Rc<Self> {
        let bytes = RefCell::new(bytes.iter().copied().map(Some).collect());
        Rc::new(Self { access, bytes, has_ended: Cell::new(false), owner: RefCell::default() })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    pub(crate) fn end(&self) {
        self.has_ended.set(true);
    }

    /// This is what is known of all of it.
    pub(crate) fn replace(&self, known: Vec<Option<u8>>) {
        *self.bytes.borrow_mut() = known;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Lets holders see what is in `exposed`, of which all is granted.
    pub(crate) fn show(&self, exposed: &Rc<ExposedBuffer>) {
        *self.owner.borrow_mut() = Rc::downgrade(exposed);
    }

    /// What the owner has there now, if the grant lives and that can be seen.
    pub(crate) fn seen_by_owner(&self, range: Range<usize>) -> Option<Vec<u8>> {
        let exposed = self.owner.borrow().upgrade().filter(|_| !self.has_ended())?;
        let mut found = vec![0; range.len()];
        exposed.read_at(range.start, &mut found);
        Some(found)
    }

    /// Nobody knows what is there.
    pub(crate) fn forget(&self, range: Range<usize>) {
        self.bytes.borrow_mut()[range].fill(None);
    }

    pub(crate) fn set(&self, offset: usize, bytes: &[u8]) {
        for (place, byte) in self.bytes.borrow_mut()[offset..].iter_mut().zip(bytes) {
            *place = Some(*byte);
        }
    }

    /// The word at `offset`, if all of it is known.
    pub(crate) fn word(&self, offset: usize) -> Option<u64> {
        let bytes = self.bytes.borrow();
        let known: Option<Vec<u8>> = bytes[offset..offset + 8].iter().copied().collect();
        Some(u64::from_ne_bytes(known?.try_into().ok()?))
    }

    /// What is known of a range now.
    pub(crate) fn known(&self, range: Range<usize>) -> Vec<Option<u8>> {
        self.bytes.borrow()[range].to_vec()
    }

    /// `found` was there.
    pub(crate) fn check(&self, what: &str, offset: usize, found: &[u8]) {
        check_known(&self.bytes.borrow()[offset..], what, offset, found);
    }
}

/// `found` is what was `known` of the bytes from `offset` on.
pub(crate) fn check_known(known: &[Option<u8>], what: &str, offset: usize, found: &[u8]) {
    for (at, (known, found)) in known.iter().zip(found).enumerate() {
        assert!(known.is_none_or(|known| known == *found), "{what}: byte {} is another", offset + at);
    }
}

/// A range within `length` bytes; not empty.
pub(crate) fn some_range(length: usize) -> Range<usize> {
    let start = random(length as u64) as usize;
    start..start + 1 + random((length - start) as u64) as usize
}

/// Takes a handle that allows `access` and is not in use.
pub(crate) fn take_handle(actor: &Actor, access: Access) -> Option<Handle> {
    let mut handles = actor.handles.borrow_mut();
    handles.retain(|handle| !handle.model.has_ended() || random(3) > 0);
    let fit: Vec<_> = (0..handles.len()).filter(|&at| handles[at].model.access.contains(access)).collect();
    let chosen = *fit.get(random(fit.len().max(1) as u64) as usize)?;
    Some(handles.swap_remove(chosen))
}

/// Gives it back, for others.
pub(crate) fn put_back(actor: &Actor, handle: Handle) {
    actor.handles.borrow_mut().push(handle);
}

/// An operation on a handle has failed. The memory comes back with every failure.
pub(crate) fn failed<B: std::fmt::Debug>(actor: &Actor, what: &str, model: &Model, failed: &Failed<B>) {
    assert!(failed.buffer.is_some(), "{what} has kept its memory: {}", failed.error);
    failed_atomic(actor, what, model, &failed.error);
}

/// The same without memory.
pub(crate) fn failed_atomic(actor: &Actor, what: &str, model: &Model, error: &Error) {
    if error.kind() == ErrorKind::Revoked {
        actor.session.ledger.count("revoked");
        return;
    }
    // A key that is gone for certain breaks the connection.
    assert!(
        error.kind() != ErrorKind::RemoteAccess
            || model.has_ended()
            || actor.session.forced.get()
            // One who was stopped, or is another process, may not have heard yet that it was forced.
            || actor.session.is_faulty
            || actor.session.far.is_some(),
        "{what}: {error}"
    );
    actor.failed(what, error);
}

/// Memory that is about to be granted, with known bytes in it.
pub(crate) fn expose() -> Option<(ExposedBuffer, Vec<u8>)> {
    let length = (64 + random(2_000) as usize).next_multiple_of(8);
    let mut buffer = Buffer::allocate(length).ok()?;
    let fill = random(256) as u8;
    buffer.iter_mut().enumerate().for_each(|(at, byte)| *byte = fill.wrapping_add(at as u8));
    let bytes = buffer.to_vec();
    Some((buffer.expose(), bytes))
}

/// A grant has ended: the owner finds what the holder has left, and from now on nobody changes it.
pub(crate) async fn check_end(
    actor: &Actor,
    model: &Rc<Model>,
    exposed: &ExposedBuffer,
    start: usize,
    how: Revocation,
) {
    if how == Revocation::Forced {
        actor.session.force();
    }
    model.end();
    actor.session.learn(model).await;
    let mut found = vec![0; model.len()];
    exposed.read_at(start, &mut found);
    model.check("after the grant", 0, &found);
}

/// Takes a grant back in one of several ways.
pub(crate) async fn revoke(actor: &Actor, grant: Grant) -> Option<Revocation> {
    let begun = actor.session.ledger.begin("revoke");
    let is_hasty = random(4) == 0;
    let result = if is_hasty {
        // The holder may be too slow.
        let patience = std::time::Duration::from_micros(random(3_000));
        actor.session.force();
        grant.revoke_within(patience).await
    } else {
        grant.revoke().await
    };
    begun.end();
    match result {
        Ok(how) => {
            let must_agree =
                !is_hasty && !actor.session.is_faulty && !actor.session.aborts && !actor.session.forced.get();
            assert!(!must_agree || how == Revocation::Agreed, "the holder lives and has not agreed: {how:?}");
            actor.session.ledger.count(match how {
                Revocation::Agreed => "agreed",
                Revocation::ConnectionLost => "connection lost",
                Revocation::Forced => "forced",
            });
            Some(how)
        }
        Err(error) => {
            actor.failed("revoke", &error);
            None
        }
    }
}
