//! Reliable-connection queue pairs.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::work_request::send_request;
use super::{CompletionQueue, Error, ProtectionDomain, QueuePairState, Result, Segment, SendFlags, SendOperation};

/// Sizes of a queue pair (`struct ibv_qp_cap`). The device may give more than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePairCapabilities {
    /// Bytes that a request can carry inline.
    pub inline: u32,
    /// Receives that fit the receive queue.
    pub receives: u32,
    /// Segments of one request, either queue.
    pub segments: u32,
    /// Requests that fit the send queue.
    pub sends: u32,
}

/// A queue pair of type RC (`ibv_create_qp(3)`), both queues completing to one completion queue.
pub struct QueuePair {
    raw: NonNull<ffi::ibv_qp>,
    capabilities: QueuePairCapabilities,
    destroyed: bool,
    creator: Creator,
    // Dropped after `Drop::drop` has destroyed the queue pair.
    completions: Arc<CompletionQueue>,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: libibverbs locks each queue of a queue pair internally; all verbs calls are thread-safe.
unsafe impl Send for QueuePair {}
// SAFETY: as above.
unsafe impl Sync for QueuePair {}

impl QueuePair {
    /// Creates a queue pair in state RESET. If the device cannot carry `inline` bytes inline, it is asked
    /// again for none.
    ///
    /// # Errors
    /// `EINVAL` if domain and completion queue are of different devices or a size is too large,
    /// `ENOMEM` if the device has no queue pair left or RLIMIT_MEMLOCK is too low.
    pub fn create(
        domain: &Arc<ProtectionDomain>,
        completions: &Arc<CompletionQueue>,
        wanted: QueuePairCapabilities,
    ) -> Result<Self> {
        if !Arc::ptr_eq(domain.context(), completions.context()) {
            return Err(Error::returned("ibv_create_qp", libc::EINVAL));
        }
        Self::create_raw(domain, completions, wanted).or_else(|error| match wanted.inline {
            0 => Err(error),
            _ => Self::create_raw(domain, completions, QueuePairCapabilities { inline: 0, ..wanted }),
        })
    }

    fn create_raw(
        domain: &Arc<ProtectionDomain>,
        completions: &Arc<CompletionQueue>,
        wanted: QueuePairCapabilities,
    ) -> Result<Self> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut attributes: ffi::ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        attributes.send_cq = completions.raw();
        attributes.recv_cq = completions.raw();
        attributes.qp_type = ffi::ibv_qp_type::IBV_QPT_RC;
        attributes.cap = ffi::ibv_qp_cap {
            max_send_wr: wanted.sends,
            max_recv_wr: wanted.receives,
            max_send_sge: wanted.segments,
            max_recv_sge: wanted.segments,
            max_inline_data: wanted.inline,
        };
        // SAFETY: domain and completion queue exist and the queue pair keeps both alive.
        let raw = unsafe { ffi::ibv_create_qp(domain.raw(), &mut attributes) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("ibv_create_qp"))?;
        let given = attributes.cap;
        Ok(Self {
            raw,
            capabilities: QueuePairCapabilities {
                // Zero bytes asked for must stay zero bytes used.
                inline: if wanted.inline == 0 { 0 } else { given.max_inline_data },
                receives: given.max_recv_wr,
                segments: given.max_send_sge.min(given.max_recv_sge),
                sends: given.max_send_wr,
            },
            destroyed: false,
            creator: Creator::here(),
            completions: Arc::clone(completions),
            domain: Arc::clone(domain),
        })
    }

    /// The number that peers and completions name it by; 24 bits.
    pub fn number(&self) -> u32 {
        // SAFETY: the queue pair exists, so its structure may be read.
        unsafe { (*self.raw()).qp_num }
    }

    /// The sizes that the device gave.
    pub fn capabilities(&self) -> QueuePairCapabilities {
        self.capabilities
    }

    /// Where both queues complete.
    pub fn completions(&self) -> &Arc<CompletionQueue> {
        &self.completions
    }

