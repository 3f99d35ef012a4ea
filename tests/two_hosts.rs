//! Two hosts whose cable is cut: both learn it within seconds. Run by `tests/run --long`, which starts `host2` on the second
//! host and then `host1` on the first; ZCMI_TEST_CUT says how the cable is cut.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::play;
use zcmi::{Config, Connection, Connector, ErrorKind, Listener, Worker};

const BOUND: Duration = Duration::from_secs(5);

/// The address of the second host, where there are two.
fn second_host() -> Option<String> {
    let address = std::env::var("ZCMI_HOST2").ok();
    if address.is_none() {
        eprintln!("SKIPPED: there are not two hosts; run it by tests/run --long");
    }
    address
}

/// From here on nothing that this host sends on `netdev` arrives.
fn cut(netdev: &str) {
    let status = match std::env::var("ZCMI_TEST_CUT").as_deref() {
        Ok("down") => Command::new("ip").args(["link", "set", netdev, "down"]).status(),
        _ => Command::new("tc").args(["qdisc", "replace", "dev", netdev, "root", "netem", "loss", "100%"]).status(),
    };
    assert!(status.expect("it is installed").success(), "the cable is cut");
}

/// Waits for what cannot come, on two connections: one receives, one sends.
async fn both_end(receiving: &Connection, sending: &Connection, begun: Instant) {
    let receive = async { receiving.recv().await.expect_err("nothing comes") };
    let send = async {
        loop {
            if let Err(error) = sending.send(&[7; 1000]).await {
                return error;
            }
        }
    };
    let (receive, send) = tokio::join!(receive, send);
    for error in [receive, send] {
        println!("after {:?}: {error}", begun.elapsed());
        // A device whose own port is down ends its queue pairs, and says no more.
        let may_break = std::env::var("ZCMI_TEST_CUT").is_ok_and(|cut| cut == "down");
        let is_it = error.kind() == ErrorKind::Unreachable || may_break && error.kind() == ErrorKind::ConnectionBroken;
        assert!(is_it, "{:?}: {error}", error.kind());
    }
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}

#[test]
fn host1() {
    let Some(address) = second_host() else { return };
    play(async {
        let worker = Worker::new(Config::default()).expect("valid settings");
        let connector = Connector::new(&worker);
        let uri = format!("rdma://{address}:7472");
        let receiving = connector.connect(&uri).await.expect("connects");
        let sending = connector.connect(&uri).await.expect("connects");
        // Idle for longer than a heartbeat, and well.
        tokio::time::sleep(Duration::from_secs(3)).await;
        sending.send(b"cut").await.expect("sends");
        assert_eq!(&*sending.recv().await.expect("receives"), b"cutting");
        tokio::time::sleep(Duration::from_millis(300)).await;
        cut("veth1");
        both_end(&receiving, &sending, Instant::now()).await;
    });
}

#[test]
fn host2() {
    let Some(address) = second_host() else { return };
    play(async {
        let worker = Worker::new(Config::default()).expect("valid settings");
        let listener = Listener::bind(&worker, &format!("rdma://{address}:7472")).await.expect("listens");
        println!("waiting");
        let first = listener.accept().await.expect("accepts");
        let second = listener.accept().await.expect("accepts");
        assert_eq!(&*second.recv().await.expect("receives"), b"cut");
        second.send(b"cutting").await.expect("sends");
        // The answer is to arrive, and that it did.
        tokio::time::sleep(Duration::from_millis(300)).await;
        cut("veth2");
        both_end(&second, &first, Instant::now()).await;
    });
}
