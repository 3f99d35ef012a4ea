//! Who is let in, on a real device: filters and private data, limits, a listener that shuts down, and a worker that is driven by
//! hand.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::{listen, on_device, pair, still_works, worker};
use zcmi::{Answer, Config, Connector, ErrorKind, Worker};

#[test]
fn private_data_reach_both_ends_and_have_their_limit() {
    on_device(|address| async move {
        let worker = worker();
        let listener = listen(&worker, &address).await.filter(|request| {
            let mut answer = request.private_data().to_vec();
            answer.reverse();
            answer.resize(150, 7);
            Answer::AcceptWith(answer)
        });
        let (uri, connector) = (listener.uri(), Connector::new(&worker));
        let data: Vec<u8> = (0..20).collect();
        let (client, server) = tokio::join!(connector.connect_with(&uri, &data), listener.accept());
        let (client, server) = (client.expect("connects"), server.expect("accepts"));
        assert_eq!(server.private_data(), data);
        let reversed: Vec<u8> = data.iter().rev().copied().chain([7; 130]).collect();
        assert_eq!(client.private_data(), reversed);
        client.send(b"hello").await.expect("sends");
        assert_eq!(&*server.recv().await.expect("receives"), b"hello");

        let error = connector.connect_with(&uri, &[0; 21]).await.expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::TooLong, "{error}");
        assert!(error.to_string().contains("21 bytes of private data; a connect request carries 20"), "{error}");

        let (client, server) = pair(&worker, &address).await;
        assert!(client.private_data().is_empty() && server.private_data().is_empty());
    });
}

