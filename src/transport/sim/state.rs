//! All of a world, under its lock: what is where, what is on its way, and when it comes.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::task::Waker;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::endpoint::{Control, Endpoint, EndpointId};
use super::faults::Fault;
use super::listener::Listening;
use super::node::{Node, NodeId, Standing};
use super::pair::{self, Ghost, Pair, PairId};
use super::queue_state::{QueueId, QueueState};
use super::requester::Outcome;
use super::settings::Settings;
use super::statistics::Statistics;
use super::trace::{Note, Trace};
use super::windows::Window;
use crate::clock::Clock;
use crate::service::{Job, Watch};

pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) nodes: Vec<Node>,
    /// Places of what is gone are not used again, here and below; what comes and goes often is boxed, so that they are small.
    pub(super) queues: Vec<Option<QueueState>>,
    pub(super) pairs: Vec<Option<Box<Pair>>>,
    pub(super) windows: Vec<Option<Window>>,
    pub(super) endpoints: Vec<Option<Box<Endpoint>>>,
    pub(super) listeners: Vec<Option<Listening>>,
    /// Queues whose event is to be handled.
    pub(super) notices: Vec<QueueId>,
    pub(super) deaths: usize,
    pub(super) statistics: Statistics,
    pub(super) trace: Trace,
    /// What no device would forgive.
    pub(super) bugs: Vec<String>,
    /// For what tests decide; the other one is for what happens.
    pub(super) test_random: StdRng,
    random: StdRng,
    events: BinaryHeap<Event>,
    next_sequence: u64,
    clock: Clock,
    progress_at: u64,
    /// To be called and dropped when the lock is free.
    wakers: Vec<Waker>,
    garbage: Vec<Box<dyn Send>>,
}

/// Something that will happen.
struct Event {
    at: u64,
    sequence: u64,
    action: Action,
}

pub(super) enum Action {
    Arrive(PairId),
    Connect { from: EndpointId, name: String, data: Vec<u8>, pair: Option<PairId> },
    Control(EndpointId, Control),
    DeliverReceive(PairId),
    DeliverSend(PairId),
    Flush(PairId),
    Ghost(Ghost),
    GoOn(NodeId),
    Local(PairId, u64),
    Notice(QueueId),
    Respond(PairId, u64, Outcome),
    Sample(PairId, u64),
    Tick(NodeId, Duration, Watch),
    Timer(NodeId, Job),
    Wake(Waker),
}

impl Action {
    /// Whether the device does it, whatever the software does meanwhile.
    fn is_of_device(&self) -> bool {
        matches!(
            self,
            Self::Arrive(_)
                | Self::DeliverReceive(_)
                | Self::DeliverSend(_)
                | Self::Flush(_)
                | Self::Ghost(_)
                | Self::Local(..)
                | Self::Notice(_)
                | Self::Respond(..)
                | Self::Sample(..)
        )
    }
}

impl State {
    pub(super) fn new(settings: Settings, clock: Clock) -> Self {
        Self {
            nodes: Vec::new(),
            queues: Vec::new(),
            pairs: Vec::new(),
            windows: Vec::new(),
            endpoints: Vec::new(),
            listeners: Vec::new(),
            notices: Vec::new(),
            deaths: 0,
            statistics: Statistics::default(),
            trace: Trace::new(settings.trace),
            bugs: Vec::new(),
            test_random: StdRng::seed_from_u64(settings.seed ^ 0x7465_7374),
            random: StdRng::seed_from_u64(settings.seed),
            events: BinaryHeap::new(),
            next_sequence: 0,
            clock,
            progress_at: 0,
            wakers: Vec::new(),
            garbage: Vec::new(),
            settings,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.nanoseconds()
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn advance(&mut self, nanoseconds: u64) {
        self.clock.advance_to(self.now() + nanoseconds);
    }

    /// Below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    pub(super) fn is_by_chance(&mut self, rate: f64) -> bool {
        self.random.random_bool(rate)
    }

    /// An opportunity of `fault`: whether it happens.
    pub(super) fn hit(&mut self, fault: Fault) -> bool {
        if !self.settings.faults.may(fault) {
            return false;
        }
        let count = self.statistics.opportunities.entry(fault).or_default();
        *count += 1;
        let (count, rate) = (*count, self.settings.faults.rate(fault));
        let hits = self.settings.faults.is_at(fault, count) || (rate > 0.0 && self.is_by_chance(rate));
        if hits {
            *self.statistics.faults.entry(fault).or_default() += 1;
            self.note(Note::Fault(fault));
        }
        hits
    }

    pub(super) fn note(&mut self, note: Note) {
        let now = self.now();
        self.trace.add(now, note);
    }

    /// The run ends with the present step.
    pub(super) fn bug(&mut self, what: String) {
        self.bugs.push(what);
    }

    pub(super) fn progress(&mut self) {
        self.progress_at = self.now();
    }

    /// For how long nothing has ended that somebody waits for.
    pub(super) fn idle_for(&self) -> Duration {
        Duration::from_nanos(self.now() - self.progress_at)
    }

    /// Has `action` happen in `delay` nanoseconds.
    pub(super) fn after(&mut self, delay: u64, action: Action) {
        let at = self.now() + delay;
        self.at(at, action);
    }

    /// Has `action` happen at `at`; of those at one time the first is the one that was asked for first.
    pub(super) fn at(&mut self, at: u64, action: Action) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.events.push(Event { at, sequence, action });
    }

