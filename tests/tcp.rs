//! Over TCP, on any host: strangers, hosts that do not answer, IPv6, and what is left behind.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::{aside, run, serves};
use zcmi::{Access, Answer, Buffer, Config, Connector, Error, ErrorKind, Listener, RemoteBuffer, Worker};

const SOON: Duration = Duration::from_secs(20);

async fn listen(worker: &Worker) -> Listener {
    Listener::bind(worker, "tcp://127.0.0.1:0").await.expect("listens")
}

/// Connects to a listener of plain TCP that does `answer`, which must fail.
async fn fails(answer: impl FnOnce(TcpStream) + Send + 'static) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let uri = format!("tcp://{}", listener.local_addr().expect("an address"));
    let answering = std::thread::spawn(move || answer(listener.accept().expect("accepts").0));
    let worker = Worker::new(Config { connect_timeout: Duration::from_secs(2), ..Config::default() }).expect("valid");
    let error = Connector::new(&worker).connect(&uri).await.expect_err("nobody of ours listens there");
    assert_eq!((error.operation(), error.device()), ("connect", Some("tcp")), "{error}");
    assert!(error.peer().is_some_and(|peer| uri.ends_with(peer)), "{error}");
    aside(move || answering.join().expect("no panic")).await;
    error
}

#[test]
fn who_listens_and_does_not_speak_zcmi_is_told_from_who_says_nothing() {
    run(async {
        let error = fails(|mut stream| {
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains("does not speak zcmi"), "{error}");
        let error = fails(drop).await;
        assert_eq!(error.kind(), ErrorKind::PeerClosed, "{error}");
        let begun = Instant::now();
        let error = fails(|mut stream| while stream.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}).await;
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(error.hint().is_some_and(|hint| !hint.contains("UDP")), "{error}");
        assert!((2..6).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_host_that_does_not_answer_is_given_up_in_time() {
    run(async {
        // One whose queue is full drops what asks.
        let full = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)
            .expect("a socket");
        rustix::net::bind(&full, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("binds");
        rustix::net::listen(&full, 0).expect("listens");
        let address = SocketAddr::try_from(rustix::net::getsockname(&full).expect("bound")).expect("an address");
        let mut fillers = Vec::new();
        while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            fillers.push(filler);
            assert!(fillers.len() < 100, "its queue is never full");
        }
        let config = Config { connect_timeout: Duration::from_secs(1), ..Config::default() };
        let begun = Instant::now();
        let connector = Connector::new(&Worker::new(config).expect("valid"));
        let error = connector.connect(&format!("tcp://{address}")).await.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!((1..4).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    });
}

#[test]
fn strangers_cost_a_listener_nothing_but_a_warning() {
    run(async {
        let worker = Worker::new(Config { backlog: 8, ..Config::default() }).expect("valid");
        let listener = listen(&worker).await;
        serves(&worker, &listener).await;
        let address = listener.local_address();
        let before = common::aside(descriptors).await;
        // Noise, a part of an introduction, somebody who asks and goes, nothing at all: more of the last than may wait.
        for (bytes, count) in [(&[0xff; 600][..], 3), (b"zcmt\x01\x00", 2), (b"GET / HTTP/1.1\r\n\r\n", 2), (b"", 20)] {
            for _ in 0..count {
                let mut stranger = TcpStream::connect(address).expect("connects");
                let _ = stranger.write_all(bytes);
            }
        }
        let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(address).expect("connects")).collect();
        // Those that are too many are told so; with the others gone there is room again.
        let refused = |mut stream: &TcpStream| {
            stream.set_read_timeout(Some(Duration::from_millis(500))).expect("sets");
            stream.read(&mut [0; 64]).is_ok_and(|read| read > 0)
        };
        let told = aside(move || silent.iter().filter(|stream| refused(stream)).count()).await;
        assert!(told >= 12, "{told} of 20 were told that there is no room");
        serves(&worker, &listener).await;
        aside(move || {
            let begun = Instant::now();
            while descriptors() > before {
                assert!(begun.elapsed() < SOON, "{} descriptors, before {before}", descriptors());
                std::thread::sleep(Duration::from_millis(20));
            }
        })
        .await;
    });
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

#[test]
fn ipv6_and_names_reach_a_listener_and_its_filter() {
    run(async {
        let worker = Worker::new(Config::default()).expect("valid");
        let listener = Listener::bind(&worker, "tcp://[::1]:0").await.expect("listens").filter(|request| match request
            .private_data()
        {
            b"please" => Answer::AcceptWith(b"welcome".to_vec()),
            _ => Answer::Refuse("say please".to_owned()),
        });
        assert!(listener.uri().starts_with("tcp://[::1]:"), "{}", listener.uri());
        let (connector, uri) = (Connector::new(&worker), listener.uri());
        let accepting = async {
            let server = listener.accept().await.expect("accepts");
            assert_eq!(server.private_data(), b"please");
            server
        };
        let connecting = async {
            let error = connector.connect(&uri).await.expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
            assert!(error.to_string().contains("say please"), "{error}");
            connector.connect_with(&uri, b"please").await.expect("connects")
        };
        let (server, client) = tokio::join!(accepting, connecting);
        assert_eq!((client.private_data(), client.transport(), client.device()), (&b"welcome"[..], "tcp", "tcp"));
        let (sent, received) = tokio::join!(client.send(&[7; 100_000]), server.recv());
        sent.expect("sends");
        assert_eq!(received.expect("receives")[..], [7; 100_000]);
        let port = uri.rsplit_once(':').expect("a port").1;
        let error = connector.connect(&format!("tcp://no-such-host.invalid:{port}")).await.expect_err("no such name");
        assert_eq!(error.kind(), ErrorKind::AddressInvalid, "{error}");
    });
}

/// The owner's thread does nothing for its connections, and then nothing at all.
#[test]
fn memory_is_accessed_while_its_owner_computes() {
    run(async {
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let owner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let (said, hears) = std::sync::mpsc::channel();
            let computing = std::thread::spawn(move || {
                runtime.block_on(async {
                    let worker = Worker::new(Config::default()).expect("valid");
                    let listener = listen(&worker).await;
                    said.send(listener.uri()).expect("heard");
                    let connection = listener.accept().await.expect("accepts");
                    let exposed = Buffer::allocate(1 << 20).expect("memory").expose();
                    let grant = exposed.grant(&connection, 0..1 << 20, Access::ALL).await.expect("grants");
                    connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
                    // Until the other end has done all: its thread is blocked.
                    let _ = finished.recv();
                    let mut seen = vec![0; 1 << 20];
                    exposed.read_at(0, &mut seen);
                    seen
                })
            });
            (hears.recv().expect("an address"), computing)
        });
        let (uri, computing) = owner.join().expect("no panic");
        let connection =
            Connector::new(&Worker::new(Config::default()).expect("valid")).connect(&uri).await.expect("connects");
        let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
        let mut buffer = Buffer::allocate(1 << 20).expect("memory");
        let mut slowest = Duration::ZERO;
        for iteration in 0..20 {
            common::fill(&mut buffer, 5, iteration);
            let begun = Instant::now();
            buffer = connection.write(buffer, &handle).await.expect("writes");
            buffer.fill(0);
            buffer = connection.read(buffer, &handle).await.expect("reads");
            slowest = slowest.max(begun.elapsed());
            assert!(buffer[..] == common::pattern(5, iteration, 1 << 20)[..]);
        }
        drop(finish);
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
        let seen = aside(move || computing.join().expect("no panic")).await;
        assert!(seen == common::pattern(5, 19, 1 << 20));
    });
}
