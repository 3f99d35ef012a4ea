//! One connection: its queue pair, its messages, and waiting for what comes, never longer than the timeout.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zcmi::verbs::{
    Completed, CompletionQueue, ConnectionEvent, ConnectionEventKind as Kind, ConnectionId, ConnectionParameters,
    Context, EventChannel, Local, OwningQueue, ProtectionDomain, QueuePair, QueuePairCapabilities, QueuePairKey,
    QueuePairNotice, RegisteredBuffer, SendFlags, SendOperation, SendRequest, Tuning,
};

use crate::Settings;
use crate::failure::{Failure, Result};
use crate::info::Info;

/// Messages that can be on their way, each way.
const MESSAGES: usize = 4;
/// Requests by what they are.
const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const TRANSFER: u64 = 2;

pub(crate) struct Session {
    // The queue pair ends before its identifier.
    queue: OwningQueue<RegisteredBuffer>,
    pair: QueuePairKey,
    id: ConnectionId,
    domain: Arc<ProtectionDomain>,
    settings: Settings,
    done: Vec<Completed<RegisteredBuffer>>,
    /// Send buffers that nothing uses.
    idle: Vec<RegisteredBuffer>,
    /// Messages that came while something else was waited for.
    inbox: VecDeque<Info>,
    /// The buffer of a transfer that is over.
    transferred: Option<RegisteredBuffer>,
    is_connected: bool,
    has_ended: bool,
}

impl Session {
    /// A queue pair for an identifier that knows its device, with receives posted.
    pub(crate) fn new(id: ConnectionId, settings: Settings) -> Result<Self> {
        let device = id.device().ok_or_else(|| Failure("there is no device".into()))?;
        let context = Context::open(&device)?;
        let domain = ProtectionDomain::allocate(&context)?;
        let sizes = QueuePairCapabilities { sends: 16, receives: MESSAGES as u32, ..Default::default() };
        let completions = CompletionQueue::create(&context, 64)?;
        let pair = QueuePair::builder(&domain, &completions).capabilities(sizes).create()?;
        pair.initialize(&id)?;
        let mut queue = OwningQueue::new(completions);
        let pair = queue.add(pair)?;
        for buffer in RegisteredBuffer::allocate_many(&domain, MESSAGES, Info::LENGTH)? {
            queue.post_receive(pair, RECEIVE, buffer)?;
        }
        let idle = RegisteredBuffer::allocate_many(&domain, MESSAGES, Info::LENGTH)?;
        Ok(Self {
            queue,
            pair,
            id,
            domain,
            settings,
            done: Vec::new(),
            idle,
            inbox: VecDeque::new(),
            transferred: None,
            is_connected: false,
            has_ended: false,
        })
    }

    /// Where memory is registered for this connection.
    pub(crate) fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// Connects, as the active end.
    pub(crate) fn connect(&mut self) -> Result<()> {
        self.id.connect(&self.parameters())?;
        next_event(self.id.channel(), self.settings, "the peer's answer")?.expect(Kind::ConnectResponse)?;
        self.pair()?.connect(&self.id, &Tuning::default())?;
        self.id.establish()?;
        self.is_connected = true;
        Ok(())
    }

    /// Accepts the request that the identifier came with.
    pub(crate) fn accept(&mut self) -> Result<()> {
        self.pair()?.connect(&self.id, &Tuning::default())?;
        self.id.accept(&self.parameters())?;
        while !self.is_connected {
            self.advance("the client's confirmation")?;
            if !self.inbox.is_empty() && !self.is_connected {
                // The first message can overtake the confirmation.
                self.is_connected = true;
                if let Err(error) = self.id.notify(QueuePairNotice::CommunicationEstablished) {
                    self.say(|| format!("the connection is established already: {error}"));
                }
            }
            self.require_peer()?;
        }
        Ok(())
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, info: Info) -> Result<()> {
        let mut buffer = loop {
            match self.idle.pop() {
                Some(buffer) => break buffer,
                None => self.advance("an earlier message to be sent")?,
            }
            self.require_peer()?;
        };
        buffer.copy_from_slice(&info.to_bytes());
        self.post(SEND, SendOperation::Send, buffer)
    }

    /// The next message; `None` if the peer has disconnected.
    pub(crate) fn receive(&mut self, awaiting: &str) -> Result<Option<Info>> {
        loop {
            if let Some(info) = self.inbox.pop_front() {
                return Ok(Some(info));
            }
            if self.has_ended {
                return Ok(None);
            }
            self.advance(awaiting)?;
        }
    }

