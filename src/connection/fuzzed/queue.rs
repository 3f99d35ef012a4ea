//! A queue whose device is the fuzzer: what is posted is noted, and ends when it says so.

use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::connection::fetches::is_fetch;
use crate::connection::link_grants::GrantToken;
use crate::memory::Transfer;
use crate::transport::{
    Capabilities, ChannelKey, Completion, Failure, NotBound, Opening, Operation, Queue, Refused, Request, Source,
    WindowKey,
};
use crate::{Error, ErrorKind, Result};

/// The one channel.
pub(super) const CHANNEL: ChannelKey = ChannelKey(0);

/// Receives that the device takes: for a connection, and more.
const RECEIVES: usize = 40;

/// What was posted, in the order of posting.
#[derive(Debug)]
pub(super) enum Posted {
    Frame(Vec<u8>),
    /// An operation on the peer's memory.
    OneSided {
        address: u64,
        key: u32,
    },
}

/// A request has ended, as the next poll tells.
pub(super) struct Ended {
    /// The peer's memory that it has used: address and key.
    pub(super) remote: Option<(u64, u32)>,
    pub(super) is_fetch: bool,
    /// It has opened a window, or made its key invalid.
    pub(super) is_window: bool,
    pub(super) is_success: bool,
}

/// A request in flight.
struct InFlight {
    token: u64,
    memory: Option<Transfer>,
    signaled: bool,
    /// The peer's memory that it uses.
    remote: Option<(u64, u32)>,
    is_read: bool,
}

pub(super) struct ScriptedQueue {
    capabilities: Capabilities,
    in_flight: VecDeque<InFlight>,
    receives: VecDeque<Transfer>,
    completions: Vec<Completion>,
    /// Windows that are open to the peer.
    windows: HashSet<WindowKey>,
    next_window: u64,
    /// What was posted, and not looked at yet.
    pub(super) posted: Vec<Posted>,
    is_failed: bool,
}

impl ScriptedQueue {
    pub(super) fn new(capabilities: Capabilities) -> Self {
        Self {
            capabilities,
            in_flight: VecDeque::new(),
            receives: VecDeque::new(),
            completions: Vec::new(),
            windows: HashSet::new(),
            next_window: 0,
            posted: Vec::new(),
            is_failed: false,
        }
    }

    /// Something of the peer arrives; answers whether there was a receive for it.
    pub(super) fn arrive(&mut self, bytes: &[u8], immediate: Option<u32>) -> bool {
        let Some(mut memory) = self.receives.pop_front() else { return false };
        assert!(memory.fill(bytes), "a receive has less room than was promised, or others may read it");
        let (length, memory) = (bytes.len() as u32, Some(memory));
        let result = Ok(length);
        let completion = Completion { token: 0, channel: CHANNEL, is_receive: true, result, immediate, memory };
        self.completions.push(completion);
        true
    }

    /// The device has done some requests, from the first on: up to the first that asks for a completion behind `at_least`.
    pub(super) fn complete(&mut self, at_least: usize) -> Vec<Ended> {
        let asks = self.in_flight.iter().skip(at_least).position(|request| request.signaled);
        let count = asks.map_or(0, |last| at_least + last + 1);
        let done: Vec<_> = self.in_flight.drain(..count).collect();
        let done = done.into_iter().map(|mut request| {
            if let (Some((address, _)), Some(memory), true) = (request.remote, &mut request.memory, request.is_read) {
                memory.fill(&remote_bytes(address, memory.length()));
            }
            self.ended(request, Ok(0))
        });
        done.collect()
    }

    /// The first request fails, and all others with it.
    pub(super) fn break_down(&mut self) -> Vec<Ended> {
        let Some(first) = self.in_flight.pop_front() else { return Vec::new() };
        let error = Error::new(ErrorKind::ConnectionBroken, "fuzz");
        let mut ended = vec![self.ended(first, Err(Failure::Broken(error)))];
        ended.extend(self.flush_all());
        ended
    }

    /// Everything in flight comes back.
    pub(super) fn flush_all(&mut self) -> Vec<Ended> {
        let all: Vec<_> = self.in_flight.drain(..).collect();
        all.into_iter().map(|request| self.ended(request, Err(Failure::Flushed))).collect()
    }

