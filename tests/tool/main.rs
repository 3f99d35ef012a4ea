//! The command `zcmi`, as a user runs it: text, JSON with exactly the fields that `docs/tool.md` names, exit status.

mod bench;
mod bench_schema;
mod bencher;
#[path = "../common/mod.rs"]
mod common;
mod schema;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use schema::{Event, Health, Info, Level, Way};
use serde::de::DeserializeOwned;

/// How long any process may take.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn info_tells_what_there_is() {
    let output = run(&["info", "--format", "json"]);
    assert!(output.status.success(), "{output:?}");
    let info: Info = parse(&output);
    assert_eq!(info.versions.zcmi, env!("CARGO_PKG_VERSION"));
    assert!(info.versions.kernel.as_ref().is_some_and(|kernel| !kernel.is_empty()));
    let names: Vec<_> = info.transports.iter().map(|transport| transport.name.as_str()).collect();
    assert_eq!(names, ["shm", "verbs", "tcp"]);
    for transport in &info.transports {
        assert_eq!(transport.available, transport.reason.is_none(), "{transport:?}");
    }
    assert!(info.transports[0].available && info.transports[2].available, "{info:?}");
    assert_eq!(info.transports[1].available, has_device(), "{info:?}");
    assert_eq!(info.devices.is_empty(), !has_device(), "{info:?}");

    let text = text(&run(&["info"]));
    for word in ["versions", "rdma-core", "transports", "shm"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(!text.contains('\x1b'), "colours, and nobody looks: {text}");
}

#[test]
fn info_shows_a_device_with_ports_and_gids() {
    if !has_device() {
        return;
    }
    let info: Info = parse(&run(&["info", "--format", "json"]));
    let device = &info.devices[0];
    assert_eq!(device.error, None);
    assert!(device.capabilities.is_some() && device.limits.is_some(), "{device:?}");
    let port = &device.ports[0];
    assert_eq!((port.port, port.state.as_str(), port.link_layer.as_str()), (1, "active", "Ethernet"));
    assert!(port.active_mtu.is_some_and(|mtu| mtu >= 1024), "{port:?}");
    assert!(port.gids.iter().any(|gid| gid.kind == "RoCE v2" && gid.netdev.is_some()), "{port:?}");
    let text = text(&run(&["info"]));
    assert!(text.contains(&format!("device {}", device.name)) && text.contains("RoCE v2"), "{text}");
}

#[test]
fn doctor_looks_at_this_host() {
    let output = run(&["doctor", "--format", "json"]);
    let health: Health = parse(&output);
    assert_eq!(health.zcmi, env!("CARGO_PKG_VERSION"));
    assert_eq!(output.status.code(), Some(i32::from(!health.ok)), "{health:?}");
    assert_eq!(health.ok, health.problems == 0);
    let of = |check: &str| health.findings.iter().find(|finding| finding.check == check).expect("the check");
    assert_eq!((&of("shm").level, &of("tcp").level), (&Level::Ok, &Level::Ok), "{health:?}");
    for finding in &health.findings {
        assert_eq!(finding.why.is_none(), finding.level == Level::Ok, "{finding:?}");
        assert!(finding.level != Level::Problem || finding.fix.is_some(), "{finding:?}");
    }
    let plain = text_of(&run(&["doctor"]));
    assert!(plain.contains("found."), "{plain}");

    let output = run(&["doctor", "--rdma", "--format", "json"]);
    let health: Health = parse(&output);
    let devices = health.findings.iter().find(|finding| finding.check == "devices").expect("the check");
    assert_eq!(devices.level == Level::Ok, has_device(), "{health:?}");
    assert!(has_device() || output.status.code() == Some(1), "{output:?}");
}

#[test]
fn what_this_user_may_not_is_told() {
    if !has_device() || !rustix::process::getuid().is_root() {
        return;
    }
    let output = run_forbidden("doctor");
    let health: Health = parse(&output);
    assert_eq!(output.status.code(), Some(1), "{health:?}");
    let is_told = |check: &str, word: &str| {
        let is_it = |finding: &&schema::Finding| finding.check == check && finding.level == Level::Problem;
        health.findings.iter().filter(is_it).any(|finding| finding.what.contains(word))
    };
    assert!(is_told("device-files", "uverbs0") && is_told("device-files", "rdma_cm"), "{health:?}");
    assert!(is_told("memlock", "65536"), "{health:?}");

    let output = run_forbidden("info");
    let info: Info = parse(&output);
    assert!(output.status.success() && info.devices[0].error.is_some(), "{info:?}");
    assert!(info.transports[1].reason.as_ref().is_some_and(|reason| reason.contains("ermission")), "{info:?}");
}

