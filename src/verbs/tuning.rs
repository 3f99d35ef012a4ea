//! Timers, retries and depths of a reliable connection.

/// What we set ourselves instead of taking rdma_cm's value.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Reads that the peer may have outstanding here; `None` keeps what was negotiated, or without rdma_cm takes 16.
    pub reads_as_target: Option<u8>,
    /// Reads that we may have outstanding there; `None` keeps what was negotiated, or without rdma_cm takes 16.
    pub reads_as_initiator: Option<u8>,
    /// How long a sender waits when we have no receive posted: a code of IBTA 1.4, table 45; 12 is 0.64 ms.
    /// Left at rdma_cm's 0 it would be 655 ms.
    pub min_rnr_timer: u8,
    /// Time without acknowledgement before a packet is sent again: 4.096 µs times 2 to this power.
    pub ack_timeout: u8,
    /// How often a packet is sent again; at most 7, which rxe takes for ever.
    pub retry_count: u8,
    /// How often a send is tried again when the receiver is not ready; 7 means for ever.
    pub rnr_retry_count: u8,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            reads_as_target: None,
            reads_as_initiator: None,
            min_rnr_timer: 12,
            // 134 ms, which may take a device up to four times as long, times 7 tries: a host that vanished is noticed in one to
            // four seconds.
            ack_timeout: 15,
            retry_count: 6,
            rnr_retry_count: 6,
        }
    }
}
