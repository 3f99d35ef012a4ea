//! The seam over shared memory.

mod now;

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::pages::{Ours, Theirs};
use super::ring::Word;
use super::{Shm, ShmAddress, ShmCarrier, door, rights};
use crate::transport::framed::tests::{
    Frame, HELLO, Header, Hello, Kind, Peer, Rig, TestCarrier, bodies, is_called, settle,
};
use crate::transport::framed::{Carrier, Halt, Socket};
use crate::transport::{Failure, Queue};
use crate::{Config, Connector, ErrorKind, Listener, Worker};

mod behind;
mod lobby;

bodies!(ShmCarrier);

/// The other end of a queue's channel.
pub(crate) struct ShmPeer {
    carrier: ShmCarrier,
    socket: Arc<Socket>,
    patience: Duration,
}

pub(super) fn sockets() -> (Arc<Socket>, Arc<Socket>) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("sockets");
    let socket = |descriptor: OwnedFd| {
        ShmCarrier::admit(&descriptor).expect("our own user");
        Socket::new(descriptor).expect("a service")
    };
    (socket(one), socket(other))
}

impl TestCarrier for ShmCarrier {
    type Peer = ShmPeer;

    fn ends() -> (ShmPeer, Arc<Socket>, Self, Theirs) {
        let (socket, peers_socket) = sockets();
        let (carrier, gift) = Self::new(&socket).expect("memory");
        let (mut peer, peers_gift) = Self::new(&peers_socket).expect("memory");
        let unwrap = |gift: Option<OwnedFd>| Self::unwrap(gift.into_iter().collect()).expect("a good one");
        peer.attach(unwrap(gift));
        let peer = ShmPeer { carrier: peer, socket: peers_socket, patience: Duration::from_secs(5) };
        (peer, socket, carrier, unwrap(peers_gift))
    }
}

impl ShmCarrier {
    fn scribble(&self, word: Word, value: u64) {
        self.rings.as_ref().expect("it is set up").scribble(word, value);
    }
}

impl ShmPeer {
    pub(super) fn carrier(&mut self) -> &mut ShmCarrier {
        &mut self.carrier
    }

    fn wait(&mut self, mut act: impl FnMut(&mut ShmCarrier) -> Result<usize, Halt>) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            let done = act(&mut self.carrier);
            self.carrier.flush();
            match done {
                Ok(count) => return Ok(count),
                Err(Halt::Later) if begun.elapsed() > self.patience => return Err(io::ErrorKind::TimedOut.into()),
                Err(Halt::Later) => {
                    std::thread::sleep(Duration::from_micros(50));
                    self.carrier.heed();
                }
                Err(Halt::Lost(_)) => return Ok(0),
                Err(Halt::Protocol(detail)) => return Err(io::Error::other(detail)),
            }
        }
    }
}

impl Read for ShmPeer {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.wait(|carrier| carrier.read(bytes))
    }
}

impl Write for ShmPeer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.wait(|carrier| carrier.write(&[IoSlice::new(bytes)], false))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Peer for ShmPeer {
    fn hang_up(&self) {
        self.socket.shut();
    }

    fn be_impatient(&mut self) {
        self.patience = Duration::ZERO;
    }
}

const ALL_SEALS: SealFlags =
    SealFlags::FUTURE_WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// A file as a peer may make it.
fn file(length: usize, is_there: bool, layout: &[u8; 8], seals: SealFlags) -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory");
    ftruncate(&file, length as u64).expect("memory");
    if is_there {
        rustix::io::pwrite(&file, &vec![0; length], 0).expect("writes");
        rustix::io::pwrite(&file, layout, 384).expect("writes");
    }
    fcntl_add_seals(&file, seals).expect("seals");
    file
}

const LENGTH: usize = 4096 + (64 << 10);
const LAYOUT: &[u8; 8] = b"zcmring1";

/// One that counts as many pages as it has to, of which most are behind its end.
fn file_with_pages_elsewhere() -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory");
    ftruncate(&file, LENGTH as u64).expect("memory");
    fallocate(&file, FallocateFlags::KEEP_SIZE, LENGTH as u64, LENGTH as u64).expect("memory");
    rustix::io::pwrite(&file, LAYOUT, 384).expect("writes");
    fcntl_add_seals(&file, ALL_SEALS).expect("seals");
    file
}

