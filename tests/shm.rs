//! Over shared memory, on any host: who may listen and connect where, strangers, and what is left behind.

mod common;

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Peer, aside, run, say, serves};
use zcmi::{Config, Connector, Error, ErrorKind, Listener, Polling, Worker};

const SOON: Duration = Duration::from_secs(20);

/// A name that no other test has.
fn name(of: &str) -> String {
    format!("test-{of}-{}", std::process::id())
}

/// The abstract address that a name is.
fn abstract_address(uri: &str) -> SocketAddr {
    let name = uri.strip_prefix("shm://").expect("a name");
    SocketAddr::from_abstract_name(format!("zcmi/{name}")).expect("not too long")
}

/// A folder of the test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(of: &str) -> Self {
        let path = std::env::temp_dir().join(name(of));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn socket(&self) -> (PathBuf, String) {
        let path = self.0.join("socket");
        let uri = format!("shm://{}", path.display());
        (path, uri)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("our descriptors").count()
}

fn is_named(uri: &str) -> bool {
    let name = format!("@zcmi/{}", uri.strip_prefix("shm://").expect("a name"));
    std::fs::read_to_string("/proc/net/unix").expect("the kernel's table").lines().any(|line| line.ends_with(&name))
}

/// Waits until that is so.
fn soon(mut is_so: impl FnMut() -> bool, what: &str) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_is_of_its_user_alone_and_goes_with_its_listener() {
    run(async {
        let (folder, worker) = (Folder::new("file"), common::worker());
        let (path, uri) = folder.socket();
        let listener = Listener::bind(&worker, &uri).await.expect("listens");
        assert_eq!(listener.uri(), uri);
        let metadata = std::fs::metadata(&path).expect("it is there");
        assert!(metadata.file_type().is_socket() && metadata.permissions().mode() & 0o777 == 0o600);
        serves(&worker, &listener).await;
        let error = Listener::bind(&worker, &uri).await.expect_err("somebody listens there");
        assert_eq!(error.kind(), ErrorKind::AddressInUse, "{error}");
        assert!(error.hint().is_some_and(|hint| !hint.contains("port")), "{error}");
        serves(&worker, &listener).await;
        drop(listener);
        assert!(!path.exists(), "it is left");
        serves(&worker, &Listener::bind(&worker, &uri).await.expect("the path is free")).await;
    });
}

#[test]
fn a_file_that_nobody_listens_at_is_replaced_and_nothing_else_is() {
    run(async {
        let (folder, worker) = (Folder::new("stale"), common::worker());
        let (path, uri) = folder.socket();
        // What a process leaves that was killed.
        drop(UnixListener::bind(&path).expect("binds"));
        assert!(path.exists());
        let listener = Listener::bind(&worker, &uri).await.expect("nobody listens there");
        serves(&worker, &listener).await;
        // One that somebody has put in its place stays.
        std::fs::remove_file(&path).expect("it was there");
        let _other = UnixListener::bind(&path).expect("binds");
        drop(listener);
        assert!(path.exists(), "another's was removed");
        std::fs::remove_file(&path).expect("it is there");
        std::fs::write(&path, b"precious").expect("writes");
        let error = Listener::bind(&worker, &uri).await.expect_err("a file is there");
        assert_eq!(error.kind(), ErrorKind::AddressInUse, "{error}");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"precious");
    });
}

#[test]
fn of_many_that_replace_a_stale_file_one_listens() {
    let folder = Folder::new("race");
    let (path, uri) = folder.socket();
    let start = std::sync::Barrier::new(4);
    for _ in 0..100 {
        drop(UnixListener::bind(&path).expect("binds"));
        let bind = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let worker = common::worker();
            start.wait();
            runtime.block_on(Listener::bind(&worker, &uri)).map_err(|error| error.kind())
        };
        let bound: Vec<_> = std::thread::scope(|scope| {
            let binding: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
            binding.into_iter().map(|binding| binding.join().expect("no panic")).collect()
        });
        let (listening, others): (Vec<_>, Vec<_>) = bound.into_iter().partition(Result::is_ok);
        assert_eq!(listening.len(), 1, "{others:?}");
        assert!(others.into_iter().all(|other| other.is_err_and(|kind| kind == ErrorKind::AddressInUse)));
        UnixStream::connect(&path).expect("who listens can be reached");
    }
}

