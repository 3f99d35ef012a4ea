//! Peers that fall silent, on a real device: who waits is told within seconds, and who is only idle is left alone.

#![allow(unsafe_code, reason = "a counting allocator; each block carries its proof")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Peer, aside, device_address, listen, on_device, pair, play, role, say, still_works, told};
use rustix::process::Signal;
use zcmi::{Access, Buffer, Config, Connection, Connector, Error, ErrorKind, RemoteBuffer, Worker};

/// Within this a silent peer must be noticed with the default settings.
const BOUND: Duration = Duration::from_secs(5);

/// The other process: accepts so many connections, exposes memory on each, and says how each ended.
#[test]
fn peer() {
    let Some(part) = role() else { return };
    let count: usize = part.parse().expect("the number of connections");
    play(async {
        let worker = Worker::new(Config::default()).expect("valid settings");
        let listener = listen(&worker, &device_address().expect("the test has found it")).await;
        say(listener.uri());
        let mut told = told();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            let connection = listener.accept().await.expect("accepts");
            tasks.spawn(async move {
                let exposed = Buffer::allocate(1 << 16).expect("memory").expose();
                let grant = exposed.grant(&connection, 0..1 << 16, Access::READ_WRITE).await.expect("grants");
                connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
                loop {
                    match connection.recv().await {
                        Ok(message) if &*message == b"echo" => connection.send(&message).await.expect("sends"),
                        Ok(_) => {}
                        Err(error) => return say(format!("{:?}", error.kind())),
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        drop(told.recv().await);
    });
}

async fn connect(uri: &str, config: &Config) -> (Connection, RemoteBuffer) {
    let worker = Worker::new(config.clone()).expect("valid settings");
    let connection = Connector::new(&worker).connect(uri).await.expect("connects");
    let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
    (connection, handle)
}

fn is_unresponsive(error: &Error, operation: &str, begun: Instant) {
    let text = error.to_string();
    eprintln!("{:?}: {text}", begun.elapsed());
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Unresponsive, operation), "{text}");
    assert!(error.hint().is_some() && error.peer().is_some(), "{text}");
    assert!(begun.elapsed() < BOUND, "{:?}: {text}", begun.elapsed());
}

#[test]
fn a_stopped_process_is_reported_to_all_who_wait_for_it() {
    on_device(|address| async move {
        let peer = Peer::start("3");
        let (uri, config) = (peer.hear(), Config::default());
        let (receiving, _) = connect(&uri, &config).await;
        let (sending, _) = connect(&uri, &config).await;
        let (reading, handle) = connect(&uri, &config).await;
        peer.signal(Signal::STOP);
        let begun = Instant::now();
        let receive = async {
            is_unresponsive(&receiving.recv().await.expect_err("nothing comes"), "receive", begun);
        };
        let send = async {
            loop {
                if let Err(error) = sending.send(&[7; 1000]).await {
                    return is_unresponsive(&error, "send", begun);
                }
            }
        };
        // Its device answers all the time, and so the reads.
        let read = async {
            let mut buffer = Buffer::allocate(1000).expect("memory");
            loop {
                match reading.read(buffer, &handle).await {
                    Ok(read) => buffer = read,
                    Err(failed) => return is_unresponsive(&failed.error, "read", begun),
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::join!(receive, send, read);
        assert!(peer.is_stopped(), "it was stopped all the time");
        peer.signal(Signal::CONT);
        let (peer, ends) = aside(move || {
            let ends = [peer.hear(), peer.hear(), peer.hear()];
            (peer, ends)
        })
        .await;
        assert_eq!(ends, ["ConnectionBroken"; 3], "what the peer sees when it goes on");
        assert!(peer.finish().success());
        still_works(&address).await;
    });
}

#[test]
fn without_heartbeat_a_stopped_peer_keeps_its_connection() {
    on_device(|_| async {
        let peer = Peer::start("1");
        let config = Config { heartbeat: Duration::ZERO, peer_timeout: Duration::from_secs(1), ..Config::default() };
        let (connection, _) = connect(&peer.hear(), &config).await;
        peer.signal(Signal::STOP);
        let waited = tokio::time::timeout(Duration::from_secs(6), connection.recv()).await;
        assert!(waited.is_err(), "nothing has come, and nothing has ended");
        peer.signal(Signal::CONT);
        connection.send(b"echo").await.expect("sends");
        assert_eq!(&*connection.recv().await.expect("receives"), b"echo");
        drop(connection);
        assert!(peer.finish().success());
    });
}

#[test]
fn an_idle_connection_lives_and_costs_no_memory() {
    on_device(|address| async move {
        let config =
            Config { heartbeat: Duration::from_millis(200), peer_timeout: Duration::from_secs(2), ..Config::default() };
        let (here, there) = (Worker::new(config.clone()).expect("valid"), Worker::new(config).expect("valid"));
        let listener = listen(&there, &address).await;
        let (uri, connector) = (listener.uri(), Connector::new(&here));
        let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
        let (client, server) = (client.expect("connects"), server.expect("accepts"));
        // Nobody drives them meanwhile.
        std::thread::sleep(Duration::from_secs(2));
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(10));
        let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocated, 0, "allocations of all threads in 10 s of heartbeats");
        client.send(b"still here").await.expect("sends");
        assert_eq!(&*server.recv().await.expect("receives"), b"still here");
        server.send(b"here too").await.expect("sends");
        assert_eq!(&*client.recv().await.expect("receives"), b"here too");
    });
}

/// What waits behind a long transfer is no silence: its own thread does not answer, nor does a ping overtake.
#[test]
fn a_busy_connection_is_not_given_up() {
    on_device(|address| async move {
        let config = Config {
            heartbeat: Duration::from_millis(50),
            peer_timeout: Duration::from_millis(400),
            ..Config::default()
        };
        let (client, server) = pair(&Worker::new(config).expect("valid"), &address).await;
        let length = 96 << 20;
        let sending = async {
            client.send_owned(Buffer::allocate(length).expect("memory")).await.expect("sends");
        };
        let receiving = async {
            assert_eq!(server.recv().await.expect("receives").len(), length);
        };
        let begun = Instant::now();
        tokio::join!(sending, receiving);
        eprintln!("{length} bytes in {:?}", begun.elapsed());
    });
}

/// The heap allocations of all threads.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
