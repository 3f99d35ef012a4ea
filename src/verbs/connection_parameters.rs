//! What both sides of a connection tell each other at set-up.

use rdma_sys as ffi;

use super::connection_id::private_data_length;
use super::{Error, PortSpace, Result};

/// What both sides tell each other at set-up (`struct rdma_conn_param`). In port space UDP only the private data and,
/// accepting, the queue pair count.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionParameters<'a> {
    /// As long as [`PortSpace`] says: in port space TCP up to 56 bytes with a request, 196 with an accept.
    pub private_data: &'a [u8],
    /// Reads that the peer may have outstanding here, at most what the device serves; 255 stands for as many as that.
    pub responder_resources: u8,
    /// Reads that we want to have outstanding there, at most what the device can have; 255 stands for as many as that.
    pub initiator_depth: u8,
    /// How often the peer sends a packet again; at most 7. Does not count when accepting.
    pub retry_count: u8,
    /// How often the peer tries again when we have no receive; 7 means for ever.
    pub rnr_retry_count: u8,
    /// The number of our queue pair; 24 bits.
    pub queue_pair: u32,
}

impl Default for ConnectionParameters<'_> {
    /// No private data, one read outstanding each way, and the retries of [`Tuning`](super::Tuning)'s default.
    fn default() -> Self {
        let tuning = super::Tuning::default();
        Self {
            private_data: &[],
            responder_resources: 1,
            initiator_depth: 1,
            retry_count: tuning.retry_count,
            rnr_retry_count: tuning.rnr_retry_count,
            queue_pair: 0,
        }
    }
}

impl ConnectionParameters<'_> {
    pub(super) fn to_raw(self, call: &'static str, space: PortSpace, limit: usize) -> Result<ffi::rdma_conn_param> {
        for (name, count) in [("retry_count", self.retry_count), ("rnr_retry_count", self.rnr_retry_count)] {
            if count > 7 {
                return Err(Error::invalid(call, format!("{name} is {count}; the most is 7")));
            }
        }
        if self.queue_pair >> 24 != 0 {
            return Err(Error::invalid(call, format!("queue pair {:#x} does not fit 24 bits", self.queue_pair)));
        }
        Ok(ffi::rdma_conn_param {
            private_data: self.private_data.as_ptr().cast(),
            private_data_len: private_data_length(call, self.private_data, space, limit)?,
            responder_resources: self.responder_resources,
            initiator_depth: self.initiator_depth,
            flow_control: 1,
            retry_count: self.retry_count,
            rnr_retry_count: self.rnr_retry_count,
            srq: 0,
            qp_num: self.queue_pair,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(parameters: ConnectionParameters<'_>, space: PortSpace) -> Option<String> {
        let answer = parameters.to_raw("rdma_connect", space, space.connect_private_data());
        answer.err().map(|error| error.detail().unwrap_or_default().to_owned())
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_limit() {
        let data = [0; 300];
        let with = |private_data| ConnectionParameters { private_data, ..Default::default() };
        assert_eq!(refused(with(&data[..56]), PortSpace::Tcp), None);
        let long = refused(with(&data[..57]), PortSpace::Tcp);
        assert_eq!(long.as_deref(), Some("57 bytes of private data; 56 fit in port space Tcp"));
        assert_eq!(refused(with(&data[..180]), PortSpace::Udp), None);
        assert!(refused(with(&data[..181]), PortSpace::Udp).is_some());
        // 256 does not become 0.
        assert!(refused(with(&data[..256]), PortSpace::Udp).is_some());
        let base = ConnectionParameters::default();
        assert!(refused(ConnectionParameters { retry_count: 8, ..base }, PortSpace::Tcp).is_some());
        assert!(refused(ConnectionParameters { rnr_retry_count: 8, ..base }, PortSpace::Tcp).is_some());
        assert!(refused(ConnectionParameters { queue_pair: 1 << 24, ..base }, PortSpace::Tcp).is_some());
    }
}
