//! Receiving: messages as they are here, and long ones fetched into a buffer or where the caller wants them.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::deadline::within;
use super::established::{Inner, Waiting};
use super::message::Message;
use super::taking::{NotFetched, Step};
use crate::memory::Transfer;
use crate::transport::Transport;
use crate::{Buffer, Destination, Error, ErrorKind, Failed, Pool, Result};

impl<T: Transport> Inner<T> {
    /// The next message of a channel.
    pub(super) async fn receive(self: &Arc<Self>, channel: usize) -> Result<Message> {
        let mut waiting = Waiting::new(self);
        let mut memory: Option<(u64, Transfer)> = None;
        let mut ahead = true;
        loop {
            let step = poll_fn(|context| {
                self.engine.drive(context, |core, waker| {
                    let mut must_wait = false;
                    if let Some((serial, transfer)) = memory.take() {
                        match core.fetch(self.key, channel, serial, false, transfer) {
                            Ok(()) => {}
                            Err(NotFetched::Gone(held)) => held.into_iter().for_each(|held| core.discard(held)),
                            Err(NotFetched::Later(transfer)) => {
                                memory = Some((serial, transfer));
                                must_wait = true;
                            }
                        }
                    }
                    match core.receive(self.key, channel, ahead) {
                        // There was no room for just that.
                        Poll::Ready(Ok(Step::Fetch { .. })) if must_wait => {}
                        Poll::Ready(step) => return Poll::Ready(step),
                        Poll::Pending => {}
                    }
                    if let Some(waker) = waker {
                        core.wait_to_receive(self.key, channel, waiting.with(waker));
                        if must_wait {
                            core.wait_to_send(self.key, waker);
                        }
                    }
                    Poll::Pending
                })
            });
            match step.await.map_err(|error| self.refine(error))? {
                Step::Message(stored) => return Ok(Message::new(stored)),
                Step::Fetch { serial, length, is_first } => match self.room_for(length) {
                    Ok(transfer) => memory = Some((serial, transfer)),
                    // The message stays; those before it may be had.
                    Err(error) if is_first => return Err(self.refine(error)),
                    Err(_) => ahead = false,
                },
            }
        }
    }

    /// The next message of a channel, within `patience`.
    pub(super) async fn receive_timeout(self: &Arc<Self>, channel: usize, patience: Duration) -> Result<Message> {
        let received = within(&self.engine.service, patience, self.receive(channel)).await;
        received.unwrap_or_else(|| {
            let detail = format!("no message within {patience:?}");
            Err(self.refine(Error::new(ErrorKind::TimedOut, "receive").with_detail(detail)))
        })
    }

    /// The next message of a channel, if it is here. One that has to be fetched is begun to be.
    pub(super) fn try_receive(self: &Arc<Self>, channel: usize) -> Result<Option<Message>> {
        loop {
            let step = self.engine.with(|core| {
                core.look();
                core.receive(self.key, channel, true)
            });
            match step {
                Poll::Pending => return Ok(None),
                Poll::Ready(Err(error)) => return Err(self.refine(error)),
                Poll::Ready(Ok(Step::Message(stored))) => return Ok(Some(Message::new(stored))),
                Poll::Ready(Ok(Step::Fetch { serial, length, is_first })) => {
                    let memory = match self.room_for(length) {
                        Ok(memory) => memory,
                        Err(error) if is_first => return Err(self.refine(error)),
                        Err(_) => return Ok(None),
                    };
                    if self.engine.with(|core| core.fetch(self.key, channel, serial, false, memory)).is_err() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// A buffer of `length` bytes, ready to be fetched into.
    fn room_for(&self, length: u64) -> Result<Transfer> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let buffer: Buffer =
            Pool::with_global(|pool| pool.allocate(length)).map_err(|error| error.within("receive"))?;
        Transfer::of(buffer, self.engine.place()).map_err(|failed| failed.error.within("receive"))
    }

    /// The next message of a channel, put into `destination`; answers its length too.
    pub(super) async fn receive_into<D: Destination>(
        self: &Arc<Self>,
        channel: usize,
        mut destination: D,
    ) -> std::result::Result<(D, usize), Failed<D>> {
        let mut waiting = Waiting::new(self);
        let room = destination.length();
        let step = poll_fn(|context| {
            self.engine.drive(context, |core, waker| {
                let step = core.receive_into(self.key, channel, room);
                if let (Poll::Pending, Some(waker)) = (&step, waker) {
                    core.wait_to_receive(self.key, channel, waiting.with(waker));
                }
                step
            })
        });
        let (serial, length) = match step.await {
            Ok(Step::Message(stored)) => {
                let message = Message::new(stored);
                destination.fill(&message);
                return Ok((destination, message.len()));
            }
            Ok(Step::Fetch { serial, length, .. }) => (serial, length as usize),
            Err(error) => return Err(Failed { error: self.refine(error), buffer: Some(destination) }),
        };
        let claim = Claim { inner: self, channel, serial };
        let mut memory = match Transfer::of(destination, self.engine.place()) {
            Ok(mut memory) => {
                memory.truncate(length);
                Some(memory)
            }
            Err(Failed { error, buffer }) => {
                return Err(Failed { error: self.refine(error.within("receive")), buffer });
            }
        };
        let ended = poll_fn(|context| {
            self.engine.drive(context, |core, waker| {
                if let Some(transfer) = memory.take() {
                    match core.fetch(self.key, channel, serial, true, transfer) {
                        Ok(()) => {}
                        Err(NotFetched::Gone(held)) => {
                            let (ended, _) = match core.delivered(self.key, channel, serial) {
                                Poll::Ready(ended) => ended,
                                Poll::Pending => (Err(Error::new(ErrorKind::ConnectionBroken, "receive")), None),
                            };
                            return Poll::Ready((ended, held));
                        }
                        Err(NotFetched::Later(transfer)) => {
                            memory = Some(transfer);
                            if let Some(waker) = waker {
                                core.wait_to_send(self.key, waiting.with(waker));
                            }
                            return Poll::Pending;
                        }
                    }
                }
                let ended = core.delivered(self.key, channel, serial);
                if let (Poll::Pending, Some(waker)) = (&ended, waker) {
                    core.wait_to_receive(self.key, channel, waiting.with(waker));
                }
                ended
            })
        });
        let (ended, held) = ended.await;
        std::mem::forget(claim);
        let destination = held.and_then(D::release);
        match (ended, destination) {
            (Ok(()), Some(destination)) => Ok((destination, length)),
            (Ok(()), None) => {
                let error = Error::new(ErrorKind::Other, "receive").with_detail("it came back without its memory");
                Err(Failed { error: self.refine(error), buffer: None })
            }
            (Err(error), buffer) => Err(Failed { error: self.refine(error), buffer }),
        }
    }
}

/// A long message that a receiver is about to have. If the receiver goes, it is the next one's.
struct Claim<'a, T: Transport> {
    inner: &'a Arc<Inner<T>>,
    channel: usize,
    serial: u64,
}

impl<T: Transport> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        if self.inner.engine.is_ours() {
            self.inner.engine.with(|core| core.abandon_claim(self.inner.key, self.channel, self.serial));
        }
    }
}
