//! One connection's requests: posted, on the stream, and ended in their order.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Carrier;
use super::frame::{Frame, Reason};
use super::input::Intake;
use super::output::Outgoing;
use super::socket::Socket;
use super::upkeep::Mark;
use crate::memory::Transfer;
use crate::transport::{Capabilities, ChannelKey, ChannelSizes, Completion, Failure, Operation, Request, Source};
use crate::{Error, ErrorKind};

/// Requests for which there is room from the start.
const USUAL: usize = 32;

/// How a channel can end by what happens on its stream.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The stream has ended or failed.
    Lost(Error),
    /// The peer has done something that nobody may.
    Protocol(String),
    /// A request of the peer is refused, which is the end of both sides, as on a reliable connection.
    Refused(Reason),
}

pub(super) type Outcome<T = ()> = Result<T, Trouble>;

/// A request that was posted and has not ended.
pub(super) struct Pending {
    token: u64,
    pub(super) operation: Operation,
    pub(super) memory: Option<Transfer>,
    pub(super) length: u32,
    pub(super) is_fenced: bool,
    /// Bytes of the answer that are here.
    pub(super) answered: u32,
}

impl Pending {
    /// Whether it asks for an answer.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.operation, Operation::CompareSwap { .. } | Operation::FetchAdd { .. } | Operation::Read { .. })
    }

    fn ends(self, channel: ChannelKey, result: Result<u32, Failure>) -> Completion {
        let Self { token, memory, .. } = self;
        Completion { token, channel, is_receive: false, result, immediate: None, memory }
    }
}

/// How far a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Made,
    Active,
    Failed,
}

pub(super) struct Channel<C> {
    pub(super) key: ChannelKey,
    pub(super) socket: Arc<Socket>,
    pub(super) carrier: C,
    pub(super) standing: Standing,
    sizes: ChannelSizes,
    /// Reads and atomic operations that may be outstanding towards the peer.
    pub(super) reads: usize,
    /// The number of the first of those that are pending. Requests are numbered from 1.
    pub(super) first: u64,
    pub(super) pending: VecDeque<Pending>,
    /// Of these, the number of the next to be put on the stream, and how many have been written whole.
    pub(super) next: u64,
    pub(super) written: u64,
    /// The number of the oldest that may still have to be answered.
    next_answer: u64,
    /// Those on the stream that ask for an answer which is not here.
    pub(super) reads_out: usize,
    pub(super) output: Outgoing,
    pub(super) intake: Intake,
    /// Whether there is still something to be read from the stream.
    pub(super) is_readable: bool,
    /// Whether it was told that the channel has broken by what the peer has done.
    pub(super) has_broken: bool,
    /// Why nothing can be written any more.
    pub(super) why_lost: Option<Error>,
    /// Since when a message waits for a receive.
    pub(super) stalled: Option<Instant>,
    /// Whether the queue has it among those that are stalled, those whose peer is to be told something, and those that are awake.
    pub(super) is_listed_stalled: bool,
    pub(super) is_listed_due: bool,
    pub(super) is_listed_awake: bool,
    /// How far the peer was when that was last looked at, and for how long it has been there.
    pub(super) mark: Option<Mark>,
    pub(super) waited: Duration,
    /// Whether the peer's host answers, if somebody has asked since the last tick.
    pub(super) host_answers: Cell<Option<bool>>,
    /// What the sockets' epoll is told to look for.
    pub(super) interest: Interest,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) reading: bool,
    pub(crate) writing: bool,
}

