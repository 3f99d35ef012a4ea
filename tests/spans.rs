//! Spans, on each transport: those of one operation carry the same names in both processes, and small messages have none.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{LazyLock, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{Peer, aside, device_address, listen, on_device, play, role, say, told, worker};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use zcmi::{Access, Buffer, Connection, Connector, ErrorKind, Grant, RemoteBuffer};

const LONG: usize = 1 << 20;

/// The fields of a span, its name among them.
type Fields = BTreeMap<String, String>;

static OPEN: LazyLock<Mutex<HashMap<u64, Fields>>> = LazyLock::new(Mutex::default);
static ENDED: Mutex<Vec<Fields>> = Mutex::new(Vec::new());

struct Collect;

struct Into<'f>(&'f mut Fields);

impl Visit for Into<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Collect {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::from([("span".to_owned(), attributes.metadata().name().to_owned())]);
        attributes.record(&mut Into(&mut fields));
        OPEN.lock().expect("no panic").insert(id.into_u64(), fields);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, _: Context<'_, S>) {
        if let Some(fields) = OPEN.lock().expect("no panic").get_mut(&id.into_u64()) {
            record.record(&mut Into(fields));
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let fields = OPEN.lock().expect("no panic").remove(&id.into_u64());
        ENDED.lock().expect("no panic").extend(fields);
    }
}

fn collect() {
    // A test that came before has done it.
    let _ = tracing_subscriber::registry().with(Collect.with_filter(LevelFilter::DEBUG)).try_init();
}

/// Spans of `name` of this process that have ended, of this connection.
fn ended(name: &str, connection: &str) -> Vec<Fields> {
    let is_it =
        |fields: &&Fields| fields["span"] == name && fields.get("connection").is_some_and(|of| of == connection);
    ENDED.lock().expect("no panic").iter().filter(is_it).cloned().collect()
}

