//! What the device tests share: the device's address, peers in processes of their own, and patterns.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod resources;

use std::io::{BufRead, BufReader, Write};
use std::pin::pin;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use zcmi::{Buffer, Config, Connection, Connector, Listener, Pool, Worker};

/// Marks the lines of a peer among those of its test harness.
const MARK: &str = "peer-says ";
/// Names the role that a peer process plays.
const ROLE: &str = "ZCMI_TEST_PEER";
/// Bound of everything that a peer is asked for.
const ANSWER: Duration = Duration::from_secs(20);

/// Over which transport the tests run: `ZCMI_TEST_TRANSPORT`, else over an RDMA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Shm,
    Tcp,
    Verbs,
}

impl Transport {
    pub fn of_test() -> Self {
        match std::env::var("ZCMI_TEST_TRANSPORT").as_deref() {
            Ok("shm" | "shm-shared") => Self::Shm,
            Ok("tcp") => Self::Tcp,
            Ok("verbs" | "") | Err(_) => Self::Verbs,
            Ok(other) => panic!("ZCMI_TEST_TRANSPORT={other}: shm, shm-shared, tcp or verbs"),
        }
    }

    /// What errors call the device.
    pub fn device(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "rxe0",
        }
    }

    /// What a listener calls a peer that comes from `address`, or the beginning of that.
    pub fn peer(self, address: &str) -> &str {
        if self == Self::Shm { "process " } else { address }
    }

    /// Whether the peer's device carries out what is asked of it, whatever its process does.
    pub fn has_device(self) -> bool {
        self == Self::Verbs
    }
}

/// Where `address`, with its port, is for the transport of the tests. Over shared memory it is a name, and with port 0 one of its own.
pub fn uri(address: impl std::fmt::Display) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    match Transport::of_test() {
        Transport::Shm => match address.to_string().strip_suffix(":0") {
            Some(host) => {
                let (process, number) = (std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
                format!("shm://{host}.{process}.{number}")
            }
            None => format!("shm://{address}"),
        },
        Transport::Tcp => format!("tcp://{address}"),
        Transport::Verbs => format!("rdma://{address}"),
    }
}

/// The IP address that tests listen at: the RDMA device's, or any of this host's, which shared memory takes for a name. `None`, said aloud, where there is no device; a
/// panic where one is required.
pub fn device_address() -> Option<String> {
    if !Transport::of_test().has_device() {
        return Some("127.0.0.1".to_owned());
    }
    if let Ok(address) = std::env::var("ZCMI_HOST1") {
        return Some(address);
    }
    let required = std::env::var("ZCMI_REQUIRE_RDMA").is_ok_and(|value| value == "1");
    let found = address_of_device();
    assert!(found.is_some() || !required, "ZCMI_REQUIRE_RDMA=1 and there is no RDMA device");
    if found.is_none() {
        eprintln!("SKIPPED: there is no RDMA device; run it under soft-roce-setup/run");
    }
    found
}

#[cfg(not(feature = "verbs"))]
fn address_of_device() -> Option<String> {
    None
}

#[cfg(feature = "verbs")]
fn address_of_device() -> Option<String> {
    zcmi::verbs::Device::list().ok().into_iter().flatten().find_map(|device| {
        let context = device.open().ok()?;
        context.gid_table().ok()?.entries().iter().find_map(|entry| match entry.gid.ip()? {
            std::net::IpAddr::V4(ip) => Some(ip.to_string()),
            std::net::IpAddr::V6(_) => None,
        })
    })
}

/// Runs an asynchronous test on the device, with its address, within two minutes.
pub fn on_device<F: Future<Output = ()>>(test: impl FnOnce(String) -> F) {
    on_device_within(Duration::from_secs(120), test);
}

/// The same for what is about RDMA itself, where the tests run over that.
pub fn on_rdma<F: Future<Output = ()>>(test: impl FnOnce(String) -> F) {
    if Transport::of_test() == Transport::Verbs {
        on_device(test);
    }
}

/// The same, within `bound`.
pub fn on_device_within<F: Future<Output = ()>>(bound: Duration, test: impl FnOnce(String) -> F) {
    let Some(address) = device_address() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(bound, test(address)).await.expect("the test ends in time");
    });
}

/// Runs an asynchronous test that needs no device, within a minute.
pub fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends in time") });
}

