//! The two processes: this program starts itself once more, as the server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The server process.
pub(crate) struct Server {
    child: Child,
    /// What it says first: where it listens.
    pub(crate) said: String,
}

impl Server {
    /// Starts it with the arguments of this process.
    pub(crate) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .args(std::env::args_os().skip(1))
            .arg("--server")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server process starts");
        let mut said = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut said).expect("the server speaks");
        assert!(!said.is_empty(), "the server has failed");
        Self { child, said: said.trim().to_owned() }
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) {
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "the server: {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
