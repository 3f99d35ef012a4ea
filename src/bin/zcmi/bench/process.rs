//! Processes that a bench starts: it ends them, and they end with it.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::failure::{Failure, Result};

/// How often it is looked at one.
const LOOK: Duration = Duration::from_millis(2);

/// Bytes of its output that are kept.
const MOST_OUTPUT: usize = 1 << 20;

/// A process, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    said: Text,
    complained: Text,
}

/// What a process writes, as it comes.
type Text = Arc<Mutex<Vec<u8>>>;

impl Process {
    /// Starts `program`, with these variables besides ours.
    pub(crate) fn start(
        program: impl AsRef<OsStr>,
        arguments: &[String],
        variables: &[(&str, String)],
    ) -> Result<Self> {
        let name = program.as_ref().to_string_lossy().into_owned();
        let failed = |error: std::io::Error| Failure::from(error).within(format_args!("starting {name}"));
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["tethered", &std::process::id().to_string(), "--"])
            .arg(program.as_ref())
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (said, complained) = (collect(child.stdout.take()), collect(child.stderr.take()));
        Ok(Self { name, child, said, complained })
    }

    /// What it has written to standard output so far.
    pub(crate) fn said(&self) -> String {
        text(&self.said)
    }

    /// Waits until it has said something for which `is_it` holds.
    pub(crate) async fn until_said(&mut self, is_it: impl Fn(&str) -> bool, bound: Duration) -> Result<String> {
        let begun = Instant::now();
        loop {
            let status = self.status()?;
            let said = self.said();
            if is_it(&said) {
                return Ok(said);
            }
            if let Some(status) = status {
                return Err(self.ended(status));
            }
            if begun.elapsed() > bound {
                return Err(Failure::new(format!("{} was not ready within {} s", self.name, bound.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for its end, which is to be a success, and gives all that it has said.
    pub(crate) async fn until_done(&mut self, bound: Duration) -> Result<String> {
        let begun = Instant::now();
        loop {
            match self.status()? {
                Some(status) if status.success() => break,
                Some(status) => return Err(self.ended(status)),
                None if begun.elapsed() > bound => {
                    return Err(Failure::new(format!("{} was not done within {} s", self.name, bound.as_secs())));
                }
                None => tokio::time::sleep(LOOK).await,
            }
        }
        // Until who collects has seen the end too.
        for _ in 0..100 {
            if Arc::strong_count(&self.said) == 1 {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(self.said())
    }

    /// How it has ended, if it has, or does so in a moment.
    pub(crate) async fn end(&mut self, patience: Duration) -> Option<Failure> {
        let begun = Instant::now();
        loop {
            match self.status() {
                Ok(Some(status)) => return Some(self.ended(status)),
                Ok(None) if begun.elapsed() < patience => tokio::time::sleep(LOOK).await,
                _ => return None,
            }
        }
    }

    fn status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        let complained = text(&self.complained);
        let said = if complained.trim().is_empty() { self.said() } else { complained };
        let last: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = last[last.len().saturating_sub(3)..].join("; ");
        Failure::new(if last.is_empty() {
            format!("{} {how}", self.name)
        } else {
            format!("{} {how}: {last}", self.name)
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(text: &Text) -> String {
    String::from_utf8_lossy(&text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

/// Reads in a thread of its own, until the pipe is closed.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Text {
    let text = Text::default();
    if let Some(mut pipe) = pipe {
        let text = Arc::clone(&text);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MOST_OUTPUT - text.len().min(MOST_OUTPUT);
                text.extend_from_slice(&bytes[..count.min(room)]);
            }
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_process_ended_is_told() {
        // The command itself is not this test, so what it would start is looked at alone.
        let child = Command::new("sh")
            .args(["-c", "echo a; echo why >&2; exit 3"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("it starts");
        let (said, complained) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let mut process = Process { name: "sh".to_owned(), child, said, complained };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let failure = runtime.block_on(process.until_done(Duration::from_secs(20))).expect_err("it fails");
        assert!(failure.to_string().starts_with("sh ended with status 3"), "{failure}");
    }
}
