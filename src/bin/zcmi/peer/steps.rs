//! The steps, each bounded: name, TCP port, connection, a message, a write, a read, an atomic.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Instant;

use tokio::net::TcpStream;
use zcmi::{Buffer, Config, Connection, Connector, ErrorKind, RemoteBuffer, Worker};

use super::address::Peer;
use super::{Failure, Report};
use crate::exchange::{DATA, HELLO, MEMORY, STEP_BOUND, pattern};

type Outcome<T> = Result<(T, Option<String>), Failure>;

pub(super) async fn all(peer: &Peer) -> Report {
    let mut report = Report::new(peer);
    // `None` ends it: the report has the step that failed.
    let _ = try_all(peer, &mut report).await;
    report
}

async fn try_all(peer: &Peer, report: &mut Report) -> Option<()> {
    if let Some(host) = peer.host_and_port() {
        let begun = Instant::now();
        let addresses = report.note("name", begun, bounded(resolve(host.to_owned())).await)?;
        if peer.is_at_tcp_port() {
            let begun = Instant::now();
            report.note("tcp", begun, bounded(reach(addresses)).await)?;
        }
    }
    let begun = Instant::now();
    let connection = report.note("connect", begun, bounded(connect(peer)).await)?;
    report.transport = Some(connection.transport());
    report.device = Some(connection.device().to_owned());
    report.passed_over = connection.passed_over().to_vec();
    let begun = Instant::now();
    let memory = report.note("handle", begun, bounded(handle(&connection)).await)?;
    let begun = Instant::now();
    report.note("message", begun, bounded(message(&connection)).await)?;
    let begun = Instant::now();
    report.note("write", begun, bounded(write(&connection, &memory)).await)?;
    let begun = Instant::now();
    report.note("read", begun, bounded(read(&connection, &memory)).await)?;
    let begun = Instant::now();
    report.note("atomic", begun, bounded(atomic(&connection, &memory)).await)?;
    let begun = Instant::now();
    report.note("close", begun, bounded(close(&connection)).await)
}

/// What `step` comes to, unless it takes too long.
async fn bounded<T>(step: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::time::timeout(STEP_BOUND, step).await.unwrap_or_else(|_| {
        let hint = "the peer is overloaded or stopped, or a firewall drops the packets; with rdma, check UDP port 4791 and the MTU";
        Err(failure(format!("no answer within {} s", STEP_BOUND.as_secs()), hint))
    })
}

async fn resolve(host: String) -> Outcome<Vec<SocketAddr>> {
    let looked_up = tokio::task::spawn_blocking(move || host.to_socket_addrs().map(Iterator::collect::<Vec<_>>)).await;
    let hint = "check the name, `getent hosts NAME` and /etc/resolv.conf, or write an address";
    match looked_up {
        Ok(Ok(addresses)) if !addresses.is_empty() => {
            let text = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
            Ok((addresses, Some(text)))
        }
        Ok(Ok(_)) => Err(failure("the name has no address", hint)),
        Ok(Err(error)) => Err(failure(format!("the name is not known: {error}"), hint)),
        Err(error) => Err(failure(error, hint)),
    }
}

/// Connects to the first address, which is the one that zcmi takes.
async fn reach(addresses: Vec<SocketAddr>) -> Outcome<()> {
    let Some(address) = addresses.first() else { return Err(failure("there is no address", "write one")) };
    match TcpStream::connect(address).await {
        Ok(_) => Ok(((), Some(address.to_string()))),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(failure(format!("{address}: {error}"), "start `zcmi serve` on the peer, and check the port"))
        }
        Err(error) => {
            let hint = "check `ip route get ADDRESS`, the peer's host and link, and the firewalls in between";
            Err(failure(format!("{address}: {error}"), hint))
        }
    }
}

async fn connect(peer: &Peer) -> Outcome<Connection> {
    let worker = Worker::new(Config::from_env()?)?;
    let connection = Connector::new(&worker).connect_with(&peer.uri(), HELLO).await.map_err(|error| {
        let is_lost = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unreachable) && error.gid().is_some();
        let failure = Failure::from(error);
        if is_lost { Failure { hint: Some(LOST.to_owned()), ..failure } } else { failure }
    })?;
    let (transport, device) = (connection.transport(), connection.device());
    let detail = if transport == device { transport.to_owned() } else { format!("{transport} through {device}") };
    Ok((connection, Some(detail)))
}

async fn handle(connection: &Connection) -> Outcome<RemoteBuffer> {
    let memory = RemoteBuffer::from_bytes(&connection.recv().await?)?;
    if memory.len() != MEMORY as u64 {
        return Err(failure(format!("a handle of {} bytes, not {MEMORY}", memory.len()), SAME_VERSION));
    }
    Ok((memory, Some(format!("{} bytes of the peer's memory", memory.len()))))
}

async fn message(connection: &Connection) -> Outcome<()> {
    let said = pattern(64);
    connection.send(&said).await?;
    let echoed = connection.recv().await?;
    same(&echoed, &said, "the message came back with other bytes")?;
    Ok(((), Some("64 bytes, there and back".to_owned())))
}

async fn write(connection: &Connection, memory: &RemoteBuffer) -> Outcome<()> {
    let mut buffer = Buffer::allocate(DATA)?;
    buffer.copy_from_slice(&pattern(DATA));
    connection.write(buffer, &memory.slice(..DATA as u64)?).await.map_err(zcmi::Error::from)?;
    Ok(((), Some(format!("{DATA} bytes"))))
}

async fn read(connection: &Connection, memory: &RemoteBuffer) -> Outcome<()> {
    let buffer = Buffer::allocate(DATA)?;
    let buffer = connection.read(buffer, &memory.slice(..DATA as u64)?).await.map_err(zcmi::Error::from)?;
    same(&buffer, &pattern(DATA), "what was read is not what was written")?;
    Ok(((), Some(format!("{DATA} bytes, as they were written"))))
}

async fn atomic(connection: &Connection, memory: &RemoteBuffer) -> Outcome<()> {
    let counter = memory.at::<u64>(DATA as u64)?;
    let before = connection.fetch_add(&counter, 1).await?;
    if before != 0 {
        return Err(failure(format!("the counter was {before}, not 0"), SAME_VERSION));
    }
    Ok(((), Some("fetch and add".to_owned())))
}

async fn close(connection: &Connection) -> Outcome<()> {
    connection.close().await?;
    Ok(((), None))
}

/// What helps when RoCE's packets find no way, though the address is resolved.
const LOST: &str = "let UDP port 4791 through on both hosts (their `zcmi doctor` looks, `nft list ruleset` shows) and in between, both ways; if the peer is \
                    started and `tcp://` works, that is what is wrong; `ping -M do -s 4172 HOST` tells whether large packets pass";

const SAME_VERSION: &str = "run the same version of zcmi at both ends";

fn same(found: &[u8], expected: &[u8], error: &str) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(failure(error, "look at the hosts' memory and at the device: bytes were damaged"))
}

fn failure(error: impl std::fmt::Display, hint: &str) -> Failure {
    Failure { error: error.to_string(), hint: Some(hint.to_owned()) }
}
