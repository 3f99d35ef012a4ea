//! Peers that fall silent in each way there is, and what is said of them, and when.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use zcmi::internals::simulation::{Executor, Fault, Faults, Settings, kill, now, sleep, stop};
use zcmi::{Access, Buffer, Config, Connection, Connector, Error, ErrorKind, Listener, RemoteBuffer, Worker};

/// Seeds of each case.
const SEEDS: u64 = 15;
/// Within this it must be noticed.
const BOUND: Duration = Duration::from_secs(5);
/// How long a node is stopped.
const STOPPED: Duration = Duration::from_secs(30);

/// How the peer falls silent, and what that must be called.
const CASES: &[(&str, How, &[ErrorKind])] = &[
    ("stopped", How::Stopped, &[ErrorKind::Unresponsive]),
    ("dead host", How::Dead(Fault::SilentDeath), &[ErrorKind::Unreachable]),
    ("dead host, drivers that ask for ever", How::Dead(Fault::MuteDeath), &[ErrorKind::Unreachable]),
    // The kernel tells, or the device notices first.
    ("dead process", How::Dead(Fault::Death), &[ErrorKind::ConnectionBroken, ErrorKind::Unreachable]),
    ("disconnect that is lost", How::Aborts, &[ErrorKind::Unreachable]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Aborts the connection, and that does not arrive.
    Aborts,
    Dead(Fault),
    Stopped,
}

pub(crate) fn silent_peers_are_noticed() -> Result<String, String> {
    let mut report = Vec::new();
    for &(name, how, kinds) in CASES {
        let mut longest = Duration::ZERO;
        for seed in 1..=SEEDS {
            let seen = run(seed, how).map_err(|why| format!("  {name}, seed {seed}: {why}"))?;
            for (operation, kind, time) in seen {
                if !kinds.contains(&kind) || time > BOUND {
                    return Err(format!("  {name}, seed {seed}: {operation} ends with {kind:?} after {time:?}"));
                }
                longest = longest.max(time);
            }
        }
        report.push(format!("{name}: {longest:.1?}"));
    }
    Ok(format!("  at the latest, {}", report.join(", ")))
}

type Seen = Vec<(&'static str, ErrorKind, Duration)>;

/// What each of three who wait is told, and when.
fn run(seed: u64, how: How) -> Result<Seen, String> {
    let faults = match how {
        How::Aborts => Faults::none().with(Fault::LostDisconnect, 1.0),
        _ => Faults::none(),
    };
    let mut executor = Executor::new(Settings { faults, ..Settings::new(seed) });
    let server = executor.add_node("server", true);
    let client = executor.add_node("client", true);
    let theirs = Rc::new(RefCell::new(Vec::new()));
    executor.spawn(server, serve(how, Rc::clone(&theirs)));
    let seen = executor.spawn(client, wait(how));
    executor.run().map_err(|ended| ended.why.clone())?;
    if how == How::Stopped && *theirs.borrow() != [ErrorKind::ConnectionBroken; 3] {
        return Err(format!("the stopped node sees {:?} when it goes on", theirs.borrow()));
    }
    seen.take().ok_or_else(|| "the client has not ended".to_owned())
}

async fn serve(how: How, ends: Rc<RefCell<Vec<ErrorKind>>>) {
    let worker = Worker::new(Config::default()).expect("valid");
    let listener = Listener::bind(&worker, "sim://server").await.expect("listens");
    let mut connections = Vec::new();
    for _ in 0..3 {
        let connection = listener.accept().await.expect("accepts");
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        let grant = exposed.grant(&connection, 0..4096, Access::READ_WRITE).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        connections.push((connection, grant, exposed));
    }
    if how == How::Aborts {
        sleep(Duration::from_secs(3)).await;
        return connections.iter().for_each(|(connection, ..)| connection.abort());
    }
    for (connection, ..) in &connections {
        let error = loop {
            if let Err(error) = connection.recv().await {
                break error;
            }
        };
        ends.borrow_mut().push(error.kind());
    }
}

async fn connect() -> (Connection, RemoteBuffer) {
    let worker = Worker::new(Config::default()).expect("valid");
    let connection = Connector::new(&worker).connect("sim://server").await.expect("connects");
    let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
    (connection, handle)
}

async fn wait(how: How) -> Seen {
    let (receiving, _) = connect().await;
    let (sending, _) = connect().await;
    let (reading, handle) = connect().await;
    // An idle peer that is well lives on.
    sleep(Duration::from_secs(if how == How::Aborts { 2 } else { 10 })).await;
    match how {
        How::Stopped => stop("server", STOPPED),
        How::Dead(fault) => kill("server", fault),
        How::Aborts => sleep(Duration::from_secs(1)).await,
    }
    let begun = now();
    let seen = |operation, error: &Error| (operation, error.kind(), now() - begun);
    let receive = async { seen("receive", &receiving.recv().await.expect_err("nothing comes")) };
    let send = async {
        loop {
            if let Err(error) = sending.send(&[7; 1000]).await {
                return seen("send", &error);
            }
        }
    };
    let read = async {
        loop {
            let buffer = Buffer::allocate(64).expect("memory");
            match reading.read(buffer, &handle).await {
                Ok(_) => sleep(Duration::from_millis(1)).await,
                Err(failed) => return seen("read", &failed.error),
            }
        }
    };
    let (receive, send, read) = tokio::join!(receive, send, read);
    vec![receive, send, read]
}
