//! Both ends at once: this program starts itself a second time, as the server.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Ends, Failure, Result};

/// How long the server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to end after its client has.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The server process. It ends when this process does, however that happens: then its standard input ends.
pub(crate) struct ServerProcess {
    child: Child,
    _standard_input: Option<ChildStdin>,
    address: String,
}

impl ServerProcess {
    /// Starts it at `address` and waits until it listens.
    pub(crate) fn start(ends: &Ends, address: &str) -> Result<Self> {
        let cannot = |error| Failure::Other(format!("cannot start the server process: {error}"));
        let program = std::env::current_exe().map_err(cannot)?;
        let mut child = Command::new(program)
            .args(ends.of_server(address))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let (said, hears) = mpsc::channel();
        let output = child.stdout.take();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = output.map(|output| BufReader::new(output).read_line(&mut line));
            let _ = said.send(read.and_then(|read| read.ok()).map(|_| line));
        });
        let standard_input = child.stdin.take();
        let mut server = Self { child, _standard_input: standard_input, address: String::new() };
        match hears.recv_timeout(START_LIMIT) {
            Ok(Some(line)) if !line.trim().is_empty() => {
                line.trim().clone_into(&mut server.address);
                Ok(server)
            }
            Ok(_) => {
                // It has said why, unless a signal ended it: standard error is the same.
                let status = server.child.wait();
                match status.map(|status| status.code()) {
                    Ok(Some(_)) => Err(Failure::Told),
                    _ => Err(Failure::Other("the server process was killed before it listened".to_owned())),
                }
            }
            Err(_) => Err(Failure::Other(format!("the server did not listen within {START_LIMIT:?}"))),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Waits until it has ended by itself, or ends it.
    ///
    /// # Errors
    /// If it failed, or had to be ended.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(Failure::Other(format!("the server process failed: {status}"))),
                Err(error) => return Err(Failure::Other(format!("the server process is lost: {error}"))),
            }
        }
        Err(Failure::Other(format!("the server process did not end within {END_LIMIT:?} and was killed")))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
