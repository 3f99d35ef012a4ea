//! The queue pairs of one worker on one device, behind the seam.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use super::domain::VerbsDomain;
use super::failures::Failures;
use super::receives::Receives;
use super::windows::{self, Windows};
use super::wrap;
use crate::memory::Transfer;
use crate::transport::{
    Capabilities, ChannelKey, ChannelSizes, Completion, Failure, NotBound, Opening, Operation, Queue, Refused, Request,
    Source, WindowKey,
};
use crate::verbs::{
    self, Completed, CompletionStatus, Local, OwningQueue, POLL_BATCH, QueuePair, QueuePairCapabilities, QueuePairKey,
    QueuePairState, RefusedWindow, Remote, SendFlags, SendOperation, SendRequest,
};
use crate::{Error, ErrorKind, Result};

/// An [`OwningQueue`] with its domain.
#[derive(Debug)]
pub(crate) struct Channels {
    queue: OwningQueue<Transfer>,
    /// Room for one poll, kept from poll to poll.
    completed: Vec<Completed<Transfer>>,
    windows: Windows,
    failures: Failures,
    receives: Receives,
    /// Bytes that one request carries: the least of all ports.
    longest: u64,
    /// Reads and atomics that each channel may have outstanding, by its number.
    reads: Vec<u8>,
    domain: Arc<VerbsDomain>,
}

impl Channels {
    pub(super) fn new(domain: Arc<VerbsDomain>, queue: OwningQueue<Transfer>) -> verbs::Result<Self> {
        let context = domain.protection_domain().context();
        let mut longest = u64::from(u32::MAX);
        for port in 1..=context.attributes()?.ports {
            longest = longest.min(context.port(port)?.max_message_size.into());
        }
        let failures = Failures::new(domain.reports());
        let (completed, windows) = (Vec::with_capacity(64), Windows::default());
        let (receives, reads) = (Receives::default(), Vec::new());
        Ok(Self { queue, completed, windows, failures, receives, longest, reads, domain })
    }

    pub(super) fn create(&mut self, sizes: ChannelSizes) -> verbs::Result<ChannelKey> {
        let most = self.domain.protection_domain().context().attributes()?.max_segments;
        let wanted = QueuePairCapabilities {
            inline: sizes.inline,
            receives: 0,
            segments: sizes.segments.min(most),
            sends: sizes.sends,
        };
        let mut builder =
            QueuePair::builder(self.domain.protection_domain(), self.queue.completions()).capabilities(wanted);
        if let Some(receives) = self.queue.shared_receives() {
            builder = builder.shared_receives(receives);
        }
        let key = self.queue.add(builder.create()?)?;
        self.receives.channel_opened();
        Ok(ChannelKey(key.index()))
    }

    /// The channel works, and the peer can serve so many of its reads and atomics at once.
    pub(super) fn activated(&mut self, channel: ChannelKey, reads: u8) {
        if let Some(number) = self.queue_pair(channel).map(QueuePair::number) {
            self.failures.watch(channel, number);
        }
        let index = channel.0 as usize;
        self.reads.resize(self.reads.len().max(index + 1), 0);
        self.reads[index] = reads;
    }

    /// Reads that a queue pair can serve, and have outstanding.
    pub(super) fn reads(&self) -> verbs::Result<(u8, u8)> {
        let attributes = self.domain.protection_domain().context().attributes()?;
        Ok((attributes.max_reads_as_target, attributes.max_reads_as_initiator))
    }

    pub(super) fn queue_pair(&self, channel: ChannelKey) -> Option<&QueuePair> {
        self.queue.queue_pair(QueuePairKey::from_index(channel.0))
    }
}

