//! Spans of what begins and ends under the engine's lock. A subscriber is foreign code: it may ask for a snapshot, write to a pipe that is full, or wait
//! for somebody who does. So it is called when the lock is free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Span;
use tracing::level_filters::LevelFilter;

use super::spans::{self, Identity};
use crate::protocol::GrantId;
use crate::telemetry::{GrantName, Phase, Timer};

/// A span that is begun, and ended, when the lock is free. Dropping it tells the subscriber at once.
#[derive(Debug, Default)]
pub(super) struct LaterSpan {
    /// `None` if nobody listens.
    shared: Option<Arc<Mutex<State>>>,
    timer: Timer,
}

/// What has become of a span. Who begins it may come after who ends it.
#[derive(Debug)]
pub(super) enum State {
    Beginning,
    Begun(Span),
    Ended(&'static str),
}

/// What a span is of.
#[derive(Debug)]
pub(super) enum What {
    /// A long message that is fetched.
    Fetch { channel: u32, grant: GrantId, length: u64 },
    /// The peer wants grants back.
    Question { serial: u32, grants: Vec<GrantId> },
    /// A grant of ours that is taken back.
    Revocation { grant: GrantId, length: u64 },
}

/// Something for the subscriber, which is told it by the drop of this.
#[derive(Debug)]
pub(super) enum Told {
    Begun { shared: Arc<Mutex<State>>, identity: Arc<Identity>, what: What },
    Ended { shared: Arc<Mutex<State>>, outcome: &'static str },
    LeaseOver { identity: Arc<Identity>, grant: GrantId },
}

/// Whether somebody may listen. No foreign code is asked.
pub(super) fn somebody_may_listen() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
}

impl LaterSpan {
    /// Begins to time it; the span begins with the drop of what is answered beside it.
    pub(super) fn begin(identity: Option<&Arc<Identity>>, what: What) -> (Self, Option<Told>) {
        let Some(identity) = identity else { return Default::default() };
        let timer = match what {
            What::Fetch { .. } => Timer::begin(&identity.meters, Phase::Fetch),
            What::Revocation { .. } => Timer::begin(&identity.meters, Phase::Revoke),
            What::Question { .. } => Timer::default(),
        };
        if !somebody_may_listen() {
            return (Self { shared: None, timer }, None);
        }
        let shared = Arc::new(Mutex::new(State::Beginning));
        let told = Told::Begun { shared: Arc::clone(&shared), identity: Arc::clone(identity), what };
        (Self { shared: Some(shared), timer }, Some(told))
    }

    /// It has ended; the subscriber learns it by the drop of what is answered.
    pub(super) fn end(mut self, outcome: &'static str) -> Option<Told> {
        if matches!(outcome, "ok" | "agreed" | "forced") {
            self.timer.end();
        }
        self.shared.take().map(|shared| Told::Ended { shared, outcome })
    }
}

impl Drop for LaterSpan {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            drop(Told::Ended { shared, outcome: "the connection has ended" });
        }
    }
}

impl What {
    fn span(&self, identity: &Identity) -> Span {
        match self {
            Self::Fetch { channel, grant, length } => spans::fetch(identity, *channel, GrantName::of(*grant), *length),
            Self::Question { serial, grants } => spans::asked_back(identity, *serial, grants),
            Self::Revocation { grant, length } => spans::revoke(identity, GrantName::of(*grant), *length),
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        match self {
            Self::Begun { shared, identity, what } => {
                let span = what.span(identity);
                let mut state = lock(shared);
                match *state {
                    State::Ended(outcome) => {
                        drop(state);
                        end(span, outcome);
                    }
                    _ => *state = State::Begun(span),
                }
            }
            Self::Ended { shared, outcome } => {
                let state = std::mem::replace(&mut *lock(shared), State::Ended(outcome));
                if let State::Begun(span) = state {
                    end(span, outcome);
                }
            }
            Self::LeaseOver { identity, grant } => {
                let (connection, grant) = (identity.connection, GrantName::of(*grant));
                tracing::debug!(%connection, %grant, "the lease of a grant is over");
            }
        }
    }
}

fn end(span: Span, outcome: &'static str) {
    span.record("outcome", outcome);
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
