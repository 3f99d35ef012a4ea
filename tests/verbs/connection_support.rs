//! Two ends of rdma_cm in one process, on a channel each, every wait bounded.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use zcmi::verbs::{
    ConnectionEvent, ConnectionEventKind as Kind, ConnectionId, ConnectionParameters, EventChannel, PortSpace,
};

use crate::support::with_device;

/// Bound of everything that is expected to come.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// In this time nothing comes that must not come.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// A channel for the active end, and one for the passive end.
pub(crate) struct Ends {
    pub(crate) active: Arc<EventChannel>,
    pub(crate) passive: Arc<EventChannel>,
    pub(crate) space: PortSpace,
    address: String,
}

/// Both ends of a connection.
pub(crate) struct Connected {
    pub(crate) active: ConnectionId,
    pub(crate) passive: ConnectionId,
    /// The active end's events of the set-up.
    pub(crate) response: ConnectionEvent,
    /// The passive end's.
    pub(crate) request: ConnectionEvent,
}

impl Ends {
    pub(crate) fn new(address: &str, space: PortSpace) -> Self {
        let channel = || EventChannel::create().expect("a channel");
        Self { active: channel(), passive: channel(), space, address: address.to_owned() }
    }

    /// The device's address with a port.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address.parse().expect("an address"), port)
    }

    pub(crate) fn id(&self) -> ConnectionId {
        ConnectionId::create_in(self.space, &self.active).expect("an identifier")
    }

    pub(crate) fn listener(&self, backlog: u32) -> ConnectionId {
        let listener = ConnectionId::create_in(self.space, &self.passive).expect("an identifier");
        listener.bind(self.at(0)).expect("binds");
        listener.listen(backlog).expect("listens");
        listener
    }

    /// An identifier that may connect to `peer`.
    pub(crate) fn resolved(&self, peer: SocketAddr) -> ConnectionId {
        let id = self.id();
        resolve_address(&id, peer).expect("resolves");
        resolve_route(&id);
        id
    }

    /// An identifier whose connect request to `listener` is on its way.
    pub(crate) fn connecting(&self, listener: &ConnectionId, parameters: &ConnectionParameters<'_>) -> ConnectionId {
        let id = self.resolved(listener.local_address().expect("bound"));
        id.connect(parameters).expect("asks");
        id
    }

    /// The next connect request, with its identifier.
    pub(crate) fn request(&self) -> (ConnectionEvent, ConnectionId) {
        let mut request = next(&self.passive, Kind::ConnectRequest);
        let id = request.request.take().expect("a request has an identifier");
        (request, id)
    }

    /// A connection of port space TCP.
    pub(crate) fn connect(&self, listener: &ConnectionId) -> Connected {
        let active = self.connecting(listener, &parameters());
        let (request, passive) = self.request();
        passive.accept(&parameters()).expect("accepts");
        let response = next(&self.active, Kind::ConnectResponse);
        active.establish().expect("establishes");
        let established = next(&self.passive, Kind::Established);
        assert_eq!(established.key, passive.key());
        Connected { active, passive, response, request }
    }
}

/// Runs a test in port space TCP.
pub(crate) fn with_ends(test: impl FnOnce(&Ends)) {
    with_device(|fixture| test(&Ends::new(&fixture.address, PortSpace::Tcp)));
}

/// Shows that a call was refused; answers the error's detail.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: zcmi::verbs::Result<T>, errno: i32) -> String {
    let error = answer.expect_err("must be refused");
    assert_eq!(error.errno(), Some(errno), "{error}");
    error.detail().unwrap_or_default().to_owned()
}

/// Parameters with a queue pair number that no other connection has. rdma_cm asks no more of a queue pair.
pub(crate) fn parameters() -> ConnectionParameters<'static> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // Numbers of connections that ended less than a minute ago are taken, also those of an earlier process.
    let number = std::process::id() << 10 | NUMBER.fetch_add(1, Ordering::Relaxed);
    ConnectionParameters { queue_pair: number & 0xff_ffff, ..Default::default() }
}

/// The next event, which is of `kind`.
pub(crate) fn next(channel: &Arc<EventChannel>, kind: Kind) -> ConnectionEvent {
    let event = channel.wait(SOON).expect("events can be read");
    event.unwrap_or_else(|| panic!("{kind:?} does not come")).expect(kind).unwrap_or_else(|error| panic!("{error}"))
}

/// Shows that no event comes.
pub(crate) fn nothing(channel: &Arc<EventChannel>) {
    let event = channel.wait(QUIET).expect("events can be read");
    assert!(event.is_none(), "an event that must not come: {event:?}");
}

/// Resolves in short attempts: the kernel may only look again when the time of one is over.
pub(crate) fn resolve_address(id: &ConnectionId, peer: SocketAddr) -> Result<ConnectionEvent, zcmi::verbs::Error> {
    let (begun, mut patience) = (Instant::now(), Duration::from_millis(100));
    loop {
        id.resolve_address(peer, patience)?;
        let event = id.channel().wait(SOON).expect("events can be read").expect("resolving ends");
        let timed_out = event.kind == Kind::AddressError && event.status == -libc::ETIMEDOUT;
        if !timed_out || begun.elapsed() > SOON {
            return event.expect(Kind::AddressResolved);
        }
        patience *= 2;
    }
}

pub(crate) fn resolve_route(id: &ConnectionId) {
    id.resolve_route(Duration::from_secs(2)).expect("begins");
    assert_eq!(next(id.channel(), Kind::RouteResolved).key, id.key());
}

/// Runs what could hang, on a thread of its own.
pub(crate) fn bounded<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(what()));
    let answer = receiver.recv_timeout(SOON).expect("it ends in time");
    thread.join().expect("no panic").expect("is received");
    answer
}

/// The netdev below the device.
pub(crate) fn netdev() -> String {
    let device = zcmi::verbs::Device::list().expect("devices").into_iter().next().expect("a device");
    let file = format!("/sys/class/infiniband/{}/ports/1/gid_attrs/ndevs/0", device.name());
    std::fs::read_to_string(file).expect("sysfs").trim().to_owned()
}

/// Runs a command of the guest, which must succeed.
pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).output().expect("it runs");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a command when dropped, to undo what a test has changed.
pub(crate) struct Undo(pub(crate) String);

impl Drop for Undo {
    fn drop(&mut self) {
        run(&self.0);
    }
}
