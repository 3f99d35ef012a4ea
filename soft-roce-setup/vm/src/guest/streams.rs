//! The command's standard streams: pipes, or a terminal where the caller has one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::flow::Credit;
use crate::frame::{Frame, Stream};
use crate::port::Port;
use crate::write::write_all;

/// Largest piece of a stream in one frame.
const PIECE: usize = 32 << 10;
/// What a process that outlives the command may still add to the output.
const LEFTOVER: usize = 1 << 20;
/// End-of-file character of a terminal (Ctrl-D).
const END_OF_FILE: &[u8] = &[4];

/// Our ends of the command's streams.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) input: OwnedFd,
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
    pub(super) terminal: Option<OwnedFd>,
}

/// Makes the streams; the second value is for the command.
pub(super) fn make(terminal: [bool; 3], window: (u16, u16)) -> io::Result<(Streams, [Stdio; 3])> {
    let mut outputs = Vec::new();
    let (mut master, mut slave) = (None, None);
    if terminal.contains(&true) {
        let (ours, theirs) = open_terminal(terminal[0], window)?;
        outputs.push((Stream::Terminal, ours.try_clone()?));
        (master, slave) = (Some(ours), Some(theirs));
    }
    let (input, input_command) = match (&master, &slave) {
        (Some(master), Some(slave)) if terminal[0] => (master.try_clone()?, slave.try_clone()?),
        _ => {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            (ours, theirs)
        }
    };
    let mut output = |stream, is_terminal| -> io::Result<OwnedFd> {
        match &slave {
            Some(slave) if is_terminal => slave.try_clone(),
            _ => {
                let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
                outputs.push((stream, ours));
                Ok(theirs)
            }
        }
    };
    let output_command = output(Stream::Output, terminal[1])?;
    let error_command = output(Stream::Error, terminal[2])?;
    let streams = Streams { input, outputs, terminal: master };
    Ok((streams, [input_command, output_command, error_command].map(Stdio::from)))
}

fn open_terminal(interactive: bool, window: (u16, u16)) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    resize(&master, window);
    if !interactive {
        // The caller's terminal is not in raw mode then and ends the lines itself.
        let mut attributes = tcgetattr(&slave)?;
        attributes.output_modes.remove(OutputModes::OPOST);
        tcsetattr(&slave, OptionalActions::Now, &attributes)?;
    }
    Ok((master, slave))
}

/// Sets the terminal's size; the kernel tells the command with `SIGWINCH`.
pub(super) fn resize(terminal: impl AsFd, (rows, columns): (u16, u16)) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = tcsetwinsize(terminal, size);
}

/// Writes what arrives for the command's standard input; an empty piece is its end.
pub(super) fn feed(input: OwnedFd, is_terminal: bool, pieces: Receiver<Vec<u8>>, port: Port) {
    thread::spawn(move || {
        let mut input = Some(input);
        for piece in pieces {
            let Some(open) = &input else { continue };
            if piece.is_empty() {
                if is_terminal {
                    let _ = write_all(open, END_OF_FILE);
                } else {
                    input = None;
                }
                continue;
            }
            match write_all(open, &piece) {
                Ok(()) => port.send(Frame::Credit(Stream::Input, u32::try_from(piece.len()).unwrap_or(u32::MAX))),
                Err(_) => {
                    port.send(Frame::Closed(Stream::Input));
                    input = None;
                }
            }
        }
    });
}

/// Sends what the command prints until the end, or until what was there when `stop` closed is sent.
pub(super) fn drain(stream: Stream, source: OwnedFd, stop: OwnedFd, credit: Arc<Credit>, port: Port) -> JoinHandle<()> {
    thread::spawn(move || {
        pump(stream, source, &stop, &credit, &port);
        port.send(Frame::End(stream));
    })
}

fn pump(stream: Stream, source: OwnedFd, stop: &OwnedFd, credit: &Credit, port: &Port) {
    let mut buffer = vec![0; PIECE];
    let mut leftover = LEFTOVER;
    loop {
        let Some(allowed) = credit.available() else {
            return;
        };
        let mut stopped = false;
        if !ready(source.as_fd(), Some(stop.as_fd()), None) {
            stopped = true;
            // A terminal hands over what was written a moment later, a pipe at once.
            let patience = if stream == Stream::Terminal { 50 } else { 0 };
            if !ready(source.as_fd(), None, Some(patience)) {
                return;
            }
        }
        let length = buffer.len().min(allowed);
        match rustix::io::read(&source, &mut buffer[..length]) {
            Ok(0) => return,
            Ok(count) => {
                credit.spend(count);
                port.send(Frame::Data(stream, buffer[..count].to_vec()));
                if stopped {
                    leftover = leftover.saturating_sub(count);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return, // EIO: nobody has the terminal open any more
        }
        if leftover == 0 {
            return;
        }
    }
}

/// Waits until `source` can be read (or has ended); false once `stop` has closed or the time is over.
fn ready(source: BorrowedFd<'_>, stop: Option<BorrowedFd<'_>>, milliseconds: Option<i64>) -> bool {
    let timeout = milliseconds.map(|ms| Timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 });
    loop {
        let mut wanted = vec![PollFd::from_borrowed_fd(source, PollFlags::IN)];
        wanted.extend(stop.map(|stop| PollFd::from_borrowed_fd(stop, PollFlags::IN)));
        match poll(&mut wanted, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) | Ok(0) => return false,
            Ok(_) => return wanted.get(1).is_none_or(|stop| stop.revents().is_empty()),
        }
    }
}

/// A pipe whose reading end closes for everybody when the writing end is dropped.
pub(super) fn stopper() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Opens the port to the supervisor.
pub(super) fn open_port() -> io::Result<File> {
    for entry in std::fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == super::PORT {
            let device = std::path::Path::new("/dev").join(entry.file_name());
            return File::options().read(true).write(true).open(device);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no virtio port to the supervisor"))
}
