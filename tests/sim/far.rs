//! What two ends must know of each other where they are two processes. In a simulation they share it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use zcmi::Access;

use crate::bulk::Fate;
use crate::operations::Model;
use crate::session::Session;

/// Something that the other process is told, beside the connection that is tested.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Fact {
    /// What is known of a grant's bytes, which was asked for.
    Answer { model: u64, known: Vec<Option<u8>> },
    /// What is known of a grant's bytes? It has ended.
    Ask { model: u64 },
    /// All that the end was to do is done.
    Done,
    /// A write that was to notify has failed.
    Doubtful { value: u32 },
    /// A grant may be taken back without its holder's consent.
    Forced,
    /// A notification was heard of.
    Heard { value: u32 },
    /// A grant is made whose handle will come.
    Model { model: u64, access: usize, bytes: Vec<u8> },
    /// A write that notifies begins.
    Notice { value: u32, model: u64, offset: usize, bytes: Vec<u8> },
    /// The connection has ended.
    Summary(Summary),
    /// A write that notifies has ended well.
    Written { value: u32 },
}

/// What an end knows when the connection has ended.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Summary {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Messages that failed, or were given up, and may have come all the same.
    pub(crate) doubtful: u64,
    /// By channel and number.
    pub(crate) bulk_sent: BTreeMap<u32, BTreeMap<u64, Fate>>,
    pub(crate) bulk_received: BTreeMap<u32, BTreeMap<u64, Fate>>,
    pub(crate) is_ender: bool,
    /// Whether a grant may have been taken back by force, and whether the connection broke.
    pub(crate) forced: bool,
    pub(crate) broken: Option<String>,
}

/// The other process.
pub(crate) struct Far {
    tell: Box<dyn Fn(Fact)>,
    /// Grants of either side that both know of.
    models: RefCell<BTreeMap<u64, Rc<Model>>>,
    answers: RefCell<BTreeMap<u64, Vec<Option<u8>>>>,
    pub(crate) broken: RefCell<Option<String>>,
    summary: RefCell<Option<Summary>>,
    /// Whether both have said how it ended.
    has_heard: Cell<bool>,
    has_told: Cell<bool>,
    is_gone: Cell<bool>,
}

/// What a grant may be of; told by its place.
const ACCESS: [Access; 3] = [Access::READ, Access::READ_WRITE, Access::ALL];

impl Far {
    pub(crate) fn new(tell: impl Fn(Fact) + 'static) -> Self {
        Self {
            tell: Box::new(tell),
            models: RefCell::default(),
            answers: RefCell::default(),
            broken: RefCell::default(),
            summary: RefCell::default(),
            has_heard: Cell::new(false),
            has_told: Cell::new(false),
            is_gone: Cell::new(false),
        }
    }
}

impl Session {
    /// Tells the other process, if there is one.
    pub(crate) fn tell(&self, fact: Fact) {
        if let Some(far) = &self.far {
            far.has_told.set(far.has_told.get() || matches!(fact, Fact::Summary(_)));
            (far.tell)(fact);
        }
    }

    /// Whether both have said how it ended: what the other process says from here on is of the next connection.
    pub(crate) fn is_settled(&self) -> bool {
        self.far.as_ref().is_some_and(|far| far.has_heard.get() && far.has_told.get())
    }

    /// A grant is made that both ends are to know of.
    pub(crate) fn tell_model(&self, number: u64, model: &Rc<Model>) {
        let Some(far) = &self.far else { return };
        far.models.borrow_mut().insert(number, Rc::clone(model));
        let access = ACCESS.iter().position(|access| *access == model.access).expect("one of these");
        let bytes = model.all_known().into_iter().map(|byte| byte.expect("it is new")).collect();
        self.tell(Fact::Model { model: number, access, bytes });
    }

    /// The number of a model that both know.
    pub(crate) fn number_of(&self, model: &Rc<Model>) -> Option<u64> {
        let models = self.far.as_ref()?.models.borrow();
        models.iter().find(|(_, known)| Rc::ptr_eq(known, model)).map(|(at, _)| *at)
    }

    /// Has the other process say what it has left in a grant that has ended.
    pub(crate) async fn learn(&self, model: &Rc<Model>) {
        let Some(far) = &self.far else { return };
        // The other has not heard of one whose handle could not be sent.
        let Some(number) = self.number_of(model) else { return };
        self.tell(Fact::Ask { model: number });
        while !far.is_gone.get() {
            let changed = self.changed.notified();
            if let Some(known) = far.answers.borrow_mut().remove(&number) {
                return model.replace(&known);
            }
            changed.await;
        }
        model.forget(0..model.len());
    }