    fn ended(&mut self, request: InFlight, result: std::result::Result<u32, Failure>) -> Ended {
        let InFlight { token, memory, remote, .. } = request;
        let is_window = GrantToken::parse(token).is_some();
        let ended = Ended { remote, is_fetch: is_fetch(token), is_window, is_success: result.is_ok() };
        let completion = Completion { token, channel: CHANNEL, is_receive: false, result, immediate: None, memory };
        self.completions.push(completion);
        ended
    }

    pub(super) fn holds_requests(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Receives that wait for something, or hold what nobody has seen.
    pub(super) fn receives(&self) -> usize {
        self.receives.len() + self.completions.iter().filter(|completion| completion.is_receive).count()
    }

    fn post(&mut self, request: InFlight) {
        assert!(self.in_flight.len() < self.capabilities.sends, "the queue is overrun");
        let reads = self.in_flight.iter().filter(|request| request.is_read).count();
        assert!(!request.is_read || reads < self.capabilities.reads, "more reads than the device carries");
        self.in_flight.push_back(request);
    }
}

/// What the peer has at `address`.
pub(super) fn remote_bytes(address: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (address.wrapping_add(at) % 251) as u8).collect()
}

impl Queue for ScriptedQueue {
    fn stage(&mut self, _: ChannelKey, request: Request<'_>) -> std::result::Result<(), Refused> {
        let Request { token, operation, source, signaled, .. } = request;
        let (bytes, memory) = match source {
            Source::Inline(bytes) => (bytes.to_vec(), None),
            Source::Owned(memory) => {
                let mut bytes = Vec::new();
                if operation == Operation::Send {
                    memory.copy_to(&mut bytes);
                }
                (bytes, Some(memory))
            }
        };
        let (remote, is_read) = match operation {
            Operation::Send => (None, false),
            Operation::Read { address, key } => (Some((address, key)), true),
            Operation::Write { address, key } | Operation::WriteNotify { address, key, .. } => {
                (Some((address, key)), false)
            }
            _ => unreachable!("nobody asks for it"),
        };
        self.posted.push(match remote {
            Some((address, key)) => Posted::OneSided { address, key },
            None => Posted::Frame(bytes),
        });
        assert!(!self.is_failed, "a request after the end of the connection");
        self.post(InFlight { token, memory, signaled, remote, is_read });
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn room(&self, _: ChannelKey) -> usize {
        self.capabilities.sends - self.in_flight.len()
    }

    fn post_receive(&mut self, _: u64, memory: Transfer) -> std::result::Result<(), Refused> {
        self.receives.push_back(memory);
        Ok(())
    }

    fn receive_room(&self) -> usize {
        RECEIVES - self.receives()
    }

    fn tend(&mut self, _: Instant) {}

    fn poll(&mut self, done: &mut Vec<Completion>) -> Result<bool> {
        done.append(&mut self.completions);
        Ok(false)
    }

    fn request_notification(&mut self) -> Result<()> {
        Ok(())
    }

    fn drain_events(&mut self) -> Result<()> {
        Ok(())
    }

    fn event_descriptor(&self) -> Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn capabilities(&self, _: ChannelKey) -> Capabilities {
        self.capabilities
    }

    fn bind(&mut self, channel: ChannelKey, token: u64, _: Opening) -> std::result::Result<(WindowKey, u32), NotBound> {
        if self.room(channel) == 0 {
            return Err(NotBound { error: None, is_doubtful: false });
        }
        let window = WindowKey(self.next_window);
        self.next_window += 1;
        self.windows.insert(window);
        self.post(InFlight { token, memory: None, signaled: true, remote: None, is_read: false });
        Ok((window, window.0 as u32))
    }

    fn invalidate(
        &mut self,
        channel: ChannelKey,
        token: u64,
        window: WindowKey,
    ) -> std::result::Result<(), Option<Error>> {
        if self.room(channel) == 0 {
            return Err(None);
        }
        assert!(self.windows.remove(&window), "a window is made invalid twice");
        self.post(InFlight { token, memory: None, signaled: true, remote: None, is_read: false });
        Ok(())
    }

    fn fail(&mut self, _: ChannelKey) {
        self.is_failed = true;
    }

    fn close(&mut self, _: ChannelKey) -> Option<Box<dyn FnOnce() -> Vec<Completion> + Send>> {
        None
    }
}
