//! Granting and revoking, under the engine's lock.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::core::{Core, EndedGrant, Garbage, LinkKey, ToDeregister, find};
use super::later_span::{self, LaterSpan, Told, What};
use super::link::Link;
use super::link_grants::{Answer, GrantToken, OwnedGrant, Phase};
use crate::memory::{GrantState, Registration};
use crate::protocol::{GrantId, Scope};
use crate::telemetry::Count;
use crate::transport::{ChannelKey, NotBound, Opening, Queue};
use crate::{Access, Error, ErrorKind, Result, failpoint};

/// A grant that is being made.
pub(super) struct NewGrant {
    pub(super) region: Arc<dyn Registration>,
    /// Whether its key is a window's, or the region's own.
    pub(super) by_window: bool,
    pub(super) access: Access,
    /// Bytes that it opens.
    pub(super) length: u64,
    pub(super) lease: Option<Instant>,
    pub(super) patience: Duration,
    /// Whether it is of a long message.
    pub(super) is_offer: bool,
    /// Whether the holder accesses the memory by itself, so that only it can end that.
    pub(super) is_direct: bool,
}

impl<Q: Queue> Core<Q> {
    /// Begins to open a grant; answers its name, its key and its state. Pending if there is no room for the request.
    pub(super) fn open_grant(&mut self, key: LinkKey, new: &NewGrant) -> Poll<Result<(GrantId, u32, Arc<GrantState>)>> {
        let closed = || Error::new(ErrorKind::Closed, "grant");
        let Some(link) = self.link(key) else { return Poll::Ready(Err(closed())) };
        if let Some(error) = link.send_failure("grant") {
            return Poll::Ready(Err(error));
        }
        let Some(channel) = link.channel else { return Poll::Ready(Err(closed())) };
        let Some(id) = link.grants.slots.take(Scope::Connection) else {
            let detail = format!("{} grants on one connection", crate::protocol::MOST_GRANTS);
            return Poll::Ready(Err(Error::new(ErrorKind::ResourceExhausted, "grant").with_detail(detail)));
        };
        let state = Arc::new(GrantState::default());
        let opened_at = self.stamp;
        let mut grant = OwnedGrant {
            id,
            opened_at,
            length: new.length,
            trace: None,
            state: Arc::clone(&state),
            region: Some(Arc::clone(&new.region)),
            window: None,
            phase: Phase::Live,
            lease: new.lease,
            patience: new.patience,
            is_asked: false,
            is_agreed: false,
            is_offer: new.is_offer,
            is_direct: new.is_direct,
            offered: 0,
        };
        let remote_key = if new.by_window {
            let token = GrantToken::of(id, false).to_token();
            let opening = Opening { region: Arc::clone(&new.region), access: new.access };
            // What is staged comes first, as it was asked for first.
            self.flush();
            match self.queue.bind(channel, token, opening) {
                Ok((window, remote_key)) => {
                    grant.window = Some(window);
                    grant.phase = Phase::Binding { unwanted: None };
                    failpoint::reach("grant.binding");
                    remote_key
                }
                Err(NotBound { error, is_doubtful }) => {
                    if let (true, Some(error)) = (is_doubtful, &error) {
                        // Its completion may come all the same; the name must not be another's by then.
                        self.fail(key, error.again("grant"));
                    } else if let Some(link) = self.link(key) {
                        link.grants.slots.give_back(id);
                    }
                    return error.map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
            }
        } else {
            state.opened();
            new.region.remote_key()
        };
        if let Some(link) = self.link(key) {
            if let Some(lease) = grant.lease {
                link.grants.due_at(lease);
            }
            link.tally.add(Count::GrantsGiven, u64::from(!new.is_offer));
            link.grants.insert(grant);
        }
        Poll::Ready(Ok((id, remote_key, state)))
    }

    /// Takes a grant back, if nobody has begun to.
    pub(super) fn begin_revoke(&mut self, key: LinkKey, id: GrantId, patience: Option<Duration>) {
        let now = self.clock.now();
        let Some(link) = self.link(key) else { return };
        let Some(grant) = link.grants.get(id.slot, id.generation) else { return };
        // Only once, though its key was still being made. A long message that was taken is not taken back.
        let is_first = grant.trace.is_none() && !grant.is_agreed;
        if is_first && matches!(grant.phase, Phase::Binding { unwanted: None } | Phase::Live) {
            let what = What::Revocation { grant: id, length: grant.length };
            let (span, told) = LaterSpan::begin(link.identity.as_ref(), what);
            grant.trace = Some(span);
            self.garbage.extend(told.map(Garbage::Told));
        }
        let Some(link) = find(&mut self.links, key) else { return };
        let Some(grant) = link.grants.get(id.slot, id.generation) else { return };
        if let Some(patience) = patience {
            grant.patience = patience.min(MOST_PATIENCE);
        }
        match grant.phase {
            Phase::Binding { unwanted: None } => {
                let until = now + grant.patience.max(LEAST_PATIENCE);
                grant.phase = Phase::Binding { unwanted: Some(until) };
                link.grants.due_at(until);
            }
            Phase::Live => {
                grant.state.ending();
                let until = now + grant.patience;
                (grant.phase, grant.is_asked) = (Phase::Asking { until, latest: until + DELIVERY }, true);
                link.grants.revoking.want(id);
                link.grants.due_at(until);
                self.send_revocations(key);
            }
            // Sooner than was said before, if so.
            Phase::Asking { until, latest } => {
                let until = until.min(now + grant.patience);
                grant.phase = Phase::Asking { until, latest };
                link.grants.due_at(until);
            }
            Phase::Binding { .. }
            | Phase::Closing { .. }
            | Phase::Closed { .. }
            | Phase::Deregistering
            | Phase::Over => {}
        }
        if patience.is_some_and(|patience| patience.is_zero()) {
            self.advance(key, id, now);
        }
    }

    /// The peer is to be asked to let go of a grant of the domain; `answer` is dropped when it has, or can no longer.
    pub(super) fn ask_for_domain(&mut self, key: LinkKey, id: GrantId, answer: Answer) {
        let Some(link) = self.link(key) else { return };
        if link.ending.get().is_some() || !link.is_open() {
            return self.garbage.push(Garbage::Answer(answer));
        }
        link.grants.of_domain.push((id, answer));
        link.grants.revoking.want(id);
        self.send_revocations(key);
    }

    /// A request has reached the holder's device: its time begins.
    pub(super) fn request_delivered(&mut self, key: LinkKey, serial: u32) {
        let now = self.clock.now();
        let Some(link) = self.link(key) else { return };
        for id in link.grants.revoking.asked(serial).to_vec() {
            let Some(grant) = link.grants.get(id.slot, id.generation).filter(|_| id.scope == Scope::Connection) else {
                continue;
            };
            if let Phase::Asking { .. } = grant.phase {
                let until = now + grant.patience;
                grant.phase = Phase::Asking { until, latest: until };
            }
        }
    }

    /// A request for a window has ended.
    pub(super) fn window_completed(&mut self, key: LinkKey, token: GrantToken, is_success: bool) {
        let Some(link) = self.link(key) else { return };
        let Some(grant) = link.grants.get(token.slot, token.generation) else { return };
        if !is_success {
            // The connection breaks with it, and the grant ends with that.
            return;
        }
        let (id, patience) = (grant.id, grant.patience);
        match grant.phase {
            Phase::Binding { unwanted } if !token.is_invalidation => {
                grant.state.opened();
                grant.phase = Phase::Live;
                if let Some(lease) = grant.lease {
                    link.grants.due_at(lease);
                }
                if unwanted.is_some() {
                    self.begin_revoke(key, id, Some(patience));
                }
            }
            Phase::Closed { .. } if token.is_invalidation => self.grant_ended(key, id),
            _ => {}
        }
    }

    /// The holders of these grants have let go.
    pub(super) fn grants_agreed(&mut self, key: LinkKey, ids: &[GrantId]) {
        let now = self.clock.now();
        failpoint::reach("revoke.agreed");
        for &id in ids {
            let Some(link) = self.link(key) else { return };
            let Some(grant) = link.grants.get(id.slot, id.generation) else { continue };
            (grant.is_asked, grant.is_agreed) = (false, true);
            match grant.phase {
                Phase::Asking { .. } => {
                    // Nobody uses the key any more, so there is no hurry.
                    let until = now + AGREED_PATIENCE;
                    grant.phase = Phase::Closing { until };
                    link.grants.due_at(until);
                    self.close_grant(key, id);
                }
                Phase::Over => link.grants.forget(id),
                _ => {}
            }
        }
    }

    /// The peer has taken a long message, or does not want it.
    pub(super) fn grant_taken(&mut self, key: LinkKey, id: GrantId, declined: bool) {
        let now = self.clock.now();
        failpoint::reach("offer.taken");
        let Some(link) = self.link(key) else { return };
        let Some(grant) = link.grants.get(id.slot, id.generation) else { return };
        if declined {
            grant.state.decline();
            link.tally.add(Count::LongDeclined, 1);
        }
        grant.is_agreed = true;
        let until = now + AGREED_PATIENCE;
        match grant.phase {
            Phase::Live | Phase::Asking { .. } => {
                grant.state.ending();
                grant.phase = Phase::Closing { until };
                link.grants.due_at(until);
                self.close_grant(key, id);
            }
            Phase::Binding { .. } => {
                grant.phase = Phase::Binding { unwanted: Some(until) };
                link.grants.due_at(until);
            }
            _ => {}
        }
    }

    /// A grant's memory can no longer be reached.
    fn grant_ended(&mut self, key: LinkKey, id: GrantId) {
        failpoint::reach("grant.closed");
        let Some(link) = self.link(key) else { return };
        let Some(grant) = link.grants.get(id.slot, id.generation) else { return };
        let how = grant.how();
        let (state, region) = (Arc::clone(&grant.state), grant.region.take());
        let is_out_of_hand = grant.is_direct && !grant.is_agreed;
        let told = grant.tell_end(&mut link.tally);
        grant.phase = Phase::Over;
        if !grant.is_asked {
            link.grants.forget(id);
        }
        self.garbage.extend(told.map(Garbage::Told));
        self.ended.push(EndedGrant { region, state, result: Ok(how) });
        self.forget_detached(key, id);
        self.wake_senders(key);
        if is_out_of_hand {
            let detail = "the peer has not let go in time of shared pages, which only it can do";
            self.fail(key, Error::new(ErrorKind::ConnectionBroken, "revoke").with_detail(detail));
        }
    }

    /// The region of a grant is deregistered; who waits was told.
    pub(super) fn grant_deregistered(&mut self, key: LinkKey, id: GrantId) {
        let Some(link) = self.link(key) else { return };
        let Some(grant) = link.grants.get(id.slot, id.generation) else { return };
        grant.phase = Phase::Over;
        let told = grant.tell_end(&mut link.tally);
        if !grant.is_asked {
            link.grants.forget(id);
        }
        self.garbage.extend(told.map(Garbage::Told));
        self.forget_detached(key, id);
        self.wake_senders(key);
    }

    /// Keeps what was sent with a grant whose sender has gone, until it has ended.
    pub(super) fn detach_offer(&mut self, key: LinkKey, id: GrantId, what: Box<dyn Send>) {
        let is_live =
            |link: &mut Link| link.grants.get(id.slot, id.generation).is_some_and(|grant| grant.phase != Phase::Over);
        if let Some(link) = self.link(key)
            && is_live(link)
        {
            return link.detached.push((id, what));
        }
        self.garbage.push(Garbage::Detached(what));
    }

    /// What was sent with a grant that has ended, and whose sender has gone, is dropped.
    fn forget_detached(&mut self, key: LinkKey, id: GrantId) {
        let Some(link) = self.link(key) else { return };
        if let Some(index) = link.detached.iter().position(|(detached, _)| *detached == id) {
            let (_, what) = link.detached.swap_remove(index);
            self.garbage.push(Garbage::Detached(what));
        }
    }

    /// Does what is due by `now` for the grants of a connection.
    fn tend(&mut self, key: LinkKey, now: Instant) {
        let Some(link) = self.link(key) else { return };
        let due: Vec<_> =
            link.grants.all().filter(|grant| grant.due().is_some_and(|due| due <= now)).map(|grant| grant.id).collect();
        for id in due {
            self.advance(key, id, now);
        }
        if let Some(link) = self.link(key) {
            link.grants.next_due = link.grants.all().filter_map(|grant| grant.due()).min();
        }
    }

    /// Does what is due by `now` for one grant.
    fn advance(&mut self, key: LinkKey, id: GrantId, now: Instant) {
        let Some(link) = find(&mut self.links, key).filter(|link| link.ending.get().is_none()) else { return };
        let channel = link.channel;
        let Some(grant) = link.grants.get(id.slot, id.generation) else { return };
        match grant.phase {
            Phase::Live if grant.lease.is_some_and(|lease| lease <= now) => {
                if let Some(identity) = link.identity.as_ref().filter(|_| later_span::somebody_may_listen()) {
                    self.garbage.push(Garbage::Told(Told::LeaseOver { identity: Arc::clone(identity), grant: id }));
                }
                self.begin_revoke(key, id, None);
            }
            Phase::Asking { until, latest }
                if until <= now && latest > now && !grant.patience.is_zero() && !has_come(&self.queue, channel) =>
            {
                // The question is still on its way.
                let until = (now + AGAIN).min(latest);
                grant.phase = Phase::Asking { until, latest };
                link.grants.due_at(until);
            }
            Phase::Asking { until, .. } if until <= now => {
                let until = now + grant.patience.max(LEAST_PATIENCE);
                grant.phase = Phase::Closing { until };
                link.grants.due_at(until);
                self.close_grant(key, id);
            }
            Phase::Binding { unwanted: Some(until) } | Phase::Closing { until } | Phase::Closed { until }
                if until <= now =>
            {
                // Only the end of the queue pair takes the key back now.
                let detail = "a revoked key could not be made invalid in time, so the connection is ended";
                self.fail(key, Error::new(ErrorKind::ConnectionBroken, "revoke").with_detail(detail));
            }
            _ => {}
        }
    }

    /// There is room again: what was to be made invalid is.
    pub(super) fn resume_closing(&mut self, key: LinkKey) {
        while let Some(id) = self.link(key).and_then(|link| link.grants.waiting_for_room.pop()) {
            self.close_grant(key, id);
            if self.link(key).is_some_and(|link| link.grants.waiting_for_room.last() == Some(&id)) {
                return;
            }
        }
    }

    fn close_grant(&mut self, key: LinkKey, id: GrantId) {
        let Some(link) = self.link(key) else { return };
        let channel = link.channel;
        let Some(grant) = link.grants.get(id.slot, id.generation) else { return };
        let Phase::Closing { until } = grant.phase else { return };
        match (grant.window, channel) {
            (Some(window), Some(channel)) => {
                let token = GrantToken::of(id, true).to_token();
                self.flush();
                match self.queue.invalidate(channel, token, window) {
                    Ok(()) => {}
                    Err(None) => {
                        if let Some(link) = self.link(key) {
                            link.grants.waiting_for_room.push(id);
                        }
                        return;
                    }
                    Err(Some(error)) => return self.fail(key, error),
                }
                if let Some(grant) = self.link(key).and_then(|link| link.grants.get(id.slot, id.generation)) {
                    grant.phase = Phase::Closed { until };
                }
                failpoint::reach("grant.closing");
            }
            (None, Some(_)) => {
                grant.phase = Phase::Deregistering;
                let how = grant.how();
                if let Some(region) = grant.region.take() {
                    let state = Arc::clone(&grant.state);
                    self.to_deregister.push(ToDeregister { link: key, id, region, state, how });
                }
            }
            // It ends with the connection.
            (_, None) => {}
        }
    }

    /// Whether something is due on any connection, some time.
    pub(super) fn is_any_due(&self) -> bool {
        self.links.iter().flatten().any(|(_, link)| link.grants.next_due.is_some())
    }

    /// Does what is due by `now`, on all connections. Nothing is allocated when nothing is due.
    pub(super) fn tend_all(&mut self, now: Instant) {
        for index in 0..self.links.len() {
            let key = self.key_at(index);
            let is_due = |link: &mut Link| link.grants.next_due.is_some_and(|due| due <= now);
            if let Some(key) = key.filter(|key| self.link(*key).is_some_and(is_due)) {
                self.tend(key, now);
            }
        }
    }
}

/// No time is added to one so long that it could overflow.
pub(super) const MOST_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// The device itself has at least so long to make a key, or to make it invalid.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// The same, for a key that nobody uses: what was posted before it may take its time.
const AGREED_PATIENCE: Duration = Duration::from_secs(30);
/// What the question has to reach the holder's device behind all that was posted before it.
const DELIVERY: Duration = Duration::from_secs(3);
/// How soon an undelivered question is looked after again.
const AGAIN: Duration = Duration::from_millis(25);

/// Where a process answers for its device: whether what was sent is at its host all the same.
fn has_come<Q: Queue>(queue: &Q, channel: Option<ChannelKey>) -> bool {
    channel.is_some_and(|channel| queue.has_left(channel) && queue.host_answers(channel).unwrap_or(false))
}