/// Runs the command as another user, with a low limit, who may not open the device files. They are the same devices under other modes,
/// for this one process.
fn run_forbidden(what: &str) -> Output {
    let wrapper = "mount --make-rprivate /; cd /dev/infiniband; \
        nodes=$(for f in *; do echo $f $(stat -c '0x%t 0x%T' $f); done); mount -t tmpfs -o mode=755 tmpfs /dev/infiniband; cd /dev/infiniband; \
        echo \"$nodes\" | while read -r f major minor; do mknod -m 600 $f c $((major)) $((minor)); done; cd /; \
        exec prlimit --memlock=65536:65536 setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", wrapper, "sh", env!("CARGO_BIN_EXE_zcmi"), what, "--format", "json"]);
    finish(command)
}

#[test]
fn a_peer_is_tried_step_by_step() {
    let path = std::env::temp_dir().join(format!("zcmi-tool-{}", std::process::id()));
    let path = format!("shm://{}", path.display());
    for (address, transport) in [("tcp://127.0.0.1:0", "tcp"), ("auto://127.0.0.1:0", "shm"), (&path, "shm")] {
        let mut server = Server::start(&[address, "--once"]);
        let output = run(&["doctor", &server.address, "--format", "json"]);
        let way: Way = parse(&output);
        assert!(output.status.success() && way.ok, "{way:?}");
        assert_eq!((&way.address, way.transport.as_deref()), (&server.address, Some(transport)));
        let steps: Vec<_> = way.steps.iter().map(|step| step.step.as_str()).collect();
        let common = ["connect", "handle", "message", "write", "read", "atomic", "close"];
        assert!(steps.ends_with(&common), "{steps:?}");
        assert_eq!(&steps[..steps.len() - common.len()], if address == path { &[][..] } else { &["name", "tcp"] });
        assert!(way.steps.iter().all(|step| step.ok && step.error.is_none()), "{way:?}");
        let Event::Served { peer, transport: served, error } = server.next() else { panic!("served") };
        assert!(!peer.is_empty());
        assert_eq!((served.as_str(), error), (transport, None));
        assert!(server.wait().success());
    }
}

#[test]
fn the_settings_choose_the_way_and_what_was_passed_over_is_told() {
    let mut server = Server::start(&["auto://127.0.0.1:0", "--once"]);
    let mut asking = command(&["doctor", &server.address, "--format", "json"]);
    asking.env("ZCMI_TRANSPORT", "tcp");
    let way: Way = parse(&finish(asking));
    assert_eq!((way.ok, way.transport.as_deref()), (true, Some("tcp")), "{way:?}");
    assert!(way.passed_over.iter().any(|why| why == "shm: the settings say otherwise"), "{way:?}");
    assert!(server.wait().success());
}

#[test]
fn a_peer_is_served_over_rdma() {
    // Required where the tests of the device run.
    let Some(host) = common::device_address().filter(|_| has_device()) else { return };
    let mut server = Server::start(&[&format!("rdma://{host}:0"), "--once"]);
    let output = run(&["doctor", &server.address, "--format", "json"]);
    let way: Way = parse(&output);
    assert!(output.status.success() && way.transport.as_deref() == Some("verbs"), "{way:?}");
    let device = way.device.expect("a device");
    assert!(text_of(&run(&["info"])).contains(&format!("device {device}")), "{device}");
    assert!(matches!(server.next(), Event::Served { error: None, .. }));
    assert!(server.wait().success());
}

#[test]
fn a_server_serves_peer_after_peer_until_it_is_told_to_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&["auto://127.0.0.1:0"]);
        // The text, as a person sees it.
        for _ in 0..2 {
            let output = run(&["doctor", &server.address]);
            assert!(output.status.success(), "{output:?}");
            assert!(text_of(&output).ends_with(" works, over shm.\n"), "{output:?}");
            assert!(matches!(server.next(), Event::Served { error: None, .. }));
        }
        kill_process(Pid::from_raw(server.child.id() as i32).expect("a process"), signal).expect("it is there");
        assert!(server.wait().success());
    }
}

#[test]
fn what_fails_on_the_way_is_named() {
    // Nobody listens there.
    let free = "127.0.0.1:1";
    for (peer, failing) in [
        (free.to_owned(), "tcp"),
        ("no-such-host.invalid".to_owned(), "name"),
        ("shm://zcmi-nobody".to_owned(), "connect"),
    ] {
        let output = run(&["doctor", &peer, "--format", "json"]);
        let way: Way = parse(&output);
        assert_eq!((output.status.code(), way.ok), (Some(1), false), "{way:?}");
        let last = way.steps.last().expect("a step");
        assert_eq!((last.step.as_str(), last.ok), (failing, false), "{way:?}");
        assert!(last.error.is_some() && last.hint.is_some(), "{way:?}");
        assert_eq!(way.transport, None);
    }
    let output = run(&["doctor", free]);
    assert!(text_of(&output).contains("zcmi serve"), "{output:?}");
}

