//! The queue pairs of one worker on one device, behind the seam.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::domain::VerbsDomain;
use super::windows::{self, Windows};
use super::wrap;
use crate::memory::Transfer;
use crate::transport::{
    Capabilities, ChannelKey, ChannelSizes, Completion, Failure, NotBound, Opening, Operation, Queue, Refused, Request,
    Source, WindowKey,
};
use crate::verbs::{
    self, Completed, CompletionStatus, Local, OwningQueue, QueuePair, QueuePairCapabilities, QueuePairKey,
    RefusedWindow, Remote, SendFlags, SendOperation, SendRequest,
};
use crate::{Error, ErrorKind, Result};

/// An [`OwningQueue`] with its domain.
#[derive(Debug)]
pub(crate) struct Channels {
    queue: OwningQueue<Transfer>,
    /// Room for one poll, kept from poll to poll.
    completed: Vec<Completed<Transfer>>,
    windows: Windows,
    /// Bytes that one request carries: the least of all ports.
    longest: u64,
    domain: Arc<VerbsDomain>,
}

impl Channels {
    pub(super) fn new(domain: Arc<VerbsDomain>, queue: OwningQueue<Transfer>) -> verbs::Result<Self> {
        let context = domain.protection_domain().context();
        let mut longest = u64::from(u32::MAX);
        for port in 1..=context.attributes()?.ports {
            longest = longest.min(context.port(port)?.max_message_size.into());
        }
        Ok(Self { queue, completed: Vec::with_capacity(64), windows: Windows::default(), longest, domain })
    }

    pub(super) fn create(&mut self, sizes: ChannelSizes) -> verbs::Result<ChannelKey> {
        let most = self.domain.protection_domain().context().attributes()?.max_segments;
        let wanted = QueuePairCapabilities {
            inline: sizes.inline,
            receives: sizes.receives,
            segments: sizes.segments.min(most),
            sends: sizes.sends,
        };
        let pair = QueuePair::create(self.domain.protection_domain(), self.queue.completions(), wanted)?;
        self.queue.add(pair).map(|key| ChannelKey(key.index()))
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
                Operation::Read { address, key } => SendOperation::Read(Remote { address, key }),
                Operation::Send => SendOperation::Send,
                Operation::Write { address, key } => SendOperation::Write(Remote { address, key }),
            },
            local: match request.source {
                Source::Inline(bytes) => Local::Inline(bytes),
                Source::Owned(memory) => Local::Owned(memory),
            },
            flags: if request.signaled { SendFlags::SIGNALED } else { SendFlags::NONE },
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
    fn post_receive(&mut self, channel: ChannelKey, token: u64, memory: Transfer) -> std::result::Result<(), Refused> {
        self.queue.post_receive(QueuePairKey::from_index(channel.0), token, memory).map_err(|refused| Refused {
            error: refused.error.map(|error| wrap("post receive", error)),
            memory: refused.memory,
        })
    }

    #[inline]
    fn poll(&mut self, done: &mut Vec<Completion>) -> Result<bool> {
        let polled = self.queue.poll(&mut self.completed);
        // Also when the poll failed: what was not posted is among them.
        if !self.completed.is_empty() {
            for mut completed in self.completed.drain(..) {
                if let Some(window) = completed.window.take() {
                    let channel = ChannelKey(completed.queue_pair.index());
                    self.windows.completed(channel, completed.token, window, completed.result.is_ok());
                }
                done.push(completion(completed));
            }
        }
        polled.map(|polled| polled > 0).map_err(|error| wrap("poll", error))
    }

    fn request_notification(&mut self) -> Result<()> {
        self.queue.completions().request_notification().map_err(|error| wrap("arm", error))
    }

    fn drain_events(&mut self) -> Result<()> {
        self.queue.completions().drain_events().map(drop).map_err(|error| wrap("read events", error))
    }

    fn event_descriptor(&self) -> Result<OwnedFd> {
        self.queue
            .completions()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::new(ErrorKind::ResourceExhausted, "duplicate a descriptor").with_source(error))
    }

    fn capabilities(&self, channel: ChannelKey) -> Capabilities {
        let sizes = self.queue_pair(channel).map(QueuePair::capabilities);
        Capabilities {
            inline: sizes.map_or(0, |sizes| sizes.inline as usize),
            sends: sizes.map_or(0, |sizes| sizes.sends as usize),
            longest: self.longest,
            segments: sizes.map_or(0, |sizes| sizes.segments as usize),
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
        if let Some(Err(error)) = self.queue_pair(channel).map(QueuePair::fail) {
            tracing::warn!(%error, "a queue pair could not be moved to ERROR");
        }
    }

    fn close(&mut self, channel: ChannelKey) -> Option<Box<dyn FnOnce() -> Vec<Completion> + Send>> {
        let detached = self.queue.detach(QueuePairKey::from_index(channel.0))?;
        let remains = self.windows.leave(channel);
        Some(Box::new(move || {
            // Frees the windows that are bound, then destroys the queue pair.
            let flushed = detached.destroy();
            drop(remains);
            flushed.into_iter().map(completion).collect()
        }))
    }
}

#[inline]
fn completion(completed: Completed<Transfer>) -> Completion {
    Completion {
        token: completed.token,
        channel: ChannelKey(completed.queue_pair.index()),
        is_receive: completed.is_receive,
        result: completed.result.map_err(|error| {
            let kind = match error.status {
                CompletionStatus::Flushed => return Failure::Flushed,
                CompletionStatus::RemoteAccess => ErrorKind::RemoteAccess,
                CompletionStatus::RetryExceeded => ErrorKind::Unreachable,
                CompletionStatus::LocalLength | CompletionStatus::ReceiverNotReady => ErrorKind::Protocol,
                _ => ErrorKind::ConnectionBroken,
            };
            let error_text = Error::new(kind, "complete").with_source(error);
            Failure::Broken(match error.vendor_error {
                0 => error_text,
                code => error_text.with_detail(format!("vendor error {code:#x}")),
            })
        }),
        memory: completed.memory,
    }
}
