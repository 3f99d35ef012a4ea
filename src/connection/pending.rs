//! A one-sided operation on its way, whatever its memory is.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::Active;
use super::core::{Core, Garbage, LinkKey};
use super::established::Inner;
use super::operations::{OperationKey, Outcome};
use super::posting::{NotStarted, Wanted};
use crate::memory::{Held, Payload, Transfer};
use crate::transport::Queue;
use crate::{Access, Error, ErrorKind, Failed, RemoteBuffer, transport};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    CompareSwap { compare: u64, swap: u64 },
    FetchAdd { add: u64 },
    Probe,
    Read,
    Write,
    WriteNotify { value: u32 },
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CompareSwap { .. } => "compare and swap",
            Self::FetchAdd { .. } => "fetch and add",
            Self::Probe => "flush",
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteNotify { .. } => "write and notify",
        }
    }

    fn access(self) -> Access {
        match self {
            Self::CompareSwap { .. } | Self::FetchAdd { .. } => Access::ATOMIC,
            Self::Probe | Self::Read => Access::READ,
            Self::Write | Self::WriteNotify { .. } => Access::WRITE,
        }
    }

    fn request(self, address: u64, key: u32) -> transport::Operation {
        match self {
            Self::CompareSwap { compare, swap } => transport::Operation::CompareSwap { address, key, compare, swap },
            Self::FetchAdd { add } => transport::Operation::FetchAdd { address, key, add },
            Self::Probe => transport::Operation::Probe,
            Self::Read => transport::Operation::Read { address, key },
            Self::Write => transport::Operation::Write { address, key },
            Self::WriteNotify { value } => transport::Operation::WriteNotify { address, key, value },
        }
    }
}

/// When an operation is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct How {
    /// When the reads and atomics before it have ended.
    pub(super) fence: bool,
    /// Not before somebody posts what is staged.
    pub(super) staged: bool,
}

/// An operation that was posted, or waits for room in the queue. When it is dropped, what was posted goes on.
pub(super) struct Pending {
    inner: Arc<Inner<Active>>,
    pub(super) kind: Kind,
    state: State,
}

enum State {
    Refused(Error, Option<Held>),
    /// There was no room for it.
    Waiting(Wanted),
    Posted(OperationKey),
    Over,
}

impl Pending {
    /// Starts it, or answers why not when it is polled; the memory that was refused here comes back at once.
    pub(super) fn start<P: Payload>(
        inner: &Arc<Inner<Active>>,
        kind: Kind,
        payload: P,
        remote: &RemoteBuffer,
        how: How,
    ) -> (Self, Option<P>) {
        match prepare(inner, kind, payload, remote, how.fence) {
            Ok(wanted) => (Self::post(inner, kind, wanted, how), None),
            Err(Failed { error, buffer }) => {
                (Self { inner: Arc::clone(inner), kind, state: State::Refused(error, None) }, buffer)
            }
        }
    }

    /// An operation that does nothing, and ends when all before it have.
    pub(super) fn probe(inner: &Arc<Inner<Active>>) -> Self {
        let operation = transport::Operation::Probe;
        let wanted = Wanted { operation, memory: None, grant: None, segment: None, fence: false };
        Self::post(inner, Kind::Probe, wanted, How::default())
    }

    fn post(inner: &Arc<Inner<Active>>, kind: Kind, wanted: Wanted, how: How) -> Self {
        let state = inner.engine.with(|core| {
            if !how.staged {
                // The owner may have asked for its grant while nobody was looking.
                core.look();
            }
            let state = begin(core, inner.key, wanted, !how.staged);
            if let State::Waiting(_) = state {
                // What is staged is posted, so that there will be room.
                core.flush();
            }
            state
        });
        Self { inner: Arc::clone(inner), kind, state }
    }

    /// Whether the device has it, or had.
    pub(super) fn is_posted(&self) -> bool {
        matches!(self.state, State::Posted(_))
    }

    /// How it ended, once.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let (inner, state) = (&self.inner, &mut self.state);
        let outcome = inner.engine.drive(context, |core, waker| {
            if let State::Waiting(_) = state {
                let State::Waiting(wanted) = std::mem::replace(state, State::Over) else { unreachable!() };
                *state = begin(core, inner.key, wanted, true);
            }
            match state {
                State::Posted(key) => {
                    // A batch that was not posted yet would never complete.
                    core.flush();
                    let (outcome, is_new) = core.operations.poll(*key, waker);
                    core.waiting += usize::from(is_new);
                    outcome
                }
                State::Waiting(_) => {
                    if let Some(waker) = waker {
                        core.wait_to_send(inner.key, waker);
                    }
                    Poll::Pending
                }
                State::Refused(..) => {
                    let State::Refused(error, held) = std::mem::replace(state, State::Over) else { unreachable!() };
                    Poll::Ready((Err(error), held))
                }
                State::Over => panic!("polled after it was ready"),
            }
        });
        if outcome.is_ready() {
            self.state = State::Over;
        }
        let (inner, kind) = (&self.inner, self.kind);
        outcome.map(|(result, held)| (result.map_err(|error| inner.refine(error.again(kind.name()))), held))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let State::Posted(key) = self.state
            && self.inner.engine.is_ours()
        {
            self.inner.engine.with(|core| {
                let (had_waiter, unwanted) = core.operations.detach(key);
                core.waiting -= usize::from(had_waiter);
                core.garbage.extend(unwanted.map(Garbage::Memory));
            });
        }
    }
}

/// Checks all that can be checked before the wire.
fn prepare<P: Payload>(
    inner: &Inner<Active>,
    kind: Kind,
    payload: P,
    remote: &RemoteBuffer,
    fence: bool,
) -> Result<Wanted, Failed<P>> {
    let (length, limits) = (payload.length(), inner.facts.capabilities);
    let refuse = |error, payload| Err(Failed { error, buffer: Some(payload) });
    if length as u64 > limits.longest {
        let detail = format!("{length} bytes; the device carries up to {} at once", limits.longest);
        return refuse(Error::new(ErrorKind::TooLong, kind.name()).with_detail(detail), payload);
    }
    let (address, key) =
        match remote.check(kind.name(), kind.access(), (inner.facts.session, inner.facts.peers_domain), length) {
            Ok(checked) => checked,
            Err(error) => return refuse(error, payload),
        };
    let memory = Transfer::of(payload, inner.engine.place())?;
    if memory.pieces() > limits.segments {
        let detail = format!("{} pieces of memory; at most {} at once", memory.pieces(), limits.segments);
        let error = Error::new(ErrorKind::TooLong, kind.name()).with_detail(detail);
        return Err(Failed { error, buffer: P::release(memory.into_held()) });
    }
    let (operation, grant, segment) = (kind.request(address, key), Some(remote.grant()), remote.segment());
    Ok(Wanted { operation, memory: Some(memory), grant, segment, fence })
}

/// Begins it, if there is room.
fn begin<Q: Queue>(core: &mut Core<Q>, key: LinkKey, wanted: Wanted, post_now: bool) -> State {
    match core.start(key, wanted, post_now) {
        Ok(key) => State::Posted(key),
        Err(NotStarted::Later(wanted)) => State::Waiting(wanted),
        Err(NotStarted::Refused(error, memory)) => State::Refused(error, memory.map(Transfer::into_held)),
    }
}
