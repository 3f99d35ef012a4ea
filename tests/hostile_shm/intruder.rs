//! A peer of shared memory that is no library: it introduces itself as one, and then has both rings and the socket in its hands.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

pub(crate) const RING: usize = 64 << 10;
pub(crate) const LENGTH: usize = 4096 + RING;
const HELLO: usize = 16;
/// Words of a file, as `docs/protocol.md` has them.
pub(crate) const SENT: usize = 0;
pub(crate) const RECEIVED: usize = 128;
pub(crate) const DOZE: usize = 256;
const LAYOUT: usize = 384;

pub(crate) struct Intruder {
    pub(crate) socket: UnixStream,
    pub(crate) ours: Map,
    /// The file that the other side writes.
    pub(crate) theirs: OwnedFd,
    seen: Map,
    sent: u64,
}

/// A file of a ring, mapped until the process ends.
pub(crate) struct Map(*mut u8, usize);

impl Map {
    pub(crate) fn new(file: BorrowedFd<'_>, length: usize, protection: libc::c_int) -> std::io::Result<Self> {
        let (nowhere, how) = (std::ptr::null_mut(), libc::MAP_SHARED);
        // SAFETY: the kernel chooses an address that nothing else uses.
        let base = unsafe { libc::mmap(nowhere, length, protection, how, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(Self(base.cast(), length)) }
    }

    pub(crate) fn protect(&self, protection: libc::c_int) -> std::io::Result<()> {
        // SAFETY: the range is mapped for ever, and what is allowed there is not taken away.
        match unsafe { libc::mprotect(self.0.cast(), self.1, protection) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.0.addr() as u64
    }

    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.1);
        // SAFETY: aligned, within the range, which is mapped for ever; everybody accesses it atomically.
        unsafe { AtomicU64::from_ptr(self.0.wrapping_add(at).cast()) }
    }

    pub(crate) fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.1);
        // SAFETY: within the range, which is mapped for ever; everybody accesses it atomically.
        unsafe { AtomicU8::from_ptr(self.0.wrapping_add(at)) }
    }
}

pub(crate) fn address(uri: &str) -> SocketAddr {
    let name = uri.strip_prefix("shm://").expect("a name");
    SocketAddr::from_abstract_name(format!("zcmi/{name}")).expect("not too long")
}

/// What a library says that asks for a connection.
async fn introduction() -> Vec<u8> {
    let uri = format!("shm://intruder-{}", std::process::id());
    let listener = UnixListener::bind_addr(&address(&uri)).expect("listens");
    let listening = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        let mut said = vec![0; HELLO];
        // The descriptor that comes along is the kernel's to throw away.
        stream.read_exact(&mut said).expect("a head");
        let length = usize::from(u16::from_le_bytes([said[6], said[7]]));
        said.resize(HELLO + length, 0);
        stream.read_exact(&mut said[HELLO..]).expect("the rest");
        said
    });
    let _ = zcmi::Connector::new(&crate::common::worker()).connect(&uri).await.expect_err("it hangs up");
    listening.join().expect("no panic")
}

impl Intruder {
    /// Is let in by who listens at `uri`.
    pub(crate) async fn enter(uri: &str) -> Self {
        let request = introduction().await;
        let file = memfd_create("intruder", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory");
        rustix::io::pwrite(&file, &vec![0; LENGTH], 0).expect("memory");
        let ours = Map::new(file.as_fd(), LENGTH, libc::PROT_READ | libc::PROT_WRITE).expect("maps");
        ours.word(LAYOUT).store(u64::from_le_bytes(*b"zcmring1"), Ordering::SeqCst);
        let seals = SealFlags::FUTURE_WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).expect("seals");
        let socket = UnixStream::connect_addr(&address(uri)).expect("connects");
        give(&socket, &request, file.as_fd()).expect("says");
        let theirs = accepted(&socket);
        let mut confirmation = request[..HELLO].to_vec();
        (confirmation[5], confirmation[6], confirmation[7]) = (2, 0, 0);
        (&socket).write_all(&confirmation).expect("says");
        let seen = Map::new(theirs.as_fd(), LENGTH, libc::PROT_READ).expect("maps");
        Self { socket, ours, theirs, seen, sent: 0 }
    }

    /// Sends bytes as a peer should; only once, since it is to ring once for each doze.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.ours.byte(4096 + (self.sent % RING as u64) as usize).store(*byte, Ordering::Relaxed);
            self.sent += 1;
        }
        self.ours.word(SENT).store(self.sent, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.seen.word(DOZE).load(Ordering::SeqCst) & 1 != 0 {
            let _ = (&self.socket).write(&[0]);
        }
    }

    /// Whether the other side has ended the connection: hears what it has rung.
    pub(crate) fn is_ended(&self) -> bool {
        let heard = rustix::net::recv(&self.socket, &mut [0; 64][..], RecvFlags::DONTWAIT);
        !matches!(heard, Ok((_, 1..)) | Err(rustix::io::Errno::AGAIN))
    }

    /// Waits until the other side has ended the connection.
    pub(crate) fn wait_for_the_end(&self) {
        self.socket.set_read_timeout(Some(Duration::from_secs(20))).expect("sets");
        let mut bells = [0; 64];
        loop {
            match (&self.socket).read(&mut bells) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("it is not ended: {error}"),
            }
        }
    }
}

/// Says something, and gives a descriptor along.
pub(crate) fn give(socket: &UnixStream, bytes: &[u8], gift: BorrowedFd<'_>) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut along, gifts) = (SendAncillaryBuffer::new(&mut space), [gift]);
    assert!(along.push(SendAncillaryMessage::ScmRights(&gifts)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// Hears that we are let in; answers the file that we are given.
fn accepted(socket: &UnixStream) -> OwnedFd {
    let (mut bytes, mut done, mut files) = ([0; 1024], 0, Vec::new());
    while done < HELLO || done < HELLO + usize::from(u16::from_le_bytes([bytes[6], bytes[7]])) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = RecvAncillaryBuffer::new(&mut space);
        let heard = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes[done..])], &mut along, RecvFlags::CMSG_CLOEXEC);
        let heard = heard.expect("hears").bytes;
        assert!(heard > 0, "it is refused");
        done += heard;
        for message in along.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                files.extend(given);
            }
        }
    }
    assert_eq!(bytes[5], 1, "it is refused");
    files.pop().expect("a file")
}
