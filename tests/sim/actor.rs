//! One end of a conversation: what it does, and what it checks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use zcmi::{Connection, Error, ErrorKind, Message, RemoteBuffer};

use crate::bulk;
use crate::far::{Fact, Summary};
use crate::operations::{self, Model};
use crate::pattern;
use crate::session::{Lane, Session, Side};
use crate::world::{Task, random, sleep, spawn};

/// Kinds of messages.
const DATA: u8 = 1;
const HANDLE: u8 = 2;
/// Bytes before the body: kind, lane, length, number.
const HEAD: usize = 16;
/// Of messages on channel 0. Longer ones have channels of their own.
const MOST_BODY: usize = 8_192;

/// Lanes of an end, at most.
const MOST_LANES: u8 = 3;

/// One end.
pub(crate) struct Actor {
    pub(crate) connection: Connection,
    pub(crate) session: Rc<Session>,
    side: usize,
    /// Handles that came and nobody uses.
    pub(crate) handles: RefCell<Vec<Handle>>,
    is_over: Cell<bool>,
    over: Notify,
    stop: Notify,
    stopped: Cell<bool>,
}

pub(crate) struct Handle {
    pub(crate) remote: RemoteBuffer,
    pub(crate) model: Rc<Model>,
}

impl Actor {
    pub(crate) fn new(connection: Connection, session: &Rc<Session>, side: usize) -> Rc<Self> {
        Rc::new(Self {
            connection,
            session: Rc::clone(session),
            side,
            handles: RefCell::default(),
            is_over: Cell::new(false),
            over: Notify::new(),
            stop: Notify::new(),
            stopped: Cell::new(false),
        })
    }

    pub(crate) fn side(&self) -> usize {
        self.side
    }

    pub(crate) fn bulk_of(&self, side: usize) -> &bulk::Ledger {
        &self.session.sides[side].bulk
    }

