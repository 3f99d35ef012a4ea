//! Gets a guest up: with KVM if that works here, else emulated, with a second try.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::cache;
use super::qemu::{self, Accelerator, Lines, Machine, Qemu};
use crate::frame::Frame;
use crate::port::Port;

/// The boot gets that long for each of its stages.
const PATIENCE: Duration = Duration::from_secs(20);
/// A guest under KVM that has not begun by then never will.
const KVM_PATIENCE: Duration = Duration::from_secs(6);
/// How much of the boot log is kept for a message.
const LOG: usize = 32 << 10;
const LOG_LINES: usize = 15;
/// File of the cache that remembers whether KVM works.
const VERDICT: &str = "kvm";

/// Longer where more processes want to run than there are processors.
pub(crate) fn patience(usual: Duration) -> Duration {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    usual.mul_f64((1.0 + load / processors as f64).clamp(1.0, 4.0))
}

/// What happened, and to which boot; zero is for what concerns all of them.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) boot: u32,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// A writing thread is done with its stream.
    Drained,
    Frame(Frame),
    /// The guest's port is closed: QEMU has ended.
    Hung,
    /// A stage of the boot, as its init script tells.
    Stage(String),
    Signal(i32),
}

/// A guest whose agent waits for orders.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) boot: u32,
    pub(crate) qemu: Qemu,
    pub(crate) port: Port,
    pub(crate) source: BufReader<File>,
    pub(crate) log: Log,
}

/// Why there is no guest.
pub(crate) enum NoGuest {
    Failed(String),
    Signal(i32),
}

/// Boots the machine; `events` must be what `sender` feeds.
pub(crate) fn boot(
    machine: &Machine<'_>,
    verbose: bool,
    events: &Receiver<Event>,
    sender: &Sender<Event>,
) -> Result<Guest, NoGuest> {
    let verdict = Verdict::look();
    let mut attempts = vec![(Accelerator::Tcg, PATIENCE), (Accelerator::Tcg, PATIENCE)];
    match verdict.works {
        Some(false) => {}
        Some(true) => attempts.insert(0, (Accelerator::Kvm, PATIENCE)),
        None => attempts.insert(0, (Accelerator::Kvm, KVM_PATIENCE)),
    }
    let (mut kvm_failed, mut emulation_failed) = (false, false);
    let mut reason = String::new();
    for (number, (accelerator, patience)) in (1..).zip(attempts) {
        if verbose {
            eprintln!("run: boot {number}, {accelerator:?}");
        }
        // The second try shows what the kernel does, and takes nothing but the beaten track.
        let machine =
            Machine { talkative: verbose || emulation_failed, unpacked: !emulation_failed, ..machine.clone() };
        match attempt(&machine, accelerator, patience, number, verbose, events, sender) {
            Ok(guest) => {
                verdict.note(accelerator, kvm_failed);
                return Ok(guest);
            }
            Err(NoGuest::Signal(signal)) => return Err(NoGuest::Signal(signal)),
            Err(NoGuest::Failed(error)) => {
                kvm_failed |= accelerator == Accelerator::Kvm;
                emulation_failed |= accelerator == Accelerator::Tcg;
                if verbose {
                    eprintln!("run: boot {number} failed: {error}");
                }
                reason = error;
            }
        }
    }
    Err(NoGuest::Failed(format!(
        "the VM does not boot, after a second try: {reason}\n(--verbose shows the whole boot log)"
    )))
}

