//! What no file answers: it is tried on the host that this process runs on. Each is bounded.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};

/// How long each may take.
const BOUND: Duration = Duration::from_secs(3);

pub(super) fn open(path: &Path) -> io::Result<()> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    Ok(())
}

#[cfg(feature = "verbs")]
pub(super) fn active_mtu(device: &str, port: u8) -> Option<u32> {
    let devices = zcmi::verbs::Device::list().ok()?;
    let context = devices.iter().find(|found| found.name() == device)?.open().ok()?;
    context.port(port).ok()?.active_mtu.bytes()
}

#[cfg(not(feature = "verbs"))]
pub(super) fn active_mtu(_: &str, _: u8) -> Option<u32> {
    None
}

#[cfg(feature = "verbs")]
pub(super) fn loads() -> Option<bool> {
    Some(!zcmi::verbs::Device::list().is_err_and(|error| error.is_not_installed()))
}

#[cfg(not(feature = "verbs"))]
pub(super) fn loads() -> Option<bool> {
    None
}

/// What the first of these says that is there and may.
pub(super) fn firewall() -> Result<String, String> {
    let commands: [&[&str]; 3] = [&["nft", "list", "ruleset"], &["iptables-save"], &["iptables-legacy-save"]];
    let mut found = None;
    for command in commands {
        match run(command) {
            Ok(rules) => found.get_or_insert_with(String::new).push_str(&rules),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", command.join(" "))),
        }
    }
    found.ok_or_else(|| "neither nft nor iptables-save is installed here".to_owned())
}

/// Standard output of a command that succeeds in time.
fn run(command: &[&str]) -> io::Result<String> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let Some(mut pipe) = child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    // Read aside, or a long answer would fill the pipe.
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            let text = reader.join().map_err(|_| io::Error::other("its output could not be read"))??;
            return if status.success() { Ok(text) } else { Err(io::Error::other(status.to_string())) };
        }
        if begun.elapsed() > BOUND {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn sealed_memory() -> io::Result<()> {
    let file = memfd_create("zcmi-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, 4096)?;
    let seals = SealFlags::FUTURE_WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    if fcntl_get_seals(&file)?.contains(seals) { Ok(()) } else { Err(io::Error::other("its seals are not kept")) }
}

pub(super) fn unix_socket() -> io::Result<()> {
    let (mut near, mut far) = UnixStream::pair()?;
    far.set_read_timeout(Some(BOUND))?;
    near.write_all(b"z")?;
    far.read_exact(&mut [0])
}

pub(super) fn loopback() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect_timeout(&listener.local_addr()?, BOUND)?;
    let (mut far, _) = listener.accept()?;
    far.set_read_timeout(Some(BOUND))?;
    near.write_all(b"z")?;
    far.read_exact(&mut [0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_heard_or_fails() {
        assert_eq!(run(&["printf", "rules"]).expect("there is printf"), "rules");
        assert_eq!(run(&["no-such-command-of-zcmi"]).expect_err("no such command").kind(), io::ErrorKind::NotFound);
        assert!(run(&["false"]).is_err());
        assert_eq!(run(&["sleep", "60"]).expect_err("too long").kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn this_host_has_what_the_software_transports_need() {
        sealed_memory().expect("sealed memory");
        unix_socket().expect("a unix socket");
        loopback().expect("a loopback");
    }
}
