//! A peer that does not keep to the protocol, made of plain verbs: it loses its connection, with an error that says
//! why, and nothing else happens. On a real device.

mod common;

use std::time::{Duration, Instant};

use common::{listen, on_device, still_works, worker};
use zcmi::verbs::{
    CompletionQueue, ConnectionEvent, ConnectionEventKind as Kind, ConnectionId, ConnectionParameters, Context,
    EventChannel, Local, OwningQueue, ProtectionDomain, QueuePair, QueuePairCapabilities, QueuePairKey,
    RegisteredBuffer, Remote, SendFlags, SendOperation, SendRequest, Tuning,
};
use zcmi::{Config, Connection, Connector, ErrorKind, Worker};

/// Frames that the stranger can be sent.
const RECEIVES: u32 = 16;

/// A connection of plain verbs to a zcmi listener.
struct Stranger {
    id: ConnectionId,
    queue: OwningQueue<RegisteredBuffer>,
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
        let sizes = QueuePairCapabilities { inline: 400, receives: RECEIVES, segments: 1, sends: 200 };
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
        // For what it is told before it is cut off.
        for _ in 0..RECEIVES {
            let buffer = RegisteredBuffer::allocate(&domain, 4096).expect("memory");
            assert!(queue.post_receive(key, 0, buffer).is_ok());
        }
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

/// An introduction, as docs/protocol.md has it.
fn introduction(longest: u32, credits: u16, frame: u16) -> Vec<u8> {
    let mut bytes = b"zcmi\x01\x01\0\0".to_vec();
    bytes.extend_from_slice(&7u64.to_le_bytes());
    bytes.extend_from_slice(&longest.to_le_bytes());
    bytes.extend_from_slice(&credits.to_le_bytes());
    bytes.extend_from_slice(&frame.to_le_bytes());
    bytes.extend_from_slice(&1_000_000u32.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

fn frame(kind: u8, credits: u16, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend_from_slice(&credits.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A record, as docs/protocol.md has it.
fn record(kind: u8, flags: u8, channel: u32, argument: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, flags, 0, 0];
    for word in [channel, argument, payload.len() as u32] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// A frame of records.
fn data(records: &[Vec<u8>]) -> Vec<u8> {
    let payload = records.concat();
    frame(1, 0, payload.len() as u32, &payload)
}

/// A handle of a grant of our own, which the stranger never made.
fn handle(rights: u8, session: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![1, rights, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&session.to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes
}

async fn stranger(address: &str) -> (Stranger, Connection) {
    let settings = Config { max_channels: 4, channel_window: 1000, ..Config::default() };
    let worker = Worker::new(settings).expect("valid settings");
    let listener = listen(&worker, address).await;
    let target = listener.local_address();
    let stranger = std::thread::spawn(move || Stranger::connect(target, &introduction(8192, 64, 4096)));
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
        let message = |channel| record(1, 0, channel, 0, b"x");
        let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
            ("shorter than its header", vec![vec![1, 0, 0]]),
            ("a frame of unknown kind", vec![frame(9, 0, 0, &[])]),
            ("a frame with unknown flags", vec![vec![1, 1, 0, 0, 0, 0, 0, 0]]),
            ("not what arrived", vec![frame(1, 0, 5, b"four")]),
            ("credit frame with a payload", vec![frame(2, 1, 1, b"x")]),
            ("without credits", vec![frame(2, 0, 0, &[])]),
            ("more credits", vec![frame(2, u16::MAX, 0, &[])]),
            ("for no grant", vec![frame(4, 0, 8, &[0; 8])]),
            ("shorter than its head", vec![frame(4, 0, 7, &[0; 7])]),
            ("broken length", vec![frame(4, 0, 12, &[0; 12])]),
            ("reserved bytes", vec![frame(4, 0, 16, &[0xff; 16])]),
            ("beyond the most", vec![frame(4, 0, 16, &[[0; 8], [0xff; 8]].concat())]),
            ("a data frame without records", vec![frame(1, 1, 0, &[])]),
            ("a channel or an argument", vec![data(&[record(3, 0, 1, 0, &[0; 8])])]),
            ("not asked for", vec![frame(5, 0, 8, &[0; 8])]),
            ("a record shorter than its header", vec![frame(1, 0, 3, &[1, 0, 0])]),
            ("a record of unknown kind", vec![data(&[message(0), record(77, 0, 0, 0, &[])])]),
            ("a record with unknown flags", vec![data(&[record(4, 1, 0, 1, &[])])]),
            ("leaves its frame", vec![frame(1, 0, 16, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])]),
            ("without a handle", vec![data(&[record(2, 0, 0, 0, b"short")])]),
            ("a broken handle", vec![data(&[record(2, 0, 0, 0, &[0xee; 40])])]),
            ("cannot be read here", vec![data(&[record(2, 0, 0, 0, &handle(1, 99, 5000))])]),
            ("taken that was not offered", vec![data(&[record(3, 0, 0, 0, &[0; 8])])]),
            ("a broken list", vec![data(&[record(3, 0, 0, 0, &[0; 7])])]),
            ("unknown channel", vec![data(&[record(4, 0, 5, 1, &[])])]),
            ("more window", vec![data(&[record(4, 0, 0, 1, &[])])]),
            ("more messages acknowledged", vec![data(&[record(5, 0, 0, 1, &[])])]),
            ("more notifications", vec![data(&[record(9, 0, 0, 1, &[])])]),
            ("ends twice", vec![data(&[record(6, 0, 3, 0, &[]), record(6, 0, 3, 0, &[])])]),
            ("it has ended", vec![data(&[record(6, 0, 3, 0, &[]), message(3)])]),
            ("after the last one", vec![data(&[record(6, 1, 0, 0, &[]), message(0)])]),
            ("more channels", vec![data(&(1..5).map(message).collect::<Vec<_>>())]),
            ("channel's window", vec![data(&vec![record(1, 0, 0, 0, &[]); 17])]),
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
        stranger.send(&data(&[record(1, 0, 0, 0, b"hello")]));
        assert_eq!(&*connection.recv().await.expect("receives"), b"hello");
        stranger.post(SendOperation::Write(Remote { address: 0x1000, key: 0x0bad_0bad }), b"evil");
        let error = broken(&connection).await;
        assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
        assert!(error.to_string().contains("refused access"), "{error}");
        still_works(&address).await;
    });
}

/// All connections of a worker take from the same receives: one peer that sends more than it has credit for must not cost the
/// others theirs, though nobody here looks for a while.
#[test]
fn a_flood_takes_nobody_elses_messages() {
    on_device(|address| async move {
        let (ours, theirs) = (worker(), worker());
        let listener = listen(&ours, &address).await;
        let (uri, target) = (listener.uri(), listener.local_address());
        let connector = Connector::new(&theirs);
        let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
        let (client, server) = (client.expect("connects"), server.expect("accepts"));
        for _ in 0..3 {
            let connecting = std::thread::spawn(move || Stranger::connect(target, &introduction(8192, 64, 4096)));
            let connection = listener.accept().await.expect("accepts");
            let mut stranger = connecting.join().expect("the stranger connects");
            // More than both connections have receives.
            for _ in 0..200 {
                stranger.send(&data(&[record(1, 0, 0, 0, b"x")]));
            }
            for number in 0..20u8 {
                client.send(&[number]).await.expect("sends");
            }
            std::thread::sleep(Duration::from_millis(100));
            for number in 0..20u8 {
                let message = tokio::time::timeout(Duration::from_secs(5), server.recv()).await.expect("nothing hangs");
                assert_eq!(&*message.expect("receives"), &[number]);
            }
            assert_eq!(broken(&connection).await.kind(), ErrorKind::Protocol);
        }
        still_works(&address).await;
    });
}

#[test]
fn absurd_values_in_the_introduction_cost_nothing() {
    on_device(|address| async move {
        let worker = worker();
        let listener = listen(&worker, &address).await;
        let target = listener.local_address();
        let stranger =
            std::thread::spawn(move || Stranger::connect(target, &introduction(u32::MAX, u16::MAX, u16::MAX)));
        let connection = listener.accept().await.expect("accepts");
        let _stranger = stranger.join().expect("the stranger connects");
        assert_eq!(connection.max_short_message_size(), 4096 - 24, "the smaller of both");
        connection.send(&[7; 4072]).await.expect("sends");
        still_works(&address).await;
    });
}
