//! The example `rping` against librdmacm's `rping`, each as server and as client.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::with_device;

/// Bound of everything that is expected to come.
const SOON: Duration = Duration::from_secs(40);
/// Sizes and numbers of pings: the least and the most bytes that the C program takes, its default, more than a packet;
/// and enough pings for the characters to begin again.
const CASES: [(usize, usize); 4] = [(23, 10), (64, 60), (4097, 5), (65535, 3)];

/// One of the two programs, running.
struct Program {
    child: Child,
    output: Lines,
    errors: Lines,
}

/// Lines of a pipe, read as they come.
struct Lines {
    incoming: Receiver<String>,
    seen: Vec<String>,
}

impl Program {
    /// The example.
    fn ours(options: &str) -> Self {
        let test = std::env::current_exe().expect("the path of this test");
        let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
        let path: PathBuf = profile.join("examples/rping");
        assert!(path.exists(), "there is no {}: `cargo build --examples` makes it", path.display());
        Self::start(path.to_str().expect("text"), options)
    }

    /// librdmacm's.
    fn theirs(options: &str) -> Self {
        Self::start("rping", options)
    }

    /// Starts a program, which is killed after a minute.
    fn start(program: &str, options: &str) -> Self {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60", program]).args(options.split_whitespace());
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = piped.expect("rdmacm-utils and coreutils are installed (soft-roce-setup/install)");
        let output = Lines::of(child.stdout.take().expect("piped"));
        let errors = Lines::of(child.stderr.take().expect("piped"));
        Self { child, output, errors }
    }

    /// The example as a server, and the port it listens on.
    fn our_server(address: &str, options: &str) -> (Self, u16) {
        let mut server = Self::ours(&format!("-s -a {address} -p 0 {options}"));
        let line = server.errors.until("listening on");
        let port = line.rsplit(':').next().and_then(|port| port.parse().ok());
        (server, port.unwrap_or_else(|| panic!("no port in {line}")))
    }