impl<C: Carrier> Channel<C> {
    pub(super) fn new(key: ChannelKey, socket: Arc<Socket>, carrier: C, sizes: ChannelSizes) -> Self {
        Self {
            key,
            socket,
            carrier,
            standing: Standing::Made,
            sizes,
            reads: 0,
            first: 1,
            pending: VecDeque::with_capacity(USUAL.min(sizes.sends as usize)),
            next: 1,
            written: 0,
            next_answer: 1,
            reads_out: 0,
            output: Outgoing::new(),
            intake: Intake::default(),
            is_readable: true,
            has_broken: false,
            why_lost: None,
            stalled: None,
            is_listed_stalled: false,
            is_listed_due: false,
            is_listed_awake: false,
            mark: None,
            waited: Duration::ZERO,
            host_answers: Cell::new(None),
            interest: Interest::default(),
        }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            // What is short is gathered from where it is as fast as it would be copied here.
            inline: 0,
            sends: self.sizes.sends as usize,
            longest: 1 << 31,
            segments: self.sizes.segments as usize,
            reads: self.reads,
        }
    }

    /// What is to be waited for.
    pub(super) fn wanted(&self) -> Interest {
        let is_live = self.standing == Standing::Active && self.socket.is_open();
        Interest {
            reading: is_live && self.is_readable && self.stalled.is_none(),
            writing: is_live && self.output.is_blocked,
        }
    }

    pub(super) fn room(&self) -> usize {
        (self.sizes.sends as usize).saturating_sub(self.pending.len())
    }

    /// Adds a request behind those that were posted; the memory comes back if it cannot be.
    pub(super) fn post(&mut self, request: Request<'_>) -> Result<(), (Option<Error>, Option<Transfer>)> {
        let memory = match request.source {
            Source::Inline([]) => None,
            Source::Inline(_) => return Err((Some(refused("nothing is carried inline")), None)),
            Source::Owned(memory) => Some(memory),
        };
        let length = memory.as_ref().map_or(0, Transfer::length);
        let error = match (self.standing, u32::try_from(length)) {
            (Standing::Made, _) => Some(refused("the connection was not yet set up")),
            (_, Err(_)) => Some(refused("longer than one request carries")),
            _ if memory.as_ref().is_some_and(|memory| memory.pieces() > self.sizes.segments as usize) => {
                Some(refused("more pieces than one request carries"))
            }
            _ if self.room() == 0 => None,
            (_, Ok(length)) => {
                let Request { token, operation, fence: is_fenced, .. } = request;
                self.pending.push_back(Pending { token, operation, memory, length, is_fenced, answered: 0 });
                return Ok(());
            }
        };
        Err((error, memory))
    }

    pub(super) fn request(&self, number: u64) -> Option<&Pending> {
        find(&self.pending, self.first, number)
    }

    fn request_mut(&mut self, number: u64) -> Option<&mut Pending> {
        self.pending.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The next request that can be put on the stream, with its number.
    pub(super) fn next_request(&self) -> Option<(u64, &Pending)> {
        let request = self.request(self.next)?;
        let waits = request.is_fenced && self.reads_out > 0 || request.is_read() && self.reads_out >= self.reads;
        (!waits).then_some((self.next, request))
    }

    /// The frame that a request is.
    pub(super) fn frame(request: &Pending) -> Frame {
        let length = request.length;
        match request.operation {
            Operation::CompareSwap { address, key, compare, swap } => {
                Frame::CompareSwap { address, key, compare, swap }
            }
            Operation::FetchAdd { address, key, add } => Frame::FetchAdd { address, key, add },
            Operation::Probe => Frame::Probe,
            Operation::Read { address, key } => Frame::Read { address, key, length },
            Operation::Send => Frame::Send { length },
            Operation::Write { address, key } => Frame::Write { address, key, length },
            Operation::WriteNotify { address, key, value } => Frame::WriteNotify { address, key, length, value },
        }
    }

    /// The peer has done all requests up to `number`.
    pub(super) fn acknowledged(&mut self, number: u64, ready: &mut Vec<Completion>) -> Outcome {
        if number > self.written {
            let detail = format!("it acknowledges request {number}, and {} were sent", self.written);
            return Err(Trouble::Protocol(detail));
        }
        while self.first <= number {
            let is_read = self.pending.front().is_some_and(Pending::is_read);
            // What is not done stays, to be ended with the channel.
            if is_read && self.next_answer <= self.first {
                return Err(Trouble::Protocol("it acknowledges a read that it has not answered".to_owned()));
            }
            let Some(done) = self.pending.pop_front() else { break };
            self.first += 1;
            ready.push(done.ends(self.key, Ok(0)));
        }
        Ok(())
    }

    /// The oldest request that is not answered, which must be on the stream whole.
    pub(super) fn unanswered(&mut self) -> Option<&mut Pending> {
        self.next_answer = self.next_answer.max(self.first);
        while self.next_answer <= self.written && self.request(self.next_answer).is_some_and(|next| !next.is_read()) {
            self.next_answer += 1;
        }
        let number = self.next_answer;
        (number <= self.written).then(|| self.request_mut(number)).flatten()
    }

    /// That one is answered now, and with it all before it are done.
    pub(super) fn was_answered(&mut self, ready: &mut Vec<Completion>) -> Outcome {
        let number = self.next_answer;
        self.next_answer += 1;
        self.reads_out -= 1;
        self.acknowledged(number, ready)
    }

    /// What is not on the stream yet does not get there any more.
    pub(super) fn keep_back(&mut self) {
        self.next = self.first + self.pending.len() as u64;
    }

    /// The peer has refused a request: nothing more of this channel is done.
    pub(super) fn was_refused(&mut self, number: u64, reason: Reason, ready: &mut Vec<Completion>) -> Outcome {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let place = place.filter(|place| *place < self.pending.len() && number <= self.written);
        let place = place.ok_or_else(|| Trouble::Protocol(format!("it refuses request {number}, which it has not")))?;
        self.standing = Standing::Failed;
        let key = self.key;
        for (at, request) in self.pending.drain(..=place).enumerate() {
            let failure = if at == place { Failure::Broken(explain(reason)) } else { Failure::Flushed };
            ready.push(request.ends(key, Err(failure)));
        }
        self.first = number + 1;
        Ok(())
    }

    /// Whether all that was posted is written.
    pub(super) fn is_written(&self) -> bool {
        self.first + self.pending.len() as u64 <= self.written + 1
    }

    /// How far the peer is with the oldest request; `None` if there is none.
    pub(super) fn mark(&self) -> Option<Mark> {
        let oldest = self.pending.front()?;
        let is_written = self.first <= self.written;
        Some(Mark::new(self.first, if is_written { oldest.answered.into() } else { self.output.total }))
    }

    /// A message that waits for a receive waits no more, nor does what came behind it.
    pub(super) fn give_up_message(&mut self) {
        if self.stalled.take().is_some() {
            self.intake.drop_kept();
        }
    }

    /// Gives back a receive that has not got all of its message.
    pub(super) fn take_receive(&mut self) -> Option<(u64, Transfer)> {
        self.intake.take_receive()
    }

    /// Ends all that is pending.
    pub(super) fn flush_pending(&mut self, ready: &mut Vec<Completion>) {
        let (key, count) = (self.key, self.pending.len() as u64);
        ready.extend(self.pending.drain(..).map(|request| request.ends(key, Err(Failure::Flushed))));
        self.first += count;
    }
}

/// The request of that number, if `first` is that of the first.
pub(super) fn find(pending: &VecDeque<Pending>, first: u64, number: u64) -> Option<&Pending> {
    pending.get(usize::try_from(number.checked_sub(first)?).ok()?)
}

fn refused(detail: &str) -> Error {
    Error::new(ErrorKind::Other, "post").with_detail(detail)
}

fn explain(reason: Reason) -> Error {
    let (kind, detail) = match reason {
        Reason::Access => (ErrorKind::RemoteAccess, "the peer's transport has checked it".to_owned()),
        Reason::NotReady => (ErrorKind::Protocol, "the peer had no receive for it".to_owned()),
        Reason::TooLong => (ErrorKind::Protocol, "it was longer than the peer's receive".to_owned()),
        Reason::Other(code) => (ErrorKind::ConnectionBroken, format!("refused with reason {code}")),
    };
    Error::new(kind, "complete").with_detail(detail)
}
