//! A subscriber of spans, and a recorder of metrics, are foreign code: they may look at a connection, or wait for others who do, and nothing hangs.

mod common;

use std::fmt::Debug;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use common::{on_device, pair, worker};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use zcmi::{Access, Buffer, Connection};

const LONG: usize = 1 << 20;
/// A hang ends the test by then.
const PATIENCE: Duration = Duration::from_secs(100);

static CONNECTIONS: Mutex<Vec<Connection>> = Mutex::new(Vec::new());
/// The names of the spans that were begun, and channels that were told of them.
static TOLD: Mutex<Vec<&str>> = Mutex::new(Vec::new());
static CHANNELS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

struct Channels;

impl Visit for Channels {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "channel" {
            CHANNELS.lock().expect("no panic").push(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// Looks at all connections.
fn look() {
    let connections = CONNECTIONS.lock().expect("no panic").clone();
    connections.iter().for_each(|connection| drop(connection.snapshot()));
}

/// Looks at all connections whenever it is told anything.
struct Looks;

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Looks {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        look();
        attributes.record(&mut Channels);
        TOLD.lock().expect("no panic").push(attributes.metadata().name());
    }

    fn on_record(&self, _: &Id, record: &Record<'_>, _: Context<'_, S>) {
        look();
        record.record(&mut Channels);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        look();
    }
}

/// Runs `act` on a thread of its own, which may hang.
fn bounded(act: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        act();
        let _ = done.send(());
    });
    is_done.recv_timeout(PATIENCE).expect("it ends, and does not panic");
}

#[test]
fn a_subscriber_may_look_at_connections_and_choose_spans_by_name() {
    bounded(|| {
        let by_name = filter_fn(|metadata| ["rendezvous", "revoke"].contains(&metadata.name()));
        tracing_subscriber::registry().with(Looks.with_filter(by_name)).try_init().expect("the only one");
        on_device(|address| async move {
            let worker = worker();
            let (client, server) = pair(&worker, &address).await;
            CONNECTIONS.lock().expect("no panic").extend([client.clone(), server.clone()]);
            let [here, there] = [&client, &server].map(|connection| connection.channel(7).expect("a channel"));
            let send = async { here.send_owned(Buffer::allocate(LONG).expect("memory")).await.expect("sends") };
            tokio::join!(send, async { there.recv().await.expect("receives") });
            let exposed = Buffer::allocate(4096).expect("memory").expose();
            let grant = exposed.grant(&client, 0..4096, Access::READ_WRITE).await.expect("grants");
            grant.revoke().await.expect("revokes");
            // One that ends with its connection.
            let grant = exposed.grant(&client, 0..4096, Access::READ_WRITE).await.expect("grants");
            client.abort();
            grant.ended().await.expect("ends");
            server.recv().await.expect_err("broken");
            CONNECTIONS.lock().expect("no panic").clear();
            let told = TOLD.lock().expect("no panic");
            let count = |name| told.iter().filter(|told| **told == name).count();
            assert!(count("rendezvous") == 2 && count("revoke") == 2, "{told:?}");
            assert_eq!(*CHANNELS.lock().expect("no panic"), [7, 7]);
        });
    });
}

#[cfg(feature = "metrics")]
mod recorder {
    use std::sync::atomic::{AtomicBool, Ordering};

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

    use super::*;

    static HAS_WAITED: AtomicBool = AtomicBool::new(false);

    /// Looks at all connections whenever it is told anything, and once waits for another thread that publishes.
    struct Waits;

    impl Waits {
        fn told(&self) {
            look();
            if !HAS_WAITED.swap(true, Ordering::Relaxed) {
                std::thread::spawn(zcmi::telemetry::publish).join().expect("no panic");
            }
        }
    }

    impl Recorder for Waits {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            self.told();
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            self.told();
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            self.told();
            Histogram::noop()
        }
    }

    #[test]
    fn a_recorder_may_look_at_connections_and_wait_for_who_publishes() {
        bounded(|| {
            metrics::set_global_recorder(Waits).expect("the only one");
            on_device(|address| async move {
                let worker = worker();
                let (client, server) = pair(&worker, &address).await;
                CONNECTIONS.lock().expect("no panic").extend([client.clone(), server.clone()]);
                client.send(b"x").await.expect("sends");
                server.recv().await.expect("receives");
                zcmi::telemetry::publish();
                CONNECTIONS.lock().expect("no panic").clear();
                assert!(HAS_WAITED.load(Ordering::Relaxed));
            });
        });
    }
}