#[test]
fn a_listener_that_does_not_answer_is_not_waited_for_without_end() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let output = run(&["doctor", &address, "--format", "json"]);
    let way: Way = parse(&output);
    let last = way.steps.last().expect("a step");
    assert_eq!((output.status.code(), last.step.as_str()), (Some(1), "connect"), "{way:?}");
}

#[test]
fn a_peer_that_says_nothing_is_not_waited_for_without_end() {
    common::run(async {
        let listener = zcmi::Listener::bind(&common::worker(), "tcp://127.0.0.1:0").await.expect("listens");
        let uri = listener.uri();
        let asking = tokio::task::spawn_blocking(move || run(&["doctor", &uri, "--format", "json"]));
        let _connection = listener.accept().await.expect("accepts");
        let output = asking.await.expect("no panic");
        let way: Way = parse(&output);
        let last = way.steps.last().expect("a step");
        assert_eq!((output.status.code(), last.step.as_str(), last.ok), (Some(1), "handle", false), "{way:?}");
        assert!(last.error.as_ref().is_some_and(|error| error.contains("no answer within")), "{way:?}");
    });
}

#[test]
fn other_programs_are_not_served() {
    let server = Server::start(&["tcp://127.0.0.1:0"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(async {
        let worker = zcmi::Worker::new(zcmi::Config::default()).expect("a worker");
        zcmi::Connector::new(&worker).connect(&server.address).await.map(drop).expect_err("it is refused")
    });
    assert_eq!(error.kind(), zcmi::ErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains("zcmi serve"), "{error}");
}

#[test]
fn completions_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let text = text(&run(&["completions", shell]));
        assert!(text.contains("doctor") && text.contains("format"), "{shell}: {text}");
    }
}

#[test]
fn wrong_usage_has_a_status_of_its_own() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["info", "--format", "xml"],
        &["doctor", "host:notaport"],
        &["doctor", "host", "--rdma"],
        &["completions", "noshell"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    }
    let output = run(&["serve", "nonsense"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn the_document_has_all_fields_and_checks() {
    let document = include_str!("../../docs/tool.md");
    let health: Health = parse(&run(&["doctor", "--format", "json"]));
    for finding in health.findings {
        assert!(document.contains(&format!("| `{}` |", finding.check)), "{}", finding.check);
    }
    let fields = "versions transports devices zcmi kernel rdma_core name available reason node_type guid file firmware capabilities limits ports error \
        memory_windows on_demand_paging atomics max_inline port state physical_state link_layer active_mtu max_mtu rate_megabits max_request_bytes gids \
        index gid kind netdev ok problems findings check level what why fix address transport device passed_over steps step microseconds detail hint event peer";
    for field in fields.split_whitespace() {
        assert!(document.contains(&format!("`{field}`")), "{field}");
    }
}

/// Runs `zcmi` to its end.
fn run(arguments: &[&str]) -> Output {
    finish(command(arguments))
}

/// Runs a command to its end, which comes in time.
fn finish(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let id = Pid::from_child(&child);
    let (done, over) = std::sync::mpsc::channel::<()>();
    // Ends it, should it not end by itself.
    let watch = std::thread::spawn(move || {
        if over.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(id, Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("its output");
    drop(done);
    watch.join().expect("no panic");
    output
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zcmi"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn text_of(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The output of a command that succeeds.
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    text_of(output)
}

/// The one line of JSON that a command prints.
fn parse<T: DeserializeOwned>(output: &Output) -> T {
    let text = text_of(output);
    assert_eq!(text.lines().count(), 1, "{output:?}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[cfg(feature = "verbs")]
fn has_device() -> bool {
    zcmi::verbs::Device::list().is_ok_and(|devices| !devices.is_empty())
}

#[cfg(not(feature = "verbs"))]
fn has_device() -> bool {
    false
}

/// A `zcmi serve`, which ends with the test.
struct Server {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = ["serve", "--format", "json"].iter().chain(arguments).copied().collect();
        let mut child = command(&arguments).stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut server = Self { child, lines, address: String::new() };
        let Event::Listening { address } = server.next() else { panic!("it listens first") };
        server.address = address;
        server
    }

    /// The next thing that it says.
    fn next(&mut self) -> Event {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
