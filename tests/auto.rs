//! `auto://`: which way is taken, why the others are not, and that the next one is where one fails.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{Peer, run, say};
use zcmi::{Answer, Config, Connection, Connector, ErrorKind, Listener, TransportChoice, Worker};

const ANYWHERE: &str = "auto://127.0.0.1:0";

fn worker(transport: TransportChoice) -> Worker {
    Worker::new(Config { transport, ..Config::default() }).expect("valid settings")
}

fn any_worker() -> Worker {
    worker(TransportChoice::Auto)
}

async fn pair(connector: &Worker, listener: &Listener, uri: &str) -> (Connection, Connection) {
    let connector = Connector::new(connector);
    let (client, server) = tokio::join!(connector.connect(uri), listener.accept());
    (client.expect("connects"), server.expect("accepts"))
}

async fn converse(client: &Connection, server: &Connection) {
    client.send(b"there").await.expect("sends");
    assert_eq!(&*server.recv().await.expect("receives"), b"there");
    // A long one is sent when it is taken.
    let (sent, received) = tokio::join!(server.send(&[7; 100_000]), client.recv());
    sent.expect("sends");
    assert_eq!(&*received.expect("receives"), [7; 100_000]);
}

/// The reason for which `transport` was passed over.
fn reason<'a>(connection: &'a Connection, transport: &str) -> &'a str {
    let of = |why: &&String| why.starts_with(&format!("{transport}: "));
    connection.passed_over().iter().find(of).map_or("", |why| &why[transport.len() + 2..])
}

