//! The other process: it does what it is told, line by line, with a connection that shares pages or does not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use zcmi::{Buffer, Config, Connection, Connector, Listener, Worker};

use crate::common::{Peer, fill, pattern, play, role, say, sharing, told};

/// Without heartbeats: some tests stop it.
pub(crate) fn config() -> Config {
    Config { peer_timeout: Duration::from_secs(60), ..Config::default() }
}

/// A worker that shares pages.
pub(crate) fn worker() -> Worker {
    Worker::new(sharing(config())).expect("valid settings")
}

/// Files that are mapped here and that peers can be given, as their inodes.
pub(crate) fn mapped() -> BTreeSet<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("our mappings");
    let of_pool = maps.lines().filter(|line| line.contains("/memfd:zcmi-pages"));
    of_pool.map(|line| line.split_whitespace().nth(4).expect("an inode").to_owned()).collect()
}

/// The other process, and our connection to it.
pub(crate) async fn start(role: &str, worker: &Worker) -> (Peer, Connection) {
    let peer = Peer::start_test("player::peer", role);
    let connection = Connector::new(worker).connect(&peer.hear()).await.expect("connects");
    (peer, connection)
}

/// Tells the peer a line and hears its answer, while our own library goes on.
pub(crate) async fn ask(peer: &mut Peer, line: impl std::fmt::Display) -> String {
    peer.tell(&line.to_string());
    hear(peer).await
}

/// The peer's next answer, while our own library goes on.
pub(crate) async fn hear(peer: &Peer) -> String {
    let begun = Instant::now();
    loop {
        if let Some(line) = peer.try_hear() {
            return line;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the peer says nothing");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The other process of the tests.
#[test]
fn peer() {
    let Some(role) = role() else { return };
    play(async {
        let worker = match role.as_str() {
            "shares" => worker(),
            "isolated" => Worker::new(config()).expect("valid settings"),
            other => panic!("unknown role {other}"),
        };
        let listener = Listener::bind(&worker, "shm://").await.expect("listens");
        say(listener.uri());
        let connection = listener.accept().await.expect("accepts");
        let mut told = told();
        let mut held = Vec::new();
        while let Some(line) = told.recv().await {
            let mut words = line.split_whitespace();
            let command = words.next().expect("a command");
            let mut number = || words.next().expect("a number").parse::<u64>().expect("a number");
            match command {
                // Says what came, changes each byte, and hands it back.
                "change" => {
                    let mut buffer = received(&connection).await;
                    let sum = sum(&buffer);
                    buffer.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
                    connection.hand_over(buffer).await.expect("hands over");
                    say(sum);
                }
                "hold" => {
                    held.push(received(&connection).await);
                    say(sum(held.last().expect("one")));
                }
                "sum" => say(sum(&held[number() as usize])),
                "drop" => {
                    held.clear();
                    say("dropped");
                }
                "give" => {
                    let (seed, length) = (number(), number());
                    let mut buffer = connection.allocate(length as usize).expect("memory");
                    fill(&mut buffer, seed, 0);
                    connection.hand_over(buffer).await.expect("hands over");
                    say("given");
                }
                "mapped" => say(mapped().into_iter().collect::<Vec<_>>().join(" ")),
                "in-use" => say(connection.pool().statistics().in_use_bytes),
                "shares" => say(connection.shares_pages()),
                other => panic!("told to {other}"),
            }
        }
    });
}

pub(crate) async fn received(connection: &Connection) -> Buffer {
    connection.recv().await.expect("a message").into_buffer().expect("a buffer")
}

pub(crate) fn sum(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{} {sum:x}", bytes.len())
}

/// The sum of the pattern.
pub(crate) fn sum_of(seed: u64, length: usize) -> String {
    sum(&pattern(seed, 0, length))
}
