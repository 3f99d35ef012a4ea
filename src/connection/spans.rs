//! Spans, at level debug, by which one operation is followed across two hosts: both ends name connection and grant alike. The table is in
//! `docs/telemetry.md`. Where nobody listens a span costs a look at a static, and small messages have none.

use std::sync::Arc;

use tracing::field::{Empty, display};
use tracing::{Span, debug_span};

use crate::Error;
use crate::protocol::GrantId;
use crate::telemetry::{ConnectionId, GrantName, Meters, Phase, Timer};
use crate::transport::Kind;

/// Grants that the span of a question names, at most.
const MOST_NAMED: usize = 16;

/// What a connection is called in its spans.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) connection: ConnectionId,
    pub(super) peer: String,
    pub(super) transport: Kind,
    pub(super) device: String,
    pub(super) meters: Arc<Meters>,
}

/// A span that tells how it ended, and times what ends well.
#[derive(Debug)]
pub(super) struct Trace {
    span: Span,
    /// What it tells if nobody says more.
    unsaid: &'static str,
    timer: Timer,
}

impl Trace {
    fn new(span: Span, unsaid: &'static str) -> Self {
        Self { span, unsaid, timer: Timer::default() }
    }

    fn timed(mut self, meters: &Arc<Meters>, phase: Phase) -> Self {
        self.timer = Timer::begin(meters, phase);
        self
    }

    /// One of nothing.
    pub(super) fn none() -> Self {
        Self::new(Span::none(), "")
    }

    /// What futures are run in.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(super) fn end(mut self, outcome: &'static str) {
        self.unsaid = outcome;
        if matches!(outcome, "ok" | "agreed" | "forced") {
            self.timer.end();
        }
    }

    pub(super) fn fail(mut self, error: &Error) {
        self.span.record("outcome", display(error));
        self.unsaid = "";
    }

    pub(super) fn end_with<R>(self, result: &Result<R, Error>) {
        match result {
            Ok(_) => self.end("ok"),
            Err(error) => self.fail(error),
        }
    }

    /// Who it is with, as soon as that is known.
    pub(super) fn with(&self, identity: &Identity) {
        self.span.record("connection", display(identity.connection));
        self.span.record("peer", identity.peer.as_str());
        self.span.record("transport", identity.transport.name());
        self.span.record("device", identity.device.as_str());
    }

    /// Whether somebody listens to it.
    pub(super) fn is_heard(&self) -> bool {
        !self.span.is_disabled()
    }

    /// Which channel it is about.
    pub(super) fn with_channel(&self, channel: u32) {
        self.span.record("channel", channel);
    }

    /// Which grant it is about, as soon as that is known.
    pub(super) fn with_grant(&self, grant: GrantName) {
        self.span.record("grant", display(grant));
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if !self.unsaid.is_empty() && !self.span.is_disabled() {
            self.span.record("outcome", self.unsaid);
        }
    }
}

/// A connector at work, from the name of the peer to the connection.
pub(super) fn connect(address: &str) -> Trace {
    let span = debug_span!(
        "connect",
        address,
        connection = Empty,
        peer = Empty,
        transport = Empty,
        device = Empty,
        outcome = Empty
    );
    Trace::new(span, "dropped").timed(&Meters::of_process(), Phase::Connect)
}

/// A peer that asks a listener.
pub(super) fn accept(peer: &str, transport: Kind, device: &str, meters: &Arc<Meters>) -> Trace {
    let transport = transport.name();
    let span = debug_span!(parent: None, "accept", connection = Empty, peer, transport, device, outcome = Empty);
    Trace::new(span, "dropped").timed(meters, Phase::Accept)
}

/// The two introducing themselves.
pub(super) fn handshake(role: &'static str, peer: &str, transport: Kind, device: &str, meters: &Arc<Meters>) -> Trace {
    let transport = transport.name();
    let span = debug_span!("handshake", role, connection = Empty, peer, transport, device, outcome = Empty);
    Trace::new(span, "dropped").timed(meters, Phase::Handshake)
}

/// A long message, at its sender: from its grant until the peer has taken it.
pub(super) fn offer(identity: &Identity, length: usize) -> Trace {
    let Identity { connection, peer, transport, device, meters } = identity;
    let span = debug_span!(
        "rendezvous",
        role = "sender",
        %connection,
        peer,
        transport = transport.name(),
        device,
        channel = Empty,
        grant = Empty,
        length,
        outcome = Empty
    );
    Trace::new(span, "its future was dropped").timed(meters, Phase::Offer)
}

/// A long message, at its receiver: from the read that fetches it to that one's end. Whoever drives the worker begins it, so it has no parent.
pub(super) fn fetch(identity: &Identity, channel: u32, grant: GrantName, length: u64) -> Span {
    let Identity { connection, peer, transport, device, .. } = identity;
    debug_span!(
        parent: None,
        "rendezvous",
        role = "receiver",
        %connection,
        peer,
        transport = transport.name(),
        device,
        channel,
        %grant,
        length,
        outcome = Empty
    )
}

/// A grant that is taken back, at its owner: from the first step until nobody can reach the memory.
pub(super) fn revoke(identity: &Identity, grant: GrantName, length: u64) -> Span {
    let Identity { connection, peer, transport, device, .. } = identity;
    let transport = transport.name();
    debug_span!(
        parent: None, "revoke", role = "owner", %connection, peer, transport, device, %grant, length, outcome = Empty
    )
}

/// Grants that the peer wants back, at their holder: from the question to the last answer.
pub(super) fn asked_back(identity: &Identity, question: u32, grants: &[GrantId]) -> Span {
    let Identity { connection, peer, transport, device, .. } = identity;
    let transport = transport.name();
    let names: Vec<_> = grants.iter().take(MOST_NAMED).map(|id| GrantName::of(*id).to_string()).collect();
    let grants = names.join(", ") + if grants.len() > MOST_NAMED { ", …" } else { "" };
    debug_span!(
        parent: None,
        "revoke",
        role = "holder",
        %connection,
        peer,
        transport,
        device,
        question,
        grants,
        outcome = Empty
    )
}

/// A grant to the domain that is taken back.
pub(super) fn revoke_for_domain(device: &str, grant: GrantName, length: u64) -> Trace {
    let span = debug_span!(parent: None, "revoke", role = "owner", device, %grant, length, outcome = Empty);
    Trace::new(span, "dropped")
}

/// A connection that is closed; `by` what.
pub(super) fn close(identity: &Identity, by: &'static str) -> Trace {
    let Identity { connection, peer, transport, device, meters } = identity;
    let transport = transport.name();
    let span = debug_span!("close", by, %connection, peer, transport, device, outcome = Empty);
    Trace::new(span, "its future was dropped").timed(meters, Phase::Close)
}