#[test]
fn a_name_is_free_with_its_listener_and_one_is_chosen_where_none_is_given() {
    run(async {
        let worker = common::worker();
        let uri = format!("shm://{}", name("name"));
        let listener = Listener::bind(&worker, &uri).await.expect("listens");
        let error = Listener::bind(&worker, &uri).await.expect_err("somebody listens there");
        assert_eq!((error.kind(), error.device()), (ErrorKind::AddressInUse, Some("shm")), "{error}");
        assert!(error.to_string().contains(&uri), "{error}");
        serves(&worker, &listener).await;
        drop(listener);
        drop(Listener::bind(&worker, &uri).await.expect("the name is free"));
        let (one, other) = (Listener::bind(&worker, "shm://").await, Listener::bind(&worker, "shm://").await);
        let (one, other) = (one.expect("listens"), other.expect("listens"));
        assert_ne!(one.uri(), other.uri());
        serves(&worker, &one).await;
        let uri = one.uri();
        assert!(is_named(&uri));
        drop((one, other));
        aside(move || soon(|| !is_named(&uri), "the name is left")).await;
    });
}

async fn refused(uri: &str) -> Error {
    Connector::new(&common::worker()).connect(uri).await.expect_err("nobody listens there")
}

#[test]
fn where_nobody_listens_a_connection_is_refused_at_once() {
    run(async {
        let folder = Folder::new("nobody");
        let (path, uri) = folder.socket();
        for uri in [uri.clone(), format!("shm://{}", name("nobody"))] {
            let error = refused(&uri).await;
            assert_eq!((error.kind(), error.operation()), (ErrorKind::ConnectionRefused, "connect"), "{error}");
            assert!(error.peer().is_some_and(|peer| uri.ends_with(peer)) && error.device() == Some("shm"), "{error}");
            assert!(error.hint().is_some_and(|hint| !hint.contains("port")), "{error}");
        }
        drop(UnixListener::bind(&path).expect("binds"));
        assert_eq!(refused(&uri).await.kind(), ErrorKind::ConnectionRefused);
        let error = refused("shm://a/b").await;
        assert_eq!(error.kind(), ErrorKind::AddressInvalid, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("shm://NAME")), "{error}");
    });
}

#[test]
fn who_listens_and_does_not_speak_zcmi_is_told_from_who_says_nothing() {
    run(async {
        let uri = format!("shm://{}", name("other"));
        let listener = UnixListener::bind_addr(&abstract_address(&uri)).expect("listens");
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepts");
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            // Nobody takes up the others.
            std::thread::sleep(Duration::from_secs(3));
        });
        let error = refused(&uri).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains("does not speak zcmi"), "{error}");
        let config = Config { connect_timeout: Duration::from_secs(1), ..Config::default() };
        let (begun, connector) = (Instant::now(), Connector::new(&Worker::new(config).expect("valid")));
        let error = connector.connect(&uri).await.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!((900..2500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        aside(move || answering.join().expect("no panic")).await;
    });
}

