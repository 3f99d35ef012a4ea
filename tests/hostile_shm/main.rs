//! Another process that is let in as a peer of shared memory, and then does its worst: this one goes on, keeps nothing of it, and serves
//! the others.

#![allow(
    unsafe_code,
    reason = "the peer maps and writes what it shares, as no library would; each block carries its proof"
)]

#[path = "../common/mod.rs"]
mod common;
mod intruder;
mod roles;

use std::time::{Duration, Instant};

use common::{Peer, aside, run};
use zcmi::{Config, Connection, Connector, Error, ErrorKind, Listener, Worker};

const SOON: Duration = Duration::from_secs(20);

/// Rings that this process has mapped, and what it has open, by kind.
fn what_there_is() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("our mappings");
    let mapped = maps.lines().filter_map(|line| Some(line[line.find("/memfd:")?..].to_owned()));
    let mapped = mapped.filter(|name| name.contains("ring") || name.contains("intruder"));
    let open = std::fs::read_dir("/proc/self/fd").expect("our descriptors").flatten();
    let links = open.filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.display().to_string()));
    // Numbers differ.
    let mut all: Vec<_> =
        mapped.chain(links).map(|name| name.split(':').next().unwrap_or_default().to_owned()).collect();
    all.sort();
    all
}

/// The same, once it has stopped changing.
fn settled() -> Vec<String> {
    let mut last = what_there_is();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = what_there_is();
        if std::mem::replace(&mut last, now.clone()) == now {
            return now;
        }
    }
}

