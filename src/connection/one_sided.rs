//! Reads and writes of a peer's memory.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Active;
use super::established::Inner;
use super::operations::{OperationKey, Outcome};
use crate::memory::Transfer;
use crate::{Access, Buffer, Error, ErrorKind, Failed, RemoteBuffer, transport};

/// A read or write on its way. It is a future of the buffer.
///
/// It was posted, or added to its batch, when it was made. If the queue was full it will be when it is polled, and only
/// then does dropping it cancel it; otherwise it goes on, and its buffer is freed when it completes.
#[must_use = "dropping an operation detaches it: nobody learns how it ends"]
pub struct Operation {
    inner: Arc<Inner<Active>>,
    kind: Kind,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

enum State {
    Refused(Failed<Buffer>),
    /// The queue was full.
    Waiting(Transfer, transport::Operation),
    Posted(OperationKey),
    Over,
}

impl Operation {
    pub(super) fn start(
        inner: &Arc<Inner<Active>>,
        kind: Kind,
        buffer: Buffer,
        remote: &RemoteBuffer,
        post_now: bool,
    ) -> Self {
        let state = match prepare(inner, kind, buffer, remote) {
            Err(failed) => State::Refused(failed),
            Ok((memory, operation)) => inner.engine.with(|core| {
                match core.start(inner.key, operation, memory, post_now) {
                    Ok(key) => State::Posted(key),
                    Err((None, Some(memory))) => {
                        // What is staged is posted, so that there will be room.
                        core.flush();
                        State::Waiting(memory, operation)
                    }
                    Err((error, memory)) => State::Refused(failure(error, memory)),
                }
            }),
        };
        Self { inner: Arc::clone(inner), kind, state }
    }
}

impl Future for Operation {
    type Output = std::result::Result<Buffer, Failed<Buffer>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (inner, state) = (&this.inner, &mut this.state);
        let outcome = inner.engine.drive(context, |core, waker| {
            if let State::Waiting(..) = state {
                let State::Waiting(memory, operation) = std::mem::replace(state, State::Over) else { unreachable!() };
                *state = match core.start(inner.key, operation, memory, true) {
                    Ok(key) => State::Posted(key),
                    Err((None, Some(memory))) => State::Waiting(memory, operation),
                    Err((error, memory)) => State::Refused(failure(error, memory)),
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
                State::Refused(_) => {
                    let State::Refused(failed) = std::mem::replace(state, State::Over) else { unreachable!() };
                    Poll::Ready(Err(failed))
                }
                State::Over => panic!("polled after it was ready"),
            }
        });
        if outcome.is_ready() {
            this.state = State::Over;
        }
        let (inner, kind) = (&this.inner, this.kind);
        outcome.map(|outcome: Outcome| {
            outcome.map_err(|failed| Failed {
                error: inner.refine(failed.error.again(kind.name())),
                buffer: failed.buffer,
            })
        })
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let State::Posted(key) = self.state
            && self.inner.engine.is_ours()
        {
            self.inner.engine.with(|core| core.waiting -= usize::from(core.operations.detach(key)));
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn access(self) -> Access {
        match self {
            Self::Read => Access::READ,
            Self::Write => Access::WRITE,
        }
    }
}

/// Checks all that can be checked before the wire.
fn prepare(
    inner: &Inner<Active>,
    kind: Kind,
    buffer: Buffer,
    remote: &RemoteBuffer,
) -> Result<(Transfer, transport::Operation), Failed<Buffer>> {
    let length = buffer.len();
    if length as u64 > inner.capabilities.longest {
        let detail = format!("{length} bytes; the device carries up to {} at once", inner.capabilities.longest);
        return Err(Failed { error: Error::new(ErrorKind::TooLong, kind.name()).with_detail(detail), buffer });
    }
    let (address, key) = match remote.check(kind.name(), kind.access(), inner.session, 0, length) {
        Ok(checked) => checked,
        Err(error) => return Err(Failed { error, buffer }),
    };
    let memory = Transfer::new(buffer, 0..length, &*inner.engine.domain)?;
    Ok((
        memory,
        match kind {
            Kind::Read => transport::Operation::Read { address, key },
            Kind::Write => transport::Operation::Write { address, key },
        },
    ))
}

fn failure(error: Option<Error>, memory: Option<Transfer>) -> Failed<Buffer> {
    let error = error.unwrap_or_else(|| Error::new(ErrorKind::ResourceExhausted, "post"));
    match memory {
        Some(memory) => Failed { error, buffer: memory.into_buffer() },
        None => unreachable!("one-sided operations own their memory, which a refusal gives back"),
    }
}
