//! Process 1 of the guest: takes the supervisor's orders, runs the command and its peer.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait, waitpid};
use rustix::system::{RebootCommand, reboot};

use super::{PROGRAM, exec, setup, streams};
use crate::flow::Credit;
use crate::frame::{Frame, Stream};
use crate::port::Port;
use crate::spec::Spec;

/// How long the command waits for the peer to listen.
const PEER_LISTENS: Duration = Duration::from_secs(3);
/// How long the peer may go on after the command has ended, and then after being asked to stop.
const PEER_ENDS: Duration = Duration::from_secs(3);
const PEER_STOPS: Duration = Duration::from_secs(1);

/// Runs until the supervisor ends the machine.
pub(crate) fn agent() -> u8 {
    setup::basics();
    match serve() {
        Ok(()) => thread::sleep(Duration::from_secs(10)),
        Err(error) => println!("@failed agent: {error}"),
    }
    power_off()
}

fn power_off() -> u8 {
    let _ = reboot(RebootCommand::PowerOff);
    crate::FAILED
}

fn serve() -> io::Result<()> {
    let file = streams::open_port()?;
    let port = Port::new(OwnedFd::from(file.try_clone()?));
    port.send(Frame::Hello);
    let mut source = BufReader::with_capacity(64 << 10, file);
    let spec = match Frame::read(&mut source)? {
        Some(Frame::Start(spec)) => Spec::decode(&spec),
        _ => None,
    };
    let Some(spec) = spec else {
        return Err(io::Error::other("the supervisor did not say what to run"));
    };
    let outcome = match setup::machine(&spec) {
        Ok(()) => run(spec, source, &port).map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    port.send(match outcome {
        Ok(status) => Frame::Exit(status),
        Err(error) => Frame::Failed(error),
    });
    port.flush();
    Ok(())
}

fn run(mut spec: Spec, source: BufReader<File>, port: &Port) -> io::Result<u8> {
    let mut additions = vec![("ZCMI_REQUIRE_RDMA", "1"), ("ZCMI_HOST1", setup::ADDRESSES[0])];
    if spec.two_hosts {
        additions.push(("ZCMI_HOST2", setup::ADDRESSES[1]));
    }
    for (name, value) in additions {
        spec.environment.retain(|(existing, _)| existing != name);
        spec.environment.push((name.into(), value.into()));
    }

    let (stop, stopped) = streams::stopper()?;
    let (streams, [input, output, error]) = streams::make(spec.terminal, spec.window)?;
    let (pieces, input_pieces) = mpsc::channel();
    let orders =
        Arc::new(Orders { credits: Default::default(), command: AtomicI32::new(0), terminal: OnceLock::new(), pieces });
    if let Some(terminal) = streams.terminal {
        drop(orders.terminal.set(terminal));
    }
    streams::feed(streams.input, spec.terminal[0], input_pieces, port.clone());
    let follower = Arc::clone(&orders);
    thread::spawn(move || follow(source, &follower));

    let mut peer = match spec.peer.clone() {
        None => None,
        Some(peer) => Some(start_peer(&spec, peer, &stop, &orders, port)?),
    };
    let mut command = launcher(&spec, spec.two_hosts.then_some(setup::HOSTS[0]), &spec.command);
    command.stdin(input).stdout(output).stderr(error);
    let child = command.spawn()?;
    drop(command); // and with it our copies of the command's ends
    let pid = id(&child);
    orders.command.store(pid.as_raw_nonzero().get(), Ordering::SeqCst);
    port.send(Frame::Started);
    let drains: Vec<_> = streams
        .outputs
        .into_iter()
        .map(|(stream, fd)| Ok(streams::drain(stream, fd, stop.try_clone()?, orders.credit(stream), port.clone())))
        .collect::<io::Result<_>>()?;

    let ended = Ended { processes: reap(), port };
    let status = ended.wait(pid, peer.as_mut(), None).unwrap_or(crate::FAILED);
    if let Some(peer) = peer.as_mut().filter(|peer| !peer.ended) {
        finish_peer(peer, &ended);
    }
    drop(stopped);
    for drain in drains.into_iter().chain(peer.map(|peer| peer.drain)) {
        drop(drain.join());
    }
    if let Some(results) = spec.results {
        drop(File::open(results).map(rustix::fs::syncfs));
    }
    Ok(status)
}

/// What the thread that follows the supervisor's orders acts on.
struct Orders {
    credits: [Arc<Credit>; 4],
    command: AtomicI32,
    terminal: OnceLock<OwnedFd>,
    pieces: Sender<Vec<u8>>,
}

impl Default for Credit {
    fn default() -> Self {
        Self::new()
    }
}

impl Orders {
    fn credit(&self, stream: Stream) -> Arc<Credit> {
        let index = match stream {
            Stream::Input | Stream::Output => 0,
            Stream::Error => 1,
            Stream::Peer => 2,
            Stream::Terminal => 3,
        };
        Arc::clone(&self.credits[index])
    }
}

fn follow(mut source: BufReader<File>, orders: &Orders) {
    loop {
        match Frame::read(&mut source) {
            Ok(Some(Frame::Data(Stream::Input, piece))) => drop(orders.pieces.send(piece)),
            Ok(Some(Frame::End(Stream::Input))) => drop(orders.pieces.send(Vec::new())),
            Ok(Some(Frame::Credit(stream, bytes))) => orders.credit(stream).grant(bytes),
            Ok(Some(Frame::Closed(stream))) => orders.credit(stream).close(),
            Ok(Some(Frame::Signal(number))) => {
                let pid = Pid::from_raw(orders.command.load(Ordering::SeqCst));
                if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
                    signal_group(pid, signal);
                }
            }
            Ok(Some(Frame::WindowSize(rows, columns))) => {
                if let Some(terminal) = orders.terminal.get() {
                    streams::resize(terminal, (rows, columns));
                }
            }
            Ok(Some(_)) => {}
            // The supervisor is gone, or out of its mind: nobody needs this machine any more.
            Ok(None) | Err(_) => {
                power_off();
                return;
            }
        }
    }
}

