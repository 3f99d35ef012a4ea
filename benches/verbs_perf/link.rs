//! The two processes: this program starts itself once more, as the server.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio, exit};

use zcmi::verbs::{Endpoint, Remote};

use crate::tier::Tier;

/// The client's view of the server process, which ends when its input does.
pub(crate) struct Server {
    child: Child,
    _input: ChildStdin,
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts the server with the arguments of this process and connects `end` to it.
    pub(crate) fn start(end: &mut impl Tier) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .args(std::env::args_os().skip(1))
            .arg("--server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server process starts");
        let mut input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let (peer, remote) = hear(&mut output);
        end.connect(&peer, remote);
        tell(&mut input, end);
        let mut line = String::new();
        output.read_line(&mut line).expect("the server answers");
        assert_eq!(line, "connected\n", "the server has failed");
        Self { child, _input: input, _output: output }
    }

    /// Ends the server and waits for it.
    pub(crate) fn end(self) {
        let Self { mut child, _input, _output } = self;
        drop(_input);
        let status = child.wait().expect("it is ours");
        assert!(status.success(), "the server: {status}");
    }
}

/// Connects the server's `end` to its client. `prepare` is called before the client can begin. From then on the process
/// ends when its input does.
pub(crate) fn serve<T: Tier>(end: &mut T, prepare: impl FnOnce(&mut T)) {
    tell(&mut std::io::stdout(), end);
    let mut input = BufReader::new(std::io::stdin());
    let (peer, remote) = hear(&mut input);
    end.connect(&peer, remote);
    prepare(end);
    println!("connected");
    std::thread::spawn(move || {
        let _ = input.read_line(&mut String::new());
        exit(0);
    });
}

fn tell(to: &mut impl Write, end: &impl Tier) {
    let exposed = end.exposed();
    let line = serde_json::to_string(&(end.endpoint(), exposed.address, exposed.key)).expect("JSON");
    writeln!(to, "{line}").expect("the other process listens");
}

fn hear(from: &mut impl BufRead) -> (Endpoint, Remote) {
    let mut line = String::new();
    from.read_line(&mut line).expect("the other process speaks");
    let (endpoint, address, key) = serde_json::from_str(&line).expect("what the other process has failed to tell");
    (endpoint, Remote { address, key })
}