    /// When the next event is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.events.peek().map(|event| event.at)
    }

    /// Takes all that is to come out, at the end of the world.
    pub(super) fn clear_events(&mut self) {
        let events = std::mem::take(&mut self.events);
        self.discard(events.into_vec());
    }

    /// Has the next event happen.
    pub(super) fn happen(&mut self) {
        if let Some(event) = self.events.pop() {
            self.clock.advance_to(event.at);
            self.handle(event.action);
        }
    }

    /// Devices go on while software runs: now and then, what is due of theirs happens in the middle of a call.
    pub(super) fn devices_go_on(&mut self) {
        if self.below(4) > 0 {
            return;
        }
        let time = self.below(2_000);
        self.advance(time);
        let now = self.now();
        while self.events.peek().is_some_and(|event| event.at <= now && event.action.is_of_device()) {
            self.happen();
        }
    }

    fn handle(&mut self, action: Action) {
        match action {
            Action::Arrive(pair) => self.arrive(pair),
            Action::Connect { from, name, data, pair } => self.connect_arrives(from, &name, data, pair),
            Action::Control(to, control) => self.control_arrives(to, control),
            Action::DeliverReceive(pair) => self.receive_completion_arrives(pair),
            Action::DeliverSend(pair) => self.send_completion_arrives(pair),
            Action::Flush(pair) => self.flush_pair(pair),
            Action::Ghost(ghost) => self.ghost_arrives(ghost),
            Action::GoOn(node) => self.go_on(node),
            Action::Local(pair, sequence) => self.carry_out_locally(pair, sequence),
            Action::Notice(queue) => self.notice(queue),
            Action::Respond(pair, sequence, outcome) => self.answered(pair, sequence, outcome),
            Action::Sample(pair, sequence) => self.read_late(pair, sequence),
            Action::Tick(node, interval, tick) => self.tick_is_due(node, interval, tick),
            Action::Timer(node, job) => self.run_job(node, job),
            Action::Wake(waker) => self.wake(waker),
        }
    }

    pub(super) fn pair(&mut self, id: PairId) -> Option<&mut Pair> {
        self.pairs.get_mut(id.0)?.as_deref_mut()
    }

    /// Whether a pair can serve its peer.
    pub(super) fn is_ready(&mut self, id: PairId) -> bool {
        self.pair(id).is_some_and(|pair| pair.standing == pair::Standing::Ready)
    }

    pub(super) fn queue(&mut self, id: QueueId) -> Option<&mut QueueState> {
        self.queues.get_mut(id.0)?.as_mut()
    }

    pub(super) fn is_dead(&self, node: NodeId) -> bool {
        self.nodes[node.0].standing == Standing::Dead
    }

    /// Calls `waker` when the lock is free.
    pub(super) fn wake(&mut self, waker: Waker) {
        self.wakers.push(waker);
    }

    /// Drops what may run code of others, when the lock is free.
    pub(super) fn discard(&mut self, garbage: impl Send + 'static) {
        self.garbage.push(Box::new(garbage));
    }

    pub(super) fn take_effects(&mut self) -> (Vec<Waker>, Vec<Box<dyn Send>>) {
        (std::mem::take(&mut self.wakers), std::mem::take(&mut self.garbage))
    }

    /// The time that a request or an answer takes on the wire.
    pub(super) fn wire_delay(&mut self) -> u64 {
        let usual = 500 + self.below(20_000);
        if self.hit(Fault::DelaySpike) { usual * 100 } else { usual }
    }
}

// The earliest is the greatest.
impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Event {}
