//! Queue pairs.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::window_core::BoundWindows;
use super::work_request::send_request;
use super::{
    CompletionQueue, Error, Gid, ProtectionDomain, QueuePairBuilder, QueuePairCapabilities, QueuePairKind, Remote,
    Result, Segment, SendFlags, SendList, SendOperation, SharedReceiveQueue,
};

/// A queue pair (`ibv_create_qp(3)`).
///
/// Posting here is `unsafe`, at the cost of the C inline functions; [`OwningQueue`](super::OwningQueue) is the safe
/// tier. Its states are moved by [`modify`](Self::modify), by [`connect_to`](Self::connect_to) and
/// [`open_for_datagrams`](Self::open_for_datagrams), or with rdma_cm's help by [`initialize`](Self::initialize) and
/// [`connect`](Self::connect).
///
/// ```
/// use zcmi::verbs::{CompletionQueue, Device, ProtectionDomain, QueuePair, QueuePairKind, QueuePairState};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let context = device.open()?;
/// let domain = ProtectionDomain::allocate(&context)?;
/// let completions = CompletionQueue::create(&context, 128)?;
/// let pair = QueuePair::builder(&domain, &completions).kind(QueuePairKind::Ud).create()?;
/// assert_eq!(pair.state()?, QueuePairState::Reset);
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
pub struct QueuePair {
    raw: NonNull<ffi::ibv_qp>,
    kind: QueuePairKind,
    capabilities: QueuePairCapabilities,
    /// What it is attached to.
    pub(super) groups: Mutex<Vec<(Gid, u16)>>,
    /// The state that it was last moved to; it may have failed since.
    moved_to: AtomicU32,
    destroyed: bool,
    creator: Creator,
    windows: Arc<BoundWindows>,
    // Dropped after `Drop::drop` has destroyed the queue pair.
    send_completions: Arc<CompletionQueue>,
    receive_completions: Arc<CompletionQueue>,
    shared_receives: Option<Arc<SharedReceiveQueue>>,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: libibverbs locks each queue of a queue pair internally; all verbs calls are thread-safe.
unsafe impl Send for QueuePair {}
// SAFETY: as above.
unsafe impl Sync for QueuePair {}

impl QueuePair {
    /// The settings of a queue pair; both its queues complete to `completions`, unless set otherwise.
    pub fn builder(domain: &Arc<ProtectionDomain>, completions: &Arc<CompletionQueue>) -> QueuePairBuilder {
        QueuePairBuilder::new(domain, completions)
    }

    /// Creates a queue pair of type RC. If the device cannot carry `inline` bytes inline, it is asked
    /// again for none.
    ///
    /// # Errors
    /// As [`QueuePairBuilder::create`].
    pub fn create(
        domain: &Arc<ProtectionDomain>,
        completions: &Arc<CompletionQueue>,
        wanted: QueuePairCapabilities,
    ) -> Result<Self> {
        Self::builder(domain, completions).capabilities(wanted).create()
    }

    pub(super) fn from_raw(
        raw: NonNull<ffi::ibv_qp>,
        settings: QueuePairBuilder,
        capabilities: QueuePairCapabilities,
    ) -> Self {
        Self {
            raw,
            kind: settings.kind,
            capabilities,
            groups: Mutex::default(),
            moved_to: AtomicU32::new(ffi::ibv_qp_state::IBV_QPS_RESET),
            destroyed: false,
            creator: Creator::here(),
            windows: Arc::default(),
            send_completions: settings.send_completions,
            receive_completions: settings.receive_completions,
            shared_receives: settings.shared_receives,
            domain: settings.domain,
        }
    }

    /// The number that peers and completions name it by; 24 bits.
    pub fn number(&self) -> u32 {
        // SAFETY: the queue pair exists, so its structure may be read.
        unsafe { (*self.raw()).qp_num }
    }

    /// The transport service.
    pub fn kind(&self) -> QueuePairKind {
        self.kind
    }

    /// The sizes that the device gave.
    pub fn capabilities(&self) -> QueuePairCapabilities {
        self.capabilities
    }

    /// Where send requests complete.
    pub fn send_completions(&self) -> &Arc<CompletionQueue> {
        &self.send_completions
    }

    /// Where receives complete.
    pub fn receive_completions(&self) -> &Arc<CompletionQueue> {
        &self.receive_completions
    }

    /// Where it takes receives from, if not from a queue of its own.
    pub fn shared_receives(&self) -> Option<&Arc<SharedReceiveQueue>> {
        self.shared_receives.as_ref()
    }

