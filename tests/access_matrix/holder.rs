//! The holder's side, in a process of its own, which does what the test tells it.

use std::collections::HashMap;

use zcmi::{Buffer, Connection, Error, Failed, RemoteBuffer};

use crate::case::{Op, Request};
use crate::common::{Peer, device_address, fill, listen, play, role, say, told};
use crate::owner::{LIFE, Link, Owner, connect, quiet_worker};
use crate::plain::Plain;

/// What destinations hold before.
pub(crate) const POISON: u8 = 0xa5;
const ROLE: &str = "holder";
const DONE: &str = "Done";

/// A holder's process, seen from the test.
pub(crate) struct Holder(Peer);

impl Holder {
    pub(crate) fn start() -> Self {
        Self(Peer::start_test("holder::peer", ROLE))
    }

    /// A connection by the library.
    pub(crate) async fn connect(&mut self, name: &str, owner: &Owner) -> Link {
        self.0.tell(&format!("connect {name} {}", owner.listener.uri()));
        let link = Link::accept(&owner.listener).await;
        assert_eq!(self.0.hear(), "connected");
        link
    }

    /// A connection of plain verbs.
    pub(crate) async fn connect_plainly(&mut self, name: &str, owner: &Owner) -> Link {
        self.0.tell(&format!("plain {name} {}", owner.listener.local_address()));
        let link = Link::accept(&owner.listener).await;
        assert_eq!(self.0.hear(), "connected");
        link
    }

    /// As [`connect`](Self::connect) or [`connect_plainly`](Self::connect_plainly), to another holder that listens at `uri`.
    pub(crate) fn connect_to(&mut self, how: &str, name: &str, uri: &str) {
        let target = if how == "plain" { uri.trim_start_matches("rdma://") } else { uri };
        assert_eq!(self.0.ask(&format!("{how} {name} {target}")), "connected");
    }

    /// Has it listen, and grant a little to who connects; answers where.
    pub(crate) fn serve(&mut self) -> String {
        self.0.ask("serve")
    }

    pub(crate) fn carry_out(&mut self, name: &str, handle: &RemoteBuffer, request: &Request) -> Outcome {
        let line = format!("do {name} {} {}", to_hex(&handle.to_bytes()), request.to_line());
        Outcome::parse(&self.0.ask(&line))
    }

    /// Whether the connection still does what it may.
    pub(crate) fn is_alive(&mut self, name: &str) -> bool {
        self.0.ask(&format!("alive {name}")) == "true"
    }

    pub(crate) fn drop_connection(&mut self, name: &str) {
        assert_eq!(self.0.ask(&format!("drop {name}")), "dropped");
    }

    pub(crate) fn finish(self) {
        assert!(self.0.finish().success());
    }
}

/// How an operation ended, and what its memory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The kind of an error, or the status of a completion.
    pub(crate) kind: String,
    pub(crate) operation: String,
    pub(crate) bytes: Vec<u8>,
}

impl Outcome {
    pub(crate) fn done(bytes: Vec<u8>) -> Self {
        Self { kind: DONE.to_owned(), operation: String::new(), bytes }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.kind == DONE
    }

    fn refused(error: &Error, bytes: Vec<u8>) -> Self {
        Self { kind: format!("{:?}", error.kind()), operation: error.operation().to_owned(), bytes }
    }

    fn to_line(&self) -> String {
        format!("{}|{}|{}", self.kind, self.operation, to_hex(&self.bytes))
    }

    fn parse(line: &str) -> Self {
        let mut parts = line.split('|').map(str::to_owned);
        let mut next = || parts.next().expect("three parts");
        Self { kind: next(), operation: next(), bytes: from_hex(&next()) }
    }
}

#[expect(clippy::large_enum_variant, reason = "there are few")]
enum End {
    Library(Connection),
    Plain(Plain),
}

