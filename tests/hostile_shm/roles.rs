//! What the intruder does.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::net::{SendFlags, send};

use super::intruder::{DOZE, Intruder, LENGTH, Map, RECEIVED, RING, SENT, give};

/// How long it goes on, at most.
const LONG: Duration = Duration::from_secs(20);

/// Plays a role until the other side has ended the connection, or it is over.
pub(crate) fn play(role: &str, mut intruder: Intruder) {
    match role {
        "scribbles over words" => scribble(&intruder, &[SENT, RECEIVED, DOZE], false),
        "scribbles over all" => scribble(&intruder, &[SENT, RECEIVED, DOZE], true),
        "scribbles over bytes" => scribble(&intruder, &[SENT], true),
        "rings" => ring(&intruder, SendFlags::empty()),
        "rings out of band" => ring(&intruder, SendFlags::OOB),
        "gives" => give_on(&intruder),
        "is silent" => intruder.wait_for_the_end(),
        "stops in a header" => {
            intruder.send(&header(1000)[..20]);
            intruder.wait_for_the_end();
        }
        "stops in a message" => {
            intruder.send(&[&header(1000)[..], b"not all"].concat());
            intruder.wait_for_the_end();
        }
        "goes in a header" => intruder.send(&header(1000)[..20]),
        "goes in a message" => intruder.send(&[&header(1000)[..], b"not all"].concat()),
        "breaks in" => break_in(&intruder),
        other => panic!("unknown role {other}"),
    }
}

/// Of a message.
fn header(length: u32) -> [u8; 48] {
    let mut header = [0; 48];
    (header[0], header[1]) = (1, 1);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header
}

/// Numbers in no order.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn scribble(intruder: &Intruder, words: &[usize], is_wild: bool) {
    let (begun, mut random) = (Instant::now(), Random(0x1234_5678));
    while begun.elapsed() < LONG {
        for _ in 0..2000 {
            let number = random.next();
            let word = words[number as usize % words.len()];
            let before = intruder.ours.word(word).load(Ordering::Relaxed);
            let value = match number >> 60 {
                _ if !is_wild => before.wrapping_add(number >> 8 & 0x1ff),
                0 => number,
                1..=7 => before.wrapping_add(number >> 8 & 0xffff),
                _ => before,
            };
            intruder.ours.word(word).store(value, Ordering::SeqCst);
            for _ in 0..16 {
                let at = random.next();
                intruder.ours.byte(4096 + at as usize % RING).store((at >> 32) as u8 & 3, Ordering::Relaxed);
            }
        }
        if intruder.is_ended() {
            return;
        }
    }
    panic!("it is not ended");
}

/// Rings until that is not taken any more.
fn ring(intruder: &Intruder, how: SendFlags) {
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        if send(&intruder.socket, &[0], how | SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_err() && intruder.is_ended()
        {
            return;
        }
    }
    panic!("it is not ended");
}

/// Gives one descriptor after the other, of which none is kept.
fn give_on(intruder: &Intruder) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    for _ in 0..200 {
        let _ = give(&intruder.socket, &[0], writer.as_fd());
        std::thread::sleep(Duration::from_micros(500));
    }
    drop(writer);
    // Those on their way go with the connection.
    intruder.socket.shutdown(std::net::Shutdown::Both).expect("ends");
    assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
}

/// Tries all that could change the file of the other side under it.
fn break_in(intruder: &Intruder) {
    let theirs = intruder.theirs.as_fd();
    let map = Map::new(theirs, LENGTH, libc::PROT_READ).expect("it may be read");
    let path = format!("/proc/self/fd/{}", theirs.as_raw_fd());
    let again = std::fs::OpenOptions::new().read(true).write(true).open(path);
    let write = |file: &std::fs::File| rustix::io::pwrite(file, b"x", 0).is_ok();
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").expect("our own memory");
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let size = rustix::fs::fstat(theirs).expect("a file").st_size as u64;
    let ways = [
        ("write", rustix::io::pwrite(theirs, b"x", 0).is_ok()),
        ("map to write", Map::new(theirs, LENGTH, libc::PROT_READ | libc::PROT_WRITE).is_ok()),
        ("allow writing", map.protect(libc::PROT_READ | libc::PROT_WRITE).is_ok()),
        ("write by /proc/self/mem", rustix::io::pwrite(&memory, b"x", map.address()).is_ok()),
        ("shrink", ftruncate(theirs, 0).is_ok()),
        ("grow", ftruncate(theirs, 2 * size).is_ok()),
        ("punch a hole", fallocate(theirs, punch, 0, 4096).is_ok()),
        ("zero", fallocate(theirs, FallocateFlags::ZERO_RANGE, 0, 4096).is_ok()),
        ("append", fallocate(theirs, FallocateFlags::empty(), size, 4096).is_ok()),
        ("seal", fcntl_add_seals(theirs, SealFlags::WRITE).is_ok()),
        ("write by another descriptor", again.as_ref().is_ok_and(write)),
        (
            "map by another descriptor",
            again.as_ref().is_ok_and(|file| Map::new(file.as_fd(), LENGTH, libc::PROT_WRITE).is_ok()),
        ),
        ("shrink by another descriptor", again.as_ref().is_ok_and(|file| file.set_len(0).is_ok())),
    ];
    let found: Vec<_> = ways.iter().filter(|(_, is_open)| *is_open).map(|(way, _)| *way).collect();
    assert!(found.is_empty(), "it gets in: {found:?}");
}