    /// The domain that its memory must be registered in.
    pub fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// Posts one send request (`ibv_post_send(3)`).
    ///
    /// # Errors
    /// `ENOMEM` if the send queue is full, `EINVAL` if a segment or the inline length is too much, or the queue pair was not yet
    /// in state RTS: rxe has then put the request into its queue all the same. A request that fails later says so by its completion.
    ///
    /// # Safety
    /// - Unless the request is inline, the segments' memory stays registered and mapped, and is not
    ///   written (for a read or an atomic: not touched) by anybody, from this call, even if it fails, until the request's completion, or
    ///   that of a later request of this queue, has been polled or the queue pair has been destroyed. For an
    ///   inline request the memory is readable for the duration of the call.
    /// - A datagram is posted to a queue pair of type UD, anything else to one of another type; the address handle is of
    ///   the queue pair's device and lives until the completion.
    /// - The completion queue is not that of an [`OwningQueue`](super::OwningQueue), which would take the completion for one
    ///   of its own.
    /// - A [`BindWindow`](SendOperation::BindWindow) has a window of type 2; for the rest it asks what
    ///   [`post_bind`](Self::post_bind) does.
    /// - A [`LocalInvalidate`](SendOperation::LocalInvalidate) names a window that is bound, to this queue pair, and that
    ///   nobody else invalidates or frees until the completion: on rxe a second time crashes the kernel.
    #[inline]
    pub unsafe fn post_send(
        &self,
        wr_id: u64,
        operation: SendOperation<'_>,
        segments: &[Segment],
        flags: SendFlags,
    ) -> Result<()> {
        let mut request = send_request(wr_id, operation, segments.as_ptr().cast_mut(), segments.len(), flags);
        // SAFETY: one request that ends the list; the caller vouches for what it names.
        unsafe { self.post_send_chain(&mut request) }.map_err(|(error, _)| error)
    }

    /// Posts all requests of `list` in one call; what was posted is taken off it.
    ///
    /// # Errors
    /// As [`post_send`](Self::post_send). The first request that was not posted is then the first of the list.
    ///
    /// # Safety
    /// For each request holds what [`post_send`](Self::post_send) asks.
    #[inline]
    pub unsafe fn post_send_list(&self, list: &mut SendList<'_>) -> Result<()> {
        let Some(first) = list.link() else { return Ok(()) };
        // SAFETY: `link` made a chain of the list's own requests; the caller vouches for what they name.
        match unsafe { self.post_send_chain(first) } {
            Ok(()) => {
                list.clear();
                Ok(())
            }
            Err((error, bad)) => {
                list.take_before(bad);
                Err(error)
            }
        }
    }

    /// Posts a chain of requests in one call; on failure answers the first that was not posted.
    ///
    /// # Safety
    /// The chain is valid for the call; for each request holds what [`Self::post_send`] asks.
    #[inline]
    pub(super) unsafe fn post_send_chain(
        &self,
        first: *mut ffi::ibv_send_wr,
    ) -> std::result::Result<(), (Error, *mut ffi::ibv_send_wr)> {
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair exists; the caller vouches for the chain.
        let answer = unsafe { ffi::ibv_post_send(self.raw(), first, &mut bad) };
        if answer == 0 { Ok(()) } else { Err((Error::returned("ibv_post_send", answer), bad)) }
    }

    /// Posts one receive (`ibv_post_recv(3)`). A datagram's buffer begins with 40 bytes of route header.
    ///
    /// # Errors
    /// `ENOMEM` if the receive queue is full, `EINVAL` if there are too many segments or the receives are shared.
    ///
    /// # Safety
    /// The segments' memory stays registered and mapped, and is not touched by anybody, until the
    /// receive's completion has been polled or the queue pair has been destroyed. The completion queue is not that of an
    /// [`OwningQueue`](super::OwningQueue).
    #[inline]
    pub unsafe fn post_receive(&self, wr_id: u64, segments: &[Segment]) -> Result<()> {
        let mut request = receive_request(wr_id, segments);
        // SAFETY: one request that ends the list; the caller vouches for the memory.
        unsafe { self.post_receive_chain(&mut request) }.map_err(|(error, _)| error)
    }

