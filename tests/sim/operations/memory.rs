//! What is known of memory that a peer may access.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::{Rc, Weak};

use crate::world::random;
use zcmi::{Access, Buffer, Error, ErrorKind, ExposedBuffer, Failed, Grant, Revocation};

use crate::pattern;
use crate::session::{Actor, Handle};

/// The bytes of a grant, as far as both ends know.
pub(crate) struct Model {
    pub(crate) access: Access,
    bytes: RefCell<Known>,
    /// The grant has ended: nothing that is there is the holder's.
    has_ended: Cell<bool>,
    /// Where the bytes are, if a holder may look.
    owner: RefCell<Weak<ExposedBuffer>>,
}

/// Bytes, and which of them are known.
pub(crate) struct Known {
    bytes: Vec<u8>,
    is_known: Vec<bool>,
}

impl Known {
    /// `found` was there from `offset` on.
    pub(crate) fn check(&self, what: &str, offset: usize, found: &[u8]) {
        let (bytes, is_known) = (&self.bytes[offset..], &self.is_known[offset..][..found.len()]);
        if bytes[..found.len()] == *found {
            return;
        }
        let differs = |at: &usize| is_known[*at] && bytes[*at] != found[*at];
        if let Some(at) = (0..found.len()).find(differs) {
            panic!("{what}: byte {} is {:#x} and not {:#x}", offset + at, found[at], bytes[at]);
        }
    }
}

impl Model {
    pub(crate) fn new(access: Access, bytes: &[u8]) -> Rc<Self> {
        let bytes = RefCell::new(Known { bytes: bytes.to_vec(), is_known: vec![true; bytes.len()] });
        Rc::new(Self { access, bytes, has_ended: Cell::new(false), owner: RefCell::default() })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.borrow().bytes.len()
    }

    pub(crate) fn end(&self) {
        self.has_ended.set(true);
    }

    /// What is known of each byte, for the other process.
    pub(crate) fn all_known(&self) -> Vec<Option<u8>> {
        let Known { bytes, is_known } = &*self.bytes.borrow();
        bytes.iter().zip(is_known).map(|(byte, is_known)| is_known.then_some(*byte)).collect()
    }

    /// This is what is known of all of it.
    pub(crate) fn replace(&self, known: &[Option<u8>]) {
        let is_known = known.iter().map(Option::is_some).collect();
        *self.bytes.borrow_mut() = Known { bytes: known.iter().map(|byte| byte.unwrap_or(0)).collect(), is_known };
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
        self.bytes.borrow_mut().is_known[range].fill(false);
    }

    pub(crate) fn set(&self, offset: usize, bytes: &[u8]) {
        let known = &mut *self.bytes.borrow_mut();
        known.bytes[offset..][..bytes.len()].copy_from_slice(bytes);
        known.is_known[offset..][..bytes.len()].fill(true);
    }

    /// The word at `offset`, if all of it is known.
    pub(crate) fn word(&self, offset: usize) -> Option<u64> {
        let Known { bytes, is_known } = self.known(offset..offset + 8);
        is_known.iter().all(|is_known| *is_known).then(|| u64::from_ne_bytes(bytes.try_into().expect("eight")))
    }

    /// What is known of a range now.
    pub(crate) fn known(&self, range: Range<usize>) -> Known {
        let known = self.bytes.borrow();
        Known { bytes: known.bytes[range.clone()].to_vec(), is_known: known.is_known[range].to_vec() }
    }

    /// `found` was there.
    pub(crate) fn check(&self, what: &str, offset: usize, found: &[u8]) {
        self.bytes.borrow().check(what, offset, found);
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
pub(crate) fn expose(actor: &Actor) -> Option<(ExposedBuffer, Vec<u8>)> {
    let mut buffer = Buffer::allocate(actor.session.sizes.memory()).ok()?;
    pattern::fill(random(u64::MAX), 0, &mut buffer);
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
            // That it was forced may be under way from another process, which is asked in the end.
            let is_excused = how == Revocation::ConnectionLost && actor.session.far.is_some();
            assert!(
                !must_agree || is_excused || how == Revocation::Agreed,
                "the holder lives and has not agreed: {how:?}"
            );
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