    pub(crate) fn bulk_stream(&self, side: usize, channel: u32) -> u64 {
        self.session.stream(side, channel as u8)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Until the end is to stop.
    pub(crate) async fn stopping(&self) {
        self.stop.notified().await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// An operation has failed.
    pub(crate) fn failed(&self, what: &str, error: &Error) {
        self.session.tolerate(what, error);
        let ends = matches!(
            error.kind(),
            ErrorKind::Closed
                | ErrorKind::ConnectionBroken
                | ErrorKind::PeerClosed
                | ErrorKind::Protocol
                | ErrorKind::RemoteAccess
                | ErrorKind::Unreachable
                | ErrorKind::Unresponsive
        );
        if ends {
            self.end();
        }
    }

    fn end(&self) {
        self.is_over.set(true);
        self.mine().is_gone.set(true);
        self.over.notify_waiters();
        self.session.changed.notify_waiters();
    }

    /// Where it stands, if it does not go on.
    pub(crate) fn standing(&self) -> String {
        let is_done = [&self.session.sides[0], &self.session.sides[1]].map(|side| side.is_done.get());
        let (is_over, is_stopped) = (self.is_over(), self.is_stopped());
        format!("done {is_done:?}, over {is_over}, stopped {is_stopped}, open {:?}", self.session.ledger.open())
    }

    /// What this end knows when the connection has ended.
    pub(crate) fn summary(&self) -> Summary {
        let (mine, theirs) = (self.mine(), self.theirs());
        Summary {
            sent: mine.sent.get(),
            received: mine.received.get(),
            doubtful: mine.doubtful.get() + mine.given_up.get(),
            bulk_sent: mine.bulk.borrow().clone(),
            bulk_received: theirs.bulk.borrow().clone(),
            is_ender: self.session.ender == self.side,
            forced: self.session.forced.get(),
            broken: self.session.far.as_ref().and_then(|far| far.broken.borrow().clone()),
        }
    }

    fn mine(&self) -> &Side {
        &self.session.sides[self.side]
    }

    fn theirs(&self) -> &Side {
        &self.session.sides[1 - self.side]
    }

    /// Sends a message of so many bytes behind its head.
    pub(crate) async fn send(&self, lane: &mut Lane, length: usize) {
        let body = vec![0; length.min(self.connection.max_message_size() - HEAD).min(MOST_BODY)];
        self.send_body(lane, DATA, body).await;
    }

    /// Sends a handle of what `model` describes.
    pub(crate) async fn send_handle(&self, lane: &mut Lane, remote: &RemoteBuffer, model: &Rc<Model>) {
        let number = self.session.add_model(Rc::clone(model));
        let mut body = remote.to_bytes().to_vec();
        body.extend(number.to_le_bytes());
        self.send_body(lane, HANDLE, body).await;
    }

    /// Sends a message of no bytes.
    pub(crate) async fn send_nothing(&self) {
        let begun = self.session.ledger.begin("send nothing");
        match self.connection.send(&[]).await {
            Ok(()) => self.mine().sent.set(self.mine().sent.get() + 1),
            Err(error) => self.failed("send", &error),
        }
        begun.end();
    }

    async fn send_body(&self, lane: &mut Lane, kind: u8, body: Vec<u8>) {
        let message = self.message(lane, kind, body);
        let begun = self.session.ledger.begin("send");
        let is_long = message.len() > self.connection.max_short_message_size();
        let given_up = &self.mine().given_up;
        // Taken back when it ends.
        given_up.set(given_up.get() + u64::from(is_long));
        let sent = self.connection.send(&message).await;
        given_up.set(given_up.get() - u64::from(is_long));
        match sent {
            Ok(()) => self.was_sent(lane),
            Err(error) => {
                if message.len() > self.connection.max_short_message_size() {
                    self.mine().doubtful.set(self.mine().doubtful.get() + 1);
                }
                self.failed("send", &error);
            }
        }
        begun.end();
    }

    /// A message of this lane as it would be sent next. Of data, the body is put in.
    pub(crate) fn message(&self, lane: &Lane, kind: u8, body: Vec<u8>) -> Vec<u8> {
        let mut message = vec![kind, lane.number, 0, 0];
        message.extend((body.len() as u32).to_le_bytes());
        message.extend(lane.next.to_le_bytes());
        message.extend(body);
        if kind == DATA {
            pattern::fill(self.session.stream(self.side, lane.number), lane.next, &mut message[HEAD..]);
        }
        message
    }

    pub(crate) fn data(&self, lane: &Lane, length: usize) -> Vec<u8> {
        self.message(lane, DATA, vec![0; length.min(self.connection.max_message_size() - HEAD).min(MOST_BODY)])
    }

    pub(crate) fn was_sent(&self, lane: &mut Lane) {
        lane.next += 1;
        self.mine().sent.set(self.mine().sent.get() + 1);
    }

    /// Receives until the connection ends, or the end is to stop.
    async fn receive_all(self: Rc<Self>) {
        let mut next = BTreeMap::<u8, u64>::new();
        while !self.stopped.get() {
            let begun = self.session.ledger.begin("receive");
            let received = tokio::select! {
                biased;
                () = self.stop.notified() => return,
                received = self.connection.recv() => received,
            };
            begun.end();
            match received {
                Ok(message) => {
                    self.mine().received.set(self.mine().received.get() + 1);
                    self.check(&message, &mut next).await;
                    // Some are kept for a while, and their receives with them.
                    if random(4) == 0 {
                        spawn(async move {
                            sleep(Duration::from_micros(random(3_000))).await;
                            drop(message);
                        });
                    }
                }
                // A message that there was no memory for is still there.
                Err(error) if error.kind() == ErrorKind::MemoryLimit && self.session.is_faulty => {
                    self.session.ledger.error(error.kind());
                    sleep(Duration::from_micros(100)).await;
                }
                Err(error) => return self.received_all(&error),
            }
        }
    }

    /// There will be no more messages.
    fn received_all(&self, error: &Error) {
        let (sent, received) = (self.theirs().sent.get(), self.mine().received.get());
        // Of a node that has died, a message may have come whose sender never learnt that it was sent.
        let most = sent + self.theirs().given_up.get() + self.theirs().doubtful.get();
        let is_far = self.session.far.is_some();
        assert!(received <= most || self.session.is_faulty || is_far, "{received} messages came, {sent} were sent");
        match error.kind() {
            ErrorKind::PeerClosed => {
                assert!(received >= sent || is_far, "the peer has closed, and not all that it sent has come");
                self.session.ledger.error(ErrorKind::PeerClosed);
            }
            ErrorKind::Closed => self.session.ledger.error(ErrorKind::Closed),
            _ => self.session.tolerate("receive", error),
        }
        self.end();
    }

    /// A write that notifies begins; answers the value.
    pub(crate) fn begin_notice(&self, model: &Rc<Model>, offset: usize, bytes: &[u8]) -> u32 {
        let value = self.session.next_notice.replace(self.session.next_notice.get() + 1);
        self.session.add_notice(self.side, value, Rc::clone(model), offset, bytes.to_vec());
        // A simulation has no other process to tell.
        let number = self.session.number_of(model).unwrap_or_default();
        self.session.tell(Fact::Notice { value, model: number, offset, bytes: bytes.to_vec() });
        value
    }

    /// Its write has ended well: it has been heard of, or will be.
    pub(crate) async fn notice_written(&self, value: u32) {
        self.session.notice(value, |notice| notice.is_written = true);
        self.session.tell(Fact::Written { value });
        while self.session.notices.borrow().contains_key(&value) && !self.is_over() {
            self.session.changed.notified().await;
        }
    }

    /// Its write has failed.
    pub(crate) fn notice_failed(&self, value: u32) {
        self.session.notice(value, |notice| notice.is_doubtful = true);
        self.session.tell(Fact::Doubtful { value });
    }

    /// Hears of the peer's writes until the connection ends, or the end is to stop.
    async fn hear_all(self: Rc<Self>) {
        while !self.stopped.get() {
            let notified = tokio::select! {
                biased;
                () = self.stop.notified() => return,
                notified = self.connection.notified() => notified,
            };
            match notified {
                Ok(value) => self.heard(value).await,
                Err(error) if error.kind() == ErrorKind::PeerClosed => {
                    let notices = self.session.notices.borrow();
                    let lost = notices.values().find(|notice| notice.side != self.side && notice.is_written);
                    return assert!(lost.is_none(), "the peer has closed, and not all its notifications have come");
                }
                Err(error) if error.kind() == ErrorKind::Closed => return,
                Err(error) => return self.session.tolerate("wait for a notification", &error),
            }
        }
    }

    /// A notification has come: the bytes are there.
    async fn heard(&self, value: u32) {
        // Some are looked at late.
        if random(4) == 0 {
            sleep(Duration::from_micros(random(2_000))).await;
        }
        self.session.notice_is_known(value).await;
        let notice = self.session.notices.borrow_mut().remove(&value).expect("a notification comes once");
        self.session.changed.notify_waiters();
        assert_ne!(notice.side, self.side, "a notification has come to its sender");
        let range = notice.offset..notice.offset + notice.bytes.len();
        if let Some(seen) = notice.model.seen_by_owner(range).filter(|_| !notice.is_doubtful) {
            assert_eq!(seen, notice.bytes, "notification {value} without its bytes");
            self.session.ledger.count("notifying writes");
        }
        self.session.tell(Fact::Heard { value });
    }

    async fn check(&self, message: &Message, next: &mut BTreeMap<u8, u64>) {
        if message.is_empty() {
            return;
        }
        let place = format!("session {} side {}", self.session.id, self.side);
        assert!(message.len() >= HEAD, "{place}: a message of {} bytes", message.len());
        let (kind, lane) = (message[0], message[1]);
        let length = u32::from_le_bytes(message[4..8].try_into().expect("four")) as usize;
        let number = u64::from_le_bytes(message[8..16].try_into().expect("eight"));
        let expected = next.entry(lane).or_default();
        assert_eq!(number, *expected, "{place}: the next message of lane {lane}");
        *expected += 1;
        let body = &message[HEAD..];
        assert_eq!(body.len(), length, "{place}: message {number} of lane {lane}");
        match kind {
            DATA => {
                let stream = self.session.stream(1 - self.side, lane);
                let difference = pattern::difference(stream, number, body);
                assert_eq!(difference, None, "{place}: message {number} of lane {lane} has another byte");
            }
            HANDLE => {
                let size = body.len() - 8;
                let remote = RemoteBuffer::from_bytes(&body[..size]).expect("a handle");
                let model = u64::from_le_bytes(body[size..].try_into().expect("eight"));
                let model = match self.session.model_of_peer(model).await {
                    Some(model) => model,
                    None if self.session.far.is_some() => return,
                    None => self.session.models.borrow_mut().remove(&model).expect("handed over once"),
                };
                self.handles.borrow_mut().push(Handle { remote, model });
            }
            kind => panic!("{place}: a message of kind {kind}"),
        }
    }

    /// Does all that this end is to do, and ends the connection with the peer.
    pub(crate) async fn converse(self: Rc<Self>) {
        let receiving = spawn(Rc::clone(&self).receive_all());
        let hearing = spawn(Rc::clone(&self).hear_all());
        let bulk = (1..=u32::from(MOST_LANES)).map(|lane| spawn(Rc::clone(&self).receive_bulk(100 + lane)));
        let bulk: Vec<_> = bulk.collect();
        let aborting = self.session.aborts && self.session.ender == self.side;
        let patience = aborting.then(|| Duration::from_micros(random(20_000)));
        let workers: Vec<Task<Lane>> =
            (0..1 + random(MOST_LANES.into())).map(|number| self.work(number as u8 + 1, patience)).collect();
        for worker in workers {
            worker.await;
        }
        self.mine().is_done.set(true);
        self.session.tell(Fact::Done);
        self.session.changed.notify_waiters();
        if !aborting {
            self.wait_for_peer().await;
        }
        if self.session.ender == self.side {
            if self.session.closes && !aborting {
                let begun = self.session.ledger.begin("close");
                if let Err(error) = self.connection.close().await {
                    self.session.tolerate("close", &error);
                }
                begun.end();
            } else {
                self.session.ledger.count("drop");
                self.stopped.set(true);
                self.stop.notify_waiters();
            }
        } else {
            self.wait_for_end().await;
        }
        receiving.await;
        hearing.await;
        for receiving in bulk {
            receiving.await;
        }
        self.stopped.set(true);
        self.stop.notify_waiters();
        self.mine().is_gone.set(true);
    }

    fn work(self: &Rc<Self>, number: u8, patience: Option<Duration>) -> Task<Lane> {
        let this = Rc::clone(self);
        spawn(async move {
            let mut lane = Lane { number, next: 0, next_bulk: 0 };
            let deadline = async {
                match patience {
                    Some(patience) => sleep(patience).await,
                    None => std::future::pending().await,
                }
            };
            let work = async {
                for _ in 0..3 + random(12) {
                    if this.is_over() {
                        break;
                    }
                    operations::run_one(&this, &mut lane).await;
                }
            };
            tokio::select! {
                biased;
                () = deadline => {}
                () = work => {}
            }
            lane
        })
    }

    /// Until the peer has done all too, or there is none.
    async fn wait_for_peer(&self) {
        while !self.theirs().is_done.get() && !self.is_over() {
            self.session.changed.notified().await;
        }
    }

    /// Until the peer ends the connection.
    async fn wait_for_end(&self) {
        while !self.is_over() {
            self.over.notified().await;
        }
    }
}
