//! A peer that does not keep to the protocol, made of plain verbs: it loses its connection, with an error that says
//! why, and nothing else happens. On a real device.

#![allow(unsafe_code, reason = "memory that does not exist needs an unsafe impl; it carries its proof")]

mod common;

use std::time::{Duration, Instant};

use common::{listen, on_device, still_works, worker};
use zcmi::verbs::{
    CompletionQueue, ConnectionEvent, ConnectionEventKind as Kind, ConnectionId, ConnectionParameters, Context,
    EventChannel, InFlight, Local, OwningQueue, ProtectionDomain, QueuePair, QueuePairCapabilities, QueuePairKey,
    Remote, Segment, SendFlags, SendOperation, SendRequest, Tuning,
};
use zcmi::{Connection, ErrorKind};

/// The stranger sends inline only, so it needs no memory.
enum NoMemory {}

// SAFETY: there is no value of this type.
unsafe impl InFlight for NoMemory {
    fn segment(&self) -> Segment {
        match *self {}
    }
}

/// A connection of plain verbs to a zcmi listener.
struct Stranger {
    id: ConnectionId,
    queue: OwningQueue<NoMemory>,
    key: QueuePairKey,
}

impl Stranger {
    fn connect(target: std::net::SocketAddr, introduction: &[u8]) -> Self {
        let id = ConnectionId::create(&EventChannel::create().expect("a channel")).expect("an identifier");
        id.resolve_address(target, Duration::from_secs(2)).expect("starts");
        let route = wait(&id, Kind::AddressResolved).route.expect("a route");
        id.resolve_route(Duration::from_secs(2)).expect("starts");
        wait(&id, Kind::RouteResolved);
        let domain = ProtectionDomain::allocate(&Context::open(&route.device).expect("opens")).expect("a domain");
        let completions = CompletionQueue::create(domain.context(), 300).expect("a queue");
        let sizes = QueuePairCapabilities { inline: 64, receives: 1, segments: 1, sends: 200 };
        let pair = QueuePair::create(&domain, &completions, sizes).expect("a queue pair");
        pair.initialize(&id).expect("initializes");
        let parameters = ConnectionParameters {
            private_data: introduction,
            responder_resources: 1,
            initiator_depth: 1,
            retry_count: 7,
            rnr_retry_count: 1,
            queue_pair: pair.number(),
        };
        id.connect(&parameters).expect("starts");
        wait(&id, Kind::ConnectResponse);
        pair.connect(&id, &Tuning::default()).expect("moves");
        id.establish().expect("establishes");
        let mut queue = OwningQueue::new(completions);
        let key = queue.add(pair).expect("fits");
        Self { id, queue, key }
    }

    fn post(&mut self, operation: SendOperation, bytes: &[u8]) {
        let request = SendRequest { token: 0, operation, local: Local::Inline(bytes), flags: SendFlags::SIGNALED };
        assert!(self.queue.post(self.key, request).is_ok());
    }

    fn send(&mut self, frame: &[u8]) {
        self.post(SendOperation::Send, frame);
    }
}