#[test]
fn a_filter_refuses_with_a_reason_and_lets_others_in() {
    on_device(|address| async move {
        let worker = worker();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let own = common::Transport::of_test().peer(&address).to_owned();
        let listener = listen(&worker, &address).await.filter(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            assert!(request.peer().starts_with(&own), "{}", request.peer());
            match request.private_data() {
                b"word" => Answer::Accept,
                b"panic" => panic!("the application's"),
                _ => Answer::Refuse("say the word".to_owned()),
            }
        });
        let (uri, connector) = (listener.uri(), Connector::new(&worker));
        let asking = async {
            for (data, text) in [(&b""[..], "the application there declined: say the word"), (b"panic", "declined")] {
                let error = connector.connect_with(&uri, data).await.expect_err("refused");
                assert_eq!((error.kind(), error.operation()), (ErrorKind::Rejected, "connect"), "{error}");
                assert!(error.to_string().contains(text), "{error}");
            }
            connector.connect_with(&uri, b"word").await.expect("connects")
        };
        let (client, server) = tokio::join!(asking, listener.accept());
        client.send(b"in").await.expect("sends");
        assert_eq!(&*server.expect("accepts").recv().await.expect("receives"), b"in");
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn a_worker_has_so_many_connections_and_no_more() {
    on_device(|address| async move {
        let few = Worker::new(Config { max_connections: 2, ..Config::default() }).expect("valid settings");
        let many = worker();
        let listener = listen(&few, &address).await;
        let (uri, connector) = (listener.uri(), Connector::new(&many));
        let mut ends = Vec::new();
        for _ in 0..2 {
            let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
            ends.push((client.expect("connects"), server.expect("accepts")));
        }
        let third = async {
            let error = connector.connect(&uri).await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
            assert!(error.to_string().contains("it has as many connections as it may"), "{error}");
        };
        tokio::select! {
            () = third => {}
            accepted = listener.accept() => panic!("accepted {accepted:?}"),
        }
        // Its own, too.
        let other = listen(&many, &address).await;
        let error = Connector::new(&few).connect(&other.uri()).await.expect_err("as many as it may");
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        assert!(error.to_string().contains("2 connections, as many as max_connections allows"), "{error}");
        // A place comes back with the end of a connection, in the background.
        drop(ends.pop());
        let begun = Instant::now();
        let (_client, _server) = loop {
            let again = async { tokio::time::timeout(Duration::from_secs(5), listener.accept()).await };
            match tokio::join!(connector.connect(&uri), again) {
                (Ok(client), Ok(Ok(server))) => break (client, server),
                (client, _) => assert!(begun.elapsed() < Duration::from_secs(20), "{client:?}"),
            }
        };
        let (client, server) = &ends[0];
        client.send(b"undisturbed").await.expect("sends");
        assert_eq!(&*server.recv().await.expect("receives"), b"undisturbed");
    });
}

#[test]
fn a_listener_that_shuts_down_finishes_what_it_has_begun() {
    on_device(|address| async move {
        let worker = worker();
        let listener = listen(&worker, &address).await;
        let (uri, connector) = (listener.uri(), Connector::new(&worker));
        let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
        let (client, server) = (client.expect("connects"), server.expect("accepts"));
        let mut context = Context::from_waker(Waker::noop());
        let mut accepting = pin!(listener.accept());
        // Two ask; the listener begins with both, and neither has confirmed when the end comes. A third asks and is not looked at.
        let mut asking = pin!(async { tokio::join!(connector.connect(&uri), connector.connect(&uri)) });
        for _ in 0..40 {
            assert!(asking.as_mut().poll(&mut context).is_pending(), "nobody has answered");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(accepting.as_mut().poll(&mut context).is_pending(), "nobody has confirmed");
        let mut unseen = pin!(connector.connect(&uri));
        for _ in 0..40 {
            assert!(unseen.as_mut().poll(&mut context).is_pending(), "nobody has answered");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let begun = Instant::now();
        let shutting = listener.shutdown();
        let (connections, (first, second), unseen, accepted) = tokio::join!(shutting, asking, unseen, accepting);
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        let error = accepted.expect_err("there is nothing to accept any more");
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Closed, "accept"), "{error}");
        let error = unseen.expect_err("it was not looked at");
        assert!(matches!(error.kind(), ErrorKind::Rejected | ErrorKind::ConnectionRefused), "{error}");
        assert_eq!(connections.len(), 2, "those in set-up are finished");
        let mut heard = Vec::new();
        for (late, name) in [(first, b"a"), (second, b"b")] {
            late.expect("connects").send_acknowledged(name).await.expect("sends");
        }
        for connection in &connections {
            heard.push(connection.recv().await.expect("receives").to_vec());
        }
        heard.sort();
        assert_eq!(heard, [b"a", b"b"]);
        let error = connector.connect(&uri).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        assert_eq!(listener.accept().await.expect_err("shut down").kind(), ErrorKind::Closed);
        assert!(listener.shutdown().await.is_empty());
        drop(
            zcmi::Listener::bind(&worker, &uri).await.expect("the address is free, though the listener is not dropped"),
        );
        client.send(b"still here").await.expect("sends");
        assert_eq!(&*server.recv().await.expect("receives"), b"still here");
        still_works(&address).await;
    });
}

#[test]
fn a_worker_is_driven_by_hand() {
    on_device(|address| async move {
        let (here, there) = (worker(), worker());
        let listener = listen(&there, &address).await;
        let (uri, connector) = (listener.uri(), Connector::new(&here));
        let (client, server) = tokio::join!(connector.connect(&uri), listener.accept());
        let (client, server) = (client.expect("connects"), server.expect("accepts"));
        while there.progress() {}
        assert!(!there.progress(), "nothing has come");
        client.send(b"to be handled").await.expect("sends");
        let begun = Instant::now();
        let mut rounds = 0;
        // The service looks now and then as well, so it is tried until a round has seen something.
        while !there.progress() {
            rounds += 1;
            assert!(begun.elapsed() < Duration::from_secs(5), "{rounds} rounds have handled nothing");
            if server.try_recv().expect("lives").is_some() {
                client.send(b"again").await.expect("sends");
            }
        }
        let message = server.try_recv().expect("lives").expect("the round has handled it");
        assert!(!message.is_empty());
        let mut context = Context::from_waker(Waker::noop());
        let mut receive = pin!(server.recv());
        assert!(receive.as_mut().poll(&mut context).is_pending());
        client.send(b"awaited").await.expect("sends");
        loop {
            there.progress();
            if let Poll::Ready(message) = receive.as_mut().poll(&mut context) {
                break assert_eq!(&*message.expect("receives"), b"awaited");
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        assert!(!Worker::new(Config::default()).expect("valid settings").progress(), "it has no device");
    });
}