fn attempt(
    machine: &Machine<'_>,
    accelerator: Accelerator,
    patience: Duration,
    boot: u32,
    verbose: bool,
    events: &Receiver<Event>,
    sender: &Sender<Event>,
) -> Result<Guest, NoGuest> {
    let (mut qemu, Lines { port, console, messages }) =
        qemu::start(machine, accelerator).map_err(|error| NoGuest::Failed(format!("{}: {error}", qemu::PROGRAM)))?;
    let log = Log::default();
    log.follow(console, true, boot, sender.clone(), verbose);
    log.follow(messages.into(), false, boot, sender.clone(), verbose);
    let (source, greeting) = (port.try_clone(), sender.clone());
    let source = File::from(source.map_err(|error| NoGuest::Failed(error.to_string()))?);
    let reader = thread::spawn(move || greet(source, boot, &greeting));

    let failure = |log: &Log, what: String| Err(NoGuest::Failed(format!("{what}{}", log.tail())));
    let patience = self::patience(patience);
    let mut deadline = Instant::now() + patience;
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event { what: What::Signal(signal), .. }) if super::signals::ends(signal) => {
                return Err(NoGuest::Signal(signal));
            }
            Ok(Event { boot: which, what }) if which == boot => match what {
                What::Frame(Frame::Hello) => break,
                What::Stage(stage) if stage.starts_with("failed") => {
                    return failure(&log, format!("its start-up {stage}"));
                }
                What::Stage(_) => deadline = Instant::now() + self::patience(PATIENCE),
                What::Hung => {
                    // Let the last words arrive.
                    thread::sleep(Duration::from_millis(100));
                    let status = qemu.ended().unwrap_or_else(|| "its port is closed".into());
                    return failure(&log, format!("QEMU ended ({status})"));
                }
                _ => {}
            },
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return failure(&log, format!("no progress within {} s", patience.as_secs()));
            }
        }
    }
    match reader.join() {
        Ok(Some(source)) => Ok(Guest { boot, qemu, port: Port::new(port), source, log }),
        _ => failure(&log, "its agent cannot be reached".into()),
    }
}

/// Reads the first frame and hands the port back to whoever takes over.
fn greet(source: File, boot: u32, events: &Sender<Event>) -> Option<BufReader<File>> {
    let mut source = BufReader::with_capacity(64 << 10, source);
    let (what, result) = match Frame::read(&mut source) {
        Ok(Some(frame)) => (What::Frame(frame), Some(source)),
        _ => (What::Hung, None),
    };
    drop(events.send(Event { boot, what }));
    result
}

/// The end of what kernel and QEMU have said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<VecDeque<u8>>>);

impl Log {
    fn follow(&self, source: OwnedFd, guest: bool, boot: u32, events: Sender<Event>, verbose: bool) {
        let log = self.clone();
        thread::spawn(move || {
            // Bounded lines: a guest may print without end.
            let mut source = BufReader::new(File::from(source));
            let mut line = Vec::new();
            while matches!(source.by_ref().take(4096).read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end();
                match text.strip_prefix('@') {
                    Some(stage) if guest => {
                        drop(events.send(Event { boot, what: What::Stage(stage.to_owned()) }));
                    }
                    // QEMU stays after this message, with a machine that stands still.
                    _ if text.starts_with("KVM internal error") => {
                        log.add(text.as_bytes());
                        drop(events.send(Event { boot, what: What::Stage(format!("failed: {text}")) }));
                    }
                    _ => log.add(text.as_bytes()),
                }
                if verbose {
                    eprint!("vm: {text}\r\n");
                }
                line.clear();
            }
        });
    }

    fn add(&self, line: &[u8]) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend(line);
        log.push_back(b'\n');
        let excess = log.len().saturating_sub(LOG);
        log.drain(..excess);
    }

    /// For the end of a message: the last lines, or that there are none.
    pub(crate) fn tail(&self) -> String {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(log.make_contiguous()).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            return "; the VM has printed nothing".into();
        }
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("; the last lines of its log:\n    {}", last.join("\n    "))
    }
}

/// Whether KVM works on this machine, as far as is known.
struct Verdict {
    works: Option<bool>,
    /// What the verdict holds for: this boot of the host and this QEMU.
    key: String,
}

impl Verdict {
    fn look() -> Self {
        let key = key();
        let openable = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let works = match cache::recall(VERDICT).as_deref().and_then(|text| text.strip_prefix(key.as_str())) {
            _ if !openable => Some(false),
            Some("works\n") => Some(true),
            Some("fails\n") => Some(false),
            _ => None,
        };
        Self { works, key }
    }

    /// A failure counts only if emulation then succeeded with the same machine.
    fn note(&self, accelerator: Accelerator, kvm_failed: bool) {
        let fact = match (accelerator, self.works) {
            (Accelerator::Kvm, None) => "works",
            (Accelerator::Tcg, None | Some(true)) if kvm_failed => "fails",
            _ => return,
        };
        cache::remember(VERDICT, &format!("{}{fact}\n", self.key));
    }
}

fn key() -> String {
    use std::os::unix::fs::MetadataExt;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let qemu = std::env::split_paths(&path).find_map(|folder| fs::metadata(folder.join(qemu::PROGRAM)).ok());
    let qemu = qemu.map_or(0, |file| file.mtime());
    format!("{} {qemu} ", boot.trim())
}
