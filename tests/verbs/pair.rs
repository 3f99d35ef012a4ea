//! Two queue pairs of this process, connected to each other.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zcmi::verbs::{
    Access, Arrival, Completed, CompletionBatch, CompletionError, CompletionQueue, CompletionStatus, Context,
    ExposedPart, InFlight, Local, LocalEnd, Mtu, OwningQueue, Pieces, ProtectionDomain, Psn, QueuePair,
    QueuePairCapabilities, QueuePairKey, QueuePairKind, RegisteredBuffer, Segment, SendFlags, SendOperation,
    SendRequest, SharedReceiveQueue, Tuning, WorkOpcode,
};

use crate::common::pattern;
use crate::support::Fixture;

/// Longer than anything here takes, on a machine however busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The key of the datagram tests.
pub(crate) const QUEUE_KEY: u32 = 0x1234_5678;
/// What a buffer holds that nothing was written to.
pub(crate) const POISON: u8 = 0xa5;

/// How two ends are to be.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) kind: QueuePairKind,
    pub(crate) sizes: QueuePairCapabilities,
    pub(crate) access: Access,
    pub(crate) tuning: Tuning,
    pub(crate) shared_receives: Option<u32>,
    pub(crate) atomic_write: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kind: QueuePairKind::Rc,
            sizes: QueuePairCapabilities { inline: 64, receives: 16, segments: 4, sends: 16 },
            access: everything(),
            // Whatever retries is to fail soon.
            tuning: Tuning { ack_timeout: 14, retry_count: 2, rnr_retry_count: 1, ..Tuning::default() },
            shared_receives: None,
            atomic_write: false,
        }
    }
}

/// All that a peer can be allowed.
pub(crate) fn everything() -> Access {
    Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC
}

/// The entry of the GID table that is the device's IP address.
pub(crate) fn gid_index(fixture: &Fixture) -> u32 {
    let address: IpAddr = fixture.address.parse().expect("an address");
    let table = fixture.context.port(1).expect("a port").gid_table_length;
    let mut indexes = 0..table;
    indexes
        .find(|&index| fixture.context.gid(1, index).is_ok_and(|gid| gid.ip() == Some(address)))
        .expect("a GID for the address")
}

/// One end, on the way to a peer of this device.
pub(crate) fn local_end(fixture: &Fixture, access: Access) -> LocalEnd {
    LocalEnd { port: 1, gid_index: gid_index(fixture), psn: Psn::random(), access, path_mtu: Mtu::Bytes1024 }
}

/// Connects two queue pairs in state RESET.
pub(crate) fn connect(fixture: &Fixture, a: &QueuePair, b: &QueuePair, access: Access, tuning: &Tuning) {
    let (here, there) = (local_end(fixture, access), local_end(fixture, access));
    a.prepare(&here).expect("INIT");
    b.prepare(&there).expect("INIT");
    a.connect_to(&here, &b.endpoint(&there).expect("an endpoint"), tuning).expect("connects");
    b.connect_to(&there, &a.endpoint(&here).expect("an endpoint"), tuning).expect("connects");
}

/// Any memory of the tests in flight.
#[derive(Debug)]
pub(crate) enum Memory {
    Buffer(RegisteredBuffer),
    Part(ExposedPart),
    Pieces(Pieces<RegisteredBuffer>),
    Raw(RawMemory),
}

/// Segments as the test says, right or wrong, and what keeps the memory.
#[derive(Debug)]
pub(crate) struct RawMemory {
    pub(crate) segment: Segment,
    pub(crate) keep: Vec<RegisteredBuffer>,
}

// SAFETY: each kind keeps it; `Raw` names memory that it keeps, or that the device will refuse.
unsafe impl InFlight for Memory {
    fn segment(&self) -> Segment {
        match self {
            Self::Buffer(buffer) => buffer.segment(),
            Self::Part(part) => part.segment(),
            Self::Pieces(pieces) => pieces.segment(),
            Self::Raw(raw) => raw.segment,
        }
    }

    fn more_segments(&self) -> &[Segment] {
        match self {
            Self::Pieces(pieces) => pieces.more_segments(),
            Self::Buffer(_) | Self::Part(_) | Self::Raw(_) => &[],
        }
    }
}

impl Memory {
    /// The buffer again.
    pub(crate) fn buffer(self) -> RegisteredBuffer {
        let Self::Buffer(buffer) = self else { panic!("another kind: {self:?}") };
        buffer
    }