/// The process itself.
#[test]
fn peer() {
    if role().as_deref() != Some(ROLE) {
        return;
    }
    play(async {
        let worker = quiet_worker();
        let mut ends = HashMap::new();
        let mut told = told();
        while let Some(line) = told.recv().await {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["connect", name, uri] => {
                    let (connection, handle) = connect(&worker, uri).await;
                    ends.insert(name.to_owned(), (End::Library(connection), handle));
                    say("connected");
                }
                ["plain", name, target] => {
                    // Aside, so that this process' own listener goes on.
                    let target = target.parse().expect("an address");
                    let plain = tokio::task::spawn_blocking(move || Plain::connect(target));
                    let (plain, handle) = plain.await.expect("connects");
                    ends.insert(name.to_owned(), (End::Plain(plain), handle));
                    say("connected");
                }
                ["serve"] => {
                    let listener = listen(&worker, &device_address().expect("the test has found it")).await;
                    say(listener.uri());
                    tokio::spawn(async move {
                        let mut links = Vec::new();
                        loop {
                            links.push(Link::accept(&listener).await);
                        }
                    });
                }
                ["do", name, handle, ref request @ ..] => {
                    let handle = RemoteBuffer::from_bytes(&from_hex(handle)).expect("a handle");
                    let (end, _) = ends.get_mut(name).expect("a connection");
                    say(end.carry_out(&handle, &Request::parse(request)).await.to_line());
                }
                ["alive", name] => {
                    let (end, handle) = ends.get_mut(name).expect("a connection");
                    let read = Request { op: Op::Read, offset: 0, length: 8, value: 0, compare: 0 };
                    say(end.carry_out(handle, &read).await == Outcome::done(LIFE.to_vec()));
                }
                ["drop", name] => {
                    drop(ends.remove(name).expect("a connection"));
                    say("dropped");
                }
                _ => panic!("told {line}"),
            }
        }
    });
}

impl End {
    async fn carry_out(&mut self, handle: &RemoteBuffer, request: &Request) -> Outcome {
        match self {
            Self::Library(connection) => by_library(connection, handle, request).await,
            Self::Plain(plain) => plain.carry_out(handle, request),
        }
    }
}

/// Asks the library for the operation. A place before the first byte is one near the end of all numbers to it.
async fn by_library(connection: &Connection, handle: &RemoteBuffer, request: &Request) -> Outcome {
    let offset = request.offset as u64;
    match request.op {
        Op::CompareSwap | Op::FetchAdd => {
            let word = match handle.at::<u64>(offset) {
                Ok(word) => word,
                Err(error) => return Outcome::refused(&error, Vec::new()),
            };
            let result = match request.op {
                Op::FetchAdd => connection.fetch_add(&word, request.value).await,
                _ => connection.compare_swap(&word, request.compare, request.value).await,
            };
            match result {
                Ok(old) => Outcome::done(old.to_ne_bytes().to_vec()),
                Err(error) => refused(connection, &error, Vec::new()),
            }
        }
        Op::Read | Op::Write => {
            let part = match handle.slice(offset..) {
                Ok(part) => part,
                Err(error) => return Outcome::refused(&error, Vec::new()),
            };
            let mut buffer = Buffer::allocate(request.length as usize).expect("memory");
            let result = if request.op == Op::Read {
                buffer.fill(POISON);
                connection.read(buffer, &part).await
            } else {
                fill(&mut buffer, request.value, 0);
                connection.write(buffer, &part).await
            };
            match result {
                Ok(buffer) => Outcome::done(buffer.to_vec()),
                Err(Failed { error, buffer }) => {
                    refused(connection, &error, buffer.expect("the memory comes back").to_vec())
                }
            }
        }
    }
}

/// Of a connection, which the error must name.
fn refused(connection: &Connection, error: &Error, bytes: Vec<u8>) -> Outcome {
    assert_eq!(error.peer(), Some(connection.peer()), "{error}");
    assert_eq!(error.device(), Some(connection.device()), "{error}");
    Outcome::refused(error, bytes)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}
