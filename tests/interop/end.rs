//! Our end of a connection, by the safe tier: a queue pair whose peer is a program that does not know this library.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zcmi::verbs::{
    Access, Completed, CompletionQueue, CompletionStatus, Endpoint, LocalEnd, Mtu, OwningQueue, ProtectionDomain, Psn,
    QueuePair, QueuePairCapabilities, QueuePairKey, QueuePairKind, RegisteredBuffer, SendFlags, SendOperation,
    SendRequest, Tuning,
};
use zcmi::verbs::{Detached, Local};

use crate::support::Fixture;

/// Bound of every wait for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What destinations hold before.
pub(crate) const POISON: u8 = 0xa5;
/// What a receiver may be told of a message longer than its receive: the first by the specification (IBTA 1.4,
/// 11.6.2), the others by versions of rxe.
pub(crate) const LONG_HERE: [CompletionStatus; 3] =
    [CompletionStatus::LocalLength, CompletionStatus::LocalQueuePairOperation, CompletionStatus::RemoteInvalidRequest];
/// The same for its sender, and what `ibv_wc_status_str(3)` calls it.
pub(crate) const LONG_THERE: [(CompletionStatus, &str); 2] = [
    (CompletionStatus::RemoteInvalidRequest, "remote invalid request error"),
    (CompletionStatus::RemoteOperation, "remote operation error"),
];

/// A queue pair of the safe tier.
pub(crate) struct End {
    pub(crate) queue: OwningQueue<RegisteredBuffer>,
    pub(crate) pair: QueuePairKey,
    pub(crate) local: LocalEnd,
    pub(crate) domain: Arc<ProtectionDomain>,
    done: VecDeque<Completed<RegisteredBuffer>>,
    polled: Vec<Completed<RegisteredBuffer>>,
}

impl End {
    /// A queue pair in RESET.
    pub(crate) fn new(fixture: &Fixture, kind: QueuePairKind, path_mtu: u32) -> Self {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = CompletionQueue::create(&fixture.context, 64).expect("a completion queue");
        let sizes = QueuePairCapabilities { inline: 64, receives: 8, segments: 1, sends: 8 };
        let pair = QueuePair::builder(&domain, &completions).kind(kind).capabilities(sizes).create();
        let mut queue = OwningQueue::new(completions);
        let pair = queue.add(pair.expect("a queue pair")).expect("room");
        let access = Access::REMOTE_READ | Access::REMOTE_WRITE;
        let local = LocalEnd {
            port: 1,
            gid_index: gid_index(fixture),
            psn: Psn::random(),
            access,
            path_mtu: Mtu::from_bytes(path_mtu).expect("a size that exists"),
        };
        Self { queue, pair, local, domain, done: VecDeque::new(), polled: Vec::new() }
    }

    /// A queue pair in INIT, with `receives` receives of `length` bytes posted.
    pub(crate) fn prepared(
        fixture: &Fixture,
        kind: QueuePairKind,
        path_mtu: u32,
        receives: u32,
        length: usize,
    ) -> Self {
        let mut end = Self::new(fixture, kind, path_mtu);
        end.queue_pair().prepare(&end.local).expect("INIT");
        end.post_receives(receives, length);
        end
    }

    pub(crate) fn queue_pair(&self) -> &QueuePair {
        self.queue.queue_pair(self.pair).expect("it is there")
    }

    /// What the peer is told.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.queue_pair().endpoint(&self.local).expect("an endpoint")
    }

    /// INIT to RTS, giving a vanished peer up after about a second.
    pub(crate) fn connect(&self, peer: &Endpoint) {
        // To rxe 7 retries mean for ever.
        let tuning = Tuning { ack_timeout: 15, retry_count: 6, ..Tuning::default() };
        self.queue_pair().connect_to(&self.local, peer, &tuning).expect("connects");
    }

    pub(crate) fn post_receives(&mut self, count: u32, length: usize) {
        for _ in 0..count {
            let mut memory = RegisteredBuffer::allocate(&self.domain, length).expect("memory");
            memory.fill(POISON);
            self.queue.post_receive(self.pair, 0, memory).expect("posts a receive");
        }
    }

    /// Posts the buffer of a completed receive again.
    pub(crate) fn post_again(&mut self, mut memory: RegisteredBuffer) {
        memory.fill(POISON);
        self.queue.post_receive(self.pair, 0, memory).expect("posts a receive");
    }

    /// Registered memory with these bytes.
    pub(crate) fn buffer(&self, bytes: &[u8]) -> RegisteredBuffer {
        let mut memory = RegisteredBuffer::allocate(&self.domain, bytes.len()).expect("memory");
        memory.copy_from_slice(bytes);
        memory
    }

    /// Posts a signaled request from or to registered memory.
    pub(crate) fn post(&mut self, token: u64, operation: SendOperation<'_>, memory: RegisteredBuffer) {
        let request = SendRequest { token, operation, local: Local::Owned(memory), flags: SendFlags::SIGNALED };
        self.queue.post(self.pair, request).expect("posts");
    }

    /// The next completion, waiting for the queue's event; `None` if none comes in time.
    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<Completed<RegisteredBuffer>> {
        let end = Instant::now() + patience;
        loop {
            if self.poll() {
                return self.done.pop_front();
            }
            let completions = Arc::clone(self.queue.completions());
            completions.request_notification().expect("arms");
            // What came before arming makes no event.
            if self.poll() {
                continue;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let left = Timespec::try_from(left).expect("a short time");
            poll(&mut [PollFd::new(&*completions, PollFlags::IN)], Some(&left)).expect("waits");
            completions.drain_events().expect("reads events");
        }
    }

    /// The next completion.
    pub(crate) fn next(&mut self) -> Completed<RegisteredBuffer> {
        self.next_within(PATIENCE).expect("a completion in time")
    }

    /// One completed send request and one received message, in whatever order: the bytes that came in, and their buffer.
    pub(crate) fn sent_and_received(&mut self) -> Completed<RegisteredBuffer> {
        let (first, second) = (self.next(), self.next());
        let (sent, received) = if first.is_receive { (second, first) } else { (first, second) };
        assert!(!sent.is_receive && received.is_receive, "one of each: {sent:?}, {received:?}");
        sent.result.expect("sent");
        received
    }

    /// Takes the queue pair out and gives back what was in flight.
    pub(crate) fn take_apart(mut self) -> Vec<Completed<RegisteredBuffer>> {
        self.queue.detach(self.pair).map(Detached::destroy).expect("it is there")
    }

    fn poll(&mut self) -> bool {
        self.queue.poll(&mut self.polled).expect("polls");
        self.done.extend(self.polled.drain(..));
        !self.done.is_empty()
    }
}

/// The bytes that a receive brought.
pub(crate) fn bytes(received: &Completed<RegisteredBuffer>) -> &[u8] {
    let length = *received.result.as_ref().expect("received") as usize;
    &received.memory.as_ref().expect("a receive has memory")[..length]
}

/// The entry of the GID table that has the device's address.
pub(crate) fn gid_index(fixture: &Fixture) -> u32 {
    let length = fixture.context.port(1).expect("a port").gid_table_length;
    let is_ours = |index: &u32| {
        let ip = fixture.context.gid(1, *index).ok().and_then(|gid| gid.ip());
        ip.is_some_and(|ip| ip.to_string() == fixture.address)
    };
    (0..length).find(is_ours).expect("the device's address is in its GID table")
}
