//! The names of what is counted.

/// What a connection counts under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Atomics,
    BytesRead,
    BytesReceived,
    BytesSent,
    BytesWritten,
    CreditWaits,
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "a tally knows"))]
    FramesCoalesced,
    FramesSent,
    GrantsAgreed,
    GrantsForced,
    GrantsGiven,
    GrantsLost,
    HandOvers,
    HeartbeatTimeouts,
    LongDeclined,
    LongReceived,
    LongSent,
    MessagesReceived,
    MessagesSent,
    QueueWaits,
    Reads,
    WindowWaits,
    Writes,
    WritesNotified,
}

/// What is done seldom, and how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Accept,
    Close,
    Connect,
    Fetch,
    Handshake,
    Offer,
    Register,
    Revoke,
}

/// What happens to a connection as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Accepted,
    Connected,
}

/// Why a peer that asked is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Busy,
    Declined,
    Incompatible,
}

#[cfg(feature = "metrics")]
impl Count {
    /// All of them, in their order: the metric, its label, and its unit.
    pub(crate) const ALL: [(&'static str, Option<(&'static str, &'static str)>); 24] = [
        ("zcmi_operations_total", Some(("operation", "atomic"))),
        ("zcmi_operation_bytes_total", Some(("operation", "read"))),
        ("zcmi_bytes_received_total", None),
        ("zcmi_bytes_sent_total", None),
        ("zcmi_operation_bytes_total", Some(("operation", "write"))),
        ("zcmi_send_waits_total", Some(("cause", "credit"))),
        ("zcmi_frames_coalesced_total", None),
        ("zcmi_frames_sent_total", None),
        ("zcmi_grants_ended_total", Some(("how", "agreed"))),
        ("zcmi_grants_ended_total", Some(("how", "forced"))),
        ("zcmi_grants_given_total", None),
        ("zcmi_grants_ended_total", Some(("how", "connection_lost"))),
        ("zcmi_hand_overs_total", None),
        ("zcmi_heartbeat_timeouts_total", None),
        ("zcmi_long_messages_declined_total", None),
        ("zcmi_long_messages_received_total", None),
        ("zcmi_long_messages_sent_total", None),
        ("zcmi_messages_received_total", None),
        ("zcmi_messages_sent_total", None),
        ("zcmi_send_waits_total", Some(("cause", "queue"))),
        ("zcmi_operations_total", Some(("operation", "read"))),
        ("zcmi_send_waits_total", Some(("cause", "window"))),
        ("zcmi_operations_total", Some(("operation", "write"))),
        ("zcmi_operations_total", Some(("operation", "write_notify"))),
    ];
}

#[cfg(feature = "metrics")]
impl Phase {
    /// All of them, in their order: the metric and its label.
    pub(crate) const ALL: [(&'static str, Option<(&'static str, &'static str)>); 8] = [
        ("zcmi_accept_seconds", None),
        ("zcmi_close_seconds", None),
        ("zcmi_connect_seconds", None),
        ("zcmi_rendezvous_seconds", Some(("role", "receiver"))),
        ("zcmi_handshake_seconds", None),
        ("zcmi_rendezvous_seconds", Some(("role", "sender"))),
        ("zcmi_registration_seconds", None),
        ("zcmi_revoke_seconds", None),
    ];
}

#[cfg(feature = "metrics")]
impl Refused {
    pub(crate) const ALL: [&'static str; 3] = ["busy", "declined", "incompatible"];
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn each_is_at_its_place() {
        let label = |count: Count| (Count::ALL[count as usize].0, Count::ALL[count as usize].1.map(|label| label.1));
        assert_eq!(label(Count::Atomics), ("zcmi_operations_total", Some("atomic")));
        assert_eq!(label(Count::BytesWritten), ("zcmi_operation_bytes_total", Some("write")));
        assert_eq!(label(Count::GrantsLost), ("zcmi_grants_ended_total", Some("connection_lost")));
        assert_eq!(label(Count::MessagesSent), ("zcmi_messages_sent_total", None));
        assert_eq!(label(Count::WindowWaits), ("zcmi_send_waits_total", Some("window")));
        assert_eq!(Count::WritesNotified as usize, Count::ALL.len() - 1);
        assert_eq!(Phase::ALL[Phase::Offer as usize].1, Some(("role", "sender")));
        assert_eq!(Phase::Revoke as usize, Phase::ALL.len() - 1);
        assert_eq!(Refused::ALL[Refused::Incompatible as usize], "incompatible");
    }
}