    /// Waits until the other process has told of a grant.
    pub(crate) async fn model_of_peer(&self, number: u64) -> Option<Rc<Model>> {
        let far = self.far.as_ref()?;
        loop {
            let changed = self.changed.notified();
            if let Some(model) = far.models.borrow().get(&number) {
                return Some(Rc::clone(model));
            }
            if far.is_gone.get() {
                return None;
            }
            changed.await;
        }
    }

    /// Waits until the other process has told of a notification.
    pub(crate) async fn notice_is_known(&self, value: u32) {
        let Some(far) = &self.far else { return };
        loop {
            let changed = self.changed.notified();
            if self.notices.borrow().contains_key(&value) || far.is_gone.get() {
                return;
            }
            changed.await;
        }
    }

    /// What the other process knows when the connection has ended.
    pub(crate) async fn summary_of_peer(&self) -> Option<Summary> {
        let far = self.far.as_ref()?;
        loop {
            let changed = self.changed.notified();
            if let Some(summary) = far.summary.borrow_mut().take() {
                return Some(summary);
            }
            if far.is_gone.get() {
                return None;
            }
            changed.await;
        }
    }

    /// The other process tells no more.
    pub(crate) fn peer_is_gone(&self) {
        if let Some(far) = &self.far {
            far.is_gone.set(true);
        }
        self.changed.notify_waiters();
    }

    /// The other process, which has this `side`, tells something.
    pub(crate) fn hear(&self, side: usize, fact: Fact) {
        let Some(far) = &self.far else { return };
        match fact {
            Fact::Answer { model, known } => drop(far.answers.borrow_mut().insert(model, known)),
            Fact::Ask { model } => {
                let known = far.models.borrow().get(&model).map(|held| {
                    held.end();
                    held.all_known()
                });
                self.tell(Fact::Answer { model, known: known.expect("it was told of it") });
            }
            Fact::Done => self.sides[side].is_done.set(true),
            Fact::Doubtful { value } => self.notice(value, |notice| notice.is_doubtful = true),
            Fact::Forced => self.forced.set(true),
            Fact::Heard { value } => drop(self.notices.borrow_mut().remove(&value)),
            Fact::Model { model, access, bytes } => {
                drop(far.models.borrow_mut().insert(model, Model::new(ACCESS[access], &bytes)));
            }
            Fact::Notice { value, model, offset, bytes } => {
                let model = Rc::clone(&far.models.borrow()[&model]);
                self.add_notice(side, value, model, offset, bytes);
            }
            Fact::Summary(summary) => {
                far.has_heard.set(true);
                *far.summary.borrow_mut() = Some(summary);
            }
            Fact::Written { value } => self.notice(value, |notice| notice.is_written = true),
        }
        self.changed.notify_waiters();
    }

    /// Whether what both ends know fits together; answers how the connection ended, if it broke. Who ends it may leave messages
    /// of the other behind.
    pub(crate) fn agree(ours: &Summary, theirs: &Summary, is_orderly: bool) -> Option<String> {
        let broken = ours.broken.clone().or(theirs.broken.clone());
        let is_forced = ours.forced || theirs.forced;
        assert!(broken.is_none() || is_forced || !is_orderly, "it broke for no reason: {broken:?}");
        for (from, to) in [(ours, theirs), (theirs, ours)] {
            assert!(to.received <= from.sent + from.doubtful, "{} came, {} were sent", to.received, from.sent);
            let is_whole = broken.is_none() && is_orderly && !to.is_ender;
            if is_whole {
                assert!(to.received >= from.sent, "{} came, {} were sent", to.received, from.sent);
            }
            for (channel, messages) in &from.bulk_sent {
                let nothing = BTreeMap::new();
                let came = to.bulk_received.get(channel).unwrap_or(&nothing);
                for (number, fate) in messages {
                    let has_come = came.contains_key(number);
                    assert!(!has_come || *fate != Fate::NotSent, "{number} on {channel} was not sent, and came");
                    let is_lost = *fate == Fate::Sent && !has_come && is_whole;
                    assert!(!is_lost, "message {number} on {channel} was sent, and has not come");
                }
                assert!(came.keys().all(|number| messages.contains_key(number)), "a message that nobody sent came");
            }
        }
        broken
    }
}
