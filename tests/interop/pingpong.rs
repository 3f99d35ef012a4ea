//! rdma-core's `ibv_rc_pingpong` and `ibv_ud_pingpong`: their processes, and what they say over TCP before they
//! start (`libibverbs/examples/rc_pingpong.c`).

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use zcmi::verbs::{Endpoint, Gid};

use crate::end::{PATIENCE, gid_index};
use crate::support::Fixture;

/// `LID:QPN:PSN:GID` in hexadecimal, and a zero.
const LINE: usize = 52;
/// What a client says at the end, with its zero.
const DONE: &[u8; 5] = b"done\0";

/// A C program that runs.
pub(crate) struct Program {
    child: Option<Child>,
}

impl Program {
    /// Starts `name` on the device under test, as client of this host if `is_client`. Without its counterpart it would
    /// wait for ever: it is killed after a minute.
    pub(crate) fn start(fixture: &Fixture, name: &str, port: u16, is_client: bool, options: &[&str]) -> Self {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60", name, "-d", fixture.context.name(), "-p", &port.to_string()]);
        command.args(["-g", &gid_index(fixture).to_string()]).args(options);
        if is_client {
            command.arg("127.0.0.1");
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self { child: Some(child.expect("ibverbs-utils and coreutils are installed (soft-roce-setup/install)")) }
    }

    /// Waits for its end; what it printed.
    pub(crate) fn finish(mut self) -> Output {
        let mut child = self.child.take().expect("it runs");
        let begun = Instant::now();
        while child.try_wait().expect("it is ours").is_none() {
            if begun.elapsed() > PATIENCE {
                end(&mut child);
                panic!("it does not end; it said {:?}", child.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait_with_output().expect("what it printed")
    }

    /// Kills it and waits until it is gone, and with it its queue pair.
    pub(crate) fn kill(mut self) {
        end(&mut self.child.take().expect("it runs"));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

/// `timeout` passes the signal on, and the programs have no handler for it.
fn end(child: &mut Child) {
    let id = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
    let _ = child.wait();
}

/// Panics unless the program was content.
pub(crate) fn assert_content(output: &Output) {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}", output.status);
    // It finds wrong bytes with `-c`, and ends well all the same.
    assert!(!said.contains("invalid data"), "{said}");
    assert!(said.contains("bytes in"), "it reports its figures: {said}");
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    listen().local_addr().expect("an address").port()
}

/// A listener for a program that is the client.
pub(crate) fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("listens")
}

/// Plays the client of a program that listens or soon will; `connect` is called with the program's end before it is told
/// that all is well.
pub(crate) fn as_client(port: u16, ours: &Endpoint, connect: impl FnOnce(&Endpoint)) -> Result<()> {
    let begun = Instant::now();
    let mut stream = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => break stream,
            Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error),
        }
    };
    bound(&stream)?;
    stream.write_all(&line(ours))?;
    connect(&read_line(&mut stream)?);
    stream.write_all(DONE)
}

/// Plays the server of a program; `connect` is called with the program's end before the program is told ours.
pub(crate) fn as_server(listener: &TcpListener, ours: &Endpoint, connect: impl FnOnce(&Endpoint)) -> Result<()> {
    listener.set_nonblocking(true)?;
    let begun = Instant::now();
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    };
    stream.set_nonblocking(false)?;
    bound(&stream)?;
    connect(&read_line(&mut stream)?);
    stream.write_all(&line(ours))?;
    let mut done = [0; DONE.len()];
    stream.read_exact(&mut done)?;
    assert_eq!(&done, DONE);
    Ok(())
}

fn bound(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn read_line(stream: &mut TcpStream) -> Result<Endpoint> {
    let mut bytes = [0; LINE];
    stream.read_exact(&mut bytes)?;
    parse(&bytes).ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("{:?}", String::from_utf8_lossy(&bytes))))
}

fn line(end: &Endpoint) -> Vec<u8> {
    let gid: String = end.gid.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!("{:04x}:{:06x}:{:06x}:{gid}\0", end.lid, end.queue_pair, end.psn.number());
    assert_eq!(line.len(), LINE);
    line.into_bytes()
}

fn parse(bytes: &[u8; LINE]) -> Option<Endpoint> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\0')?;
    let mut words = text.split(':');
    let mut number = |digits| words.next().filter(|word| word.len() == digits).and_then(hexadecimal);
    let (lid, queue_pair, psn) = (number(4)?, number(6)?, number(6)?);
    let mut gid = [0; 16];
    let digits = words.next().filter(|digits| digits.len() == 32 && digits.is_ascii())?;
    for (index, byte) in gid.iter_mut().enumerate() {
        *byte = hexadecimal(&digits[2 * index..2 * index + 2])? as u8;
    }
    let nothing_more = words.next().is_none();
    nothing_more.then_some(Endpoint { gid: Gid(gid), lid: lid as u16, queue_pair, psn: psn.into() })
}

fn hexadecimal(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok()
}

#[test]
fn an_end_is_told_as_rdma_core_tells_it() {
    let text = b"0000:000012:abcdef:00000000000000000000ffffc0000201\0";
    let end = parse(text).expect("a line of theirs");
    assert_eq!((end.lid, end.queue_pair, end.psn.number()), (0, 0x12, 0xab_cdef));
    assert_eq!(end.gid.ip().map(|ip| ip.to_string()).as_deref(), Some("192.0.2.1"));
    assert_eq!(line(&end), text);
    assert_eq!(parse(b"0000:000012:abcdef:00000000000000000000ffffc00002 1\0"), None);
    assert_eq!(parse(b"0000:000012:abcdef0:0000000000000000000ffffc0000201\0"), None);
}
