//! A holder of plain verbs: it uses address and key of a handle as it likes, and never agrees to a revocation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zcmi::RemoteBuffer;
use zcmi::verbs::{
    Completed, CompletionQueue, ConnectionEvent, ConnectionEventKind as Kind, ConnectionId, ConnectionParameters,
    Context, EventChannel, Local, OwningQueue, ProtectionDomain, QueuePair, QueuePairCapabilities, QueuePairKey,
    RegisteredBuffer, Remote, SendFlags, SendOperation, SendRequest, Tuning,
};

use crate::case::{Op, Request};
use crate::common::fill;
use crate::holder::{Outcome, POISON};
use crate::owner::Name;

/// Frames that the owner may send it: a message, and what it asks for when it revokes.
const RECEIVES: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a frame's header and of a record's, as docs/protocol.md has them.
const HEADERS: usize = 8 + 16;

pub(crate) struct Plain {
    queue: OwningQueue<RegisteredBuffer>,
    key: QueuePairKey,
    domain: Arc<ProtectionDomain>,
    // After its queue pair.
    _id: ConnectionId,
}

impl Plain {
    /// Connects, and answers the handle that is the first message.
    pub(crate) fn connect(target: SocketAddr) -> (Self, RemoteBuffer) {
        let id = ConnectionId::create(&EventChannel::create().expect("a channel")).expect("an identifier");
        id.resolve_address(target, PATIENCE).expect("starts");
        let route = wait(&id, Kind::AddressResolved).route.expect("a route");
        id.resolve_route(PATIENCE).expect("starts");
        wait(&id, Kind::RouteResolved);
        let domain = ProtectionDomain::allocate(&Context::open(&route.device).expect("opens")).expect("a domain");
        let completions = CompletionQueue::create(domain.context(), 64).expect("a queue");
        let sizes = QueuePairCapabilities { inline: 0, receives: RECEIVES as u32, segments: 1, sends: 8 };
        let pair = QueuePair::create(&domain, &completions, sizes).expect("a queue pair");
        pair.initialize(&id).expect("initializes");
        let number = pair.number();
        let mut queue = OwningQueue::new(completions);
        let key = queue.add(pair).expect("fits");
        for buffer in RegisteredBuffer::allocate_many(&domain, RECEIVES, 512).expect("memory") {
            assert!(queue.post_receive(key, 0, buffer).is_ok(), "takes the receive");
        }
        let parameters = ConnectionParameters {
            private_data: &introduction(),
            responder_resources: 1,
            initiator_depth: 1,
            retry_count: 7,
            rnr_retry_count: 6,
            queue_pair: number,
        };
        id.connect(&parameters).expect("starts");
        wait(&id, Kind::ConnectResponse);
        let pair = queue.queue_pair(key).expect("it is there");
        pair.connect(&id, &Tuning::default()).expect("moves");
        id.establish().expect("establishes");
        let mut this = Self { queue, key, domain, _id: id };
        let first = this.next(|completed| completed.is_receive);
        let bytes = &first.memory.expect("a receive has memory")[HEADERS..HEADERS + RemoteBuffer::WIRE_LENGTH];
        (this, RemoteBuffer::from_bytes(bytes).expect("a handle"))
    }

    /// Does it, whatever the handle allows.
    pub(crate) fn carry_out(&mut self, handle: &RemoteBuffer, request: &Request) -> Outcome {
        let Name { address, key, .. } = Name::of(handle);
        let remote = Remote { address: address.wrapping_add_signed(request.offset), key };
        let mut memory = RegisteredBuffer::allocate(&self.domain, request.length as usize).expect("memory");
        memory.fill(POISON);
        let operation = match request.op {
            Op::CompareSwap => SendOperation::CompareSwap { remote, compare: request.compare, swap: request.value },
            Op::FetchAdd => SendOperation::FetchAdd { remote, add: request.value },
            Op::Read => SendOperation::Read(remote),
            Op::Write => {
                fill(&mut memory, request.value, 0);
                SendOperation::Write(remote)
            }
        };
        let request = SendRequest { token: 0, operation, local: Local::Owned(memory), flags: SendFlags::SIGNALED };
        assert!(self.queue.post(self.key, request).is_ok(), "takes the request");
        let completed = self.next(|completed| !completed.is_receive);
        let bytes = completed.memory.map_or_else(Vec::new, |memory| memory.to_vec());
        match completed.result {
            Ok(_) => Outcome::done(bytes),
            Err(error) => Outcome { kind: format!("{:?}", error.status), operation: "device".to_owned(), bytes },
        }
    }

    fn next(&mut self, is_wanted: impl Fn(&Completed<RegisteredBuffer>) -> bool) -> Completed<RegisteredBuffer> {
        let begun = Instant::now();
        let mut done = Vec::new();
        loop {
            self.queue.poll(&mut done).expect("polls");
            if let Some(completed) = done.drain(..).find(&is_wanted) {
                return completed;
            }
            assert!(begun.elapsed() < PATIENCE, "no completion");
            std::thread::yield_now();
        }
    }
}

fn wait(id: &ConnectionId, kind: Kind) -> ConnectionEvent {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "no {kind:?}");
        match id.channel().next_event().expect("events") {
            Some(event) if event.kind == kind => return event,
            Some(event) => panic!("{event:?} instead of {kind:?}"),
            None => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// As `src/protocol/handshake.rs` has it; without a domain.
fn introduction() -> Vec<u8> {
    let mut bytes = b"zcmi\x01\x01\0\0".to_vec();
    bytes.extend_from_slice(&7u64.to_le_bytes());
    bytes.extend_from_slice(&256u32.to_le_bytes());
    bytes.extend_from_slice(&4u16.to_le_bytes());
    bytes.extend_from_slice(&512u16.to_le_bytes());
    bytes.extend_from_slice(&1000u32.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes
}