    /// The pieces again.
    pub(crate) fn pieces(self) -> Vec<RegisteredBuffer> {
        let Self::Pieces(pieces) = self else { panic!("another kind: {self:?}") };
        pieces.into_inner()
    }
}

/// A queue with two connected queue pairs (UD: open for datagrams) in one protection domain.
pub(crate) struct Ends {
    pub(crate) queue: OwningQueue<Memory>,
    pub(crate) a: QueuePairKey,
    pub(crate) b: QueuePairKey,
    pub(crate) domain: Arc<ProtectionDomain>,
    pub(crate) settings: Settings,
}

impl Ends {
    /// Reliable, with the default settings.
    pub(crate) fn reliable(fixture: &Fixture) -> Self {
        Self::new(fixture, Settings::default())
    }

    /// As the settings say.
    pub(crate) fn new(fixture: &Fixture, settings: Settings) -> Self {
        let mut this = Self::unconnected(fixture, settings);
        this.connect(fixture);
        this
    }

    /// In state RESET.
    pub(crate) fn unconnected(fixture: &Fixture, settings: Settings) -> Self {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = CompletionQueue::create(&fixture.context, 4096).expect("a completion queue");
        let mut queue = match settings.shared_receives {
            None => OwningQueue::new(completions),
            Some(receives) => {
                OwningQueue::with_shared_receives(completions, &domain, receives, settings.sizes.segments)
                    .expect("a shared receive queue")
            }
        };
        let [a, b] = [(); 2].map(|()| {
            let pair = build(&domain, queue.completions(), queue.shared_receives(), &settings);
            queue.add(pair).expect("fits")
        });
        Self { queue, a, b, domain, settings }
    }

    fn connect(&mut self, fixture: &Fixture) {
        let (a, b) = (self.pair(self.a), self.pair(self.b));
        if self.settings.kind == QueuePairKind::Ud {
            a.open_for_datagrams(1, QUEUE_KEY).expect("opens");
            b.open_for_datagrams(1, QUEUE_KEY).expect("opens");
        } else {
            connect(fixture, a, b, self.settings.access, &self.settings.tuning);
        }
    }

    /// The queue pair of `key`.
    pub(crate) fn pair(&self, key: QueuePairKey) -> &QueuePair {
        self.queue.queue_pair(key).expect("it is there")
    }

    /// A buffer of `length` bytes that hold a pattern of `seed`.
    pub(crate) fn filled(&self, seed: u64, length: usize) -> RegisteredBuffer {
        let mut buffer = RegisteredBuffer::allocate(&self.domain, length.max(1)).expect("memory");
        buffer.set_used(0..length);
        buffer[..length].copy_from_slice(&pattern(seed, 0, length));
        buffer
    }

    /// A buffer of `length` poisoned bytes.
    pub(crate) fn poisoned(&self, length: usize) -> RegisteredBuffer {
        let mut buffer = RegisteredBuffer::allocate(&self.domain, length.max(1)).expect("memory");
        buffer.set_used(0..length);
        buffer.fill(POISON);
        buffer
    }

    /// Posts a receive that must be taken.
    pub(crate) fn receive(&mut self, key: QueuePairKey, token: u64, buffer: RegisteredBuffer) {
        self.queue.post_receive(key, token, Memory::Buffer(buffer)).expect("takes the receive");
    }

    /// Posts a signaled request with memory that must be taken.
    pub(crate) fn post(&mut self, key: QueuePairKey, token: u64, operation: SendOperation<'_>, memory: Memory) {
        let local = Local::Owned(memory);
        let request = SendRequest { token, operation, local, flags: SendFlags::SIGNALED };
        self.queue.post(key, request).expect("takes the request");
    }

    /// Posts a signaled request with inline data that must be taken.
    pub(crate) fn post_inline(&mut self, key: QueuePairKey, token: u64, operation: SendOperation<'_>, bytes: &[u8]) {
        let local = Local::Inline(bytes);
        let request = SendRequest { token, operation, local, flags: SendFlags::SIGNALED };
        self.queue.post(key, request).expect("takes the request");
    }

