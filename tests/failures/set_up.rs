//! Failures before there is a connection.

use std::time::{Duration, Instant};

use zcmi::verbs::{ConnectionEventKind, ConnectionId, EventChannel};
use zcmi::{Connector, ErrorKind};

use crate::common::{self, Peer, listen, on_device, still_works, worker};
use crate::{SLACK, quick, refused, says, says_where};

#[test]
fn connecting_to_nobody_times_out() {
    common::on_rdma(|address| async move {
        // An address of the device's own network that no host has.
        let (network, _) = address.rsplit_once('.').expect("an IPv4 address");
        let peer = format!("{network}.77:7471");
        let error = refused(&quick(), &common::uri(&peer), Duration::from_secs(2) + SLACK).await;
        says(&error, &[ErrorKind::TimedOut, ErrorKind::NoRoute], "connect", &peer);
        still_works(&address).await;
    });
}

#[test]
fn connecting_to_a_port_without_listener_is_refused_at_once() {
    on_device(|address| async move {
        let peer = format!("{address}:9");
        let error = refused(&worker(), &common::uri(&peer), SLACK).await;
        says(&error, &[ErrorKind::ConnectionRefused], "connect", &peer);
        says_where(&error);
        still_works(&address).await;
    });
}

#[test]
fn connecting_to_an_address_without_a_route_says_so() {
    common::on_rdma(|address| async move {
        for peer in ["203.0.113.9:7471", "[2001:db8::9]:7471"] {
            let error = refused(&quick(), &common::uri(peer), Duration::from_secs(2) + SLACK).await;
            says(&error, &[ErrorKind::NoRoute], "connect", peer);
        }
        still_works(&address).await;
    });
}

#[test]
fn listening_where_it_cannot_be_says_why() {
    on_device(|address| async move {
        let worker = worker();
        let first = listen(&worker, &address).await;
        let error = zcmi::Listener::bind(&worker, &first.uri()).await.expect_err("the port is taken");
        assert_eq!((error.kind(), error.operation()), (ErrorKind::AddressInUse, "listen"), "{error}");
        let uri = first.uri();
        drop(first);
        drop(zcmi::Listener::bind(&worker, &uri).await.expect("a dropped listener frees its port"));
        // The second is no address of an RDMA device; over TCP it is one that is nobody's.
        let foreign = match common::Transport::of_test() {
            common::Transport::Shm => ["shm:///no/such/folder", "shm:///dev/null/socket"].map(str::to_owned),
            common::Transport::Tcp => ["203.0.113.9:0", "[2001:db8::1]:0"].map(common::uri),
            common::Transport::Verbs => ["203.0.113.9:0", "127.0.0.1:0"].map(common::uri),
        };
        for foreign in &foreign {
            let error = zcmi::Listener::bind(&worker, foreign).await.expect_err(foreign);
            assert!(matches!(error.kind(), ErrorKind::AddressInvalid | ErrorKind::NoDevice), "{error}");
            assert!(error.to_string().contains(foreign), "{error}");
        }
        still_works(&address).await;
    });
}

/// A listener made of plain verbs, which answers a connect request in its own way.
async fn plain_listener(address: &str, answer: impl FnOnce(ConnectionId) + Send + 'static) -> String {
    let channel = EventChannel::create().expect("a channel");
    let listener = ConnectionId::create(&channel).expect("an identifier");
    listener.bind(format!("{address}:0").parse().expect("an address")).expect("binds");
    listener.listen(4).expect("listens");
    let local = listener.local_address().expect("bound");
    std::thread::spawn(move || {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if let Some(event) = channel.next_event().expect("events") {
                assert_eq!(event.kind, ConnectionEventKind::ConnectRequest);
                answer(event.request.expect("an identifier"));
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(listener);
    });
    common::uri(local)
}

#[test]
fn a_listener_that_rejects_or_hangs_up_during_set_up_is_an_error() {
    common::on_rdma(|address| async move {
        let uri = plain_listener(&address, |request| request.reject(b"go away").expect("rejects")).await;
        let error = refused(&worker(), &uri, SLACK).await;
        says(&error, &[ErrorKind::Rejected], "connect", &address);
        assert!(error.to_string().contains("reason 28"), "{error}");

        let uri = plain_listener(&address, drop).await;
        let error = refused(&worker(), &uri, SLACK).await;
        says(&error, &[ErrorKind::Rejected], "connect", &address);
        still_works(&address).await;
    });
}

#[test]
fn a_listener_that_never_answers_times_out() {
    common::on_rdma(|address| async move {
        let peer = Peer::start("silent");
        let uri = peer.hear();
        let error = refused(&quick(), &uri, Duration::from_secs(2) + SLACK).await;
        says(&error, &[ErrorKind::TimedOut], "connect", &address);
        says_where(&error);
        assert!(peer.finish().success());
        still_works(&address).await;
    });
}

#[test]
fn a_peer_killed_during_set_up_is_an_error() {
    on_device(|address| async move {
        let peer = Peer::start("silent");
        let uri = peer.hear();
        let killer = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            peer.kill();
        };
        let worker = worker();
        let (error, ()) = tokio::join!(refused(&worker, &uri, Duration::from_secs(5) + SLACK), killer);
        let mut kinds =
            vec![ErrorKind::Rejected, ErrorKind::ConnectionRefused, ErrorKind::TimedOut, ErrorKind::Unreachable];
        // The kernel closes the sockets of a process that dies.
        kinds.extend((!common::Transport::of_test().has_device()).then_some(ErrorKind::PeerClosed));
        says(&error, &kinds, "connect", &address);
        still_works(&address).await;
    });
}

#[test]
fn a_stranger_who_connects_is_passed_over() {
    common::on_rdma(|address| async move {
        let worker = worker();
        let listener = listen(&worker, &address).await;
        let stranger = ConnectionId::create(&EventChannel::create().expect("a channel")).expect("an identifier");
        let target = listener.local_address();
        let stranger = std::thread::spawn(move || {
            let wait = |kind| {
                let begun = Instant::now();
                loop {
                    assert!(begun.elapsed() < Duration::from_secs(10), "no {kind:?}");
                    match stranger.channel().next_event().expect("events") {
                        Some(event) if event.kind == kind => return event,
                        Some(event) => panic!("{event:?} instead of {kind:?}"),
                        None => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            };
            stranger.resolve_address(target, Duration::from_secs(2)).expect("starts");
            wait(ConnectionEventKind::AddressResolved);
            stranger.resolve_route(Duration::from_secs(2)).expect("starts");
            wait(ConnectionEventKind::RouteResolved);
            let parameters = zcmi::verbs::ConnectionParameters {
                private_data: b"not the protocol",
                responder_resources: 1,
                initiator_depth: 1,
                retry_count: 7,
                rnr_retry_count: 7,
                queue_pair: 17,
            };
            stranger.connect(&parameters).expect("starts");
            wait(ConnectionEventKind::Rejected)
        });
        let uri = listener.uri();
        let connector = Connector::new(&worker);
        let friend = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            connector.connect(&uri).await
        };
        let (accepted, friend) = tokio::join!(listener.accept(), friend);
        friend.expect("connects").send(b"friend").await.expect("sends");
        assert_eq!(&*accepted.expect("accepts").recv().await.expect("receives"), b"friend");
        let event = stranger.join().expect("the stranger was told");
        assert_eq!(event.status, 28, "refused by the consumer");
    });
}
