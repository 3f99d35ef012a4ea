//! From what is counted to the recorder of the `metrics` facade.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Label, SharedString, Unit};

use super::device_counters::{self, DeviceCounter};
use super::meters::{Count, Meters, Phase, Refused};
use super::table;
use crate::Pool;
use crate::connection::{Now, gather};

/// Publishes all metrics of this process to the recorder of the `metrics` facade, once: of every worker, device, cache and pool, as the
/// [table](crate::telemetry) has them. Needs the feature `metrics`. [`Config::metrics_interval`](crate::Config::metrics_interval) has the service thread
/// do it again and again instead; a program that serves `/metrics` can call it before it answers.
///
/// Install the recorder before: times that went to none are lost (counts are not).
pub fn publish() {
    static DESCRIBED: AtomicBool = AtomicBool::new(false);
    if !DESCRIBED.swap(true, Ordering::Relaxed) {
        describe();
    }
    // The recorder is foreign code, which may publish too, or wait for somebody who does: it is called with no lock held.
    collect().into_iter().for_each(Value::tell);
}

/// All that there is to tell.
fn collect() -> Vec<Value> {
    // One at a time: what is new since the last time is told once.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut values = Values(Vec::new());
    let devices = gather();
    for (meters, now) in &devices {
        values.add_now(meters, now);
    }
    for meters in Meters::all() {
        let is_there = devices.iter().any(|(known, _)| Arc::ptr_eq(known, &meters));
        if !is_there && !meters.transport.is_empty() {
            values.add_now(&meters, &Now::default());
        }
        values.add_counted(&meters);
    }
    values.add_pool();
    device_counters::read().into_iter().for_each(|counter| values.add_device(counter));
    values.0
}

/// One number for the recorder.
struct Value {
    name: SharedString,
    labels: Vec<Label>,
    amount: Amount,
}

enum Amount {
    Counter(u64),
    Gauge(f64),
    Histogram { seconds: f64, times: usize },
}

impl Value {
    fn tell(self) {
        let Self { name, labels, amount } = self;
        match amount {
            Amount::Counter(count) => metrics::counter!(name, labels).absolute(count),
            Amount::Gauge(value) => metrics::gauge!(name, labels).set(value),
            Amount::Histogram { seconds, times } => metrics::histogram!(name, labels).record_many(seconds, times),
        }
    }
}

/// As [`publish`], on the service thread, unless somebody has done so within half of `interval`: each worker asks for it.
pub(crate) fn publish_every(interval: Duration) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let now = Instant::now();
    {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_duration_since(last) < interval / 2) {
            return;
        }
        *last = Some(now);
    }
    // The recorder is foreign code, and the service thread is needed.
    if std::panic::catch_unwind(publish).is_err() {
        tracing::error!("the recorder of metrics panicked");
    }
}

fn describe() {
    for row in table::ROWS {
        let unit = match row.unit {
            table::Measure::Bytes => Unit::Bytes,
            table::Measure::Count => Unit::Count,
            table::Measure::Seconds => Unit::Seconds,
        };
        match row.kind {
            table::Kind::Counter => metrics::describe_counter!(row.name, unit, row.meaning),
            table::Kind::Gauge => metrics::describe_gauge!(row.name, unit, row.meaning),
            table::Kind::Histogram => metrics::describe_histogram!(row.name, unit, row.meaning),
        }
    }
}

fn labels_of(meters: &Meters) -> Vec<Label> {
    match meters.transport {
        "" => Vec::new(),
        transport => {
            vec![Label::from_static_parts("transport", transport), Label::new("device", meters.device.clone())]
        }
    }
}

fn with(labels: &[Label], more: Option<(&'static str, &'static str)>) -> Vec<Label> {
    let more = more.map(|(name, value)| Label::from_static_parts(name, value));
    labels.iter().cloned().chain(more).collect()
}

struct Values(Vec<Value>);

impl Values {
    fn counter(&mut self, name: impl Into<SharedString>, labels: Vec<Label>, count: u64) {
        self.0.push(Value { name: name.into(), labels, amount: Amount::Counter(count) });
    }