    /// Waits for exactly `count` completions.
    pub(crate) fn wait(&mut self, count: usize) -> Vec<Completed<Memory>> {
        let begun = Instant::now();
        let mut done = Vec::new();
        while done.len() < count {
            assert!(begun.elapsed() < PATIENCE, "{} of {count} completions: {done:?}", done.len());
            if self.queue.poll(&mut done).expect("polls") == 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(done.len(), count, "{done:?}");
        done
    }

    /// Waits for exactly one completion.
    pub(crate) fn one(&mut self) -> Completed<Memory> {
        self.wait(1).remove(0)
    }

    /// Waits for a send request and a receive, in either order.
    pub(crate) fn both(&mut self) -> (Completed<Memory>, Completed<Memory>) {
        let mut done = self.wait(2);
        done.sort_by_key(|completed| completed.is_receive);
        let (received, sent) = (done.pop().expect("two"), done.pop().expect("two"));
        assert!(received.is_receive && !sent.is_receive, "{sent:?} {received:?}");
        (sent, received)
    }

    /// Shows that the two ends still work: a message each way.
    pub(crate) fn still_works(&mut self) {
        for (from, to, seed) in [(self.a, self.b, 101), (self.b, self.a, 102)] {
            let (source, sink) = (self.filled(seed, 333), self.poisoned(400));
            self.receive(to, 9001, sink);
            self.post(from, 9002, SendOperation::Send, Memory::Buffer(source));
            let (sent, received) = self.both();
            assert_eq!((sent.result, received.result), (Ok(0), Ok(333)));
            assert_eq!(&received.memory.expect("its buffer").buffer()[..333], pattern(seed, 0, 333));
        }
    }
}

/// A queue pair in state RESET.
pub(crate) fn build(
    domain: &Arc<ProtectionDomain>,
    completions: &Arc<CompletionQueue>,
    shared: Option<&Arc<SharedReceiveQueue>>,
    settings: &Settings,
) -> QueuePair {
    let mut builder = QueuePair::builder(domain, completions).kind(settings.kind).capabilities(settings.sizes);
    if let Some(shared) = shared {
        builder = builder.shared_receives(shared);
    }
    if settings.atomic_write {
        builder = builder.atomic_write();
    }
    builder.create().expect("a queue pair")
}

/// The status of a failed request.
pub(crate) fn status(result: Result<u32, CompletionError>) -> CompletionStatus {
    let error = result.expect_err("it failed");
    // The name in the specification, what probably happened, what to look at.
    assert!(error.to_string().starts_with(error.status.explanation()) && error.status.hint().is_some(), "{error}");
    error.status
}

/// What the tests look at of a completion of the unsafe tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) wr_id: u64,
    pub(crate) status: CompletionStatus,
    pub(crate) opcode: WorkOpcode,
    pub(crate) byte_length: u32,
    pub(crate) queue_pair: u32,
    pub(crate) arrival: Arrival,
}

/// Waits for exactly `count` completions of the unsafe tier.
pub(crate) fn wait_raw(queue: &CompletionQueue, count: usize) -> Vec<Seen> {
    let begun = Instant::now();
    let mut batch = CompletionBatch::new();
    let mut seen = Vec::new();
    while seen.len() < count {
        assert!(begun.elapsed() < PATIENCE, "{} of {count} completions: {seen:?}", seen.len());
        seen.extend(queue.poll(&mut batch).expect("polls").map(|completion| Seen {
            wr_id: completion.wr_id(),
            status: completion.status(),
            opcode: completion.opcode(),
            byte_length: completion.byte_length(),
            queue_pair: completion.queue_pair(),
            arrival: completion.arrival(),
        }));
        std::thread::yield_now();
    }
    assert_eq!(seen.len(), count, "{seen:?}");
    seen
}

/// Two connected queue pairs of the unsafe tier, each with a buffer.
pub(crate) struct RawEnds {
    pub(crate) a: QueuePair,
    pub(crate) b: QueuePair,
    pub(crate) completions: Arc<CompletionQueue>,
    pub(crate) domain: Arc<ProtectionDomain>,
}

impl RawEnds {
    /// As the settings say, with a completion queue of `entries`.
    pub(crate) fn new(fixture: &Fixture, settings: &Settings, entries: u32) -> Self {
        let domain = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let completions = CompletionQueue::create(&fixture.context, entries).expect("a completion queue");
        let [a, b] = [(); 2].map(|()| build(&domain, &completions, None, settings));
        connect(fixture, &a, &b, settings.access, &settings.tuning);
        Self { a, b, completions, domain }
    }
}

/// The whole of a buffer as one segment, for the unsafe tier.
pub(crate) fn segment(buffer: &RegisteredBuffer) -> Segment {
    buffer.segment()
}

/// Whether the running kernel is at least this version.
pub(crate) fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let (a, b) = (numbers.next().expect("a version"), numbers.next().expect("a version"));
    (a, b) >= (major, minor)
}

/// The context's type is wanted in signatures.
pub(crate) type Device = Arc<Context>;
