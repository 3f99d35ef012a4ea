//! A process is killed at each of many named points, on a real device, or over the transport that `ZCMI_TEST_TRANSPORT` names. It has said
//! that it is there, and stands still. The survivor learns it within a second, keeps nothing of it, and goes on with everybody else.

mod bystander;
mod leftovers;
mod survivor;
mod victim;

#[path = "../common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use bystander::Bystander;
use common::resources::Resources;
use common::{Peer, Transport, aside, baseline, listen, nothing_left, on_device_within, role};
use leftovers::Leftovers;
use rustix::process::Signal;
use zcmi::{Config, Connection, Connector, Listener, Worker};

/// Bytes of all frames that a worker keeps for those who come, and of what a conversation has in hand.
const MOST_FRAMES: usize = 4 << 20;
/// Within this the survivor knows.
const BOUND: Duration = Duration::from_secs(1);

/// Which end the process is that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Accepts,
    Dials,
}

use Side::{Accepts, Dials};

/// The process that is killed, and the bystander.
#[test]
fn peer() {
    match role().as_deref() {
        Some("bystander") => bystander::echo(),
        Some(part) => victim::play_part(part),
        None => {}
    }
}

#[test]
fn killed_while_it_connects() {
    let points = [
        "connect.resolved",
        "connect.opened",
        "connect.asked",
        "connect.answered",
        "connect.activated",
        "connect.established",
    ];
    each(&points.map(|point| (point, "set up", Dials)));
}

#[test]
fn killed_while_it_accepts() {
    let points = ["accept.asked", "accept.opened", "accept.activated", "accept.answered", "accept.established"];
    each(&points.map(|point| (point, "set up", Accepts)));
}

#[test]
fn killed_with_a_short_message() {
    each(&[
        ("frame.made", "send", Dials),
        ("frame.posted", "send", Accepts),
        ("frame.arrived", "receive", Dials),
        ("frame.arrived", "receive", Accepts),
    ]);
}

#[test]
fn killed_with_a_long_message() {
    each(&[
        ("offer.granted", "send long", Dials),
        ("offer.made", "send long", Accepts),
        ("offer.taken", "send long", Dials),
        ("grant.closing", "send long", Accepts),
        ("offer.ended", "send long", Dials),
        ("fetch.posted", "receive long", Accepts),
        ("fetch.ended", "receive long", Dials),
        ("fetch.told", "receive into", Accepts),
    ]);
}

#[test]
fn killed_with_a_grant() {
    each(&[
        ("grant.binding", "grant", Dials),
        ("granted", "be read", Accepts),
        ("granted", "be read", Dials),
        ("revoke.wanted", "revoke", Dials),
        ("revoke.asked", "revoke", Accepts),
        ("revoke.agreed", "revoke", Dials),
        ("grant.closing", "revoke", Accepts),
        ("grant.closed", "revoke", Dials),
        ("revoke.drained", "let go", Accepts),
        ("revoke.answered", "let go", Dials),
    ]);
}

#[test]
fn killed_with_an_operation_in_flight() {
    each(&[
        ("operation.posted", "write", Dials),
        ("operation.posted", "write", Accepts),
        ("operation.posted", "read", Dials),
    ]);
}

#[test]
fn killed_while_it_closes() {
    each(&[
        ("close.said", "close", Dials),
        ("close.delivered", "close", Accepts),
        ("close.hung_up", "close", Dials),
        ("close.destroyed", "close", Accepts),
        ("close.said", "drop", Accepts),
        ("close.hung_up", "drop", Accepts),
        ("close.destroyed", "drop", Dials),
    ]);
}

/// What devices do is done by the peer's process here: it may die with half a frame, and with what it owes.
#[test]
fn killed_in_the_middle_of_a_frame() {
    if Transport::of_test().has_device() {
        return;
    }
    each(&[
        ("connect.confirmed", "set up", Dials),
        ("frame.half_written", "write", Dials),
        ("frame.half_written", "be read", Accepts),
        ("frame.half_read", "read", Dials),
        ("frame.half_read", "be written", Accepts),
        ("frame.half_read", "receive long", Dials),
        ("answer.due", "be read", Dials),
        ("acknowledgement.due", "be written", Dials),
        ("acknowledgement.due", "be written", Accepts),
        ("close.unshut", "close", Dials),
        ("close.unshut", "drop", Accepts),
    ]);
}