#[test]
fn a_listener_that_is_full_is_waited_for_and_then_given_up() {
    run(async {
        let uri = format!("shm://{}", name("full"));
        let address = abstract_address(&uri);
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let family = rustix::net::AddressFamily::UNIX;
        let full = rustix::net::socket_with(family, rustix::net::SocketType::STREAM, flags, None).expect("a socket");
        let place = rustix::net::SocketAddrUnix::new_abstract_name(address.as_abstract_name().expect("a name"));
        rustix::net::bind(&full, &place.expect("not too long")).expect("binds");
        rustix::net::listen(&full, 0).expect("listens");
        let _first = UnixStream::connect_addr(&address).expect("there is room for one");
        let config = Config { connect_timeout: Duration::from_secs(1), ..Config::default() };
        let (begun, connector) = (Instant::now(), Connector::new(&Worker::new(config).expect("valid")));
        let error = connector.connect(&uri).await.expect_err("nobody takes it up");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!((900..2500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    });
}

#[test]
fn strangers_cost_a_listener_nothing_but_a_warning() {
    run(async {
        let worker = Worker::new(Config { backlog: 8, ..Config::default() }).expect("valid");
        let listener = Listener::bind(&worker, "shm://").await.expect("listens");
        serves(&worker, &listener).await;
        let address = abstract_address(&listener.uri());
        let before = aside(descriptors).await;
        for (bytes, count) in [(&[0xff; 600][..], 3), (b"zcmt\x01\x00", 2), (b"GET / HTTP/1.1\r\n\r\n", 2), (b"", 20)] {
            for _ in 0..count {
                let mut stranger = UnixStream::connect_addr(&address).expect("connects");
                let _ = stranger.write_all(bytes);
            }
        }
        let silent: Vec<_> = (0..20).map(|_| UnixStream::connect_addr(&address).expect("connects")).collect();
        let refused = |mut stream: &UnixStream| {
            stream.set_read_timeout(Some(Duration::from_millis(500))).expect("sets");
            stream.read(&mut [0; 64]).is_ok_and(|read| read > 0)
        };
        let told = aside(move || silent.iter().filter(|stream| refused(stream)).count()).await;
        assert!(told >= 12, "{told} of 20 were told that there is no room");
        serves(&worker, &listener).await;
        aside(move || soon(|| descriptors() <= before, "descriptors are left")).await;
        serves(&worker, &listener).await;
    });
}

#[test]
fn a_process_of_another_user_is_refused_at_either_end() {
    // Only root can become another user.
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: this needs root");
        return;
    }
    run(async {
        let worker = common::worker();
        let listener = Listener::bind(&worker, "shm://").await.expect("listens");
        let nobody = |role: &str| {
            let copy = Folder::new(role);
            let program = copy.0.join("program");
            std::fs::copy(std::env::current_exe().expect("our own path"), &program).expect("copies");
            let readable = || std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&copy.0, readable()).expect("sets");
            std::fs::set_permissions(&program, readable()).expect("sets");
            let mut command = Command::new(program);
            command.args(["--exact", "peer", "--nocapture", "--test-threads=1"]).current_dir("/");
            command.env("ZCMI_TEST_PEER", role).uid(65534).gid(65534);
            (Peer::spawn(command), copy)
        };
        let (mut stranger, _copy) = nobody("connects");
        let said = aside({
            let uri = listener.uri();
            move || stranger.ask(&uri)
        });
        // Whoever accepts hears nothing of it.
        let accepted = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
        assert!(accepted.is_err(), "a stranger was accepted");
        let said = said.await;
        // The stranger's library has looked itself; who does not look is told, whatever it says.
        assert_eq!(said, "PermissionDenied, and refused");
        serves(&worker, &listener).await;

        let (stranger, _copy) = nobody("listens");
        let uri = stranger.hear();
        let error = refused(&uri).await;
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("user 65534"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("same user")), "{error}");
    });
}

#[test]
fn what_a_killed_process_has_sent_is_received_and_nothing_is_left_of_it() {
    run(async {
        let worker = common::worker();
        // What the process keeps is there by now.
        serves(&worker, &Listener::bind(&worker, "shm://").await.expect("listens")).await;
        let before = aside(what_there_is_settled).await;
        let mut peer = Peer::start("dies");
        let uri = peer.hear();
        let connection = Connector::new(&worker).connect(&uri).await.expect("connects");
        assert!(is_named(&uri));
        // It sends as soon as it hears this, and kills itself at once.
        peer.tell("die");
        tokio::time::sleep(Duration::from_millis(300)).await;
        for number in 0..50u8 {
            assert_eq!(*connection.recv().await.expect("it was sent"), [number; 100]);
        }
        let begun = Instant::now();
        let error = connection.recv().await.expect_err("it is dead");
        assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(!is_named(&uri), "its name is left");
        drop((connection, peer));
        aside(move || soon(|| what_there_is() == before, "something is left")).await;
        serves(&worker, &Listener::bind(&worker, "shm://").await.expect("listens")).await;
    });
}

