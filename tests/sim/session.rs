//! A conversation of two ends: what both are about to do, and what a test knows of it that no end does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;
use zcmi::{Error, ErrorKind};

pub(crate) use crate::actor::{Actor, Handle};
use crate::bulk;
use crate::far::{Fact, Far};
use crate::ledger::Ledger;
use crate::operations::Model;
use crate::sizes::Sizes;
use crate::world::random;

/// What both ends of a connection have in common.
pub(crate) struct Session {
    pub(crate) id: u64,
    /// Whether anything may go wrong.
    pub(crate) is_faulty: bool,
    pub(crate) sizes: Sizes,
    pub(crate) ledger: Rc<Ledger>,
    /// A grant was taken back without its holder's consent: the connection may break of it.
    pub(crate) forced: Cell<bool>,
    pub(crate) sides: [Side; 2],
    pub(crate) models: RefCell<BTreeMap<u64, Rc<Model>>>,
    pub(crate) next_model: Cell<u64>,
    pub(crate) changed: Notify,
    /// Notifications on their way, by value.
    pub(crate) notices: RefCell<BTreeMap<u32, Notice>>,
    pub(crate) next_notice: Cell<u32>,
    /// Which side ends the connection, and how.
    pub(crate) ender: usize,
    pub(crate) closes: bool,
    pub(crate) aborts: bool,
    /// The other end's process, if that is another.
    pub(crate) far: Option<Far>,
}

#[derive(Default)]
pub(crate) struct Side {
    /// Messages whose sending has ended well, and those that came.
    pub(crate) sent: Cell<u64>,
    pub(crate) received: Cell<u64>,
    /// Messages that failed to be sent and may have come all the same: long ones are the receiver's to fetch.
    pub(crate) doubtful: Cell<u64>,
    pub(crate) bulk: bulk::Ledger,
    /// Long messages whose sending was given up: those that were offered are received all the same.
    pub(crate) given_up: Cell<u64>,
    pub(crate) is_done: Cell<bool>,
    pub(crate) is_gone: Cell<bool>,
}

/// What a notification is about.
pub(crate) struct Notice {
    /// Who sends it.
    pub(crate) side: usize,
    pub(crate) model: Rc<Model>,
    pub(crate) offset: usize,
    pub(crate) bytes: Vec<u8>,
    /// The write has ended well.
    pub(crate) is_written: bool,
    /// It has failed, and nobody knows what it did.
    pub(crate) is_doubtful: bool,
}

/// Messages that are sent one after the other.
pub(crate) struct Lane {
    pub(crate) number: u8,
    pub(crate) next: u64,
    pub(crate) next_bulk: u64,
}

impl Lane {
    /// The channel of its own.
    pub(crate) fn bulk_channel(&self) -> u32 {
        100 + u32::from(self.number)
    }

    pub(crate) fn next_bulk(&mut self) -> u64 {
        self.next_bulk += 1;
        self.next_bulk
    }
}

impl Session {
    pub(crate) fn new(id: u64, is_faulty: bool, sizes: Sizes, ledger: &Rc<Ledger>) -> Rc<Self> {
        Rc::new(Self {
            id,
            is_faulty,
            sizes,
            ledger: Rc::clone(ledger),
            forced: Cell::new(false),
            sides: Default::default(),
            models: RefCell::default(),
            next_model: Cell::new(0),
            changed: Notify::new(),
            notices: RefCell::default(),
            next_notice: Cell::new(0),
            ender: random(2) as usize,
            closes: random(2) == 0,
            aborts: random(5) == 0,
            far: None,
        })
    }

    /// Of an end whose other end is in another process; all that both must agree about is in `id`.
    pub(crate) fn with_far(id: u64, side: usize, ledger: &Rc<Ledger>, far: Far) -> Rc<Self> {
        let session = Self::new(id, false, Sizes::Moderate, ledger);
        let mut session = Rc::into_inner(session).expect("it is new");
        session.next_model.set((side as u64) << 32);
        session.next_notice.set((side as u32) << 31);
        (session.ender, session.closes, session.aborts) = ((id & 1) as usize, id & 2 > 0, id.is_multiple_of(5));
        session.far = Some(far);
        Rc::new(session)
    }

    pub(crate) fn add_model(&self, model: Rc<Model>) -> u64 {
        let number = self.next_model.replace(self.next_model.get() + 1);
        self.tell_model(number, &model);
        self.models.borrow_mut().insert(number, model);
        number
    }

    pub(crate) fn force(&self) {
        self.tell(Fact::Forced);
        self.forced.set(true);
    }

    pub(crate) fn add_notice(&self, side: usize, value: u32, model: Rc<Model>, offset: usize, bytes: Vec<u8>) {
        let notice = Notice { side, model, offset, bytes, is_written: false, is_doubtful: false };
        self.notices.borrow_mut().insert(value, notice);
    }

    pub(crate) fn notice(&self, value: u32, change: impl FnOnce(&mut Notice)) {
        if let Some(notice) = self.notices.borrow_mut().get_mut(&value) {
            change(notice);
        }
    }

    /// What its bytes are made from.
    pub(crate) fn stream(&self, side: usize, lane: u8) -> u64 {
        self.id << 16 | (side as u64) << 8 | u64::from(lane)
    }

    /// An error that a caller has got: whether it is one that can come.
    pub(crate) fn tolerate(&self, what: &str, error: &Error) {
        self.ledger.error(error.kind());
        if let Some(far) = self.far.as_ref().filter(|_| error.kind() != ErrorKind::Closed) {
            use ErrorKind::{ConnectionBroken, PeerClosed, RemoteAccess, Unreachable, Unresponsive};
            let kinds = [ConnectionBroken, PeerClosed, RemoteAccess, Unreachable, Unresponsive];
            assert!(kinds.contains(&error.kind()), "{what} of session {} failed: {error}", self.id);
            // Whether it may is told by what both know in the end.
            far.broken.borrow_mut().get_or_insert(format!("{what}: {error}"));
            return;
        }
        let may_come = match error.kind() {
            ErrorKind::RemoteAccess => self.forced.get() || self.is_faulty,
            ErrorKind::ConnectionBroken
            | ErrorKind::ConnectionRefused
            | ErrorKind::MemoryLimit
            | ErrorKind::Protocol
            | ErrorKind::Rejected
            | ErrorKind::ResourceExhausted
            | ErrorKind::TimedOut
            | ErrorKind::Unreachable
            | ErrorKind::Unresponsive => self.is_faulty || self.forced.get(),
            ErrorKind::Closed | ErrorKind::PeerClosed => self.aborts || self.is_faulty,
            _ => false,
        };
        assert!(may_come, "{what} of session {} failed: {error}", self.id);
    }
}