    fn gauge(&mut self, name: &'static str, labels: Vec<Label>, value: f64) {
        self.0.push(Value { name: name.into(), labels, amount: Amount::Gauge(value) });
    }

    fn add_counted(&mut self, meters: &Meters) {
        let labels = labels_of(meters);
        if !meters.transport.is_empty() {
            for ((name, label), count) in Count::ALL.into_iter().zip(meters.counts()) {
                self.counter(name, with(&labels, label), count);
            }
            for (role, event) in ["listener", "connector"].into_iter().zip(&meters.events) {
                let labels = with(&labels, Some(("role", role)));
                self.counter("zcmi_connections_opened_total", labels, event.load(Ordering::Relaxed));
            }
            for (reason, refusals) in Refused::ALL.into_iter().zip(&meters.refusals) {
                let labels = with(&labels, Some(("reason", reason)));
                self.counter("zcmi_accepts_refused_total", labels, refusals.load(Ordering::Relaxed));
            }
        }
        for ((name, label), durations) in Phase::ALL.into_iter().zip(&meters.durations) {
            durations.tell(|seconds, times| {
                let amount = Amount::Histogram { seconds, times };
                self.0.push(Value { name: name.into(), labels: with(&labels, label), amount });
            });
        }
        for ((phase, cause), count) in meters.failures() {
            let name = match phase {
                None => "zcmi_connections_ended_total",
                Some(phase) if phase == Phase::Connect as usize => "zcmi_connects_failed_total",
                Some(_) => "zcmi_handshakes_failed_total",
            };
            let labels = labels.iter().cloned().chain([Label::new("cause", cause)]).collect();
            self.counter(name, labels, count);
        }
    }

    fn add_now(&mut self, meters: &Meters, now: &Now) {
        let labels = labels_of(meters);
        let cache = meters.caches(&now.caches);
        for (name, value) in [
            ("zcmi_connections", now.connections),
            ("zcmi_operations_in_flight", now.operations),
            ("zcmi_frames_in_flight", now.frames),
            ("zcmi_grants", now.grants),
            ("zcmi_messages_waiting", now.messages),
            ("zcmi_cache_entries", cache.entries),
            ("zcmi_cache_pinned_bytes", cache.bytes),
        ] {
            self.gauge(name, labels.clone(), value as f64);
        }
        for (name, count) in [
            ("zcmi_cache_hits_total", cache.hits),
            ("zcmi_cache_misses_total", cache.misses),
            ("zcmi_cache_uncached_total", cache.uncached),
            ("zcmi_cache_evictions_total", cache.evictions),
        ] {
            self.counter(name, labels.clone(), count);
        }
        for (connection, peer, tally) in &now.each {
            let one = [Label::new("connection", connection.to_string()), Label::new("peer", peer.clone())];
            let labels: Vec<_> = labels.iter().cloned().chain(one).collect();
            for ((name, label), count) in Count::ALL.into_iter().zip(tally.counts()) {
                if *count > 0 {
                    let name = name.replacen("zcmi_", "zcmi_connection_", 1);
                    self.counter(name, with(&labels, label), *count);
                }
            }
        }
    }

    /// Of the pool that buffers are taken from unless a program has made others.
    fn add_pool(&mut self) {
        let pool = Pool::global().statistics();
        self.gauge("zcmi_pool_in_use_bytes", Vec::new(), pool.in_use_bytes as f64);
        self.gauge("zcmi_pool_mapped_bytes", Vec::new(), pool.mapped_bytes as f64);
        self.counter("zcmi_pool_allocations_total", Vec::new(), Pool::global().allocations());
        self.counter("zcmi_pool_waits_total", Vec::new(), pool.waits);
        self.counter("zcmi_pool_failures_total", Vec::new(), pool.failures);
    }

    fn add_device(&mut self, counter: DeviceCounter) {
        let DeviceCounter { device, port, name, value } = counter;
        let labels = [("device", device), ("port", port), ("counter", name)];
        let labels = labels.into_iter().map(|(key, label)| Label::new(key, label)).collect();
        self.gauge("zcmi_device_counter", labels, value as f64);
    }
}