/// Between a client and a listener: all that goes through is passed on, the offer with another name for shared memory.
fn with_another_name(listener: SocketAddr, name: &'static str) -> SocketAddr {
    let front = TcpListener::bind((listener.ip(), 0)).expect("a port");
    let address = front.local_address_of();
    std::thread::spawn(move || {
        for client in front.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(listener).expect("the listener is there");
            let ways =
                [(client.try_clone(), server.try_clone(), false), (server.try_clone(), client.try_clone(), true)];
            for (from, to, is_answer) in ways {
                let (mut from, mut to) = (from.expect("a copy"), to.expect("a copy"));
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        // Kind 5 of an introduction: 16 bytes, then boot id, port and length of the name, 20 in all.
                        if is_answer && bytes.starts_with(b"zcmt") && bytes[5] == 5 {
                            let old = &mut bytes[36..count];
                            old.copy_from_slice(&name.as_bytes().repeat(old.len())[..old.len()]);
                        }
                        if to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    address
}

trait LocalAddress {
    fn local_address_of(&self) -> SocketAddr;
}

impl LocalAddress for TcpListener {
    fn local_address_of(&self) -> SocketAddr {
        self.local_addr().expect("an address")
    }
}

#[test]
fn two_processes_of_a_host_meet_in_shared_memory() {
    if common::role().is_some() {
        return common::play(async {
            let listener = Listener::bind(&any_worker(), ANYWHERE).await.expect("listens");
            say(listener.uri());
            let connection = listener.accept().await.expect("accepts");
            assert!(connection.passed_over().is_empty());
            let message = connection.recv().await.expect("receives");
            connection.send(&[&message, connection.transport().as_bytes()].concat()).await.expect("sends");
            connection.close().await.expect("closes");
        });
    }
    let peer = Peer::start_test("two_processes_of_a_host_meet_in_shared_memory", "listens");
    run(async move {
        let uri = peer.hear();
        let connection = Connector::new(&any_worker()).connect(&uri).await.expect("connects");
        assert_eq!(connection.transport(), "shm", "{:?}", connection.passed_over());
        connection.send(b"by ").await.expect("sends");
        assert_eq!(&*connection.recv().await.expect("receives"), b"by shm");
    });
}

#[test]
fn the_settings_of_either_end_choose() {
    run(async {
        let (any, tcp) = (any_worker(), worker(TransportChoice::Tcp));
        let listener = Listener::bind(&any, ANYWHERE).await.expect("listens");
        let (client, server) = pair(&tcp, &listener, &listener.uri()).await;
        assert_eq!([client.transport(), server.transport()], ["tcp"; 2]);
        assert_eq!(reason(&client, "shm"), "the settings say otherwise");
        converse(&client, &server).await;

        let listener = Listener::bind(&tcp, ANYWHERE).await.expect("listens");
        let (client, server) = pair(&any, &listener, &listener.uri()).await;
        assert_eq!([client.transport(), server.transport()], ["tcp"; 2]);
        assert_eq!(reason(&client, "shm"), "the peer does not offer it");
        converse(&client, &server).await;
    });
}

#[test]
fn what_excludes_each_other_is_said() {
    run(async {
        let listener = Listener::bind(&worker(TransportChoice::Tcp), ANYWHERE).await.expect("listens");
        let shm = Connector::new(&worker(TransportChoice::Shm));
        let error = shm.connect(&listener.uri()).await.expect_err("there is no way");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("shm: the peer does not offer it"), "{error}");

        // Who takes TCP where the listener does not is refused by it.
        let listener = Listener::bind(&worker(TransportChoice::Shm), ANYWHERE).await.expect("listens");
        let (tcp, uri) = (Connector::new(&worker(TransportChoice::Tcp)), listener.uri());
        let refused = async { tcp.connect(&uri).await.expect_err("refused") };
        let error = tokio::select! {
            error = refused => error,
            _ = listener.accept() => panic!("it was accepted"),
        };
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.to_string().contains("exclude"), "{error}");
    });
}

#[test]
fn where_the_socket_is_not_reached_the_next_way_is_taken() {
    run(async {
        let worker = any_worker();
        let listener = Listener::bind(&worker, ANYWHERE).await.expect("listens");
        let front = with_another_name(listener.local_address(), "nobody.listens.here");
        let (client, server) = pair(&worker, &listener, &format!("auto://{front}")).await;
        // A device may serve the loopback address too.
        let next = if reason(&client, "verbs").is_empty() { "verbs" } else { "tcp" };
        assert_eq!([client.transport(), server.transport()], [next; 2]);
        assert!(reason(&client, "shm").contains("refused"), "{:?}", client.passed_over());
        converse(&client, &server).await;
    });
}

#[test]
fn with_a_device_verbs_come_before_tcp() {
    common::on_rdma(|address| async move {
        let (any, verbs) = (any_worker(), worker(TransportChoice::Verbs));
        let listener = Listener::bind(&any, &format!("auto://{address}:0")).await.expect("listens");
        let (client, server) = pair(&verbs, &listener, &listener.uri()).await;
        assert_eq!([client.transport(), server.transport()], ["verbs"; 2]);
        assert_eq!(reason(&client, "tcp"), "the settings say otherwise");
        converse(&client, &server).await;

        let front = with_another_name(listener.local_address(), "nobody.listens.here");
        let (client, server) = pair(&any, &listener, &format!("auto://{front}")).await;
        assert_eq!([client.transport(), server.transport()], ["verbs"; 2]);
        assert_eq!(client.passed_over().len(), 1, "{:?}", client.passed_over());
        converse(&client, &server).await;
    });
}

#[test]
fn a_program_that_refuses_is_not_asked_by_another_way() {
    run(async {
        let (worker, asked) = (any_worker(), Arc::new(AtomicU32::new(0)));
        let counter = Arc::clone(&asked);
        let listener = Listener::bind(&worker, ANYWHERE).await.expect("listens").filter(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Answer::Refuse("full".to_owned())
        });
        let (connector, uri) = (Connector::new(&worker), listener.uri());
        let error = tokio::select! {
            connected = connector.connect(&uri) => connected.expect_err("refused"),
            _ = listener.accept() => panic!("it was accepted"),
        };
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn one_by_one_transport_reaches_a_listener_of_all_by_its_port() {
    run(async {
        let worker = any_worker();
        let listener = Listener::bind(&worker, ANYWHERE).await.expect("listens");
        let (client, server) = pair(&worker, &listener, &listener.uri().replace("auto://", "tcp://")).await;
        assert_eq!([client.transport(), server.transport()], ["tcp"; 2]);
        assert!(client.passed_over().is_empty());
        converse(&client, &server).await;
    });
}

#[test]
fn a_listener_of_tcp_alone_is_reached_too() {
    run(async {
        let worker = any_worker();
        let listener = Listener::bind(&worker, "tcp://127.0.0.1:0").await.expect("listens");
        let (client, server) = pair(&worker, &listener, &listener.uri().replace("tcp://", "auto://")).await;
        assert_eq!([client.transport(), server.transport()], ["tcp"; 2]);
        assert_eq!(client.passed_over(), ["shm: the peer does not offer it", "verbs: the peer does not offer it"]);
        converse(&client, &server).await;
    });
}

#[test]
fn a_listener_that_is_silent_or_no_zcmi_is_an_error_in_time() {
    run(async {
        let config = Config { connect_timeout: Duration::from_millis(300), ..Config::default() };
        let connector = Connector::new(&Worker::new(config).expect("valid settings"));
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let begun = Instant::now();
        let error = connector.connect(&format!("auto://{}", silent.local_address_of())).await.expect_err("silent");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5));

        let other = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = other.local_address_of();
        std::thread::spawn(move || {
            let (mut client, _) = other.accept().expect("a client");
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        });
        let error = connector.connect(&format!("auto://{address}")).await.expect_err("no zcmi");
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    });
}

#[test]
fn the_ways_end_with_the_listener() {
    run(async {
        let worker = any_worker();
        let listener = Listener::bind(&worker, ANYWHERE).await.expect("listens");
        let uri = listener.uri();
        let (client, server) = pair(&worker, &listener, &uri).await;
        assert!(listener.shutdown().await.is_empty());
        let error = Connector::new(&worker).connect(&uri).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        converse(&client, &server).await;
    });
}
