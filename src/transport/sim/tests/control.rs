//! Setting up and ending connections, as programs see it.

use std::time::Duration;

use super::super::{Executor, Fault, Faults, NodeId, Settings, now, sleep, spawn};
use super::executor;
use crate::{Config, Connector, Error, ErrorKind, Listener, Worker};

/// What a connecting program sees with these faults, after how many virtual milliseconds.
fn connect(faults: Faults, is_listening: bool) -> (Result<(), Error>, u128) {
    let (mut executor, node) = executor(Settings { faults, ..Settings::new(1) });
    let result = executor.spawn(node, async move {
        let worker = Worker::new(Config::default()).expect("valid");
        let listener = match is_listening {
            true => Some(Listener::bind(&worker, "sim://name").await.expect("free")),
            false => None,
        };
        let accepting = spawn(async move {
            let Some(listener) = listener else { return };
            tokio::select! {
                biased;
                accepted = listener.accept() => drop(accepted),
                () = sleep(Duration::from_secs(30)) => {}
            }
        });
        let begun = now();
        let result = Connector::new(&worker).connect("sim://name").await.map(drop);
        let time = (now() - begun).as_millis();
        accepting.await;
        (result, time)
    });
    executor.run().unwrap_or_else(|ended| panic!("{ended}"));
    result.take().expect("it has ended")
}

#[test]
fn connecting_succeeds_or_fails_for_the_reason_there_is() {
    assert!(connect(Faults::none(), true).0.is_ok());
    let kind = |faults, is_listening| {
        let (result, milliseconds) = connect(faults, is_listening);
        (result.expect_err("it fails").kind(), milliseconds)
    };
    assert_eq!(kind(Faults::none(), false).0, ErrorKind::ConnectionRefused);
    assert_eq!(kind(Faults::none().at(Fault::ConnectRefused, 1), true).0, ErrorKind::ConnectionRefused);
    for lost in [1, 2] {
        // The request, or the reply.
        let (kind, milliseconds) = kind(Faults::none().at(Fault::ConnectLost, lost), true);
        assert_eq!(kind, ErrorKind::TimedOut);
        assert!((4_900..5_200).contains(&milliseconds), "{milliseconds}");
    }
    assert!(connect(Faults::none().at(Fault::ConnectDelayed, 1), true).0.is_ok());
}

#[test]
fn a_name_is_listened_at_once_and_only_in_its_world() {
    let (mut executor, node) = executor(Settings::new(2));
    executor.spawn(node, async {
        let worker = Worker::new(Config::default()).expect("valid");
        let first = Listener::bind(&worker, "sim://name").await.expect("free");
        assert_eq!(first.uri(), "sim://name");
        let second = Listener::bind(&worker, "sim://name").await.expect_err("it is taken");
        assert_eq!(second.kind(), ErrorKind::AddressInUse);
        drop(first);
        Listener::bind(&worker, "sim://name").await.expect("free again");
    });
    executor.run().unwrap_or_else(|ended| panic!("{ended}"));
    let worker = Worker::new(Config::default()).expect("valid");
    let connector = Connector::new(&worker);
    let mut outside = std::pin::pin!(connector.connect("sim://name"));
    let polled = outside.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let std::task::Poll::Ready(Err(error)) = polled else { panic!("it cannot wait for anything") };
    assert_eq!(error.kind(), ErrorKind::NoDevice);
}

#[test]
fn a_peer_that_dies_is_told_of_unless_its_host_dies_with_it() {
    let seen = |fault: Fault| {
        let faults = Faults::none().at(fault, 400);
        let mut executor = Executor::new(Settings { faults, ..Settings::new(3) });
        let (server, client): (NodeId, NodeId) =
            (executor.add_node("server", true), executor.add_node("client", false));
        executor.spawn(server, async {
            let worker = Worker::new(Config::default()).expect("valid");
            let listener = Listener::bind(&worker, "sim://server").await.expect("free");
            let connection = listener.accept().await.expect("a peer");
            while connection.recv().await.is_ok() {}
        });
        let seen = executor.spawn(client, async {
            let worker = Worker::new(Config::default()).expect("valid");
            let connection = loop {
                match Connector::new(&worker).connect("sim://server").await {
                    Ok(connection) => break connection,
                    Err(_) => sleep(Duration::from_millis(1)).await,
                }
            };
            let begun = now();
            loop {
                if let Err(error) = connection.send(b"are you there?").await {
                    return (error.kind(), now() - begun);
                }
                sleep(Duration::from_micros(50)).await;
            }
        });
        executor.run().unwrap_or_else(|ended| panic!("{ended}"));
        seen.take().expect("it lives")
    };
    let (kind, time) = seen(Fault::Death);
    assert!(kind == ErrorKind::ConnectionBroken && time < Duration::from_millis(100), "{kind:?} after {time:?}");
    let (kind, time) = seen(Fault::SilentDeath);
    assert!(kind == ErrorKind::Unreachable && time > Duration::from_millis(900), "{kind:?} after {time:?}");
}
