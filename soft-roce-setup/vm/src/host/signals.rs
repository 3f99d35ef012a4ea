//! Signals to the supervisor are meant for the command.

use std::fs;
use std::process::Child;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use super::boot::{Event, What};

const FORWARDED: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];

/// Whether the signal ends a process that does nothing about it, as a user means it.
pub(crate) fn ends(signal: i32) -> bool {
    [SIGHUP, SIGINT, SIGQUIT, SIGTERM].contains(&signal)
}

/// Reports signals from now on.
pub(crate) fn report(events: Sender<Event>) -> Result<(), String> {
    let mut signals = catch()?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event { boot: 0, what: What::Signal(signal) }).is_err() {
                break;
            }
        }
    });
    Ok(())
}

/// Waits for a child that leads a process group, passing signals on; its status as a shell has it.
pub(crate) fn wait_forwarding(child: Child) -> Result<u8, String> {
    wait_until(child, None)
}

/// The same with a deadline; the child is asked to end, then killed, and the status is 124.
pub(crate) fn wait_until(mut child: Child, mut deadline: Option<Duration>) -> Result<u8, String> {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Instant;
    let mut signals = catch()?;
    let group = Pid::from_child(&child);
    let start = Instant::now();
    let mut kill_at = None;
    loop {
        for signal in signals.pending() {
            if let Some(signal) = Signal::from_named_raw(signal) {
                let _ = kill_process_group(group, signal);
            }
        }
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            if kill_at.is_some() {
                return Ok(crate::DEADLINE);
            }
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(crate::FAILED));
        }
        if deadline.is_some_and(|deadline| start.elapsed() >= deadline) {
            deadline = None;
            kill_at = Some(Instant::now() + Duration::from_secs(2));
            let _ = kill_process_group(group, Signal::TERM);
        }
        if kill_at.is_some_and(|kill_at| Instant::now() >= kill_at) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Catches what the caller has not chosen to ignore (as `nohup` does).
fn catch() -> Result<Signals, String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let wanted = FORWARDED.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    Signals::new(wanted).map_err(|error| format!("signals cannot be caught: {error}"))
}
