//! Sending: short messages in frames, long ones by an offer that the receiver reads through.

use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::deadline::within;
use super::established::{Inner, Waiting};
use super::grant::{self, For};
use super::spans::{self, Trace};
use crate::memory::{Exposable, Exposed};
use crate::protocol::{GrantId, OFFER, cost};
use crate::telemetry::GrantName;
use crate::transport::Transport;
use crate::{Access, Error, ErrorKind, Failed, Grant, Pool, Result, Revocation, failpoint};

impl<T: Transport> Inner<T> {
    /// Sends the bytes of `pieces` as one message.
    pub(super) async fn send(self: &Arc<Self>, channel: usize, pieces: &[IoSlice<'_>]) -> Result<()> {
        let length = length(pieces);
        if length <= self.facts.eager_limit {
            return self.send_short(channel, pieces, length, false).await.map(drop);
        }
        if self.is_sent_now(channel, pieces, length) {
            return Ok(());
        }
        self.send_copy(channel, pieces, length).await
    }

    /// As [`send`](Self::send); answers when the peer's library has the message.
    pub(super) async fn send_acknowledged(self: &Arc<Self>, channel: usize, pieces: &[IoSlice<'_>]) -> Result<()> {
        let length = length(pieces);
        if length > self.facts.eager_limit {
            // A long one is taken by the peer before this answers anyway.
            return self.send_copy(channel, pieces, length).await;
        }
        let number = self.send_short(channel, pieces, length, true).await?;
        let mut waiting = Waiting::new(self);
        let acknowledged = poll_fn(|context| {
            self.engine.drive(context, |core, waker| {
                let Some(link) = core.link(self.key) else {
                    return Poll::Ready(Err(Error::new(ErrorKind::Closed, "send")));
                };
                if link.acknowledged >= number {
                    return Poll::Ready(Ok(()));
                }
                if let Some(error) = link.ending.get() {
                    return Poll::Ready(Err(error.again("send")));
                }
                if let Some(waker) = waker {
                    core.wait_to_send(self.key, waiting.with(waker));
                }
                Poll::Pending
            })
        });
        acknowledged.await.map_err(|error| self.refine(error))
    }

    /// Sends a short message if that can be done at once.
    pub(super) fn try_send(self: &Arc<Self>, channel: usize, pieces: &[IoSlice<'_>]) -> Result<()> {
        let length = length(pieces);
        if length > self.facts.eager_limit {
            let detail = format!("{length} bytes; at most {} can be sent without waiting", self.facts.eager_limit);
            return Err(self.refine(Error::new(ErrorKind::TooLong, "send").with_detail(detail)));
        }
        let sent = self.engine.with(|core| {
            core.look();
            core.send(self.key, channel, pieces, length, false)
        });
        match sent {
            Poll::Ready(sent) => sent.map(drop).map_err(|error| self.refine(error)),
            Poll::Pending => {
                let detail = "the peer has no room for another message now";
                Err(self.refine(Error::new(ErrorKind::WouldBlock, "send").with_detail(detail)))
            }
        }
    }

    /// As [`send`](Self::send), within `patience`.
    pub(super) async fn send_timeout(
        self: &Arc<Self>,
        channel: usize,
        pieces: &[IoSlice<'_>],
        patience: Duration,
    ) -> Result<()> {
        let sent = within(&self.engine.service, patience, self.send(channel, pieces)).await;
        sent.unwrap_or_else(|| {
            let detail = format!("not within {patience:?}; a message that was not begun to be sent is not sent");
            Err(self.refine(Error::new(ErrorKind::TimedOut, "send").with_detail(detail)))
        })
    }

    /// Answers how many messages are to be acknowledged up to this one.
    async fn send_short(
        self: &Arc<Self>,
        channel: usize,
        pieces: &[IoSlice<'_>],
        length: usize,
        acknowledge: bool,
    ) -> Result<u64> {
        let mut waiting = Waiting::new(self);
        let sent = poll_fn(|context| {
            self.engine.drive(context, |core, waker| {
                let sent = core.send(self.key, channel, pieces, length, acknowledge);
                if let (Poll::Pending, Some(waker)) = (&sent, waker) {
                    core.count_wait(self.key, channel, cost(length));
                    core.wait_to_send(self.key, waiting.with(waker));
                }
                sent
            })
        });
        sent.await.map_err(|error| self.refine(error))
    }

    /// Whether a long message is sent, by a transport that copies messages.
    fn is_sent_now(self: &Arc<Self>, channel: usize, pieces: &[IoSlice<'_>], length: usize) -> bool {
        length as u64 <= self.facts.longest
            && self.engine.with(|core| core.send_now(self.key, channel, pieces, length, false)).is_some()
    }

    async fn send_copy(self: &Arc<Self>, channel: usize, pieces: &[IoSlice<'_>], length: usize) -> Result<()> {
        self.check_length(length)?;
        let mut buffer =
            Pool::with_global(|pool| pool.allocate(length)).map_err(|error| self.refine(error.within("send")))?;
        let mut at = 0;
        for piece in pieces {
            buffer[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        self.send_long(channel, buffer).await.map(drop).map_err(Error::from)
    }

    /// Sends a message without a copy, if it does not fit a frame.
    pub(super) async fn send_owned<M: Exposable>(
        self: &Arc<Self>,
        channel: usize,
        source: M,
    ) -> std::result::Result<M, Failed<M>> {
        let length = source.bytes();
        if length > self.facts.eager_limit {
            if self.is_sent_now(channel, &[IoSlice::new(source.lent())], length) {
                return Ok(source);
            }
            return self.send_long(channel, source).await;
        }
        match self.send_short(channel, &[IoSlice::new(source.lent())], length, false).await {
            Ok(_) => Ok(source),
            Err(error) => Err(Failed { error, buffer: Some(source) }),
        }
    }

    fn check_length(&self, length: usize) -> Result<()> {
        if length as u64 <= self.facts.longest {
            return Ok(());
        }
        let detail = format!("{length} bytes; the peer receives up to {}", self.facts.longest);
        Err(self.refine(Error::new(ErrorKind::TooLong, "send").with_detail(detail)))
    }

    /// Offers `source` and waits until the peer has read it.
    async fn send_long<M: Exposable>(self: &Arc<Self>, channel: usize, source: M) -> std::result::Result<M, Failed<M>> {
        let length = source.bytes();
        if let Err(error) = self.check_length(length) {
            return Err(Failed { error, buffer: Some(source) });
        }
        let trace = self.trace_offer(channel, length);
        let exposed = Exposed::new(source);
        let grant = match grant::begin(self, exposed.exposure(), 0..length, Access::READ, For::Message).await {
            Ok(grant) => grant,
            Err(error) => {
                trace.fail(&error);
                return Err(self.not_sent(error, exposed).await);
            }
        };
        failpoint::reach("offer.granted");
        trace.with_grant(GrantName::of(grant.remote_buffer().grant()));
        let (handle, record) = (grant.remote_buffer(), grant.record());
        let mut sending =
            Sending { inner: self, id: handle.grant(), parts: Some((grant, exposed, trace)), is_offered: false };
        let mut waiting = Waiting::new(self);
        let offered = poll_fn(|context| {
            self.engine.drive(context, |core, waker| {
                let offered = core.offer(self.key, channel, &handle);
                if let (Poll::Pending, Some(waker)) = (&offered, waker) {
                    core.count_wait(self.key, channel, cost(OFFER));
                    core.wait_to_send(self.key, waiting.with(waker));
                }
                offered
            })
        });
        let offered = offered.await;
        sending.is_offered = offered.is_ok();
        drop(waiting);
        failpoint::reach("offer.made");
        let ended = match offered {
            Ok(()) => record.ended().await,
            Err(error) => Err(error),
        };
        let Some((grant, exposed, trace)) = sending.parts.take() else { unreachable!("only taken here and by drop") };
        failpoint::reach("offer.ended");
        // It has ended, or is taken back now.
        drop(grant);
        let error = match ended {
            Ok(Revocation::Agreed | Revocation::Forced) if !record.state.is_declined() => None,
            Ok(Revocation::ConnectionLost) => {
                let broken = || Error::new(ErrorKind::ConnectionBroken, "send");
                Some(self.ending.get().map_or_else(broken, |ending| ending.again("send")))
            }
            Ok(_) => {
                let detail = "the peer no longer receives there, and did not take the message";
                Some(Error::new(ErrorKind::PeerClosed, "send").with_detail(detail))
            }
            Err(error) => Some(error.within("send")),
        };
        match error {
            Some(error) => {
                trace.fail(&error);
                Err(self.not_sent(error, exposed).await)
            }
            None => {
                trace.end("ok");
                exposed.into_inner().await.map_err(|error| Failed { error: self.refine(error), buffer: None })
            }
        }
    }

    fn trace_offer(self: &Arc<Self>, channel: usize, length: usize) -> Trace {
        let trace = spans::offer(&self.facts.identity, length);
        if trace.is_heard()
            && let Some(id) = self.engine.with(|core| Some(core.link(self.key)?.conversations.get(channel)?.id))
        {
            trace.with_channel(id);
        }
        trace
    }

    async fn not_sent<M: Exposable>(&self, error: Error, exposed: Exposed<M>) -> Failed<M> {
        Failed { error: self.refine(error.within("send")), buffer: exposed.into_inner().await.ok() }
    }
}

fn length(pieces: &[IoSlice<'_>]) -> usize {
    pieces.iter().map(|piece| piece.len()).fold(0, usize::saturating_add)
}

/// A long message on its way. If its sender goes, the connection keeps what was offered until the peer has it.
struct Sending<'a, T: Transport, M: Exposable> {
    inner: &'a Arc<Inner<T>>,
    id: GrantId,
    parts: Option<(Grant, Exposed<M>, Trace)>,
    is_offered: bool,
}

impl<T: Transport, M: Exposable> Drop for Sending<'_, T, M> {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take().filter(|_| self.is_offered && self.inner.engine.is_ours()) {
            self.inner.engine.with(|core| core.detach_offer(self.inner.key, self.id, Box::new(parts)));
        }
    }
}