/// The one span of `name`, as soon as it has ended.
async fn one(name: &str, connection: &str) -> Fields {
    let begun = Instant::now();
    loop {
        match &ended(name, connection)[..] {
            [fields] => return fields.clone(),
            [] => assert!(begun.elapsed() < Duration::from_secs(10), "no span {name}"),
            more => panic!("{more:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The other process: receives until it is told, and says which spans it had.
#[test]
fn peer() {
    let Some(_) = role() else { return };
    collect();
    play(async {
        let listener = listen(&worker(), &device_address().expect("the test has found it")).await;
        say(listener.uri());
        let mut told = told();
        let connection = listener.accept().await.expect("accepts");
        let id = connection.id().to_string();
        assert_eq!(connection.recv().await.expect("receives").len(), LONG);
        let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
        connection
            .write(Buffer::allocate(100).expect("memory"), &handle.slice(0..100).expect("in it"))
            .await
            .expect("writes");
        connection.send(b"written").await.expect("sends");
        assert_eq!(connection.recv().await.expect_err("no more").kind(), ErrorKind::PeerClosed);
        drop(connection);
        while let Some(name) = told.recv().await {
            say(serde_json::to_string(&one(&name, &id).await).expect("plain data"));
        }
    });
}

async fn begin() -> (Peer, Connection, Grant) {
    collect();
    let peer = Peer::start("spans");
    let uri = peer.hear_aside().await;
    let connection = Connector::new(&worker()).connect(&uri).await.expect("connects");
    connection.send_owned(Buffer::allocate(LONG).expect("memory")).await.expect("sends");
    let exposed = Buffer::allocate(4096).expect("memory").expose();
    let grant = exposed.grant(&connection, 0..4096, Access::READ_WRITE).await.expect("grants");
    connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
    connection.recv().await.expect("receives");
    (peer, connection, grant)
}

#[test]
fn one_operation_is_called_the_same_at_both_ends() {
    on_device(|_| async {
        let (mut peer, connection, grant) = begin().await;
        let id = connection.id().to_string();
        grant.revoke().await.expect("revokes");
        connection.close().await.expect("closes");
        let mut there = |name: &str| {
            let said = peer.ask(name);
            serde_json::from_str::<Fields>(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
        };
        // Both have set up the connection.
        let connected = one("connect", &id).await;
        assert_eq!((&*connected["outcome"], &connected["connection"]), ("ok", &id));
        let [here_shake, there_shake] = [one("handshake", &id).await, there("handshake")];
        assert_eq!((&*here_shake["role"], &*there_shake["role"]), ("connector", "listener"));
        let accepted = there("accept");
        for fields in [&connected, &here_shake, &there_shake, &accepted] {
            assert_eq!((&fields["connection"], &*fields["outcome"]), (&id, "ok"), "{fields:?}");
            assert_eq!(fields["transport"], connection.transport(), "{fields:?}");
            assert!(!fields["peer"].is_empty() && !fields["device"].is_empty(), "{fields:?}");
        }
        // The long message.
        let [sent, fetched] = [one("rendezvous", &id).await, there("rendezvous")];
        assert_eq!((&*sent["role"], &*fetched["role"]), ("sender", "receiver"));
        for field in ["connection", "grant", "length", "channel", "outcome", "transport"] {
            assert_eq!(sent[field], fetched[field], "{field}: {sent:?} {fetched:?}");
        }
        assert_eq!((&*sent["length"], &*sent["channel"], &*sent["outcome"]), ("1048576", "0", "ok"), "{sent:?}");
        // The grant that was taken back.
        let [taken_back, given_up] = [one("revoke", &id).await, there("revoke")];
        assert_eq!((&*taken_back["role"], &*given_up["role"]), ("owner", "holder"));
        assert_eq!((&taken_back["grant"], &*taken_back["length"]), (&given_up["grants"], "4096"), "{given_up:?}");
        assert_eq!((&*taken_back["outcome"], &*given_up["outcome"]), ("agreed", "agreed"));
        let closed = one("close", &id).await;
        assert_eq!((&*closed["by"], &*closed["outcome"]), ("close", "ok"));
        assert!(aside(move || peer.finish()).await.success());
    });
}

#[test]
fn small_messages_have_no_spans_and_a_refused_connection_tells_why() {
    on_device(|address| async move {
        collect();
        let worker = worker();
        let (client, server) = common::pair(&worker, &address).await;
        let id = client.id().to_string();
        for _ in 0..100 {
            client.send(b"small").await.expect("sends");
            server.recv().await.expect("receives");
        }
        let all = ENDED.lock().expect("no panic").clone();
        let of_it: Vec<_> = all.iter().filter(|fields| fields.get("connection") == Some(&id)).collect();
        assert!(of_it.iter().all(|fields| ["connect", "accept", "handshake"].contains(&&*fields["span"])), "{of_it:?}");
        assert_eq!(of_it.len(), 4, "{of_it:?}");
        let nowhere = common::uri(format_args!("{address}:1"));
        let error = Connector::new(&worker).connect(&nowhere).await.expect_err("nobody listens");
        let all = ENDED.lock().expect("no panic").clone();
        let failed = all.iter().find(|fields| fields.get("address") == Some(&nowhere)).expect("its span");
        assert_eq!(failed["outcome"], error.to_string(), "{failed:?}");
        assert!(!failed.contains_key("connection"), "{failed:?}");
    });
}

#[test]
fn a_grant_that_is_dropped_while_it_is_made_is_taken_back_once() {
    on_device(|address| async move {
        collect();
        let worker = worker();
        let (client, server) = common::pair(&worker, &address).await;
        let exposed = Buffer::allocate(4096).expect("memory").expose();
        {
            let mut grant = std::pin::pin!(exposed.grant(&client, 0..4096, Access::READ_WRITE));
            let _ = std::future::poll_fn(|context| Poll::Ready(grant.as_mut().poll(context).map(drop))).await;
        }
        exposed.into_inner().await.expect("nobody reaches it");
        let id = client.id().to_string();
        let begun = Instant::now();
        let of_owner = || ended("revoke", &id).into_iter().filter(|fields| fields["role"] == "owner");
        while of_owner().count() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "no span");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let all: Vec<_> = of_owner().collect();
        assert!(matches!(&all[..], [fields] if fields["outcome"] == "agreed"), "{all:?}");
        drop((client, server));
    });
}
