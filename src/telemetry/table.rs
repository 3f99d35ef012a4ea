//! The table of all metrics: what is described to the recorder, and what `docs/telemetry.md` has.

/// One metric.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Measure,
    /// Besides `transport` and `device`; those of none are of the process.
    #[cfg(test)]
    pub(super) labels: &'static str,
    pub(super) meaning: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Bytes,
    Count,
    Seconds,
}

macro_rules! rows {
    ($($name:literal $kind:ident $unit:ident $labels:literal $meaning:literal;)*) => {
        pub(super) const ROWS: &[Row] = &[$(Row {
            name: $name,
            kind: Kind::$kind,
            unit: Measure::$unit,
            #[cfg(test)]
            labels: $labels,
            meaning: $meaning,
        }),*];
    };
}

rows! {
    "zcmi_messages_sent_total" Counter Count "transport, device" "messages sent, of any length";
    "zcmi_messages_received_total" Counter Count "transport, device" "messages that have come, long ones when they were fetched";
    "zcmi_bytes_sent_total" Counter Bytes "transport, device" "their bytes, without headers";
    "zcmi_bytes_received_total" Counter Bytes "transport, device" "their bytes, without headers";
    "zcmi_frames_sent_total" Counter Count "transport, device" "frames of messages and records";
    "zcmi_frames_coalesced_total" Counter Count "transport, device" "of these, frames that more than one message shares";
    "zcmi_long_messages_sent_total" Counter Count "transport, device" "of the messages, those that were offered to be fetched";
    "zcmi_long_messages_received_total" Counter Count "transport, device" "of the messages, those that were fetched";
    "zcmi_long_messages_declined_total" Counter Count "transport, device" "long messages that the peer did not want";
    "zcmi_hand_overs_total" Counter Count "transport, device" "of the messages sent, buffers handed over in shared pages";
    "zcmi_operations_total" Counter Count "transport, device, operation" "one-sided operations begun: read, write, write_notify, atomic";
    "zcmi_operation_bytes_total" Counter Bytes "transport, device, operation" "their bytes: read, write";
    "zcmi_send_waits_total" Counter Count "transport, device, cause" "a sender fell asleep for want of: credit (the peer's receives), window (the peer's application), queue (the device); one message may wait several times";
    "zcmi_grants_given_total" Counter Count "transport, device" "grants to one connection, but for long messages";
    "zcmi_grants_ended_total" Counter Count "transport, device, how" "how they ended: agreed, forced, connection_lost";
    "zcmi_heartbeat_timeouts_total" Counter Count "transport, device" "peers given up because they fell silent";
    "zcmi_connections_opened_total" Counter Count "transport, device, role" "connections set up, as connector or listener";
    "zcmi_connections_ended_total" Counter Count "transport, device, cause" "how they ended, by kind of error: Closed and PeerClosed are as should be";
    "zcmi_handshakes_failed_total" Counter Count "transport, device, cause" "connections that were not set up to the end, by kind of error, at either side";
    "zcmi_connects_failed_total" Counter Count "cause" "calls to connect that failed, by kind of error, whatever the reason";
    "zcmi_accepts_refused_total" Counter Count "transport, device, reason" "peers that a listener has refused: busy, declined, incompatible";
    "zcmi_connect_seconds" Histogram Seconds "" "connect, from the call on";
    "zcmi_accept_seconds" Histogram Seconds "transport, device" "accept, from the request on";
    "zcmi_handshake_seconds" Histogram Seconds "transport, device" "of these, from when the device is open";
    "zcmi_rendezvous_seconds" Histogram Seconds "transport, device, role" "long messages: sender, from the call until the peer has taken it; receiver, the read alone";
    "zcmi_revoke_seconds" Histogram Seconds "transport, device" "grants of one connection, from the first step until nobody can reach the memory";
    "zcmi_registration_seconds" Histogram Seconds "" "registrations of the cache";
    "zcmi_close_seconds" Histogram Seconds "transport, device" "close, until all has been delivered";
    "zcmi_connections" Gauge Count "transport, device" "connections that there are";
    "zcmi_operations_in_flight" Gauge Count "transport, device" "one-sided operations on their way";
    "zcmi_frames_in_flight" Gauge Count "transport, device" "frames not known to have arrived";
    "zcmi_grants" Gauge Count "transport, device" "grants to one connection that have not ended";
    "zcmi_messages_waiting" Gauge Count "transport, device" "messages that have come and were not received";
    "zcmi_cache_hits_total" Counter Count "transport, device" "uses that found their memory registered";
    "zcmi_cache_misses_total" Counter Count "transport, device" "uses that registered their memory";
    "zcmi_cache_uncached_total" Counter Count "transport, device" "of the misses, those that could not be kept";
    "zcmi_cache_evictions_total" Counter Count "transport, device" "registrations given up for want of room";
    "zcmi_cache_entries" Gauge Count "transport, device" "registrations kept";
    "zcmi_cache_pinned_bytes" Gauge Bytes "transport, device" "what they pin";
    "zcmi_pool_allocations_total" Counter Count "" "buffers taken from the process' pool";
    "zcmi_pool_waits_total" Counter Count "" "allocations that had to wait";
    "zcmi_pool_failures_total" Counter Count "" "allocations that failed: the pool was exhausted, or the system";
    "zcmi_pool_in_use_bytes" Gauge Bytes "" "blocks that buffers are in";
    "zcmi_pool_mapped_bytes" Gauge Bytes "" "memory of the pool, in use and idle";
    "zcmi_device_counter" Gauge Count "device, port, counter" "what an RDMA device counts itself, below /sys/class/infiniband: retries, RNR, lost packets and the like";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> String {
        let rows = ROWS.iter().map(|row| {
            let Row { name, kind, unit, labels, meaning } = row;
            let (kind, unit) = (format!("{kind:?}").to_lowercase(), format!("{unit:?}").to_lowercase());
            let unit = unit.replace("count", "");
            format!("| `{name}` | {kind} | {unit} | {labels} | {meaning} |\n")
        });
        rows.collect()
    }

    #[test]
    fn the_document_lists_all_metrics() {
        let document = include_str!("../../docs/telemetry.md");
        let head = "| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n";
        assert!(document.contains(&format!("{head}{}\n", table())), "docs/telemetry.md should have:\n{}", table());
    }

    #[test]
    fn names_are_as_prometheus_has_them() {
        for row in ROWS {
            let is_total = row.name.ends_with("_total");
            assert_eq!(row.kind == Kind::Counter, is_total, "{}", row.name);
            let stem = row.name.trim_end_matches("_total");
            let is_of = |unit: &str| stem.ends_with(unit) || stem.contains(&format!("{unit}_"));
            assert_eq!(row.unit == Measure::Seconds, is_of("_seconds"), "{}", row.name);
            assert_eq!(row.unit == Measure::Bytes, is_of("_bytes"), "{}", row.name);
        }
    }
}
