//! From what is counted to the recorder of the `metrics` facade.

use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Label, Unit};

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
    // One at a time: what is new since the last time is told once.
    static TURN: Mutex<()> = Mutex::new(());
    static DESCRIBED: Once = Once::new();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    DESCRIBED.call_once(describe);
    let devices = gather();
    for (meters, now) in &devices {
        publish_now(meters, now);
    }
    for meters in Meters::all() {
        let is_there = devices.iter().any(|(known, _)| Arc::ptr_eq(known, &meters));
        if !is_there && !meters.transport.is_empty() {
            publish_now(&meters, &Now::default());
        }
        publish_counted(&meters);
    }
    publish_pool();
    device_counters::read().iter().for_each(publish_device);
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

fn publish_counted(meters: &Meters) {
    let labels = labels_of(meters);
    if !meters.transport.is_empty() {
        for ((name, label), count) in Count::ALL.into_iter().zip(meters.counts()) {
            metrics::counter!(name, with(&labels, label)).absolute(count);
        }
        for (role, event) in ["listener", "connector"].into_iter().zip(&meters.events) {
            let labels = with(&labels, Some(("role", role)));
            let count = event.load(std::sync::atomic::Ordering::Relaxed);
            metrics::counter!("zcmi_connections_opened_total", labels).absolute(count);
        }
        for (reason, refusals) in Refused::ALL.into_iter().zip(&meters.refusals) {
            let labels = with(&labels, Some(("reason", reason)));
            let count = refusals.load(std::sync::atomic::Ordering::Relaxed);
            metrics::counter!("zcmi_accepts_refused_total", labels).absolute(count);
        }
    }
    for ((name, label), durations) in Phase::ALL.into_iter().zip(&meters.durations) {
        let histogram = std::cell::OnceCell::new();
        durations.tell(|seconds, times| {
            histogram.get_or_init(|| metrics::histogram!(name, with(&labels, label))).record_many(seconds, times);
        });
    }
    for ((phase, cause), count) in meters.failures() {
        let name = match phase {
            None => "zcmi_connections_ended_total",
            Some(phase) if phase == Phase::Connect as usize => "zcmi_connects_failed_total",
            Some(_) => "zcmi_handshakes_failed_total",
        };
        let labels: Vec<_> = labels.iter().cloned().chain([Label::new("cause", cause)]).collect();
        metrics::counter!(name, labels).absolute(count);
    }
}

fn publish_now(meters: &Meters, now: &Now) {
    let labels = labels_of(meters);
    let gauge = |name: &'static str, value: usize| metrics::gauge!(name, labels.clone()).set(value as f64);
    gauge("zcmi_connections", now.connections);
    gauge("zcmi_operations_in_flight", now.operations);
    gauge("zcmi_frames_in_flight", now.frames);
    gauge("zcmi_grants", now.grants);
    gauge("zcmi_messages_waiting", now.messages);
    let cache = meters.caches(&now.caches);
    gauge("zcmi_cache_entries", cache.entries);
    gauge("zcmi_cache_pinned_bytes", cache.bytes);
    let counter = |name: &'static str, value: u64| metrics::counter!(name, labels.clone()).absolute(value);
    counter("zcmi_cache_hits_total", cache.hits);
    counter("zcmi_cache_misses_total", cache.misses);
    counter("zcmi_cache_uncached_total", cache.uncached);
    counter("zcmi_cache_evictions_total", cache.evictions);
    for (connection, peer, tally) in &now.each {
        let one = [Label::new("connection", connection.to_string()), Label::new("peer", peer.clone())];
        let labels: Vec<_> = labels.iter().cloned().chain(one).collect();
        for ((name, label), count) in Count::ALL.into_iter().zip(tally.counts()) {
            if *count > 0 {
                let name = name.replacen("zcmi_", "zcmi_connection_", 1);
                metrics::counter!(name, with(&labels, label)).absolute(*count);
            }
        }
    }
}

/// Of the pool that buffers are taken from unless a program has made others.
fn publish_pool() {
    let pool = Pool::global().statistics();
    metrics::gauge!("zcmi_pool_in_use_bytes").set(pool.in_use_bytes as f64);
    metrics::gauge!("zcmi_pool_mapped_bytes").set(pool.mapped_bytes as f64);
    metrics::counter!("zcmi_pool_allocations_total").absolute(Pool::global().allocations());
    metrics::counter!("zcmi_pool_waits_total").absolute(pool.waits);
    metrics::counter!("zcmi_pool_failures_total").absolute(pool.failures);
}

fn publish_device(counter: &DeviceCounter) {
    let DeviceCounter { device, port, name, value } = counter;
    let labels = [("device", device.clone()), ("port", port.clone()), ("counter", name.clone())];
    metrics::gauge!("zcmi_device_counter", &labels).set(*value as f64);
}