    /// Posts receives in one call; answers how many. Fewer than all only with an error, which is that of the next.
    ///
    /// # Errors
    /// As [`post_receive`](Self::post_receive), with the number that were posted.
    ///
    /// # Safety
    /// For each holds what [`post_receive`](Self::post_receive) asks.
    pub unsafe fn post_receives(&self, receives: &[(u64, &[Segment])]) -> std::result::Result<(), (Error, usize)> {
        post_in_chains(receives, |first| {
            // SAFETY: the chain lives during the call; the caller vouches for the memory.
            unsafe { self.post_receive_chain(first) }
        })
    }

    /// # Safety
    /// The chain is valid for the call; for each request holds what [`Self::post_receive`] asks.
    #[inline]
    unsafe fn post_receive_chain(
        &self,
        first: *mut ffi::ibv_recv_wr,
    ) -> std::result::Result<(), (Error, *mut ffi::ibv_recv_wr)> {
        let mut bad = std::ptr::null_mut();
        if self.shared_receives.is_some() {
            return Err((Error::invalid("ibv_post_recv", "its receives are shared: post to the shared queue"), first));
        }
        // SAFETY: the queue pair exists and has a receive queue; the caller vouches for the chain.
        let answer = unsafe { ffi::ibv_post_recv(self.raw(), first, &mut bad) };
        if answer == 0 { Ok(()) } else { Err((Error::returned("ibv_post_recv", answer), bad)) }
    }

    /// Whether [`post_atomic_write`](Self::post_atomic_write) can work; see [`QueuePairBuilder::atomic_write`].
    pub fn has_atomic_write(&self) -> bool {
        self.extended().is_some_and(|(_, write)| write.is_some())
    }

    /// Posts a write of 8 bytes that a reader sees all or nothing of (IBTA 1.5, 9.4.5.3; Linux 6.2 and newer). The
    /// bytes travel with the request; no memory of ours is used.
    ///
    /// # Errors
    /// `EINVAL` if `remote` is not aligned to 8 bytes, `EOPNOTSUPP` if the queue pair was made without it, `ENOMEM` if the
    /// send queue is full.
    ///
    /// # Safety
    /// The completion queue is not that of an [`OwningQueue`](super::OwningQueue), which would take the completion for one
    /// of its own and release the memory of another request.
    pub unsafe fn post_atomic_write(&self, wr_id: u64, remote: Remote, bytes: [u8; 8], flags: SendFlags) -> Result<()> {
        let call = "ibv_wr_atomic_write";
        if !remote.address.is_multiple_of(8) {
            return Err(Error::invalid(call, format!("address {:#x} is no multiple of 8", remote.address)));
        }
        let Some((extended, Some(write))) = self.extended() else {
            return Err(Error::returned(call, libc::EOPNOTSUPP).with_detail("the queue pair was made without it"));
        };
        // SAFETY: the queue pair exists; the driver's lock is held from here to `ibv_wr_complete`.
        unsafe { ffi::ibv_wr_start(extended.as_ptr()) };
        // SAFETY: the extended structure is that of a live queue pair.
        unsafe { (*extended.as_ptr()).wr_id = wr_id };
        // SAFETY: as above.
        unsafe { (*extended.as_ptr()).wr_flags = flags.without_inline().raw() };
        // SAFETY: between start and complete; the 8 bytes are copied during the call.
        unsafe { write(extended.as_ptr(), remote.key, remote.address, bytes.as_ptr().cast()) };
        // SAFETY: ends what `ibv_wr_start` began.
        let answer = unsafe { ffi::ibv_wr_complete(extended.as_ptr()) };
        Error::check(call, answer)
    }

    /// Whether it was ever moved to where the device takes send requests; it may have failed since.
    #[inline]
    pub(super) fn has_been_ready(&self) -> bool {
        use ffi::ibv_qp_state as state;
        let state = self.moved_to.load(Ordering::Relaxed);
        !matches!(state, state::IBV_QPS_RESET | state::IBV_QPS_INIT | state::IBV_QPS_RTR)
    }

    pub(super) fn was_moved_to(&self, state: ffi::ibv_qp_state::Type) {
        self.moved_to.store(state, Ordering::Relaxed);
    }

    fn extended(&self) -> Option<(NonNull<ffi::ibv_qp_ex>, Option<AtomicWrite>)> {
        // SAFETY: the queue pair exists.
        let extended = NonNull::new(unsafe { ffi::ibv_qp_to_qp_ex(self.raw()) })?;
        // SAFETY: as above; libibverbs answers the structure only if the queue pair was made with it.
        Some((extended, unsafe { extended.as_ref() }.wr_atomic_write))
    }

