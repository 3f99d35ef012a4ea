//! A one-sided operation on its way, whatever its memory is.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::Active;
use super::core::Garbage;
use super::established::Inner;
use super::operations::{OperationKey, Outcome};
use crate::memory::{Held, Payload, Transfer};
use crate::protocol::GrantId;
use crate::{Access, Error, ErrorKind, Failed, RemoteBuffer, transport};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    CompareSwap { compare: u64, swap: u64 },
    FetchAdd { add: u64 },
    Read,
    Write,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CompareSwap { .. } => "compare and swap",
            Self::FetchAdd { .. } => "fetch and add",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn access(self) -> Access {
        match self {
            Self::CompareSwap { .. } | Self::FetchAdd { .. } => Access::ATOMIC,
            Self::Read => Access::READ,
            Self::Write => Access::WRITE,
        }
    }

    fn request(self, address: u64, key: u32) -> transport::Operation {
        match self {
            Self::CompareSwap { compare, swap } => transport::Operation::CompareSwap { address, key, compare, swap },
            Self::FetchAdd { add } => transport::Operation::FetchAdd { address, key, add },
            Self::Read => transport::Operation::Read { address, key },
            Self::Write => transport::Operation::Write { address, key },
        }
    }
}

/// An operation that was posted, or waits for room in the queue. When it is dropped, what was posted goes on.
pub(super) struct Pending {
    inner: Arc<Inner<Active>>,
    pub(super) kind: Kind,
    state: State,
}

enum State {
    Refused(Error, Option<Held>),
    /// The queue was full.
    Waiting(Transfer, transport::Operation, GrantId),
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
        post_now: bool,
    ) -> (Self, Option<P>) {
        let this = |state| Self { inner: Arc::clone(inner), kind, state };
        let (memory, operation) = match prepare(inner, kind, payload, remote) {
            Ok(prepared) => prepared,
            Err(Failed { error, buffer }) => return (this(State::Refused(error, None)), buffer),
        };
        let grant = remote.grant();
        let started = inner.engine.with(|core| {
            if post_now {
                // The owner may have asked for its grant while nobody was looking.
                core.look();
            }
            match core.start(inner.key, operation, memory, grant, post_now) {
                Ok(key) => State::Posted(key),
                Err((None, Some(memory))) => {
                    // What is staged is posted, so that there will be room.
                    core.flush();
                    State::Waiting(memory, operation, grant)
                }
                Err((error, memory)) => refused(error, memory),
            }
        });
        (this(started), None)
    }

    /// How it ended, once.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let (inner, state) = (&self.inner, &mut self.state);
        let outcome = inner.engine.drive(context, |core, waker| {
            if let State::Waiting(..) = state {
                let State::Waiting(memory, operation, grant) = std::mem::replace(state, State::Over) else {
                    unreachable!()
                };
                *state = match core.start(inner.key, operation, memory, grant, true) {
                    Ok(key) => State::Posted(key),
                    Err((None, Some(memory))) => State::Waiting(memory, operation, grant),
                    Err((error, memory)) => refused(error, memory),
                };
            }
            match state {
                State::Posted(key) => {
                    // A batch that was not posted yet would never complete.
                    core.flush();
                    let (outcome, is_new) = core.operations.poll(*key, waker);
                    core.waiting += usize::from(is_new);
                    outcome
                }
                State::Waiting(..) => {
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
) -> Result<(Transfer, transport::Operation), Failed<P>> {
    let (length, limits) = (payload.length(), inner.capabilities);
    let refuse = |error, payload| Err(Failed { error, buffer: Some(payload) });
    if length as u64 > limits.longest {
        let detail = format!("{length} bytes; the device carries up to {} at once", limits.longest);
        return refuse(Error::new(ErrorKind::TooLong, kind.name()).with_detail(detail), payload);
    }
    let (address, key) = match remote.check(kind.name(), kind.access(), (inner.session, inner.peers_domain), length) {
        Ok(checked) => checked,
        Err(error) => return refuse(error, payload),
    };
    let memory = Transfer::of(payload, inner.engine.place())?;
    if memory.pieces() > limits.segments {
        let detail = format!("{} pieces of memory; at most {} at once", memory.pieces(), limits.segments);
        let error = Error::new(ErrorKind::TooLong, kind.name()).with_detail(detail);
        return Err(Failed { error, buffer: P::release(memory.into_held()) });
    }
    Ok((memory, kind.request(address, key)))
}

fn refused(error: Option<Error>, memory: Option<Transfer>) -> State {
    let error = error.unwrap_or_else(|| Error::new(ErrorKind::ResourceExhausted, "post"));
    State::Refused(error, memory.map(Transfer::into_held))
}