/// Between what the survivor has seen of a ring and what it has not.
#[test]
fn killed_inside_a_ring() {
    if Transport::of_test() != Transport::Shm {
        return;
    }
    each(&[
        ("ring.made", "set up", Dials),
        ("ring.made", "set up", Accepts),
        ("ring.mapped", "set up", Dials),
        ("ring.mapped", "set up", Accepts),
        ("ring.unattached", "set up", Dials),
        ("ring.unattached", "set up", Accepts),
        ("ring.filled", "send", Dials),
        ("ring.filled", "send long", Accepts),
        ("ring.filled", "write", Dials),
        ("ring.shown", "send", Accepts),
        ("ring.shown", "write", Dials),
        ("ring.shown", "close", Accepts),
        ("ring.unrung", "send", Dials),
        ("ring.unrung", "send long", Accepts),
        ("ring.taken", "receive", Accepts),
        ("ring.taken", "be written", Dials),
        ("ring.taken", "read", Dials),
        ("ring.freed", "receive", Dials),
        ("ring.freed", "be written", Accepts),
    ]);
}

/// One that listens at a path leaves the file of its socket, since nobody else may remove it; the next who listens there does.
#[test]
fn killed_at_a_socket_with_a_file() {
    if Transport::of_test() != Transport::Shm {
        return;
    }
    on_device_within(Duration::from_secs(60), |_| async {
        let folder = std::env::temp_dir().join(format!("zcmi-failpoints-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let uri = format!("shm://{}", folder.join("socket").display());
        let worker = Worker::new(Config::default()).expect("valid settings");
        for point in ["accept.asked", "ring.made", "ring.unattached", "accept.answered", "accept.established"] {
            let peer = Peer::start(&format!("{point}/set up/at {uri}"));
            let peer = aside(move || {
                peer.hear();
                peer
            })
            .await;
            let killing = aside(move || {
                assert_eq!(peer.hear(), format!("reached {point}"));
                peer.kill();
            });
            let connector = Connector::new(&worker);
            let connect = async {
                match connector.connect(&uri).await {
                    Ok(connection) => survivor::until_it_ends("set up", connection).await,
                    Err(error) => error,
                }
            };
            let ((), error) = tokio::join!(killing, connect);
            survivor::is_fit(&error, "set up");
            let listener = Listener::bind(&worker, &uri).await.expect("nobody listens there any more");
            connect_and_talk(&worker, &listener).await;
            drop(listener);
            let left: Vec<_> = std::fs::read_dir(&folder).expect("it is there").flatten().collect();
            assert!(left.is_empty(), "{point}: {left:?}");
        }
        std::fs::remove_dir(&folder).expect("it is empty");
    });
}

/// Kills a process at each of these points: name, what it does on its way there, and which end it is.
fn each(cases: &[(&str, &str, Side)]) {
    on_device_within(Duration::from_secs(240), |address| async move {
        // Nobody is noticed only because it has been silent.
        let patience = Duration::from_secs(30);
        let config = Config { heartbeat: patience, peer_timeout: 2 * patience, ..Config::default() };
        let worker = Worker::new(config).expect("valid settings");
        let listener = listen(&worker, &address).await;
        let before = quiet(&worker, &address).await;
        let nothing_else = Leftovers::now();
        let bystander = Bystander::begin(&worker).await;
        connect_and_talk(&worker, &listener).await;
        // While one connection of the worker lives, frames of others stay with it, and blocks of the pool with them.
        let meanwhile = aside(Resources::settled).await.with_more("mr", 2);
        let leftovers = Leftovers::now().with_more_memory(MOST_FRAMES);
        let mut longest = Duration::ZERO;
        for &(point, part, side) in cases {
            let begun = Instant::now();
            let rounds = bystander.rounds();
            let (noticed, what) = kill_at(point, part, side, &worker, &listener).await;
            nothing_left(&meanwhile).await;
            let leftovers = leftovers.clone();
            aside(move || Leftovers::assert_back_at(&leftovers)).await;
            let left = begun.elapsed();
            bystander.goes_on_from(rounds).await;
            // A new connection, of the same worker, works.
            connect_and_talk(&worker, &listener).await;
            eprintln!("{point} ({part}, {side:?}): after {noticed:.0?}: {what}; all in {left:.0?}");
            assert!(noticed < BOUND, "{point} ({part}, {side:?}): after {noticed:?}: {what}");
            longest = longest.max(noticed);
        }
        let (rounds, pause) = bystander.end().await;
        nothing_left(&before).await;
        aside(move || Leftovers::assert_back_at(&nothing_else)).await;
        eprintln!(
            "{} points, known after {longest:.0?} at most; {rounds} rounds meanwhile, {pause:.0?} at most",
            cases.len()
        );
    });
}

/// What there is when the worker has given back all that it keeps for connections.
async fn quiet(worker: &Worker, address: &str) -> Resources {
    baseline(worker, address).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    aside(Resources::settled).await
}

/// Answers how long after the death the survivor knew, and what.
async fn kill_at(point: &str, part: &str, side: Side, worker: &Worker, listener: &Listener) -> (Duration, String) {
    survivor::listen_to_the_log();
    let target = if side == Dials { listener.uri() } else { "-".to_owned() };
    let peer = Peer::start(&format!("{point}/{part}/{target}"));
    let (peer, connecting) = if side == Dials {
        (peer, None)
    } else {
        let (peer, uri) = aside(move || {
            let uri = peer.hear();
            (peer, uri)
        })
        .await;
        (peer, Some(uri))
    };
    let reached = format!("reached {point}");
    let killing = aside(move || {
        assert_eq!(peer.hear(), reached);
        let killed = Instant::now();
        peer.signal(Signal::KILL);
        (killed, peer)
    });
    let connector = Connector::new(worker);
    let connect = async {
        match connecting {
            Some(uri) => connector.connect(&uri).await,
            None => listener.accept().await,
        }
    };
    // One that dials and dies before it is connected is passed over: the listener has nothing to say of it.
    // Where it is told of that last, it has no more to say then.
    let is_set_up = ["connect.established", "connect.confirmed"].contains(&point);
    if side == Dials && part == "set up" && !is_set_up {
        let mut connect = std::pin::pin!(connect);
        let (killed, peer) = tokio::select! {
            connection = &mut connect => panic!("it is connected: {connection:?}"),
            killed = killing => killed,
        };
        if ["connect.resolved", "connect.opened", "ring.made"].contains(&point) {
            aside(|| peer.kill()).await;
            return (Duration::ZERO, "never heard of".to_owned());
        }
        let passed_over = tokio::select! {
            connection = connect => panic!("it is connected: {connection:?}"),
            passed_over = survivor::passed_over() => passed_over,
        };
        aside(|| peer.kill()).await;
        return (passed_over.saturating_duration_since(killed), "passed over".to_owned());
    }
    let survive = async {
        let error = match connect.await {
            Ok(connection) => survivor::until_it_ends(part, connection).await,
            Err(error) => error,
        };
        (Instant::now(), error)
    };
    let ((killed, peer), (noticed, error)) = tokio::join!(killing, survive);
    aside(|| peer.kill()).await;
    survivor::is_fit(&error, part);
    (noticed.saturating_duration_since(killed), error.to_string())
}

async fn connect_and_talk(worker: &Worker, listener: &Listener) {
    let (uri, connector) = (listener.uri(), Connector::new(worker));
    let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
    let (client, server): (Connection, Connection) = (client.expect("connects"), server.expect("accepts"));
    client.send(b"still here").await.expect("sends");
    assert_eq!(&*server.recv().await.expect("receives"), b"still here");
}