/// Both ends of a connection to `listener`.
pub async fn connect_to(worker: &Worker, listener: &Listener) -> (Connection, Connection) {
    let (connector, uri) = (Connector::new(worker), listener.uri());
    let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
    (client.expect("connects"), server.expect("accepts"))
}

/// A new connection to `listener` carries a message.
pub async fn serves(worker: &Worker, listener: &Listener) {
    let (client, server) = connect_to(worker, listener).await;
    client.send(b"still here").await.expect("sends");
    assert_eq!(&*server.recv().await.expect("receives"), b"still here");
}

/// A listener on a port of its own.
pub async fn listen(worker: &Worker, address: &str) -> Listener {
    Listener::bind(worker, &uri(format_args!("{address}:0"))).await.expect("listens")
}

/// Two connected ends in this process.
pub async fn pair(worker: &Worker, address: &str) -> (Connection, Connection) {
    connect_to(worker, &listen(worker, address).await).await
}

/// Whether both ends share pages, in the tests of everything: `ZCMI_TEST_TRANSPORT=shm-shared`.
pub fn shares_pages() -> bool {
    std::env::var("ZCMI_TEST_TRANSPORT").is_ok_and(|transport| transport == "shm-shared")
}

/// `config`, with pages shared with peers.
pub fn sharing(config: Config) -> Config {
    sharing_of(&POOL, config)
}

/// Zeroed memory of the tests, which lies in shared pages if there are to be some.
pub fn allocate(length: usize) -> Buffer {
    if !shares_pages() {
        return Buffer::allocate(length).expect("memory");
    }
    POOL.allocate_zeroed(length).expect("memory")
}

/// Gives back what the pool of the tests keeps for the next buffer.
pub fn trim_shared_pool() {
    if shares_pages() {
        POOL.trim();
    }
}

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::builder().shareable(true).build().expect("a pool"));

/// The same, of a pool of one's own.
#[allow(unsafe_code, reason = "only the caller can know whom it trusts")]
pub fn sharing_of(pool: &Pool, config: Config) -> Config {
    // SAFETY: the peers are this program too, which keeps to what it has to.
    let sharing = unsafe { Config::builder().share_pages_with_peers(pool) }.build().expect("a shareable pool");
    Config { shared_pages: sharing.shared_pages, ..config }
}

/// A worker of the tests, which shares pages if they are to.
pub fn worker_with(config: Config) -> Worker {
    Worker::new(if shares_pages() { sharing(config) } else { config }).expect("valid settings")
}

/// A worker with default settings.
pub fn worker() -> Worker {
    worker_with(Config::default())
}

/// A worker that waits for peers which a test stops for some seconds, or whose threads it keeps busy.
pub fn patient_worker() -> Worker {
    worker_with(Config { peer_timeout: Duration::from_secs(60), ..Config::default() })
}

/// An executor that knows nothing of tokio.
///
/// # Panics
/// If the future takes longer than a peer may for an answer.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    let begun = Instant::now();
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        assert!(begun.elapsed() < ANSWER, "in time");
        std::thread::park_timeout(ANSWER);
    }
}

/// Runs what blocks on another thread, while the runtime goes on.
pub async fn aside<R: Send + 'static>(blocking: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(blocking).await.expect("no panic")
}

/// What there is when `worker` has opened its device and nothing else is left of it.
pub async fn baseline(worker: &Worker, address: &str) -> resources::Resources {
    let (client, server) = pair(worker, address).await;
    wait_everywhere(&server).await;
    drop((client, server));
    aside(resources::Resources::settled).await
}

/// Waits a moment here, and on a thread without a runtime: what wakes this runtime's tasks is there from now on, and what wakes
/// the others. Else a later wait makes them, at any time.
pub async fn wait_everywhere(connection: &Connection) {
    let nothing = tokio::time::timeout(Duration::from_millis(50), connection.recv()).await;
    assert!(nothing.is_err(), "nobody has sent anything");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut receiving = pin!(connection.recv());
            let mut context = Context::from_waker(Waker::noop());
            assert!(receiving.as_mut().poll(&mut context).is_pending(), "nobody has sent anything");
        });
        waiting.join().expect("no panic");
    });
}

/// Waits until there is no more of anything than at `baseline`.
///
/// # Panics
/// If that takes too long.
pub async fn nothing_left(baseline: &resources::Resources) {
    let baseline = baseline.clone();
    aside(move || resources::Resources::assert_back_at(&baseline)).await;
}