    /// librdmacm's as a server, listening.
    fn their_server(address: &str, options: &str) -> (Self, u16) {
        // A port that nobody has: rdma_cm says so, and lets it go again.
        let channel = zcmi::verbs::EventChannel::create().expect("a channel");
        let id = zcmi::verbs::ConnectionId::create(&channel).expect("an identifier");
        id.bind(std::net::SocketAddr::new(address.parse().expect("an address"), 0)).expect("binds");
        let port = id.local_address().expect("bound").port();
        drop(id);
        let server = Self::theirs(&format!("-s -a {address} -p {port} {options}"));
        let begun = Instant::now();
        while !is_listening(port) {
            assert!(begun.elapsed() < SOON, "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        (server, port)
    }

    /// Waits for the end.
    fn finish(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                self.output.rest();
                self.errors.rest();
                return status;
            }
            assert!(begun.elapsed() < SOON, "it does not end; it said {:?} {:?}", self.output.seen, self.errors.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn succeeds(mut self) -> Self {
        let status = self.finish();
        assert!(status.success(), "{status}: {:?} {:?}", self.output.seen, self.errors.seen);
        self
    }

    /// It ends with a status other than 0 and says `what`.
    #[track_caller]
    fn fails(mut self, what: &str) {
        let status = self.finish();
        let said = self.errors.seen.join("\n");
        assert!(!status.success() && said.contains(what), "{status}: {said}");
    }

    /// The program itself, which `timeout` has started.
    fn id(&self) -> Pid {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let begun = Instant::now();
        loop {
            let found = std::fs::read_to_string(&children).unwrap_or_default();
            if let Some(id) = found.split_whitespace().next().and_then(|id| Pid::from_raw(id.parse().ok()?)) {
                return id;
            }
            assert!(begun.elapsed() < SOON, "there is no program");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("it runs");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // A stopped process is killed, too.
            let _ = kill_process(self.id(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { incoming, seen: Vec::new() }
    }

    /// Waits for a line that contains `what`.
    #[track_caller]
    fn until(&mut self, what: &str) -> String {
        let begun = Instant::now();
        loop {
            match self.incoming.recv_timeout(SOON.saturating_sub(begun.elapsed())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(what) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("it does not say {what:?}, but {:?}", self.seen)
                }
            }
        }
    }

    /// The lines to the end.
    fn rest(&mut self) {
        self.seen.extend(self.incoming.iter());
    }
}

fn is_listening(port: u16) -> bool {
    let output = Command::new("rdma").args(["resource", "show", "cm_id"]).output().expect("iproute2");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().any(|line| line.contains("LISTEN") && line.contains(&format!(":{port} ")))
}

/// What rping sends, as it prints it.
fn text(number: usize, size: usize) -> String {
    let title = format!("rdma-ping-{number}: ");
    let first = number % 58;
    let rest = (0..size - 1 - title.len()).map(|index| char::from(65 + ((first + index) % 58) as u8));
    title.chars().chain(rest).collect()
}

#[track_caller]
fn printed(program: &Program, title: &str, pings: usize, size: usize) {
    let expected: Vec<_> = (0..pings).map(|number| format!("{title}: {}", text(number, size))).collect();
    assert_eq!(program.output.seen, expected);
}

#[test]
fn our_server_serves_their_client() {
    with_device(|fixture| {
        let address = &fixture.address;
        for (size, pings) in CASES {
            let (server, port) = Program::our_server(address, &format!("-S {size} -v -V"));
            let client = Program::theirs(&format!("-c -a {address} -p {port} -S {size} -C {pings} -v -V")).succeeds();
            printed(&client, "ping data", pings, size);
            printed(&server.succeeds(), "server ping data", pings, size);
        }
    });
}

#[test]
fn their_server_serves_our_client() {
    with_device(|fixture| {
        let address = &fixture.address;
        for (size, pings) in CASES {
            let (server, port) = Program::their_server(address, &format!("-S {size} -v -V"));
            let client = Program::ours(&format!("-c -a {address} -p {port} -S {size} -C {pings} -v -V")).succeeds();
            assert!(client.errors.seen.is_empty(), "{:?}", client.errors.seen);
            printed(&client, "ping data", pings, size);
            printed(&server.succeeds(), "server ping data", pings, size);
        }
    });
}

#[test]
fn a_server_takes_smaller_pings_than_its_own() {
    with_device(|fixture| {
        let address = &fixture.address;
        let (server, port) = Program::our_server(address, "-S 65535 -V");
        Program::theirs(&format!("-c -a {address} -p {port} -C 3 -V")).succeeds();
        server.succeeds();
        let (server, port) = Program::their_server(address, "-S 65535");
        Program::ours(&format!("-c -a {address} -p {port} -C 3 -V")).succeeds();
        server.succeeds();
    });
}

#[test]
fn a_persistent_server_serves_clients_in_turn_and_at_once() {
    with_device(|fixture| {
        let address = &fixture.address;
        type Start = fn(&str) -> Program;
        let cases: [(Program, u16, Start); 2] = {
            let (ours, our_port) = Program::our_server(address, "-P -S 1000 -V");
            let (theirs, their_port) = Program::their_server(address, "-P -S 1000");
            [(ours, our_port, Program::theirs), (theirs, their_port, Program::ours)]
        };
        for (server, port, client) in cases {
            let options = format!("-c -a {address} -p {port} -S 1000 -C 20 -v -V");
            for _ in 0..3 {
                printed(&client(&options).succeeds(), "ping data", 20, 1000);
            }
            for client in [(); 3].map(|()| client(&options)) {
                printed(&client.succeeds(), "ping data", 20, 1000);
            }
            server.signal(Signal::KILL);
        }
    });
}

#[test]
fn our_two_ends_agree_over_ipv6() {
    with_device(|fixture| {
        let gids = (0..64).filter_map(|index| fixture.context.gid(1, index).ok()?.ip());
        let global = gids.filter(|ip| matches!(ip, std::net::IpAddr::V6(ip) if !ip.is_unicast_link_local()));
        let Some(address) = global.map(|ip| ip.to_string()).next() else {
            eprintln!("SKIPPED: the device has no global IPv6 address");
            return;
        };
        let (server, port) = Program::our_server("::0", "-V -d");
        Program::ours(&format!("-c -a {address} -I {address} -p {port} -C 5 -V -d")).succeeds();
        server.succeeds();
    });
}

#[test]
fn a_client_that_is_killed_takes_nobody_with_it() {
    with_device(|fixture| {
        let address = &fixture.address;
        let (mut server, port) = Program::our_server(address, "-P -v -V");
        let endless = format!("-c -a {address} -p {port}");
        let client = Program::theirs(&endless);
        server.output.until("rdma-ping-20: ");
        client.signal(Signal::KILL);
        let line = server.errors.until("pings");
        assert!(line.contains(address.as_str()), "{line}");
        Program::theirs(&format!("{endless} -C 5 -V")).succeeds();
        server.errors.until("5 pings");
        drop(server);

        // One that serves a single client ends with it; whether that is a failure depends on where it was.
        let (mut server, port) = Program::our_server(address, "-v");
        let client = Program::theirs(&format!("-c -a {address} -p {port}"));
        server.output.until("rdma-ping-20: ");
        client.signal(Signal::KILL);
        assert!(server.finish().code().is_some_and(|code| code < 2));
        assert!(server.errors.seen.iter().any(|line| line.contains("pings")), "{:?}", server.errors.seen);

        // Ours, killed, does their server no harm.
        let (server, port) = Program::their_server(address, "-P");
        let mut client = Program::ours(&format!("-c -a {address} -p {port} -v"));
        client.output.until("rdma-ping-20: ");
        client.signal(Signal::KILL);
        Program::ours(&format!("-c -a {address} -p {port} -C 5 -V")).succeeds();
        drop(server);
    });
}

#[test]
fn a_peer_that_stops_is_not_waited_for() {
    with_device(|fixture| {
        let address = &fixture.address;
        // In the middle of pings.
        let (server, port) = Program::their_server(address, "");
        let mut client = Program::ours(&format!("-c -a {address} -p {port} -v --timeout 1"));
        client.output.until("rdma-ping-5: ");
        server.signal(Signal::STOP);
        client.fails("waited 1 s for the server");
        drop(server);
        // Before it answers.
        let (server, port) = Program::their_server(address, "");
        server.signal(Signal::STOP);
        Program::ours(&format!("-c -a {address} -p {port} --timeout 1")).fails("waited 1 s for the peer's answer");
        drop(server);
        // A client.
        let (mut server, port) = Program::our_server(address, "-v --timeout 1");
        let client = Program::theirs(&format!("-c -a {address} -p {port}"));
        server.output.until("rdma-ping-5: ");
        client.signal(Signal::STOP);
        server.fails("waited 1 s for the");
    });
}

#[test]
fn pings_that_do_not_fit_are_refused() {
    with_device(|fixture| {
        let address = &fixture.address;
        let (server, port) = Program::our_server(address, "-S 64");
        let mut client = Program::theirs(&format!("-c -a {address} -p {port} -S 65 -C 1"));
        server.fails("65 bytes do not fit 64");
        // Theirs is content with any disconnect.
        client.finish();
        assert!(client.errors.seen.iter().any(|line| line.contains("DISCONNECT")), "{:?}", client.errors.seen);
        // Theirs does not look, and its device stops it.
        let (mut server, port) = Program::their_server(address, "-S 23");
        Program::ours(&format!("-c -a {address} -p {port} -S 65535 -C 1 --timeout 5")).fails("rping: ");
        server.finish();
    });
}

#[test]
fn nobody_listening_is_a_failure() {
    with_device(|fixture| {
        let address = &fixture.address;
        Program::ours(&format!("-c -a {address} -p 1 -C 1")).fails("nobody listens at that port (reason 8)");
        Program::ours("-c -a 198.51.100.1 -C 1").fails("198.51.100.1:7174");
        Program::ours("-s -a 198.51.100.1").fails("rdma_bind_addr");
        let (server, port) = Program::our_server(address, "");
        Program::ours(&format!("-s -a {address} -p {port}")).fails("is taken");
        server.signal(Signal::KILL);
    });
}

#[test]
fn wrong_options_are_refused() {
    for options in ["", "-s -c -a 192.0.2.1", "-c", "-s -S 22", "-s -S 65536", "-s -I 192.0.2.1", "-s --timeout 0"] {
        let mut program = Program::ours(options);
        assert_eq!(program.finish().code(), Some(2), "{options:?}: {:?}", program.errors.seen);
    }
}
