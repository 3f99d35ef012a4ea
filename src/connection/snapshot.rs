//! What a connection is doing, gathered under the engine's lock.

use std::time::{Duration, Instant};

use super::conversation::Conversation;
use super::core::{Core, LinkKey, find};
use super::established::{Connection, Inner};
use super::fetches::Fetches;
use super::link::{Finish, Link};
use super::link_grants::{OwnedGrant, Phase};
use crate::protocol::Scope;
use crate::telemetry::{
    ChannelSnapshot, ConnectionId, ConnectionSnapshot, ConnectionState, Credits, Ending, GivenGrant, GrantName,
    GrantPhase, HeldGrant, MOST_LISTED, OperationInFlight, OperationKind, Window,
};
use crate::transport::{Queue, Transport};
use crate::{Error, ErrorKind};

impl Connection {
    /// What both ends call this connection, in snapshots, spans and logs.
    pub fn id(&self) -> ConnectionId {
        ConnectionId::new(self.0.facts.session)
    }

    /// What the connection is doing just now: state, credits, windows, operations in flight with their ages, grants. It asks
    /// nobody, neither the peer nor the device, so it answers at once while the peer is stopped, and after the connection has ended too.
    /// It locks the worker for some microseconds, or a millisecond if there are tens of thousands of grants, so it is for a person or a
    /// program that looks every now and then. [What to conclude from it](crate::telemetry).
    ///
    /// ```no_run
    /// # fn example(connection: &zcmi::Connection) {
    /// println!("{}", connection.snapshot());
    /// # }
    /// ```
    pub fn snapshot(&self) -> ConnectionSnapshot {
        self.0.snapshot()
    }
}

impl<T: Transport> Inner<T> {
    fn snapshot(&self) -> ConnectionSnapshot {
        let mut snapshot = ConnectionSnapshot {
            connection: ConnectionId::new(self.facts.session),
            state: ConnectionState::Inherited,
            transport: self.engine.transport.name(),
            device: self.engine.device.clone(),
            peer: self.facts.identity.peer.clone(),
            age: Duration::ZERO,
            silence: Duration::ZERO,
            credits: Default::default(),
            channels: Vec::new(),
            channels_total: 0,
            unsent_bytes: 0,
            frames_in_flight: 0,
            unacknowledged: 0,
            waiting_to_send: 0,
            notifications: 0,
            reads: Window::default(),
            operations: Vec::new(),
            operations_total: 0,
            grants_given: Vec::new(),
            grants_given_total: 0,
            grants_held: Vec::new(),
            grants_held_total: 0,
            counts: Default::default(),
            ending: None,
        };
        // A forked child must not wait for the lock: who had it is not there.
        if self.engine.is_ours() {
            let now = self.engine.now();
            self.engine.with(|core| core.describe(self.key, now, &mut snapshot));
            let ending = self.ending.get().map(|error| self.refine(error.again("connection")));
            snapshot.state = state(snapshot.state, ending.as_ref());
            snapshot.ending =
                ending.map(|error| Ending { kind: format!("{:?}", error.kind()), error: error.to_string() });
        }
        snapshot
    }
}

impl<Q: Queue> Core<Q> {
    /// Adds what is known of a link. Nothing changes by it.
    fn describe(&mut self, key: LinkKey, now: Instant, snapshot: &mut ConnectionSnapshot) {
        snapshot.state = ConnectionState::Closed;
        let Some(link) = find(&mut self.links, key) else { return };
        let clock = Clock { now, begun: link.begun_at };
        link.describe(clock, snapshot);
        let operations = &self.operations;
        let posted = operations.in_flight(key).map(|(posted, is_detached)| OperationInFlight {
            kind: posted.kind,
            length: posted.bytes,
            age: clock.age(posted.at),
            grant: posted.grant.map(GrantName::of),
            channel: None,
            is_detached,
        });
        let posted = posted.chain(fetches(&link.fetches, link, clock)).chain(offers(link, clock));
        (snapshot.operations, snapshot.operations_total) = oldest(posted, |operation| operation.age);
    }
}

impl Link {
    fn describe(&self, clock: Clock, snapshot: &mut ConnectionSnapshot) {
        snapshot.state = match self.finish {
            Finish::Open => ConnectionState::Open,
            Finish::Queued | Finish::Sent => ConnectionState::Finishing,
            Finish::Done if self.is_delivered() => ConnectionState::Finished,
            Finish::Done => ConnectionState::Finishing,
        };
        snapshot.counts = self.tally.named();
        snapshot.age = clock.age(self.begun_at);
        snapshot.silence = self.liveness.silence();
        let (available, granted, owed) = self.credits.describe();
        snapshot.credits = Credits { available, granted, owed };
        snapshot.unsent_bytes = self.outbox.unsent();
        snapshot.frames_in_flight = self.outstanding;
        snapshot.unacknowledged = self.wanted.saturating_sub(self.acknowledged);
        snapshot.waiting_to_send = self.senders.len();
        snapshot.notifications = self.notifications.len();
        snapshot.reads.used = self.fetches.outstanding as u64;
        snapshot.reads.limit = self.fetches.limit as u64;
        snapshot.channels_total = self.conversations.len();
        let channels = self.conversations.iter().map(channel);
        let is_shown = |(index, channel): &(usize, ChannelSnapshot)| *index == 0 || !channel.is_idle();
        snapshot.channels =
            channels.enumerate().filter(is_shown).map(|(_, channel)| channel).take(MOST_LISTED).collect();
        let given = self.grants.table().filter(|grant| !grant.is_offer).map(|grant| GivenGrant {
            grant: GrantName::of(grant.id),
            phase: phase(grant.phase),
            length: grant.length,
            age: clock.age(grant.opened_at),
        });
        (snapshot.grants_given, snapshot.grants_given_total) = oldest(given, |grant| grant.age);
        let held = self.grants.held.in_use();
        (snapshot.grants_held, snapshot.grants_held_total) =
            first(held.map(|(scope, slot, operations, is_wanted_back)| HeldGrant {
                slot,
                is_of_domain: scope == Scope::Domain,
                operations,
                is_wanted_back,
            }));
    }
}