#[test]
fn busy_threads_learn_that_a_peer_was_killed() {
    run(async {
        let config = Config { polling: Polling::Busy, ..Config::default() };
        let worker = Worker::new(config).expect("valid settings");
        let peers = [Peer::start("dies"), Peer::start("dies"), Peer::start("dies")];
        let mut threads = Vec::new();
        for peer in &peers {
            let connection = Connector::new(&worker).connect(&peer.hear()).await.expect("connects");
            // Each polls all the time, so the worker is hardly ever free.
            threads.push(std::thread::spawn(move || {
                let error = common::block_on(connection.recv()).expect_err("it is dead");
                (error, Instant::now())
            }));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let killed = Instant::now();
        peers.into_iter().for_each(Peer::kill);
        let join = move || threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>();
        for (error, told) in aside(join).await {
            assert_eq!(error.kind(), ErrorKind::ConnectionBroken, "{error}");
            // With the next look after the queue, which is every 25 ms, whoever takes it.
            assert!(told < killed + Duration::from_millis(300), "after {:?}", told - killed);
        }
    });
}

/// Files in the folder of shared memory, and how many rings we have a descriptor of, or mapped.
fn what_there_is() -> (Vec<PathBuf>, usize, usize) {
    let entries =
        |folder: &str| std::fs::read_dir(Path::new(folder)).into_iter().flatten().flatten().map(|file| file.path());
    let mut files: Vec<_> = entries("/dev/shm").collect();
    files.sort();
    let links = entries("/proc/self/fd").filter_map(|path| std::fs::read_link(path).ok());
    (files, links.filter(|link| link.to_string_lossy().contains("zcmi-ring")).count(), rings())
}

/// The same, when what ends in the background has ended.
fn what_there_is_settled() -> (Vec<PathBuf>, usize, usize) {
    let mut last = what_there_is();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = what_there_is();
        if std::mem::replace(&mut last, now.clone()) == now {
            return now;
        }
    }
}

#[test]
fn a_peer_that_is_stopped_is_unresponsive_and_not_unreachable() {
    run(async {
        let config =
            Config { heartbeat: Duration::from_millis(200), peer_timeout: Duration::from_secs(1), ..Config::default() };
        let peer = Peer::start("dies");
        let connector = Connector::new(&Worker::new(config).expect("valid"));
        let connection = connector.connect(&peer.hear()).await.expect("connects");
        peer.signal(rustix::process::Signal::STOP);
        let error = connection.recv().await.expect_err("it is stopped");
        assert_eq!(error.kind(), ErrorKind::Unresponsive, "{error}");
        peer.signal(rustix::process::Signal::CONT);
    });
}

#[test]
fn nothing_is_left_of_connections_that_have_ended() {
    run(async {
        let worker = common::worker();
        let listener = Listener::bind(&worker, "shm://").await.expect("listens");
        serves(&worker, &listener).await;
        let settled = || {
            std::thread::sleep(Duration::from_millis(300));
            (descriptors(), rings())
        };
        let before = aside(settled).await;
        for _ in 0..20 {
            serves(&worker, &listener).await;
        }
        aside(move || soon(|| descriptors() <= before.0 && rings() <= before.1, "something is left")).await;
    });
}

/// Mappings of rings.
fn rings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("our mappings");
    maps.lines().filter(|line| line.contains("zcmi-ring")).count()
}

/// The other process of the tests.
#[test]
fn peer() {
    let Some(role) = common::role() else { return };
    common::play(async {
        let mut told = common::told();
        match role.as_str() {
            "connects" => {
                let uri = told.recv().await.expect("an address");
                let error = Connector::new(&common::worker()).connect(&uri).await.expect_err("it is another's");
                let mut stream = UnixStream::connect_addr(&abstract_address(&uri)).expect("connects");
                let (mut answer, refusal) = (Vec::new(), 3);
                stream.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
                stream.read_to_end(&mut answer).expect("an answer and an end");
                let is_refused = answer.get(5) == Some(&refusal);
                say(format_args!("{:?}, and {}", error.kind(), if is_refused { "refused" } else { "let in" }));
            }
            "listens" => {
                let listener = Listener::bind(&common::worker(), "shm://").await.expect("listens");
                say(listener.uri());
                tokio::select! {
                    _ = listener.accept() => panic!("a stranger was accepted"),
                    _ = told.recv() => {}
                }
            }
            "dies" => {
                let listener = Listener::bind(&common::worker(), "shm://").await.expect("listens");
                say(listener.uri());
                let connection = listener.accept().await.expect("accepts");
                if told.recv().await.is_none() {
                    return;
                }
                for number in 0..50u8 {
                    connection.send(&[number; 100]).await.expect("sends");
                }
                connection.flush().await.expect("flushes");
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("dies");
            }
            other => panic!("unknown role {other}"),
        }
    });
}

#[test]
fn who_is_refused_before_it_is_heard_is_told_why() {
    run(async {
        let worker = Worker::new(Config { backlog: 1, ..Config::default() }).expect("valid settings");
        let listener = Listener::bind(&worker, "shm://").await.expect("listens");
        // It says nothing, and there is room for one such.
        let silent = UnixStream::connect_addr(&abstract_address(&listener.uri())).expect("connects");
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..20 {
            let error = Connector::new(&worker).connect(&listener.uri()).await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        }
        drop(silent);
    });
}