/// How a connection ends on which we receive, and have something for the peer to receive or not.
async fn ends(connection: Connection) -> Error {
    let message = vec![7; 1 << 20];
    let sending = async {
        while connection.send(&message).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let receiving = async {
        loop {
            if let Err(error) = connection.recv().await {
                return error;
            }
        }
    };
    tokio::select! {
        error = receiving => error,
        () = sending => unreachable!("it waits for ever"),
    }
}

/// A worker, who listens, and a good connection to it.
struct Victim {
    worker: Worker,
    listener: Listener,
    good: (Connection, Connection),
    /// What there is when no intruder is.
    before: Vec<String>,
}

impl Victim {
    async fn new() -> Self {
        let config =
            Config { heartbeat: Duration::from_millis(200), peer_timeout: Duration::from_secs(1), ..Config::default() };
        let worker = Worker::new(config).expect("valid");
        let listener = Listener::bind(&worker, "shm://").await.expect("listens");
        common::serves(&worker, &listener).await;
        let good = common::connect_to(&worker, &listener).await;
        let mut this = Self { worker, listener, good, before: Vec::new() };
        // What is made with the first, and kept, is not of the others.
        this.endures("goes in a header", &[ErrorKind::ConnectionBroken, ErrorKind::PeerClosed]).await;
        this.before = aside(settled).await;
        this
    }

    /// The good connection goes on, however long the message.
    async fn goes_on(&self) {
        let (client, server) = &self.good;
        for length in [10, 100_000] {
            let message = common::pattern(1, 2, length);
            let (sent, received) = tokio::join!(client.send(&message), server.recv());
            sent.expect("sends");
            assert!(*received.expect("receives") == *message);
        }
    }

    /// Lets in a peer of that role, and sees what becomes of its connection: the kinds are those it may end by.
    async fn endures(&self, role: &str, kinds: &[ErrorKind]) {
        let mut peer = Peer::start(role);
        peer.tell(&self.listener.uri());
        let connection = self.listener.accept().await.expect("it speaks as a library does");
        let (begun, ending) = (Instant::now(), tokio::spawn(ends(connection)));
        while !ending.is_finished() {
            assert!(begun.elapsed() < SOON, "{role} is endured for ever");
            self.goes_on().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let error = ending.await.expect("no panic");
        assert!(kinds.contains(&error.kind()), "{role}: {error}");
        self.goes_on().await;
        let said = aside(move || {
            let said = peer.hear();
            (said, peer.finish())
        });
        let (said, status) = said.await;
        assert_eq!(said, "ended");
        assert!(status.success(), "{role}: {status}");
        common::serves(&self.worker, &self.listener).await;
    }

    /// The same, and nothing is left of it.
    async fn suffers(&self, role: &str, kinds: &[ErrorKind]) {
        self.endures(role, kinds).await;
        let (before, role) = (self.before.clone(), role.to_owned());
        let waiting = move || {
            let begun = Instant::now();
            while what_there_is() != before {
                assert!(begun.elapsed() < SOON, "{role} leaves something: {:?}, before {before:?}", what_there_is());
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        aside(waiting).await;
    }
}

#[test]
fn one_that_scribbles_over_all_that_it_may_write_is_ended() {
    run(async {
        let victim = Victim::new().await;
        let broken = [ErrorKind::Protocol, ErrorKind::ConnectionBroken, ErrorKind::Unresponsive];
        for role in ["scribbles over words", "scribbles over all", "scribbles over bytes"] {
            victim.suffers(role, &broken).await;
        }
    });
}

#[test]
fn one_that_floods_the_socket_is_ended() {
    run(async {
        let victim = Victim::new().await;
        for role in ["rings", "rings out of band"] {
            victim.suffers(role, &[ErrorKind::Protocol]).await;
        }
    });
}

#[test]
fn one_that_gives_descriptors_afterwards_leaves_none_here() {
    run(async {
        let victim = Victim::new().await;
        // Bells come with them where the kernel does not refuse them, and it says nothing meanwhile.
        let kinds = [ErrorKind::Protocol, ErrorKind::ConnectionBroken, ErrorKind::PeerClosed, ErrorKind::Unresponsive];
        victim.suffers("gives", &kinds).await;
    });
}

#[test]
fn one_that_does_nothing_any_more_is_given_up() {
    run(async {
        let victim = Victim::new().await;
        for role in ["is silent", "stops in a header", "stops in a message"] {
            victim.suffers(role, &[ErrorKind::Unresponsive]).await;
        }
    });
}

#[test]
fn one_that_goes_in_the_middle_of_a_message_is_noticed() {
    run(async {
        let victim = Victim::new().await;
        for role in ["goes in a header", "goes in a message"] {
            victim.suffers(role, &[ErrorKind::ConnectionBroken, ErrorKind::PeerClosed]).await;
        }
    });
}

#[test]
fn what_we_have_given_cannot_be_changed_by_who_has_it() {
    run(async {
        let victim = Victim::new().await;
        // It finds no way, says so, and goes.
        victim.suffers("breaks in", &[ErrorKind::ConnectionBroken, ErrorKind::PeerClosed]).await;
    });
}

#[test]
fn a_user_without_a_name_is_not_taken_for_our_own() {
    run(async {
        let worker = common::worker();
        let listener = Listener::bind(&worker, "shm://").await.expect("listens");
        // Where it is nobody knows any user: it is called as the listener is, and so would be everybody else.
        let mut command = std::process::Command::new("unshare");
        command.arg("--user").arg(std::env::current_exe().expect("our own path"));
        command.args(["--exact", "peer", "--nocapture", "--test-threads=1"]).env("ZCMI_TEST_PEER", "connects");
        let probe = std::process::Command::new("unshare").args(["--user", "true"]).status();
        if !probe.is_ok_and(|status| status.success()) {
            return eprintln!("SKIPPED: this needs user namespaces");
        }
        let mut peer = Peer::spawn(command);
        let uri = listener.uri();
        let said = aside(move || peer.ask(&uri));
        let accepted = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
        assert!(accepted.is_err(), "it has connected");
        let said = said.await;
        assert!(said.starts_with("PermissionDenied") && said.contains("user namespace"), "{said}");
    });
}

/// The other process of the tests.
#[test]
fn peer() {
    let Some(role) = common::role() else { return };
    common::play(async {
        let uri = common::told().recv().await.expect("an address");
        if role == "connects" {
            let error = Connector::new(&common::worker()).connect(&uri).await.expect_err("nobody knows us");
            return common::say(format_args!("{:?}: {error}", error.kind()));
        }
        roles::play(&role, intruder::Intruder::enter(&uri).await);
        common::say("ended");
    });
}