/// How old something is. What is posted is stamped by the last look at the connections, which may be before there were any.
#[derive(Clone, Copy)]
struct Clock {
    now: Instant,
    begun: Instant,
}

impl Clock {
    fn age(self, posted: Instant) -> Duration {
        self.now.saturating_duration_since(posted.max(self.begun))
    }
}

fn channel(conversation: &Conversation) -> ChannelSnapshot {
    let window = |(used, limit)| Window { used, limit };
    ChannelSnapshot {
        channel: conversation.id,
        send: window(conversation.send.describe()),
        receive: window(conversation.receive.describe()),
        messages: conversation.messages(),
        waiting_to_receive: conversation.receivers.len(),
        is_finished: conversation.has_ended,
        is_peer_finished: conversation.peer_ended,
    }
}

/// Long messages that are fetched.
fn fetches<'l>(fetches: &'l Fetches, link: &'l Link, clock: Clock) -> impl Iterator<Item = OperationInFlight> + 'l {
    fetches.all().map(move |fetch| OperationInFlight {
        kind: OperationKind::Fetch,
        length: fetch.bytes,
        age: clock.age(fetch.at),
        grant: Some(GrantName::of(fetch.grant)),
        channel: link.conversations.get(fetch.channel).map(|conversation| conversation.id),
        is_detached: false,
    })
}

/// Long messages that the peer has not taken.
fn offers(link: &Link, clock: Clock) -> impl Iterator<Item = OperationInFlight> + '_ {
    let is_on_its_way = |grant: &&OwnedGrant| grant.is_offer && grant.phase != Phase::Over;
    link.grants.table().filter(is_on_its_way).map(move |grant| OperationInFlight {
        kind: OperationKind::Offer,
        length: grant.length,
        age: clock.age(grant.opened_at),
        grant: Some(GrantName::of(grant.id)),
        channel: None,
        is_detached: false,
    })
}

/// The oldest entries, and how many there are in all.
fn oldest<E>(all: impl Iterator<Item = E>, age: impl Fn(&E) -> Duration) -> (Vec<E>, usize) {
    let (mut listed, mut total) = (Vec::new(), 0);
    let shorten = |listed: &mut Vec<E>| {
        listed.sort_by_key(|entry| std::cmp::Reverse(age(entry)));
        listed.truncate(MOST_LISTED);
    };
    for entry in all {
        total += 1;
        listed.push(entry);
        // Not all of them are kept at any time: there may be very many.
        if listed.len() >= 4 * MOST_LISTED {
            shorten(&mut listed);
        }
    }
    shorten(&mut listed);
    (listed, total)
}

/// The first entries, and how many there are in all.
fn first<E>(all: impl Iterator<Item = E>) -> (Vec<E>, usize) {
    let (mut listed, mut total) = (Vec::new(), 0);
    for entry in all {
        total += 1;
        if listed.len() < MOST_LISTED {
            listed.push(entry);
        }
    }
    (listed, total)
}

fn phase(phase: Phase) -> GrantPhase {
    match phase {
        Phase::Binding { .. } => GrantPhase::Opening,
        Phase::Live => GrantPhase::Live,
        Phase::Asking { .. } => GrantPhase::Asking,
        Phase::Closing { .. } | Phase::Closed { .. } | Phase::Deregistering => GrantPhase::Closing,
        Phase::Over => GrantPhase::Over,
    }
}

fn state(known: ConnectionState, ending: Option<&Error>) -> ConnectionState {
    match ending.map(Error::kind) {
        None => known,
        Some(ErrorKind::Closed | ErrorKind::PeerClosed) => ConnectionState::Closed,
        Some(_) => ConnectionState::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_listed_and_all_are_counted() {
        let (listed, total) = oldest(0..1000u64, |age| Duration::from_secs(*age));
        assert_eq!((listed.len(), total), (MOST_LISTED, 1000));
        assert_eq!((listed[0], listed[MOST_LISTED - 1]), (999, 936));
        assert_eq!((first(0..1000).0.len(), first(0..1000).1), (MOST_LISTED, 1000));
    }
}