    /// The domain that its memory must be registered in.
    pub fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// Moves the queue pair to ERROR: what is posted completes as flushed, unless the driver withholds it.
    pub fn fail(&self) -> Result<()> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut attributes: ffi::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attributes.qp_state = ffi::ibv_qp_state::IBV_QPS_ERR;
        self.modify(&mut attributes, ffi::ibv_qp_attr_mask::IBV_QP_STATE)
    }

    /// The state that the device reports (`ibv_query_qp(3)`).
    pub fn state(&self) -> Result<QueuePairState> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut attributes: ffi::ibv_qp_attr = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut initial: ffi::ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        let mask = ffi::ibv_qp_attr_mask::IBV_QP_STATE.0 as i32;
        // SAFETY: the queue pair exists and both structures are writable for the call.
        let answer = unsafe { ffi::ibv_query_qp(self.raw(), &mut attributes, mask, &mut initial) };
        Error::check("ibv_query_qp", answer)?;
        Ok(QueuePairState::from_raw(attributes.qp_state))
    }

    /// Posts one send request (`ibv_post_send(3)`).
    ///
    /// # Errors
    /// `ENOMEM` if the send queue is full, `EINVAL` if a segment or the inline length is too much.
    ///
    /// # Safety
    /// Unless the request is inline, the segments' memory stays registered and mapped, and is not
    /// written (for a read: not touched) by anybody, from this call until the request's completion, or
    /// that of a later request of this queue, has been polled or the queue pair has been destroyed. For an
    /// inline request the memory is readable for the duration of the call.
    #[inline]
    pub unsafe fn post_send(
        &self,
        wr_id: u64,
        operation: SendOperation,
        segments: &[Segment],
        flags: SendFlags,
    ) -> Result<()> {
        let mut request = send_request(wr_id, operation, segments.as_ptr().cast_mut(), segments.len(), flags);
        // SAFETY: one request that ends the list; the caller vouches for the memory of its segments.
        unsafe { self.post_send_list(&mut request) }.map_err(|(error, _)| error)
    }

    /// Posts a chain of requests in one call; on failure answers the first that was not posted.
    ///
    /// # Safety
    /// The chain is valid for the call; for each request holds what [`Self::post_send`] asks.
    #[inline]
    pub(super) unsafe fn post_send_list(
        &self,
        first: *mut ffi::ibv_send_wr,
    ) -> std::result::Result<(), (Error, *mut ffi::ibv_send_wr)> {
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair exists; the caller vouches for the chain.
        let answer = unsafe { ffi::ibv_post_send(self.raw(), first, &mut bad) };
        if answer == 0 { Ok(()) } else { Err((Error::returned("ibv_post_send", answer), bad)) }
    }

    /// Posts one receive (`ibv_post_recv(3)`).
    ///
    /// # Errors
    /// `ENOMEM` if the receive queue is full, `EINVAL` if there are too many segments.
    ///
    /// # Safety
    /// The segments' memory stays registered and mapped, and is not touched by anybody, until the
    /// receive's completion has been polled or the queue pair has been destroyed.
    #[inline]
    pub unsafe fn post_receive(&self, wr_id: u64, segments: &[Segment]) -> Result<()> {
        let mut request = ffi::ibv_recv_wr {
            wr_id,
            next: std::ptr::null_mut(),
            sg_list: segments.as_ptr().cast_mut().cast(),
            num_sge: segments.len() as i32,
        };
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair exists; one request that ends the list; the caller vouches for the memory.
        let answer = unsafe { ffi::ibv_post_recv(self.raw(), &mut request, &mut bad) };
        Error::check("ibv_post_recv", answer)
    }

    /// Destroys the queue pair; only if that works has the device let go of what is in flight. A failure is logged.
    pub(super) fn destroy(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.destroyed, true) || !self.creator.may_destroy("queue pair") {
            return Ok(());
        }
        // SAFETY: destroyed once; its parents are still held.
        let answer = unsafe { ffi::ibv_destroy_qp(self.raw()) };
        fork::destroyed("ibv_destroy_qp", answer);
        Error::check("ibv_destroy_qp", answer)
    }

    pub(super) fn modify(&self, attributes: &mut ffi::ibv_qp_attr, mask: ffi::ibv_qp_attr_mask) -> Result<()> {
        // SAFETY: the queue pair exists and the structure is valid for the call.
        let answer = unsafe { ffi::ibv_modify_qp(self.raw(), attributes, mask.0 as i32) };
        Error::check("ibv_modify_qp", answer)
    }

    fn raw(&self) -> *mut ffi::ibv_qp {
        self.raw.as_ptr()
    }
}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair").field("number", &self.number()).finish_non_exhaustive()
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // An error has been logged.
        let _ = self.end();
    }
}
