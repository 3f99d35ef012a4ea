//! The handshake, the same for both ends.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tracing::Instrument;

use super::core::LinkKey;
use super::engine::Engine;
use super::established::{Facts, Inner};
use super::filter::Filter;
use super::link::{CONTROL_SENDS, Link};
use super::pages::Pages;
use super::seats::Seat;
use super::spans::{self, Identity};
use crate::memory::foreign::Returns;
use crate::protocol::{Handshake, Refusal, SHARES_PAGES};
use crate::telemetry::{ConnectionId, Event, Phase, Refused};
use crate::transport::{ChannelSizes, Kind, Link as _, Queue, SetUp, Transport};
use crate::{Config, Error, ErrorKind, Result, failpoint};

/// Bytes that every queue pair is asked to carry inline.
const INLINE: u32 = 256;

/// Pieces of memory that a request can have, if the device allows so many.
const SEGMENTS: u32 = 16;

/// Which end we are.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// With what the application tells the listener.
    Connector(Vec<u8>),
    /// With what decides about peers.
    Listener(Filter),
}

impl Role {
    /// A named point of both ends is reached.
    fn reach(&self, connecting: &'static str, accepting: &'static str) {
        failpoint::reach(match self {
            Self::Connector(_) => connecting,
            Self::Listener(_) => accepting,
        });
    }
}

/// Makes a connection of `end`; bounded by `deadline`. On failure, or when the future is dropped, everything is
/// taken back and an asking peer is refused.
pub(super) async fn set_up<T: Transport, S: SetUp<T>>(
    engine: Arc<Engine<T>>,
    end: S,
    role: Role,
    deadline: Instant,
) -> Result<Arc<Inner<T>>> {
    let name = match role {
        Role::Connector(_) => "connector",
        Role::Listener(_) => "listener",
    };
    let trace = spans::handshake(name, end.peer(), engine.transport, &engine.device, &engine.meters);
    let (meters, is_listener) = (Arc::clone(&engine.meters), matches!(role, Role::Listener(_)));
    let made = introduce(engine, end, role, deadline).instrument(trace.span()).await;
    match &made {
        Ok(inner) => {
            trace.with(&inner.facts.identity);
            meters.happened(if is_listener { Event::Accepted } else { Event::Connected });
        }
        Err(error) => {
            meters.failed(Phase::Handshake, error);
            if is_listener {
                refused(error.kind()).into_iter().for_each(|why| meters.refused(why));
            }
        }
    }
    trace.end_with(&made);
    made
}

/// What a listener has told the peer, if it refused it.
fn refused(kind: ErrorKind) -> Option<Refused> {
    match kind {
        ErrorKind::Protocol => Some(Refused::Incompatible),
        ErrorKind::Rejected => Some(Refused::Declined),
        ErrorKind::MemoryLimit | ErrorKind::PoolExhausted | ErrorKind::ResourceExhausted => Some(Refused::Busy),
        _ => None,
    }
}

