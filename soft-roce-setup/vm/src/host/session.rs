//! One command in one VM, from the first boot to the exit status.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use rustix::stdio::{stderr, stdin, stdout};

use super::boot::{self, Event, Guest, NoGuest, What};
use super::qemu::Machine;
use super::terminal::{self, Raw};
use super::{cache, qemu, signals};
use crate::flow::Credit;
use crate::frame::{Frame, Stream};
use crate::options::Options;
use crate::port::Port;
use crate::spec::Spec;
use crate::write::{read, write_all};

/// How long a command may take to end after the deadline's `SIGTERM`.
const GRACE: Duration = Duration::from_secs(2);
/// How long the guest may take to make its devices and start the command.
const SETUP: Duration = Duration::from_secs(30);
/// So many requests to end within that time end the VM, whatever the command does about them.
const INSISTING: (usize, Duration) = (3, Duration::from_secs(3));
/// The streams that are written here, each by a thread.
const WRITTEN: [Stream; 4] = [Stream::Output, Stream::Error, Stream::Peer, Stream::Terminal];
const PIECE: usize = 32 << 10;

/// Boots, runs, returns the command's exit status.
pub(crate) fn run(command: Vec<OsString>, options: &Options, scripts: &Path) -> Result<u8, String> {
    if !qemu::installed() {
        return Err(format!("{} is not installed; cure: {}", qemu::PROGRAM, scripts.join("install").display()));
    }
    let kernel = cache::kernel(options.series(), scripts)?;
    let (sender, events) = mpsc::channel();
    signals::report(sender.clone())?;
    let results = options.results.as_deref().map(|results| results.canonicalize().map_err(|error| error.to_string()));
    let results = results.transpose()?;
    let machine = Machine {
        kernel: &kernel,
        memory: options.memory.unwrap_or_else(qemu::memory),
        cpus: options.cpus.unwrap_or(2),
        results: results.as_deref(),
        unpacked: true,
        talkative: options.verbose,
    };
    let spec = spec(command, options, scripts, &kernel, results.as_deref())?;
    let guest = match boot::boot(&machine, options.verbose, &events, &sender) {
        Ok(guest) => guest,
        Err(NoGuest::Failed(error)) => return Err(error),
        Err(NoGuest::Signal(signal)) => return Ok(death_by(signal)),
    };
    converse(guest, &spec, options, &events, &sender)
}

fn spec(
    command: Vec<OsString>,
    options: &Options,
    scripts: &Path,
    kernel: &cache::Kernel,
    results: Option<&Path>,
) -> Result<Spec, String> {
    let directory = env::current_dir().map_err(|error| format!("the working directory is not there: {error}"))?;
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let groups = rustix::process::getgroups().unwrap_or_default();
    let user = (options.user && !uid.is_root())
        .then(|| (uid.as_raw(), gid.as_raw(), groups.iter().map(|group| group.as_raw()).collect()));
    let limit = getrlimit(Resource::Nofile);
    Ok(Spec {
        command,
        environment: env::vars_os().filter(|(name, _)| name != "ZCMI_SOFT_ROCE_SETUP").collect(),
        directory: directory.into(),
        terminal: terminal::streams(),
        window: terminal::size(),
        user,
        peer: options.peer.clone(),
        two_hosts: options.two_hosts,
        netem: options.netem.clone(),
        results: results.map(|results| results.as_os_str().to_owned()),
        scripts: scripts.as_os_str().to_owned(),
        modules: kernel.modules.as_os_str().to_owned(),
        open_files: (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX)),
    })
}

fn death_by(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(crate::FAILED)
}