/// Shows that the library still works: a new connection carries a message.
pub async fn still_works(address: &str) {
    let (client, server) = pair(&worker(), address).await;
    client.send(b"still here").await.expect("sends");
    assert_eq!(&*server.recv().await.expect("receives"), b"still here");
}

/// Bytes that depend on seed, iteration and offset.
pub fn pattern(seed: u64, iteration: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fill(&mut bytes, seed, iteration);
    bytes
}

/// Writes the pattern to existing memory.
pub fn fill(bytes: &mut [u8], seed: u64, iteration: u64) {
    for (offset, byte) in bytes.iter_mut().enumerate() {
        let mixed = (seed ^ iteration.rotate_left(32) ^ offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        *byte = (mixed >> 56) as u8;
    }
}

/// A peer in another process: this test binary again, in the role that its `peer` test plays.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Peer {
    /// Starts the peer. It dies with this process: its input ends.
    pub fn start(role: &str) -> Self {
        Self::start_test("peer", role)
    }

    /// As [`start`](Self::start), where the role is played by another test than `peer`.
    pub fn start_test(test: &str, role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
        Self::spawn(command)
    }

    /// Starts `command`, which runs this test binary somehow.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peer process starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The harness may have begun the line.
                if let Some((_, said)) = line.split_once(MARK)
                    && sender.send(said.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self { child, input, lines }
    }

    /// The peer's next line.
    pub fn hear(&self) -> String {
        self.lines.recv_timeout(ANSWER).expect("the peer says something")
    }

    /// The peer's next line, if it has said one.
    pub fn try_hear(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Tells the peer a line.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the peer listens");
    }

    /// Tells the peer a line and hears its answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    /// As [`ask`](Self::ask), while our own library goes on.
    pub async fn ask_aside(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear_aside().await
    }

    /// As [`hear`](Self::hear), while our own library goes on.
    pub async fn hear_aside(&self) -> String {
        let begun = Instant::now();
        loop {
            if let Some(line) = self.try_hear() {
                return line;
            }
            assert!(begun.elapsed() < ANSWER, "the peer says nothing");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Process id.
    pub fn id(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal, and for SIGSTOP waits until it is in effect.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(self.id()).expect("a process id");
        rustix::process::kill_process(id, signal).expect("the process is there");
        if signal == rustix::process::Signal::STOP {
            let begun = Instant::now();
            while !self.is_stopped() {
                assert!(begun.elapsed() < ANSWER, "the peer does not stop");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Whether every thread of the process is stopped.
    pub fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("the process is there");
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    /// Kills the process and reaps it.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("the process ends");
    }

    /// Ends the peer's input and waits for it to end.
    pub fn finish(self) -> ExitStatus {
        let Self { mut child, input, lines } = self;
        drop(input);
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("the process is ours") {
                return status;
            }
            if begun.elapsed() > ANSWER {
                child.kill().expect("the process is there");
                panic!("the peer does not end; it said {:?}", lines.try_iter().collect::<Vec<_>>());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Stops `peer` and does what its device carries out meanwhile, or our own processor in pages that are shared. Where there is none, that waits for its process, which goes on after
/// a while: a capability that is declared, and shown here. Afterwards the peer goes on.
pub async fn while_stopped<T>(peer: &Peer, operations: impl Future<Output = T>) -> T {
    peer.signal(rustix::process::Signal::STOP);
    let mut operations = std::pin::pin!(operations);
    if Transport::of_test().has_device() || shares_pages() {
        let done = operations.await;
        assert!(peer.is_stopped(), "it was stopped all the time");
        peer.signal(rustix::process::Signal::CONT);
        return done;
    }
    let early = tokio::time::timeout(Duration::from_millis(300), &mut operations).await;
    assert!(early.is_err(), "there was nobody to carry it out");
    peer.signal(rustix::process::Signal::CONT);
    operations.await
}

/// The role of this process, if it is a peer.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Says a line to the test that started this peer.
pub fn say(line: impl std::fmt::Display) {
    // The harness prints without a newline before a test's own output.
    println!("\n{MARK}{line}");
}

/// The lines that the test tells this peer, for asynchronous use.
pub fn told() -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Runs a peer's part.
pub fn play<F: Future<Output = ()>>(part: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(part);
}