    /// Reads or writes the peer's memory; gives the buffer back.
    pub(crate) fn transfer(
        &mut self,
        operation: SendOperation<'_>,
        buffer: RegisteredBuffer,
        awaiting: &str,
    ) -> Result<RegisteredBuffer> {
        self.post(TRANSFER, operation, buffer)?;
        loop {
            if let Some(buffer) = self.transferred.take() {
                return Ok(buffer);
            }
            self.require_peer()?;
            self.advance(awaiting)?;
        }
    }

    /// Disconnects, and waits a moment for the peer to agree.
    pub(crate) fn close(self) {
        // A peer that does not answer, or has gone, is no matter any more.
        let ended = self.pair().and_then(|pair| Ok(pair.fail()?)).and_then(|()| Ok(self.id.disconnect()?));
        let begun = Instant::now();
        while ended.is_ok() && !self.has_ended && begun.elapsed() < Duration::from_secs(2) {
            match self.id.channel().wait(Duration::from_millis(200)) {
                Ok(Some(event)) if event.kind == Kind::Disconnected => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Tells what happens, if that was asked for.
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.settings.debug {
            eprintln!("rping: {}", what());
        }
    }

    fn post(&mut self, token: u64, operation: SendOperation<'_>, buffer: RegisteredBuffer) -> Result<()> {
        let local = Local::Owned(buffer);
        Ok(self.queue.post(self.pair, SendRequest { token, operation, local, flags: SendFlags::SIGNALED })?)
    }

    /// Waits until something has happened and sees to it.
    fn advance(&mut self, awaiting: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            // Completions first: what the peer did before it disconnected counts.
            self.queue.poll(&mut self.done)?;
            if !self.done.is_empty() {
                return self.complete();
            }
            if let Some(event) = self.id.channel().next_event()? {
                return self.happen(event);
            }
            self.queue.completions().request_notification()?;
            self.queue.poll(&mut self.done)?;
            if !self.done.is_empty() {
                continue;
            }
            let left = self.settings.timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(timed_out(awaiting, self.settings));
            }
            let (completions, events) = (self.queue.completions().as_fd(), self.id.channel().as_fd());
            let left = Timespec::try_from(left).ok();
            let mut both = [PollFd::new(&completions, PollFlags::IN), PollFd::new(&events, PollFlags::IN)];
            match poll(&mut both, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Failure(format!("poll: {error}"))),
            }
            self.queue.completions().drain_events()?;
        }
    }

    fn complete(&mut self) -> Result<()> {
        for completed in std::mem::take(&mut self.done) {
            let what = match completed.token {
                RECEIVE => "receive",
                SEND => "send",
                _ => "RDMA transfer",
            };
            let length = completed.result.map_err(|error| Failure::of(what, error))?;
            let buffer = completed.memory.ok_or_else(|| Failure("a completion without its buffer".into()))?;
            self.say(|| format!("{what} completed"));
            match completed.token {
                RECEIVE => {
                    let bytes = buffer.first_chunk().filter(|_| length as usize == Info::LENGTH);
                    let bytes = bytes.ok_or_else(|| Failure(format!("a message of {length} bytes is not rping's")))?;
                    self.inbox.push_back(Info::from_bytes(*bytes));
                    self.queue.post_receive(self.pair, RECEIVE, buffer)?;
                }
                SEND => self.idle.push(buffer),
                _ => self.transferred = Some(buffer),
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: ConnectionEvent) -> Result<()> {
        self.say(|| format!("event {:?}, status {}", event.kind, event.status));
        match event.kind {
            Kind::Established => self.is_connected = true,
            Kind::Disconnected => self.has_ended = true,
            Kind::AddressChange | Kind::TimewaitExit => {}
            // Any other is a failure; this says which.
            _ => drop(event.expect(Kind::Established)?),
        }
        Ok(())
    }

    fn require_peer(&self) -> Result<()> {
        if self.has_ended {
            return Err(Failure("the peer disconnected in the middle".into()));
        }
        Ok(())
    }

    fn parameters(&self) -> ConnectionParameters<'static> {
        let queue_pair = self.pair().map(QueuePair::number).unwrap_or_default();
        ConnectionParameters { queue_pair, ..Default::default() }
    }

    fn pair(&self) -> Result<&QueuePair> {
        self.queue.queue_pair(self.pair).ok_or_else(|| Failure("there is no queue pair".into()))
    }
}

/// The next event of a channel, or the failure that there is none in time.
pub(crate) fn next_event(channel: &Arc<EventChannel>, settings: Settings, awaiting: &str) -> Result<ConnectionEvent> {
    channel.wait(settings.timeout)?.ok_or_else(|| timed_out(awaiting, settings))
}

fn timed_out(awaiting: &str, settings: Settings) -> Failure {
    Failure(format!("waited {} s for {awaiting}", settings.timeout.as_secs()))
}