    /// Destroys the queue pair; only if that works has the device let go of what is in flight. A failure is logged.
    pub(super) fn destroy(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.destroyed, true) || !self.creator.may_destroy("queue pair") {
            return Ok(());
        }
        self.detach_all();
        // rxe would block for 50 s. What is queued for the windows must not find others in their place.
        self.windows.free(|| {
            let _ = self.fail();
        });
        // SAFETY: destroyed once; its parents are still held.
        let answer = unsafe { ffi::ibv_destroy_qp(self.raw()) };
        fork::destroyed("ibv_destroy_qp", answer);
        Error::check("ibv_destroy_qp", answer)
    }

    pub(super) fn windows(&self) -> &Arc<BoundWindows> {
        &self.windows
    }

    pub(super) fn raw(&self) -> *mut ffi::ibv_qp {
        self.raw.as_ptr()
    }
}

type AtomicWrite = unsafe extern "C" fn(*mut ffi::ibv_qp_ex, u32, u64, *const std::ffi::c_void);

/// A receive in the C layout.
#[inline]
pub(super) const fn receive_request(wr_id: u64, segments: &[Segment]) -> ffi::ibv_recv_wr {
    ffi::ibv_recv_wr {
        wr_id,
        next: std::ptr::null_mut(),
        sg_list: segments.as_ptr().cast_mut().cast(),
        num_sge: segments.len() as i32,
    }
}

/// Receives that are posted at once: as many as fit the stack well.
const CHAIN: usize = 16;

/// Posts chains of receives, each leading to the next; on failure answers how many were posted. `post` answers the first
/// of its chain that was not.
pub(super) fn post_in_chains(
    receives: &[(u64, &[Segment])],
    mut post: impl FnMut(*mut ffi::ibv_recv_wr) -> std::result::Result<(), (Error, *mut ffi::ibv_recv_wr)>,
) -> std::result::Result<(), (Error, usize)> {
    for (index, part) in receives.chunks(CHAIN).enumerate() {
        let mut chain = [const { receive_request(0, &[]) }; CHAIN];
        let mut next = std::ptr::null_mut();
        for (request, (wr_id, segments)) in chain.iter_mut().zip(part).rev() {
            *request = receive_request(*wr_id, segments);
            request.next = next;
            next = request;
        }
        post(next).map_err(|(error, bad)| (error, index * CHAIN + posted_before(&chain[..part.len()], bad)))?;
    }
    Ok(())
}

/// How many of `chain` come before `bad`; all if it points elsewhere, so that nothing is taken for unposted that the
/// device may hold.
fn posted_before(chain: &[ffi::ibv_recv_wr], bad: *const ffi::ibv_recv_wr) -> usize {
    chain.iter().position(|request| std::ptr::eq(request, bad)).unwrap_or(chain.len())
}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair").field("kind", &self.kind).field("number", &self.number()).finish_non_exhaustive()
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // An error has been logged.
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receives_are_posted_in_order_and_counted_up_to_the_first_refused() {
        let segments = [Segment::default()];
        let receives: Vec<(u64, &[Segment])> = (0..40).map(|wr_id| (wr_id, &segments[..])).collect();
        let mut seen = Vec::new();
        let mut post = |first: *mut ffi::ibv_recv_wr, refused: u64| {
            let mut next = first;
            while !next.is_null() {
                // SAFETY: the chain is of `post_in_chains`, which keeps it during the call.
                let request = unsafe { &*next };
                if request.wr_id == refused {
                    return Err((Error::returned("ibv_post_recv", libc::ENOMEM), next));
                }
                assert_eq!((request.num_sge, request.sg_list.cast_const().cast()), (1, segments.as_ptr()));
                seen.push(request.wr_id);
                next = request.next;
            }
            Ok(())
        };
        assert!(post_in_chains(&receives, |first| post(first, 40)).is_ok());
        let (error, posted) = post_in_chains(&receives, |first| post(first, 35)).expect_err("refused");
        assert_eq!((error.errno(), posted), (Some(libc::ENOMEM), 35));
        let strange = |_| Err((Error::returned("ibv_post_recv", libc::EIO), std::ptr::null_mut()));
        assert_eq!(
            post_in_chains(&receives[..3], strange).expect_err("refused").1,
            3,
            "a strange answer counts as posted"
        );
        assert!(seen.into_iter().eq((0..40).chain(0..35)));
    }
}