impl Queue for Channels {
    #[inline]
    fn stage(&mut self, channel: ChannelKey, request: Request<'_>) -> std::result::Result<(), Refused> {
        let request = SendRequest {
            token: request.token,
            operation: match request.operation {
                Operation::CompareSwap { address, key, compare, swap } => {
                    SendOperation::CompareSwap { remote: Remote { address, key }, compare, swap }
                }
                Operation::FetchAdd { address, key, add } => {
                    SendOperation::FetchAdd { remote: Remote { address, key }, add }
                }
                Operation::Probe => SendOperation::Write(Remote::default()),
                Operation::Read { address, key } => SendOperation::Read(Remote { address, key }),
                Operation::Send => SendOperation::Send,
                Operation::Write { address, key } => SendOperation::Write(Remote { address, key }),
                Operation::WriteNotify { address, key, value } => {
                    SendOperation::WriteWithImmediate(Remote { address, key }, value)
                }
            },
            local: match request.source {
                Source::Inline(bytes) => Local::Inline(bytes),
                Source::Owned(memory) => Local::Owned(memory),
            },
            flags: flags(request.signaled, request.fence),
        };
        self.queue.stage(QueuePairKey::from_index(channel.0), request).map_err(|refused| Refused {
            error: refused.error.map(|error| wrap("post", error)),
            memory: refused.memory,
        })
    }

    #[inline]
    fn flush(&mut self) -> Result<()> {
        self.queue.flush().map_err(|error| wrap("post", error))
    }

    fn room(&self, channel: ChannelKey) -> usize {
        self.queue.room(QueuePairKey::from_index(channel.0))
    }

    #[inline]
    fn post_receive(&mut self, token: u64, memory: Transfer) -> std::result::Result<(), Refused> {
        self.queue.post_shared_receive(token, memory).map_err(|refused| Refused {
            error: refused.error.map(|error| wrap("post receive", error)),
            memory: refused.memory,
        })
    }

    fn receive_room(&self) -> usize {
        self.queue.receive_room()
    }

    fn tend(&mut self, now: Instant) {
        self.failures.look(now, |channel| has_failed(&self.queue, channel));
        self.receives.tend(&mut self.queue, &mut self.completed, now);
    }

    #[inline]
    fn poll(&mut self, done: &mut Vec<Completion>) -> Result<bool> {
        self.failures.find(|channel| has_failed(&self.queue, channel));
        let Self { queue, windows, failures, completed: kept, .. } = self;
        let mut take = |mut completed: Completed<Transfer>| {
            let channel = ChannelKey(completed.queue_pair.index());
            if let Some(window) = completed.window.take() {
                windows.completed(channel, completed.token, window, completed.result.is_ok());
            }
            if completed.result.is_ok() {
                failures.heard(channel);
            }
            done.push(completion(completed));
        };
        kept.drain(..).for_each(&mut take);
        // Also when the poll fails it tells what was not posted.
        let polled = queue.poll_each(take);
        // Behind all that came before: that may say more.
        if polled.as_ref().is_ok_and(|polled| *polled < POLL_BATCH) {
            self.failures.tell(done);
            self.receives.tell(done);
        }
        polled.map(|polled| polled > 0).map_err(|error| wrap("poll", error))
    }

    fn request_notification(&mut self) -> Result<()> {
        self.queue.completions().request_notification().map_err(|error| wrap("arm", error))
    }

    fn drain_events(&mut self) -> Result<()> {
        self.queue.completions().drain_events().map(drop).map_err(|error| wrap("read events", error))
    }

    fn event_descriptor(&self) -> Result<Option<OwnedFd>> {
        self.queue
            .completions()
            .as_fd()
            .try_clone_to_owned()
            .map(Some)
            .map_err(|error| Error::new(ErrorKind::ResourceExhausted, "duplicate a descriptor").with_source(error))
    }

    fn capabilities(&self, channel: ChannelKey) -> Capabilities {
        let sizes = self.queue_pair(channel).map(QueuePair::capabilities);
        Capabilities {
            inline: sizes.map_or(0, |sizes| sizes.inline as usize),
            sends: sizes.map_or(0, |sizes| sizes.sends as usize),
            longest: self.longest,
            segments: sizes.map_or(0, |sizes| sizes.segments as usize),
            reads: self.reads.get(channel.0 as usize).copied().unwrap_or(0).into(),
        }
    }