/// The conversation with the agent.
fn converse(
    guest: Guest,
    spec: &Spec,
    options: &Options,
    events: &Receiver<Event>,
    sender: &Sender<Event>,
) -> Result<u8, String> {
    let Guest { boot, qemu, port, source, log } = guest;
    let input_credit = Arc::new(Credit::new());
    listen(source, boot, spec.terminal, &port, &input_credit, sender);
    port.send(Frame::Start(spec.encode()));

    let mut raw = None;
    let mut deadline = Some(Instant::now() + boot::patience(SETUP));
    let mut deadline_passed = false;
    let mut requests: Vec<Instant> = Vec::new();
    let mut status = None;
    let mut writing = WRITTEN.len();
    let mut failure = None;
    while status.is_none() || writing > 0 {
        let event = match deadline {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        let event = match event {
            Ok(event) => event,
            Err(_) if deadline_passed => break,
            Err(_) if raw.is_none() => {
                failure = Some(format!("the VM is up but its devices are not ready in time{}", log.tail()));
                break;
            }
            Err(_) => {
                deadline_passed = true;
                deadline = Some(Instant::now() + GRACE);
                port.send(Frame::Signal(signal_hook::consts::SIGTERM));
                continue;
            }
        };
        match event.what {
            What::Signal(signal_hook::consts::SIGWINCH) => {
                let (rows, columns) = terminal::size();
                port.send(Frame::WindowSize(rows, columns));
            }
            What::Signal(signal) => {
                let now = Instant::now();
                if signals::ends(signal) {
                    requests.retain(|earlier| now.duration_since(*earlier) < INSISTING.1);
                    requests.push(now);
                }
                if status.is_some() || requests.len() >= INSISTING.0 || (raw.is_none() && signals::ends(signal)) {
                    return Ok(status.unwrap_or(death_by(signal)));
                }
                port.send(Frame::Signal(signal));
            }
            What::Frame(Frame::Started) => {
                raw = Some(Raw::enter(spec.terminal[0]));
                send_input(&port, &input_credit);
                deadline = options.deadline.map(|deadline| Instant::now() + deadline);
            }
            What::Frame(Frame::Exit(ended)) => status = Some(ended),
            What::Frame(Frame::Failed(error)) => {
                failure = Some(format!("the VM is up but: {error}"));
                break;
            }
            What::Frame(Frame::PeerFailed(status)) => {
                eprint!("run: the peer failed with status {status}\r\n")
            }
            What::Drained => writing -= 1,
            What::Hung if status.is_none() => {
                thread::sleep(Duration::from_millis(100));
                failure = Some(format!("the VM ended before COMMAND did (a kernel panic?){}", log.tail()));
                break;
            }
            _ => {}
        }
    }
    drop(raw);
    qemu.stop();
    if deadline_passed {
        let seconds = options.deadline.unwrap_or_default().as_secs_f64();
        eprintln!("run: the deadline of {seconds} s passed, COMMAND was stopped");
        return Ok(crate::DEADLINE);
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(status.unwrap_or(crate::FAILED)),
    }
}

/// Starts the thread that reads the port and those that write what arrives.
fn listen(
    mut source: BufReader<File>,
    boot: u32,
    terminal: [bool; 3],
    port: &Port,
    input_credit: &Arc<Credit>,
    events: &Sender<Event>,
) {
    let screen = match terminal {
        [_, true, _] => stdout(),
        [_, _, true] => stderr(),
        _ => stdin(), // a terminal is open for both directions
    };
    // Lines of the peer are not cut by what the command writes to standard error.
    let error_lock = Arc::new(Mutex::new(()));
    let queues = WRITTEN.map(|stream| {
        let (queue, pieces) = mpsc::channel();
        let (port, events, lock) = (port.clone(), events.clone(), Arc::clone(&error_lock));
        let target = match stream {
            Stream::Output => stdout(),
            Stream::Terminal => screen,
            _ => stderr(),
        };
        thread::spawn(move || {
            let lock = matches!(stream, Stream::Error | Stream::Peer).then_some(lock);
            write(stream, target, &pieces, &port, lock.as_deref());
            drop(events.send(Event { boot, what: What::Drained }));
        });
        queue
    });
    let (input_credit, events) = (Arc::clone(input_credit), events.clone());
    thread::spawn(move || {
        let mut queues = queues.map(Some);
        loop {
            match Frame::read(&mut source) {
                Ok(Some(Frame::Data(stream, piece))) => {
                    let index = WRITTEN.iter().position(|written| *written == stream);
                    if let Some(Some(queue)) = index.and_then(|index| queues.get(index)) {
                        drop(queue.send(piece));
                    }
                }
                Ok(Some(Frame::Credit(_, bytes))) => input_credit.grant(bytes),
                Ok(Some(Frame::Closed(_))) => input_credit.close(),
                Ok(Some(frame)) => {
                    if matches!(frame, Frame::Exit(_)) {
                        queues = [const { None }; 4]; // nothing comes after it
                    }
                    drop(events.send(Event { boot, what: What::Frame(frame) }));
                }
                Ok(None) | Err(_) => {
                    drop(events.send(Event { boot, what: What::Hung }));
                    return;
                }
            }
        }
    });
}

fn write(stream: Stream, target: BorrowedFd<'_>, pieces: &Receiver<Vec<u8>>, port: &Port, lock: Option<&Mutex<()>>) {
    let mut lines = Vec::new();
    let mut open = true;
    for piece in pieces {
        if !open {
            continue;
        }
        let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let text = match stream {
            Stream::Peer => whole_lines(&mut lines, &piece),
            _ => piece,
        };
        let guard = lock.map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
        open = write_all(target, &text).is_ok();
        drop(guard);
        // Nobody reads any more: the command is told as the kernel would, by a broken pipe.
        port.send(if open { Frame::Credit(stream, count) } else { Frame::Closed(stream) });
    }
    if open && !lines.is_empty() {
        let rest = whole_lines(&mut lines, b"\n");
        let _ = write_all(target, &rest);
    }
}

/// The lines that `piece` completes, marked as the peer's; the rest stays in `lines`.
fn whole_lines(lines: &mut Vec<u8>, piece: &[u8]) -> Vec<u8> {
    lines.extend(piece);
    let end = match lines.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => end + 1,
        None if lines.len() >= PIECE => lines.len(),
        None => 0,
    };
    let mut text = Vec::with_capacity(end + 64);
    for line in lines.drain(..end).collect::<Vec<_>>().split_inclusive(|byte| *byte == b'\n') {
        text.extend(b"[peer] ");
        text.extend(line);
        if !line.ends_with(b"\n") {
            text.push(b'\n');
        }
    }
    text
}

/// Starts the thread that passes standard input on.
fn send_input(port: &Port, credit: &Arc<Credit>) {
    let (port, credit) = (port.clone(), Arc::clone(credit));
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        while !terminal::in_background() {
            let Some(allowed) = credit.available() else {
                return;
            };
            let length = buffer.len().min(allowed);
            match read(stdin(), &mut buffer[..length]) {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    credit.spend(count);
                    port.send(Frame::Data(Stream::Input, buffer[..count].to_vec()));
                }
            }
        }
        port.send(Frame::End(Stream::Input));
    });
}