fn signal_group(pid: Pid, signal: Signal) {
    // Until it has made its session the command has no group of its own.
    if kill_process_group(pid, signal).is_err() {
        let _ = kill_process(pid, signal);
    }
}

fn id(child: &std::process::Child) -> Pid {
    Pid::from_child(child)
}

/// This program, about to become `command` on one of the hosts.
fn launcher(spec: &Spec, host: Option<&str>, command: &[OsString]) -> Command {
    let own = [OsStr::new(PROGRAM).to_owned()].into_iter().chain(exec::arguments(&spec.directory, spec.user.as_ref()));
    let mut launcher = match host {
        None => Command::new(PROGRAM),
        Some(_) => Command::new(setup::find("ip")),
    };
    match host {
        None => launcher.args(own.skip(1)),
        Some(host) => launcher.args(["netns", "exec", host]).args(own),
    };
    launcher.args(command).env_clear().envs(spec.environment.iter().map(|(name, value)| (name, value)));
    launcher
}

struct Peer {
    pid: Pid,
    drain: thread::JoinHandle<()>,
    ended: bool,
}

impl Peer {
    fn note_end(&mut self, status: u8, port: &Port) {
        self.ended = true;
        if status != 0 {
            port.send(Frame::PeerFailed(status));
        }
    }
}

fn start_peer(spec: &Spec, peer: OsString, stop: &OwnedFd, orders: &Orders, port: &Port) -> io::Result<Peer> {
    let (ours, theirs) = streams::stopper()?;
    let mut launcher = launcher(spec, Some(setup::HOSTS[1]), &["sh".into(), "-c".into(), peer]);
    launcher.stdin(Stdio::null()).stdout(Stdio::from(theirs.try_clone()?)).stderr(Stdio::from(theirs));
    let child = launcher.spawn()?;
    drop(launcher);
    let pid = id(&child);
    let drain = streams::drain(Stream::Peer, ours, stop.try_clone()?, orders.credit(Stream::Peer), port.clone());
    let mut peer = Peer { pid, drain, ended: false };
    let deadline = Instant::now() + PEER_LISTENS;
    while Instant::now() < deadline && !listens(pid) {
        if let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) {
            peer.note_end(status_byte(status), port);
            break;
        }
        thread::sleep(Duration::from_millis(30));
    }
    Ok(peer)
}

/// Whether somebody on the second host waits for connections: over TCP or over the RDMA
/// connection manager.
fn listens(pid: Pid) -> bool {
    let pid = pid.as_raw_nonzero();
    let tcp = ["tcp", "tcp6"].into_iter().any(|table| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        table.lines().skip(1).any(|line| line.split_whitespace().nth(3) == Some("0A"))
    });
    let manager = || {
        let output =
            setup::command("ip").args(["netns", "exec", setup::HOSTS[1], "rdma", "resource", "show", "cm_id"]).output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("LISTEN"))
    };
    tcp || manager()
}

/// Collects every process that ends: the orphans of the whole machine are ours.
fn reap() -> Receiver<(Pid, u8)> {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => drop(sender.send((pid, status_byte(status)))),
                Ok(None) | Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    });
    ended
}

/// Processes that have ended, as they do.
struct Ended<'a> {
    processes: Receiver<(Pid, u8)>,
    port: &'a Port,
}

impl Ended<'_> {
    /// Waits for `pid`, noting the peer's end if it comes first; `None` when the time is over.
    fn wait(&self, pid: Pid, mut peer: Option<&mut Peer>, time: Option<Duration>) -> Option<u8> {
        let deadline = time.map(|time| Instant::now() + time);
        loop {
            let (who, status) = match deadline {
                None => self.processes.recv().ok()?,
                Some(deadline) => {
                    self.processes.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?
                }
            };
            if let Some(peer) = peer.as_mut().filter(|peer| peer.pid == who) {
                peer.note_end(status, self.port);
            }
            if who == pid {
                return Some(status);
            }
        }
    }
}

/// Gives the peer time to end by itself; one that is stopped has not failed.
fn finish_peer(peer: &mut Peer, ended: &Ended<'_>) {
    let pid = peer.pid;
    if ended.wait(pid, Some(peer), Some(PEER_ENDS)).is_some() {
        return;
    }
    for signal in [Signal::TERM, Signal::KILL] {
        signal_group(pid, signal);
        if ended.wait(pid, None, Some(PEER_STOPS)).is_some() {
            return;
        }
    }
}

fn status_byte(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(crate::FAILED)
}
