//! The two ends of a body, and the world that they run in.

mod processes;
#[cfg(feature = "internals")]
mod simulated;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use zcmi::{Config, Connection, Connector, Listener, Worker};

use crate::Body;

/// A bound of everything that must happen, on a machine that is busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// How long nothing must happen for that to be believed.
pub(crate) const WHILE: Duration = Duration::from_millis(300);

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Connects, and can stop and kill the other.
    Initiator,
    Responder,
}

pub(crate) use Role::{Initiator, Responder};

/// What an end has of the other beside the connections under test.
pub(crate) trait Other {
    fn tell(&self, line: &str);
    /// What it has told next, if it has.
    fn try_hear(&self) -> Option<String>;
    /// An address to listen at.
    fn address(&self) -> String;
    /// Stops it, if nobody has it go on, for `time`.
    fn stop(&self, time: Duration);
    fn go_on(&self);
    fn kill(&self);
}

/// One of the two ends.
pub(crate) struct End {
    pub(crate) role: Role,
    other: Box<dyn Other>,
    goes_on: Cell<Option<Instant>>,
}

impl End {
    fn new(role: Role, other: impl Other + 'static) -> Self {
        Self { role, other: Box::new(other), goes_on: Cell::new(None) }
    }

    /// A connection to the other end, which does the same; both workers have these settings.
    pub(crate) async fn connected(&self, config: Config) -> Session {
        let worker = worker(config);
        let door = match self.role {
            Initiator => Door::Uri(self.hear().await),
            Responder => {
                let listener = listen(&worker, &self.other.address()).await;
                self.tell(&listener.uri());
                Door::Listener(listener)
            }
        };
        let connection = door.connection(&worker).await;
        Session { worker, door, connection }
    }

    /// A connection of this end to itself.
    pub(crate) async fn loopback(&self, worker: &Worker) -> (Connection, Connection) {
        let listener = listen(worker, &self.other.address()).await;
        let (uri, connector) = (listener.uri(), Connector::new(worker));
        let (client, server) = soon(async { tokio::join!(connector.connect(&uri), listener.accept()) }).await;
        (client.expect("connects"), server.expect("accepts"))
    }

    pub(crate) fn address(&self) -> String {
        self.other.address()
    }

    /// Both ends show that a connection carries messages.
    pub(crate) async fn lives(&self, connection: &Connection) {
        if self.role == Initiator {
            soon(connection.send(b"are you there?")).await.expect("sends");
        }
        let heard = soon(connection.recv()).await.expect("receives");
        match self.role {
            Initiator => assert_eq!(&*heard, b"I am"),
            Responder => {
                assert_eq!(&*heard, b"are you there?");
                soon(connection.send(b"I am")).await.expect("sends");
            }
        }
    }

    /// Tells the other end a line, beside the connection.
    pub(crate) fn tell(&self, line: &str) {
        self.other.tell(line);
    }

    /// The next line that the other end tells.
    pub(crate) async fn hear(&self) -> String {
        soon(async {
            loop {
                if let Some(line) = self.other.try_hear() {
                    return line;
                }
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
    }

    /// Waits until the other end has come to the same point.
    pub(crate) async fn meet(&self, point: &str) {
        self.tell(point);
        assert_eq!(self.hear().await, point, "{:?} has come to another point", self.role);
    }

    /// Computes, and looks after nothing else, until the other end tells `line`.
    pub(crate) async fn compute_until(&self, line: &str) {
        if is_simulated() {
            // Nobody polls meanwhile.
            return assert_eq!(self.hear().await, line);
        }
        let begun = Instant::now();
        while self.other.try_hear().is_none_or(|heard| heard != line) {
            assert!(begun.elapsed() < SOON, "nothing was told");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops the other end's process, its device not, until [`go_on`](Self::go_on), or for so long.
    pub(crate) fn stop(&self, time: Duration) {
        self.other.stop(time);
        self.goes_on.set(Some(now() + time));
    }

    /// Has the other end go on.
    pub(crate) async fn go_on(&self) {
        self.other.go_on();
        if is_simulated() {
            // It goes on by itself.
            let until = self.goes_on.take().expect("it was stopped");
            sleep(until.saturating_duration_since(now())).await;
        }
    }

    /// Ends the other end's process, which cannot do anything about it.
    pub(crate) fn kill(&self) {
        self.other.kill();
    }
}

/// A worker that is connected to the other end.
pub(crate) struct Session {
    pub(crate) worker: Worker,
    pub(crate) connection: Connection,
    door: Door,
}

impl Session {
    /// One more connection to the other end, which does the same.
    pub(crate) async fn another(&self) -> Connection {
        self.door.connection(&self.worker).await
    }

    /// Closes the connection, which must end well.
    pub(crate) async fn close(self) {
        soon(self.connection.close()).await.expect("closes");
    }

    /// Where the responder listens.
    pub(crate) fn uri(&self) -> String {
        match &self.door {
            Door::Listener(listener) => listener.uri(),
            Door::Uri(uri) => uri.clone(),
        }
    }
}

enum Door {
    Listener(Listener),
    Uri(String),
}

impl Door {
    async fn connection(&self, worker: &Worker) -> Connection {
        match self {
            Self::Listener(listener) => soon(listener.accept()).await.expect("accepts"),
            Self::Uri(uri) => soon(Connector::new(worker).connect(uri)).await.expect("connects"),
        }
    }
}

/// A worker with these settings, and whatever the transport under test needs of them.
pub(crate) fn worker(config: Config) -> Worker {
    let config = if crate::common::shares_pages() { crate::common::sharing(config) } else { config };
    Worker::new(config).expect("valid settings")
}

async fn listen(worker: &Worker, address: &str) -> Listener {
    Listener::bind(worker, address).await.expect("listens")
}

/// Whether the world is simulated: time is, and one thread runs it all.
pub(crate) fn is_simulated() -> bool {
    std::env::var("ZCMI_TEST_TRANSPORT").is_ok_and(|name| name == "sim")
}

/// Runs a body, as the initiator, with another end.
pub(crate) fn run(body: &'static Body) {
    if !is_simulated() {
        return processes::run(body);
    }
    #[cfg(feature = "internals")]
    simulated::run(body);
    #[cfg(not(feature = "internals"))]
    panic!("this build has no simulation: it needs the feature internals");
}

/// Runs a body in the other process.
pub(crate) fn play_other(body: &'static Body) {
    processes::play_other(body);
}

/// What `future` gives within `time`; it goes on otherwise.
pub(crate) async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut late) = (pin!(future), pin!(sleep(time)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => late.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// What `future` gives, which must be soon.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    within(SOON, future).await.expect("in time")
}

pub(crate) async fn sleep(time: Duration) {
    #[cfg(feature = "internals")]
    if is_simulated() {
        return zcmi::internals::simulation::sleep(time).await;
    }
    tokio::time::sleep(time).await;
}

pub(crate) fn now() -> Instant {
    #[cfg(feature = "internals")]
    if is_simulated() {
        return zcmi::internals::simulation::now();
    }
    Instant::now()
}
