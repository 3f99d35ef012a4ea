//! Connecting one after the other: zcmi's connections, and rdma_cm's with a queue pair and nothing else, in turn.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zcmi::verbs::{
    CompletionQueue, ConnectionEvent, ConnectionEventKind as Kind, ConnectionId, ConnectionParameters, Context,
    EventChannel, ProtectionDomain, QueuePair, QueuePairCapabilities, Tuning,
};
use zcmi::{Connector, Listener, Worker};

use crate::Arguments;
use crate::peer::Server;

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the connections of rdma_cm share, as those of a worker do.
struct Shared {
    domain: Arc<ProtectionDomain>,
    completions: Arc<CompletionQueue>,
}

impl Shared {
    fn of(id: &ConnectionId) -> Self {
        let context = Context::open(&id.device().expect("a device")).expect("opens");
        let domain = ProtectionDomain::allocate(&context).expect("a domain");
        Self { completions: CompletionQueue::create(&context, 4096).expect("a queue"), domain }
    }

    fn pair(&self, id: &ConnectionId) -> QueuePair {
        // As many requests as a connection of zcmi has room for.
        let sizes = QueuePairCapabilities { sends: 68, receives: 4, ..Default::default() };
        let builder = QueuePair::builder(&self.domain, &self.completions);
        let pair = builder.capabilities(sizes).create().expect("a queue pair");
        pair.initialize(id).expect("INIT");
        pair
    }
}

fn parameters(pair: &QueuePair) -> ConnectionParameters<'static> {
    ConnectionParameters { queue_pair: pair.number(), ..Default::default() }
}

fn event(channel: &Arc<EventChannel>, wanted: Kind) -> ConnectionEvent {
    let event = channel.wait(PATIENCE).expect("events").expect("an event");
    event.expect(wanted).expect("the event")
}

/// Connects by rdma_cm alone; answers how long that took.
fn alone(peer: SocketAddr, shared: &mut Option<Shared>) -> Duration {
    let channel = EventChannel::create().expect("a channel");
    let begun = Instant::now();
    let id = ConnectionId::create(&channel).expect("an identifier");
    id.resolve_address(peer, PATIENCE).expect("resolves");
    event(&channel, Kind::AddressResolved);
    id.resolve_route(PATIENCE).expect("resolves");
    event(&channel, Kind::RouteResolved);
    let shared = shared.get_or_insert_with(|| Shared::of(&id));
    let pair = shared.pair(&id);
    id.connect(&parameters(&pair)).expect("connects");
    event(&channel, Kind::ConnectResponse);
    pair.connect(&id, &Tuning::default()).expect("RTS");
    id.establish().expect("establishes");
    let time = begun.elapsed();
    id.disconnect().expect("disconnects");
    drop((pair, id));
    time
}

/// Accepts by rdma_cm alone, for ever.
fn accept_alone(id: &ConnectionId) {
    let channel = id.channel();
    let (mut shared, mut open) = (None, Vec::new());
    loop {
        let Some(event) = channel.wait(PATIENCE).expect("events") else { continue };
        match event.kind {
            Kind::ConnectRequest => {
                let id = event.request.expect("an identifier");
                let shared: &mut Shared = shared.get_or_insert_with(|| Shared::of(&id));
                let pair = shared.pair(&id);
                pair.connect(&id, &Tuning::default()).expect("RTS");
                id.accept(&parameters(&pair)).expect("accepts");
                open.push((id.key(), pair, id));
            }
            Kind::Disconnected => open.retain(|(key, ..)| *key != event.key),
            _ => {}
        }
    }
}

/// The device's address in the URI of a listener.
fn device(place: &str) -> IpAddr {
    let socket = place.strip_prefix("rdma://").expect("connecting is measured over rdma only");
    socket.parse::<SocketAddr>().expect("an address").ip()
}

pub(crate) async fn client(arguments: &Arguments, place: &str) -> Value {
    let server = Server::start();
    let (uri, port) = server.said.split_once(' ').expect("two addresses");
    let peer = SocketAddr::new(device(place), port.parse().expect("a port"));
    let worker = Worker::new(arguments.config()).expect("valid settings");
    let connector = Connector::new(&worker);
    let (mut shared, mut ours, mut theirs) = (None, Vec::new(), Vec::new());
    for number in 0..arguments.iterations {
        let begun = Instant::now();
        let connection = connector.connect(uri).await.expect("connects");
        let time = begun.elapsed();
        drop(connection);
        let other = alone(peer, &mut shared);
        if number > 4 {
            ours.push(time);
            theirs.push(other);
        }
    }
    let microseconds = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_nanos() as f64 / 1000.0
    };
    let (ours, theirs) = (microseconds(&mut ours), microseconds(&mut theirs));
    json!({ "zcmi_us": ours, "rdma_cm_us": theirs, "ratio": ours / theirs })
}

pub(crate) async fn server(arguments: &Arguments, place: &str) -> Value {
    let id = ConnectionId::create(&EventChannel::create().expect("a channel")).expect("an identifier");
    id.bind(SocketAddr::new(device(place), 0)).expect("binds");
    id.listen(64).expect("listens");
    let port = id.local_address().expect("an address").port();
    std::thread::spawn(move || accept_alone(&id));
    let worker = Worker::new(arguments.config()).expect("valid settings");
    let listener = Listener::bind(&worker, place).await.expect("listens");
    println!("{} {port}", listener.uri());
    loop {
        drop(listener.accept().await);
    }
}