fn wait(id: &ConnectionId, kind: Kind) -> ConnectionEvent {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(10), "no {kind:?}");
        match id.channel().next_event().expect("events") {
            Some(event) if event.kind == kind => return event,
            Some(event) => panic!("{event:?} instead of {kind:?}"),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Our introduction, as `src/protocol/handshake.rs` has it.
fn introduction(max_message: u32, credits: u32) -> Vec<u8> {
    let mut bytes = b"zcmi\x01\x01\0\0".to_vec();
    bytes.extend_from_slice(&7u64.to_le_bytes());
    bytes.extend_from_slice(&max_message.to_le_bytes());
    bytes.extend_from_slice(&credits.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

fn frame(kind: u8, credits: u16, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend_from_slice(&credits.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

async fn stranger(address: &str) -> (Stranger, Connection) {
    let worker = worker();
    let listener = listen(&worker, address).await;
    let target = listener.local_address();
    let stranger = std::thread::spawn(move || Stranger::connect(target, &introduction(8192, 64)));
    let connection = listener.accept().await.expect("accepts");
    (stranger.join().expect("the stranger connects"), connection)
}

async fn broken(connection: &Connection) -> zcmi::Error {
    let bound = Duration::from_secs(5);
    // Kept, so that no credit is given back.
    let mut messages = Vec::new();
    loop {
        match tokio::time::timeout(bound, connection.recv()).await.expect("nothing hangs") {
            Ok(message) => messages.push(message),
            Err(error) => return error,
        }
    }
}

#[test]
fn frames_that_are_none_break_their_connection_only() {
    on_device(|address| async move {
        let cases: [(&str, Vec<Vec<u8>>); 14] = [
            ("shorter than its header", vec![vec![1, 0, 0]]),
            ("unknown kind", vec![frame(9, 0, 0, &[])]),
            ("unknown flags", vec![vec![1, 1, 0, 0, 0, 0, 0, 0]]),
            ("not what arrived", vec![frame(1, 0, 5, b"four")]),
            ("control frame with a payload", vec![frame(2, 1, 1, b"x")]),
            ("without credits", vec![frame(2, 0, 0, &[])]),
            ("more credits", vec![frame(2, 1, 0, &[])]),
            ("for no grant", vec![frame(4, 0, 8, &[0; 8])]),
            ("shorter than its head", vec![frame(4, 0, 7, &[0; 7])]),
            ("broken length", vec![frame(4, 0, 12, &[0; 12])]),
            ("beyond the most", vec![frame(4, 0, 16, &[0xff; 16])]),
            ("not asked for", vec![frame(5, 0, 8, &[0; 8])]),
            ("after the last one", vec![frame(3, 0, 0, &[]), frame(1, 0, 1, b"x")]),
            ("without a credit", (0..65).map(|_| frame(1, 0, 1, b"x")).collect()),
        ];
        for (reason, frames) in cases {
            let (mut stranger, connection) = stranger(&address).await;
            for frame in &frames {
                stranger.send(frame);
            }
            let error = match reason {
                // Orderly at first sight; what came behind it shows when sending.
                "after the last one" => loop {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let _ = tokio::time::timeout(Duration::from_millis(1), connection.recv()).await;
                    if let Err(error) = connection.send(b"x").await {
                        break error;
                    }
                },
                _ => broken(&connection).await,
            };
            assert_eq!(error.kind(), ErrorKind::Protocol, "{reason}: {error}");
            assert!(error.to_string().contains(reason), "{reason}: {error}");
            wait(&stranger.id, Kind::Disconnected);
            still_works(&address).await;
        }
    });
}

/// It breaks our end by a refused access and then keeps quiet: only our own device can tell.
#[test]
fn a_peer_that_breaks_the_queue_pair_and_does_not_hang_up_is_noticed() {
    on_device(|address| async move {
        let (mut stranger, connection) = stranger(&address).await;
        stranger.send(&frame(1, 0, 5, b"hello"));
        assert_eq!(&*connection.recv().await.expect("receives"), b"hello");
        stranger.post(SendOperation::Write(Remote { address: 0x1000, key: 0x0bad_0bad }), b"evil");
        let error = broken(&connection).await;
        assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
        assert!(error.to_string().contains("refused access"), "{error}");
        still_works(&address).await;
    });
}

#[test]
fn absurd_values_in_the_introduction_cost_nothing() {
    on_device(|address| async move {
        let worker = worker();
        let listener = listen(&worker, &address).await;
        let target = listener.local_address();
        let stranger = std::thread::spawn(move || Stranger::connect(target, &introduction(u32::MAX, u32::MAX)));
        let connection = listener.accept().await.expect("accepts");
        let _stranger = stranger.join().expect("the stranger connects");
        assert_eq!(connection.max_message_size(), 8192, "the smaller of both");
        connection.send(&[7; 8192]).await.expect("sends");
        still_works(&address).await;
    });
}
