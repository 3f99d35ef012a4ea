//! The other process: it does what it is told, line by line, with a connection that shares pages or does not.

use std::collections::BTreeSet;
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use zcmi::{Access, Buffer, Config, Connection, Connector, Listener, Registered, RemoteBuffer, Worker};

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
    peer.ask_aside(&line.to_string()).await
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
        let (mut held, mut exposed, mut handle) = (Vec::new(), None, None);
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
                "hold-copy" => {
                    let destination = Buffer::allocate(number() as usize).expect("memory");
                    let (buffer, length) = connection.recv_into(destination).await.expect("a message");
                    held.push(buffer.slice(..length));
                    say(sum(held.last().expect("one")));
                }
                // Hands a part of what came back, and keeps the rest.
                "part" => {
                    let (first, rest) = received(&connection).await.split_at(number() as usize);
                    held.push(rest);
                    connection.hand_over(first).await.expect("hands over");
                    say("done");
                }
                "shorten" => {
                    let buffer = received(&connection).await.slice(10..20);
                    connection.hand_over(buffer).await.expect("hands over");
                    say("done");
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
                // Lets us access memory of its.
                "expose" => {
                    let (seed, length) = (number(), number());
                    let mut buffer = connection.allocate(length as usize).expect("memory");
                    fill(&mut buffer, seed, 0);
                    let memory = buffer.expose();
                    let grant = memory.grant(&connection, 0..length as usize, Access::ALL).await.expect("grants");
                    connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
                    exposed = Some((memory, grant));
                    say("exposed");
                }
                "look" => {
                    let (memory, _) = exposed.as_ref().expect("exposed before");
                    let mut bytes = vec![0; memory.len()];
                    memory.read_at(0, &mut bytes);
                    say(sum(&bytes));
                }
                "notified" => say(connection.notified().await.expect("a notification")),
                "end" => {
                    let (memory, grant) = exposed.take().expect("exposed before");
                    let ended = grant.revoke().await.expect("revokes");
                    let buffer = memory.into_buffer().await.expect("comes back");
                    say(format_args!("{ended:?} {}", sum(&buffer)));
                }
                // Accesses memory of ours.
                "learn" => {
                    let message = connection.recv().await.expect("a handle");
                    handle = Some(RemoteBuffer::from_bytes(&message).expect("a handle"));
                    say("learnt");
                }
                "write" => {
                    let handle = handle.expect("learnt before");
                    let bytes = pattern(number(), 0, handle.len() as usize);
                    match connection.write(Registered::new(bytes), &handle).await {
                        Ok(_) => say("written"),
                        Err(failed) => say(format_args!("{:?}", failed.error.kind())),
                    }
                }
                "read" => {
                    let handle = handle.expect("learnt before");
                    let buffer = Buffer::allocate(handle.len() as usize).expect("memory");
                    match connection.read(buffer, &handle).await {
                        Ok(buffer) => say(sum(&buffer)),
                        Err(failed) => say(format_args!("{:?}", failed.error.kind())),
                    }
                }
                "scribble" => {
                    scribble(number() as u8);
                    say("scribbled");
                }
                "closed" => {
                    let error = connection.recv().await.expect_err("it ends");
                    say(format_args!("{:?}", error.kind()));
                }
                "close" => {
                    connection.close().await.expect("closes");
                    say("closed");
                }
                other => panic!("told to {other}"),
            }
        }
    });
}

/// Writes over all pages of peers that are mapped here, past the library.
fn scribble(byte: u8) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("our mappings");
    let mut memory = std::fs::File::options().write(true).open("/proc/self/mem").expect("our memory");
    for line in maps.lines().filter(|line| line.contains("/memfd:zcmi-pages")) {
        let (start, rest) = line.split_once('-').expect("a range");
        let end = rest.split(' ').next().expect("an end");
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).expect("an address"));
        memory.seek(SeekFrom::Start(start)).expect("seeks");
        memory.write_all(&vec![byte; (end - start) as usize]).expect("writes");
    }
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