    fn bind(
        &mut self,
        channel: ChannelKey,
        token: u64,
        opening: Opening,
    ) -> std::result::Result<(WindowKey, u32), NotBound> {
        let (region, access) = windows::target(&opening)?;
        let window = self.windows.unbound(channel, self.domain.protection_domain())?;
        let remote_key = match window.binding(region, 0..region.length(), access) {
            Ok(binding) => binding.key().unwrap_or_default(),
            Err(error) => return Err(wrap("grant", error).into()),
        };
        let key = QueuePairKey::from_index(channel.0);
        match self.queue.bind_window(key, token, window, region, 0..region.length(), access) {
            Ok(()) => Ok((self.windows.binding(channel, token), remote_key)),
            Err(RefusedWindow { error, window }) => {
                let is_doubtful = window.is_none();
                if let Some(window) = window {
                    self.windows.keep(channel, window);
                }
                Err(NotBound { error: error.map(|error| wrap("grant", error)), is_doubtful })
            }
        }
    }

    fn invalidate(
        &mut self,
        channel: ChannelKey,
        token: u64,
        window: WindowKey,
    ) -> std::result::Result<(), Option<Error>> {
        let unknown = || Error::new(ErrorKind::Other, "revoke").with_detail("its window is not bound");
        let bound = self.windows.take(window).ok_or_else(|| Some(unknown()))?;
        match self.queue.invalidate_window(QueuePairKey::from_index(channel.0), token, bound) {
            Ok(()) => {
                self.windows.invalidating(channel, token, window);
                Ok(())
            }
            Err(RefusedWindow { error, window: refused }) => {
                match refused {
                    Some(bound) => self.windows.put_back(channel, window, bound),
                    // The device may have the request all the same: it comes back with the end of the queue pair.
                    None => self.windows.invalidating(channel, token, window),
                }
                Err(error.map(|error| wrap("revoke", error)))
            }
        }
    }

    fn fail(&mut self, channel: ChannelKey) {
        self.failures.forget(channel);
        if let Some(Err(error)) = self.queue_pair(channel).map(QueuePair::fail) {
            tracing::warn!(%error, "a queue pair could not be moved to ERROR");
        }
    }

    fn close(&mut self, channel: ChannelKey) -> Option<Box<dyn FnOnce() -> Vec<Completion> + Send>> {
        let detached = self.queue.detach(QueuePairKey::from_index(channel.0))?;
        self.receives.channel_closed();
        let remains = self.windows.leave(channel);
        self.failures.forget(channel);
        Some(Box::new(move || {
            // Frees the windows that are bound, then destroys the queue pair.
            let flushed = detached.destroy();
            drop(remains);
            flushed.into_iter().map(completion).collect()
        }))
    }
}

#[inline]
fn flags(signaled: bool, fence: bool) -> SendFlags {
    let when = |wanted: bool, flag| if wanted { flag } else { SendFlags::NONE };
    when(signaled, SendFlags::SIGNALED) | when(fence, SendFlags::FENCE)
}

fn has_failed(queue: &OwningQueue<Transfer>, channel: ChannelKey) -> bool {
    let pair = queue.queue_pair(QueuePairKey::from_index(channel.0));
    match pair.map(QueuePair::state) {
        Some(Ok(state)) => state == QueuePairState::Error,
        Some(Err(error)) => {
            tracing::warn!(%error, "the state of a queue pair is not known");
            false
        }
        None => false,
    }
}

#[inline]
fn completion(completed: Completed<Transfer>) -> Completion {
    Completion {
        token: completed.token,
        channel: ChannelKey(completed.queue_pair.index()),
        is_receive: completed.is_receive,
        immediate: completed.arrival.immediate,
        result: completed.result.map_err(|error| {
            let kind = match error.status {
                CompletionStatus::Flushed => return Failure::Flushed,
                CompletionStatus::RemoteAccess => ErrorKind::RemoteAccess,
                CompletionStatus::RetryExceeded => ErrorKind::Unreachable,
                CompletionStatus::LocalLength | CompletionStatus::ReceiverNotReady => ErrorKind::Protocol,
                _ => ErrorKind::ConnectionBroken,
            };
            Failure::Broken(Error::new(kind, "complete").with_hint(error.status.hint()).with_source(error))
        }),
        memory: completed.memory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_reads_only_if_it_is_fenced() {
        assert_eq!(flags(false, false), SendFlags::NONE);
        assert_eq!(flags(true, false), SendFlags::SIGNALED);
        assert_eq!(flags(false, true), SendFlags::FENCE);
        assert_eq!(flags(true, true), SendFlags::SIGNALED | SendFlags::FENCE);
    }
}