/// What a peer may give, and what is wrong with it.
fn bad_gifts() -> Vec<(&'static str, Vec<OwnedFd>)> {
    let good = || file(LENGTH, true, LAYOUT, ALL_SEALS);
    let without = |seal| file(LENGTH, true, LAYOUT, ALL_SEALS.difference(seal));
    let (pipe, _) = std::io::pipe().expect("a pipe");
    let plain = std::fs::File::open("/proc/self/exe").expect("our program");
    vec![
        ("0 descriptors", vec![]),
        ("2 descriptors", vec![good(), good()]),
        ("no memfd", vec![OwnedFd::from(pipe)]),
        ("no memfd", vec![OwnedFd::from(plain)]),
        ("could change", vec![without(SealFlags::FUTURE_WRITE)]),
        ("could change", vec![without(SealFlags::SHRINK)]),
        ("could change", vec![without(SealFlags::GROW)]),
        ("could change", vec![without(SealFlags::SEAL)]),
        ("could change", vec![without(ALL_SEALS)]),
        ("no ring's", vec![file(0, false, LAYOUT, ALL_SEALS)]),
        ("no ring's", vec![file(4096, true, LAYOUT, ALL_SEALS)]),
        ("no ring's", vec![file(LENGTH - 1, true, LAYOUT, ALL_SEALS)]),
        ("no ring's", vec![file(4096 + 2048, true, LAYOUT, ALL_SEALS)]),
        ("no ring's", vec![file(4096 + (64 << 20), false, LAYOUT, ALL_SEALS)]),
        ("not all pages", vec![file(LENGTH, false, LAYOUT, ALL_SEALS)]),
        ("not all pages", vec![file_with_pages_elsewhere()]),
        ("layout", vec![file(LENGTH, true, b"zcmring9", ALL_SEALS)]),
    ]
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("our descriptors").count()
}

