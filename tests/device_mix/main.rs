//! The random mix of `tests/sim` on a real device, between two processes, by the public API alone. What the two must
//! know of each other goes over a socket beside the connection; every byte is checked.
//!
//! `host1` and `host2` are the same between two hosts: `tests/run --long` starts them, with packet loss, which
//! ZCMI_TEST_MIX_LOSS says. ZCMI_TEST_MIX_SECONDS says how long it goes on, ZCMI_TEST_MIX_SEED where it begins.

#[path = "../sim/actor.rs"]
mod actor;
#[path = "../sim/bulk.rs"]
mod bulk;
#[path = "../common/mod.rs"]
mod common;
#[path = "../sim/far.rs"]
mod far;
#[allow(dead_code, reason = "the simulation has its part of it")]
#[path = "../sim/ledger.rs"]
mod ledger;
#[path = "../sim/operations/mod.rs"]
mod operations;
#[path = "../sim/pattern.rs"]
mod pattern;
#[path = "../sim/session.rs"]
mod session;
#[path = "../sim/settings.rs"]
mod settings;
#[allow(dead_code, reason = "as above")]
#[path = "../sim/sizes.rs"]
mod sizes;
mod socket;
mod world;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Peer, device_address, role, say};
use far::Far;
use ledger::Ledger;
use session::{Actor, Session};
use sizes::Sizes;
use socket::Socket;
use tokio::task::LocalSet;
use zcmi::{Config, Connection, Connector, Listener, Worker};

/// A conversation takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the two hosts, which are of one machine, find each other.
const PORT: u16 = 7473;
const HOSTS: &str = "/tmp/zcmi-mix";

/// The process that accepts.
#[test]
fn peer() {
    if let Some(path) = role() {
        run(serve(PathBuf::from(path), &device_address().expect("the test has found it"), 0));
    }
}

#[test]
fn two_processes_do_everything_at_random() {
    if device_address().is_none() {
        return;
    }
    let path = std::env::temp_dir().join(format!("zcmi-mix-{}", std::process::id()));
    let peer = Peer::start(path.to_str().expect("it is text"));
    let uri = peer.hear();
    run(talk(path, uri, 40));
    assert!(peer.finish().success());
}

#[test]
fn host1() {
    let Some(address) = second_host() else { return };
    run(talk(HOSTS.into(), format!("rdma://{address}:{PORT}"), 60));
}

#[test]
fn host2() {
    let Some(address) = second_host() else { return };
    let _ = std::fs::remove_file(HOSTS);
    run(serve(HOSTS.into(), &address, PORT));
}

/// The address of the second host, where there are two.
fn second_host() -> Option<String> {
    let address = std::env::var("ZCMI_HOST2").ok();
    if address.is_none() {
        eprintln!("SKIPPED: there are not two hosts; run it by tests/run --long");
    }
    address
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |number| number.parse().expect("a number"))
}

fn run(part: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(part));
}

/// Settings at random, for a machine that may stand still for seconds.
fn config() -> Config {
    let patience = Duration::from_secs(60);
    Config {
        peer_timeout: patience,
        revoke_timeout: patience / 2,
        connect_timeout: patience,
        ..settings::config(Sizes::Moderate)
    }
}

/// The end that connects, for so long.
async fn talk(path: PathBuf, uri: String, seconds: u64) {
    let socket = Socket::connect(&path).await;
    let ledger = Rc::<Ledger>::default();
    let (begun, first) = (Instant::now(), number("ZCMI_TEST_MIX_SEED", 1));
    let bound = Duration::from_secs(number("ZCMI_TEST_MIX_SECONDS", seconds));
    let (mut sessions, mut broken) = (0, 0);
    while begun.elapsed() < bound {
        let id = first + sessions;
        world::seed(id);
        let worker = Worker::new(config()).expect("valid settings");
        let connection = Connector::new(&worker).connect(&uri).await.expect("connects");
        connection.send(&id.to_le_bytes()).await.expect("sends");
        broken += u64::from(converse(&socket, connection, id, 0, &ledger).await);
        sessions += 1;
    }
    socket.finish().await;
    println!("{sessions} seeds from {first} on in {:.1?}, {broken} broken or cut off", begun.elapsed());
    println!("operations: {:?}\nerrors: {:?}", ledger.counts(), ledger.errors());
    let missing: Vec<_> = operations::names().into_iter().filter(|name| !ledger.counts().contains_key(name)).collect();
    println!("never happened: {missing:?}");
    assert!(sessions > 0 && broken < sessions, "{broken} of {sessions} broke");
}

/// The end that accepts, until the other has gone.
async fn serve(path: PathBuf, address: &str, port: u16) {
    let accepting = Socket::listen(&path);
    world::seed(number("ZCMI_TEST_MIX_SEED", 1) + 1_000_000);
    let listener = async || {
        let worker = Worker::new(config()).expect("valid settings");
        Listener::bind(&worker, &common::uri(format_args!("{address}:{port}"))).await.expect("listens")
    };
    // One worker for all: its settings are those of the first seed.
    let listener = listener().await;
    match port {
        0 => say(listener.uri()),
        _ => println!("waiting"),
    }
    let socket = accepting.accept().await;
    let ledger = Rc::<Ledger>::default();
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection.expect("accepts"),
            () = socket.closed() => return,
        };
        let first = connection.recv().await.expect("the number of a session");
        let id = u64::from_le_bytes(first[..].try_into().expect("eight bytes"));
        drop(first);
        converse(&socket, connection, id, 1, &ledger).await;
    }
}

/// One conversation; answers whether it broke, for which there must be a reason.
async fn converse(socket: &Socket, connection: Connection, id: u64, side: usize, ledger: &Rc<Ledger>) -> bool {
    let sender = socket.sender();
    let own = Session::with_far(id, side, ledger, Far::new(move |fact| sender.send(fact)));
    let (session, actor) = (Rc::clone(&own), Actor::new(connection, &own, side));
    let standing = Rc::downgrade(&actor);
    let talking = async move {
        Rc::clone(&actor).converse().await;
        let ours = actor.summary();
        // The other learns of the end by the connection.
        drop(actor);
        session.tell(far::Fact::Summary(ours.clone()));
        let theirs = session.summary_of_peer().await.expect("the other process lives");
        // A device may give up what is lost again and again.
        Session::agree(&ours, &theirs, !session.aborts && number("ZCMI_TEST_MIX_LOSS", 0) == 0)
    };
    let broken = tokio::select! {
        biased;
        broken = tokio::time::timeout(PATIENCE, talking) => match broken {
            Ok(broken) => broken,
            Err(_) => {
                // It is gone when only the other has not ended.
                let standing = standing.upgrade().map(|actor| actor.standing());
                panic!("session {id} hangs on side {side}: {standing:?}");
            }
        },
        () = world::panicked() => unreachable!("it panics"),
        () = socket.hear_all(&own, 1 - side) => panic!("the other process is gone in session {id}"),
    };
    if let Some(why) = &broken {
        eprintln!("session {id}, side {side}, broken or cut off: {why}");
    }
    broken.is_some()
}