async fn introduce<T: Transport, S: SetUp<T>>(
    engine: Arc<Engine<T>>,
    mut end: S,
    role: Role,
    deadline: Instant,
) -> Result<Arc<Inner<T>>> {
    let config = &engine.config;
    let operation = match role {
        Role::Connector(_) => "connect",
        Role::Listener(_) => "accept",
    };
    let mut ours = introduction(config, engine.domain.nonce());
    if engine.transport == Kind::Shm && config.shared_pages.pool().is_some() {
        ours.features |= SHARES_PAGES;
    }
    let ending = Arc::new(OnceLock::new());
    let peer = end.peer().to_owned();
    let gid = end.gid();
    let refine = |error: Error| error.within(operation).with_peer(&peer).with_device(&engine.device).with_gid(gid);

    let mut their_introduction = None;
    let mut reply = Vec::new();
    if let Role::Listener(filter) = &role {
        failpoint::reach("accept.asked");
        // It has come with the request; a stranger costs us nothing.
        let theirs = end.negotiate(&[], deadline).await.map_err(refine)?;
        match parse(&theirs, operation) {
            Ok((theirs, private)) => {
                match filter.decide(&peer, &private) {
                    Ok(data) => reply = ours.to_bytes(&data),
                    Err((refusal, why)) => {
                        end.refuse(&refusal);
                        return Err(refine(Error::new(ErrorKind::Rejected, operation).with_detail(why)));
                    }
                }
                their_introduction = Some((theirs, private));
            }
            Err(error) => {
                end.refuse(&Refusal::Incompatible.to_bytes());
                return Err(refine(error));
            }
        }
    }
    let Some(seat) = engine.seats.take(config.max_connections) else {
        end.refuse(&Refusal::Busy.with_reason("it has as many connections as it may"));
        let detail = format!("{} connections, as many as max_connections allows", config.max_connections);
        return Err(refine(Error::new(ErrorKind::ResourceExhausted, operation).with_detail(detail)));
    };
    let key = match open(&engine, &mut end, ours, &ending, seat) {
        Ok(key) => key,
        Err(error) => {
            end.refuse(&Refusal::Busy.to_bytes());
            return Err(refine(error));
        }
    };
    let abandon = Abandon { engine: Arc::clone(&engine), key, armed: true };
    role.reach("connect.opened", "accept.opened");
    let (theirs, private_data) = match (their_introduction, &role) {
        (None, Role::Connector(private)) => {
            let theirs = end.negotiate(&ours.to_bytes(private), deadline).await.map_err(refine)?;
            failpoint::reach("connect.answered");
            parse(&theirs, operation).map_err(refine)?
        }
        (Some(theirs), _) => theirs,
        (None, Role::Listener(_)) => return Err(refine(Error::new(ErrorKind::Protocol, operation))),
    };
    let session = match &role {
        Role::Connector(_) => Handshake::session(&ours, &theirs),
        Role::Listener(_) => Handshake::session(&theirs, &ours),
    };
    let activated = engine.with(|core| {
        let channel = core.link(key).and_then(|link| link.channel);
        let channel = channel.ok_or_else(|| Error::new(ErrorKind::ConnectionBroken, operation))?;
        end.activate(&mut core.queue, channel)?;
        let capabilities = core.queue.capabilities(channel);
        let link = core.link(key).ok_or_else(|| Error::new(ErrorKind::ConnectionBroken, operation))?;
        link.open(&theirs, session, capabilities);
        let (transport, device) = (engine.transport, engine.device.clone());
        let connection = ConnectionId::new(session);
        let identity = Arc::new(Identity {
            connection,
            peer: peer.clone(),
            transport,
            device,
            meters: Arc::clone(&engine.meters),
        });
        link.identity = Some(Arc::clone(&identity));
        let (eager_limit, longest) = (link.eager_limit(), link.longest());
        let courier = (link.features() & SHARES_PAGES != 0).then(|| core.queue.courier(channel)).flatten();
        let shares_pages = courier.is_some();
        if let (Some(courier), Some(link)) = (courier, core.link(key)) {
            link.pages = Some(Box::new(Pages::new(courier, returns(&engine, key))));
        }
        let peers_domain = theirs.domain;
        Ok(Facts {
            session,
            peers_domain,
            identity,
            gid,
            private_data,
            capabilities,
            eager_limit,
            longest,
            shares_pages,
        })
    });
    let facts = match activated {
        Ok(facts) => facts,
        Err(error) => {
            // The queue pair goes before the identifier.
            drop(abandon);
            end.refuse(&Refusal::Busy.to_bytes());
            return Err(refine(error));
        }
    };
    role.reach("connect.activated", "accept.activated");
    // The peer asks for answers as soon as it is connected.
    engine.look_after();
    let control = Arc::new(end.finish(&reply, deadline).await.map_err(refine)?);
    role.reach("connect.established", "accept.established");
    let hang_up = Arc::clone(&control);
    engine.with(|core| {
        if let Some(link) = core.link(key) {
            link.hang_up = Some(Box::new(move || hang_up.disconnect()));
            link.liveness.begin();
        }
    });
    let lost = Arc::downgrade(&engine);
    control.on_lost(move |error| {
        if let Some(engine) = lost.upgrade() {
            engine.lost(key, error);
        }
    });
    abandon.disarm();
    tracing::debug!(peer, device = engine.device, connection = %facts.identity.connection, "connected");
    Ok(Arc::new(Inner::new(engine, key, ending, control, facts)))
}

/// Who tells the peer of buffers in its pages that are gone here.
fn returns<T: Transport>(engine: &Arc<Engine<T>>, key: LinkKey) -> Arc<Returns> {
    let engine = Arc::downgrade(engine);
    Returns::new(move || {
        if let Some(engine) = engine.upgrade() {
            engine.buffer_dropped(key);
        }
    })
}

/// The peer's introduction, and what its application says.
fn parse(introduction: &[u8], operation: &'static str) -> Result<(Handshake, Vec<u8>)> {
    let parsed = Handshake::parse(introduction).map(|(theirs, private)| (theirs, private.to_vec()));
    parsed.map_err(|reason| Error::new(ErrorKind::Protocol, operation).with_detail(reason))
}

fn open<T: Transport, S: SetUp<T>>(
    engine: &Arc<Engine<T>>,
    end: &mut S,
    ours: Handshake,
    ending: &Arc<OnceLock<Error>>,
    seat: Seat,
) -> Result<LinkKey> {
    let config = &engine.config;
    let mut link = Link::new(config, ours, Arc::clone(ending), engine.now());
    link.seat = Some(seat);
    let share = u32::from(ours.credits);
    let sizes = ChannelSizes { segments: SEGMENTS, sends: config.send_depth + CONTROL_SENDS as u32, inline: INLINE };
    engine.with(|core| {
        core.add_receives(share)?;
        match end.open_channel(&mut core.queue, sizes) {
            Ok(channel) => Ok(core.insert(link, channel, share)),
            Err(error) => {
                core.receives.give_up(share);
                Err(error)
            }
        }
    })
}

/// What an engine asks of its links' owner to introduce itself with.
pub(super) fn introduction(config: &Config, domain: u64) -> Handshake {
    Handshake {
        features: crate::protocol::HEARTBEAT,
        nonce: rand::random(),
        longest: config.max_message_size,
        // One to begin with: an idle connection keeps no more.
        credits: 1,
        frame: config.frame_size,
        window: config.channel_window,
        domain,
    }
}

/// Takes a half-made connection back unless it was completed.
struct Abandon<T: Transport> {
    engine: Arc<Engine<T>>,
    key: LinkKey,
    armed: bool,
}

impl<T: Transport> Abandon<T> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl<T: Transport> Drop for Abandon<T> {
    fn drop(&mut self) {
        if self.armed {
            self.engine.abandon(self.key);
        }
    }
}
