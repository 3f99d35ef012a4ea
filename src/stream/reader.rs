//! The reading side of a stream: from messages to bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;

use super::chunk::{Chunk, HEADER};
use crate::message::Pump;
use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::{Channel, Error, ErrorKind, Message, Result};

/// Messages that may come before one that was sent earlier. A writer has fewer on their way at once.
const EARLY: u32 = 64;

pub(super) struct Reader {
    pump: Pump,
    waiting: Arc<Waiting>,
    /// What is told of a peer that violates the protocol, but for the reason.
    violation: Error,
    /// What is being read, and how much of it was.
    current: Option<Part>,
    consumed: usize,
    next: u32,
    early: BTreeMap<u32, (Chunk, Bytes)>,
    is_at_end: bool,
    peer_has_stopped: bool,
    failure: Option<Error>,
}

/// The reader's task and the writer's, which both may wait for a message.
#[derive(Default)]
struct Waiting {
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
}

enum Part {
    Message(Message),
    Early(Bytes),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        let message = match self {
            Self::Message(message) => message,
            Self::Early(bytes) => &bytes[..],
        };
        message.get(HEADER..).unwrap_or_default()
    }
}

impl Reader {
    pub(super) fn new(channel: Channel) -> Self {
        let waiting = Arc::new(Waiting::default());
        let violation = channel.connection().refine(Error::new(ErrorKind::Protocol, "read"));
        let pump = Pump::new(channel, Waker::from(Arc::clone(&waiting)));
        Self {
            pump,
            waiting,
            violation,
            current: None,
            consumed: 0,
            next: 0,
            early: BTreeMap::new(),
            is_at_end: false,
            peer_has_stopped: false,
            failure: None,
        }
    }

    /// Waits until bytes are [available](Self::available), or the stream is at its end.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        *lock(&self.waiting.reader) = None;
        if self.is_filled() {
            return Poll::Ready(self.outcome());
        }
        register(&self.waiting.reader, context);
        self.receive(Self::is_filled);
        if !self.is_filled() {
            return Poll::Pending;
        }
        *lock(&self.waiting.reader) = None;
        Poll::Ready(self.outcome())
    }

    /// Receives, if nothing is there to be read, for a writer that waits; and tells the reader of what has come.
    pub(super) fn look(&mut self, context: &mut Context<'_>) {
        let is_waiting = !self.is_filled();
        register(&self.waiting.writer, context);
        // Also behind the end: that nobody reads may come later.
        self.receive(|reader| reader.current.is_some() || reader.peer_has_stopped);
        if is_waiting
            && self.is_filled()
            && let Some(reader) = lock(&self.waiting.reader).take()
        {
            reader.wake();
        }
    }

    pub(super) fn available(&self) -> &[u8] {
        self.current.as_ref().map(|part| &part.bytes()[self.consumed..]).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, length: usize) {
        self.consumed += length.min(self.available().len());
        if self.available().is_empty() {
            // Its receive can be posted again.
            self.current = None;
        }
    }

    pub(super) fn peer_has_stopped(&self) -> bool {
        self.peer_has_stopped
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    fn is_filled(&self) -> bool {
        self.current.is_some() || self.is_at_end || self.failure.is_some()
    }

    fn outcome(&self) -> Result<()> {
        match &self.failure {
            Some(failure) if self.current.is_none() && !self.is_at_end => Err(failure.again("read")),
            _ => Ok(()),
        }
    }

    /// Takes messages until it is enough, or there will be none, or none are there.
    fn receive(&mut self, is_enough: impl Fn(&Self) -> bool) {
        while !is_enough(self) && self.failure.is_none() {
            if let Some((chunk, bytes)) = self.early.remove(&self.next) {
                if let Err(error) = self.accept(chunk, Part::Early(bytes)) {
                    self.fail(error);
                }
                continue;
            }
            let Some(received) = self.pump.next() else { return };
            if let Err(error) = received.and_then(|message| self.sort(message)) {
                self.fail(error);
            }
        }
    }

    fn sort(&mut self, message: Message) -> Result<()> {
        let chunk = Chunk::parse(&message).map_err(|reason| self.protocol(reason))?;
        match chunk.sequence.wrapping_sub(self.next) {
            0 => self.accept(chunk, Part::Message(message)),
            // Copied, so that it holds back nothing that must come before.
            1..EARLY => match self.early.insert(chunk.sequence, (chunk, Bytes::copy_from_slice(&message))) {
                None => Ok(()),
                Some(_) => Err(self.protocol("a message of a stream twice")),
            },
            _ => Err(self.protocol("a message of a stream out of order")),
        }
    }

    fn accept(&mut self, chunk: Chunk, part: Part) -> Result<()> {
        if self.is_at_end && (chunk.is_end || !chunk.stops) {
            return Err(self.protocol("a message behind the end of a stream"));
        }
        self.next = self.next.wrapping_add(1);
        self.is_at_end |= chunk.is_end;
        self.peer_has_stopped |= chunk.stops;
        if !part.bytes().is_empty() {
            (self.current, self.consumed) = (Some(part), 0);
        }
        Ok(())
    }

    fn protocol(&self, reason: &str) -> Error {
        self.violation.again("read").with_detail(reason)
    }

    fn fail(&mut self, error: Error) {
        let error = match error.kind() {
            ErrorKind::PeerClosed => {
                error.into_kind(ErrorKind::ConnectionBroken).with_detail("the peer closed in the middle of the stream")
            }
            _ => error,
        };
        self.failure = Some(error);
    }
}

fn register(place: &Mutex<Option<Waker>>, context: &Context<'_>) {
    let mut place = lock(place);
    if !place.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
        *place = Some(context.waker().clone());
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = [&self.reader, &self.writer].map(|place| lock(place).take());
        woken.into_iter().flatten().for_each(Waker::wake);
    }
}