#[test]
fn only_memory_that_cannot_change_under_us_is_mapped() {
    assert!(ShmCarrier::unwrap(vec![file(LENGTH, true, LAYOUT, ALL_SEALS)]).is_ok());
    for (word, gifts) in bad_gifts() {
        let reason = ShmCarrier::unwrap(gifts).err().unwrap_or_else(|| panic!("{word} is refused"));
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn our_memory_is_written_by_nobody_else_and_stays_as_it_is() {
    let (_ours, file) = Ours::new(64 << 10).expect("memory");
    assert!(rustix::io::pwrite(&file, b"x", 0).is_err(), "a holder of the descriptor writes");
    assert!(ftruncate(&file, 0).is_err() && ftruncate(&file, 1 << 20).is_err());
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert!(fallocate(&file, hole, 0, 4096).is_err(), "a holder of the descriptor takes pages out");
    // Nor is it a program, where the kernel knows how to say that.
    let knows = memfd_create("test", MemfdFlags::NOEXEC_SEAL).is_ok();
    let seals = rustix::fs::fcntl_get_seals(&file).expect("a memfd");
    assert_eq!(seals.contains(SealFlags::EXEC), knows);
    assert_eq!(rustix::fs::fstat(&file).expect("a file").st_mode & 0o111 == 0, knows);
    // Nor by a descriptor that is opened anew.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let mut again = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
    assert!(again.write_all(b"x").is_err());
}

/// Says `bytes` with all of `gifts`.
fn say(socket: &OwnedFd, bytes: &[u8], gifts: &[OwnedFd]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    let gifts: Vec<_> = gifts.iter().map(std::os::fd::AsFd::as_fd).collect();
    if !gifts.is_empty() {
        assert!(along.push(SendAncillaryMessage::ScmRights(&gifts)), "too many");
    }
    // It may have hung up.
    let _ = sendmsg(socket, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL);
}

/// The kind of what the other end says.
fn hear(socket: &OwnedFd) -> Option<Kind> {
    let (begun, mut head) = (Instant::now(), [0; HELLO]);
    loop {
        match rustix::net::recv(socket, &mut head, rustix::net::RecvFlags::DONTWAIT) {
            Ok((_, HELLO)) => return Hello::parse(head).ok().map(|hello| hello.kind),
            Ok(_) => return None,
            Err(_) => assert!(begun.elapsed() < Duration::from_secs(5), "nothing is said"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn connect(uri: &str) -> OwnedFd {
    let address = ShmAddress::parse(uri.strip_prefix("shm://").expect("a name")).expect("a good one");
    let soon = Instant::now() + Duration::from_secs(5);
    runtime().block_on(ShmCarrier::connect(&address, soon)).expect("somebody listens")
}

#[test]
fn a_listener_refuses_who_gives_anything_else_and_keeps_nothing_of_it() {
    let worker = Worker::new(Config::default()).expect("a worker");
    let runtime = runtime();
    let listener = runtime.block_on(Listener::bind(&worker, "shm://")).expect("listens");
    let uri = listener.uri();
    let before = descriptors();
    let many = (0..5).map(|_| file(LENGTH, true, LAYOUT, ALL_SEALS)).collect();
    let very_many = (0..60).map(|_| file(LENGTH, true, LAYOUT, ALL_SEALS)).collect();
    for (word, gifts) in bad_gifts().into_iter().chain([("five", many), ("sixty", very_many)]) {
        let socket = connect(&uri);
        say(&socket, &Kind::Request.say(4, b"data"), &gifts);
        assert_eq!(hear(&socket), Some(Kind::Refuse), "{word}");
    }
    // In two parts, each with its own.
    let socket = connect(&uri);
    let request = Kind::Request.say(4, b"data");
    for part in [&request[..5], &request[5..]] {
        say(&socket, part, &[file(LENGTH, true, LAYOUT, ALL_SEALS)]);
    }
    assert_eq!(hear(&socket), Some(Kind::Refuse));
    drop(socket);
    let begun = Instant::now();
    while descriptors() > before {
        assert!(begun.elapsed() < Duration::from_secs(5), "descriptors are left");
        std::thread::sleep(Duration::from_millis(5));
    }
    runtime.block_on(async {
        let connector = Connector::new(&worker);
        let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
        client.expect("connects").send(b"x").await.expect("sends");
        server.expect("accepts").recv().await.expect("receives");
    });
}

#[test]
fn a_connector_refuses_a_listener_that_gives_anything_else() {
    let worker = Worker::new(Config::default()).expect("a worker");
    let name = ShmAddress::Name(String::new());
    for (word, gifts) in bad_gifts() {
        let (listener, address, _) = ShmCarrier::listen(&name, 4).expect("listens");
        let answering = std::thread::spawn(move || {
            let accept = || rustix::net::accept(&listener);
            let begun = Instant::now();
            let socket = loop {
                match accept() {
                    Ok(socket) => break socket,
                    Err(_) => assert!(begun.elapsed() < Duration::from_secs(5), "nobody connects"),
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            assert_eq!(hear(&socket), Some(Kind::Request));
            say(&socket, &Kind::Accept.say(4, b""), &gifts);
            std::thread::sleep(Duration::from_millis(20));
        });
        let connecting = async { Connector::new(&worker).connect(&format!("shm://{address}")).await };
        let error = runtime().block_on(connecting).expect_err(word);
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        answering.join().expect("no panic");
    }
}

#[test]
fn who_sleeps_is_rung_for_though_another_has_found_what_came_first() {
    let mut rig = Rig::<ShmCarrier>::new();
    rig.post_receives(4);
    let message = [&Header { acknowledged: 0, frame: Frame::Send { length: 1 } }.to_bytes()[..], b"x"].concat();
    for _ in 0..2 {
        rig.queue().request_notification().expect("arms");
        // It is read before its sender has looked whether somebody sleeps.
        let peer = &mut rig.peer().carrier;
        assert!(peer.write(&[IoSlice::new(&message)], false).is_ok());
        assert_eq!(rig.ends().len(), 1);
        rig.peer().carrier.flush();
        rig.peer().write_all(&message).expect("writes");
        assert!(is_called(&rig, Duration::from_secs(5)), "it sleeps for ever");
        rig.queue().drain_events().expect("drains");
        assert_eq!(rig.ends().len(), 1);
    }
}

#[test]
fn the_end_is_told_behind_what_was_sent() {
    let (mut peer, _socket, mut carrier, gift) = ShmCarrier::ends();
    carrier.attach(gift);
    peer.write_all(b"the last").expect("writes");
    peer.hang_up();
    carrier.heed();
    let mut bytes = [0; 64];
    assert!(carrier.has_something());
    assert!(carrier.read(&mut bytes).is_ok_and(|read| bytes[..read] == *b"the last"));
    assert!(carrier.has_something(), "the end");
    assert!(matches!(carrier.read(&mut bytes), Err(Halt::Lost(error)) if error.kind() == ErrorKind::PeerClosed));
    let lost = carrier.write(&[IoSlice::new(b"x")], false);
    assert!(matches!(lost, Err(Halt::Lost(error)) if error.kind() == ErrorKind::PeerClosed));
}

#[test]
fn a_peer_that_scribbles_over_its_memory_loses_its_connection_and_nothing_else() {
    for (word, value) in
        [(Word::Sent, u64::MAX), (Word::Sent, 1 << 40), (Word::Received, 1 << 40), (Word::Received, u64::MAX / 2)]
    {
        let mut rig = Rig::<ShmCarrier>::new();
        rig.peer().carrier.scribble(word, value);
        // Nobody looks at how much it has received until there is something to send, and little room.
        rig.post_sends(16, 1 << 19);
        let ended = rig.ends();
        let broken = ended.iter().find_map(|ended| match &ended.result {
            Err(Failure::Broken(error)) => Some(error),
            _ => None,
        });
        let error = broken.unwrap_or_else(|| panic!("{word:?} {value:#x} breaks it"));
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains("its memory says"), "{error}");
    }
    // Where it is, and what it is to be rung for, can be anything.
    let mut rig = Rig::<ShmCarrier>::new();
    for value in [u64::MAX, 0, 3, 1 << 63] {
        rig.peer().carrier.scribble(Word::Doze, value);
        assert!(settle(rig.queue()).is_empty());
        rig.queue().request_notification().expect("arms");
    }
}
