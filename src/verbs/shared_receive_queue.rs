//! Receive queues that many queue pairs take from.

use std::any::Any;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::queue_pair::{post_in_chains, receive_request};
use super::{Error, ProtectionDomain, Result, Segment};

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// A shared receive queue (`ibv_create_srq(3)`).
///
/// ```
/// use zcmi::verbs::{Device, ProtectionDomain, SharedReceiveQueue};
///
/// let Some(device) = Device::list().unwrap_or_default().into_iter().next() else { return Ok(()) };
/// let domain = ProtectionDomain::allocate(&device.open()?)?;
/// let queue = SharedReceiveQueue::create(&domain, 100, 1)?;
/// assert!(queue.receives() >= 100);
/// # Ok::<(), zcmi::verbs::Error>(())
/// ```
pub struct SharedReceiveQueue {
    raw: NonNull<ffi::ibv_srq>,
    key: u64,
    receives: u32,
    segments: u32,
    destroyed: bool,
    creator: Creator,
    // Dropped after `Drop::drop` has destroyed the queue.
    /// What its owning queue had posted and can no longer keep.
    kept: Mutex<Option<Box<dyn Any + Send>>>,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: libibverbs locks a shared receive queue internally; all verbs calls are thread-safe.
unsafe impl Send for SharedReceiveQueue {}
// SAFETY: as above.
unsafe impl Sync for SharedReceiveQueue {}

/// What a shared receive queue is set to (`ibv_query_srq(3)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedReceiveAttributes {
    /// Receives that fit.
    pub receives: u32,
    /// Segments of one receive.
    pub segments: u32,
    /// The armed limit; 0 if none is.
    pub limit: u32,
}

impl SharedReceiveQueue {
    /// Creates a queue for at least so many receives of so many segments.
    ///
    /// # Errors
    /// `EINVAL` if the device cannot make it that large, `ENOMEM` if it has none left.
    pub fn create(domain: &Arc<ProtectionDomain>, receives: u32, segments: u32) -> Result<Arc<Self>> {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        let mut attributes = ffi::ibv_srq_init_attr {
            // A number to libibverbs.
            srq_context: key as *mut _,
            attr: ffi::ibv_srq_attr { max_wr: receives, max_sge: segments, srq_limit: 0 },
        };
        // SAFETY: the domain exists and the queue keeps it alive; the structure is writable for the call.
        let raw = unsafe { ffi::ibv_create_srq(domain.raw(), &mut attributes) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            Error::last("ibv_create_srq").with_detail(format!("{receives} receives of {segments} segments"))
        })?;
        Ok(Arc::new(Self {
            raw,
            key,
            receives: attributes.attr.max_wr,
            segments: attributes.attr.max_sge,
            destroyed: false,
            creator: Creator::here(),
            kept: Mutex::new(None),
            domain: Arc::clone(domain),
        }))
    }

    /// A number that no other queue of this process ever has;
    /// [asynchronous events](super::AsyncEventObject::SharedReceiveQueue) carry it.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Receives that fit.
    pub fn receives(&self) -> u32 {
        self.receives
    }

    /// Segments of one receive.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// The domain that its memory must be registered in.
    pub fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// Asks for one device event when fewer than `limit` receives are left (`ibv_modify_srq(3)`); 0 takes that back.
    ///
    /// # Errors
    /// `EINVAL` if that is more than fit.
    pub fn arm_limit(&self, limit: u32) -> Result<()> {
        if limit > self.receives {
            let detail = format!("a limit of {limit}; {} receives fit", self.receives);
            return Err(Error::invalid("ibv_modify_srq", detail));
        }
        let mut attributes = ffi::ibv_srq_attr { max_wr: 0, max_sge: 0, srq_limit: limit };
        let mask = ffi::ibv_srq_attr_mask::IBV_SRQ_LIMIT.0 as i32;
        // SAFETY: the queue exists and the structure is valid for the call.
        Error::check("ibv_modify_srq", unsafe { ffi::ibv_modify_srq(self.raw(), &mut attributes, mask) })
    }

    /// What the device says of it.
    pub fn attributes(&self) -> Result<SharedReceiveAttributes> {
        let mut raw = ffi::ibv_srq_attr { max_wr: 0, max_sge: 0, srq_limit: 0 };
        // SAFETY: the queue exists and the structure is writable for the call.
        Error::check("ibv_query_srq", unsafe { ffi::ibv_query_srq(self.raw(), &mut raw) })?;
        Ok(SharedReceiveAttributes { receives: raw.max_wr, segments: raw.max_sge, limit: raw.srq_limit })
    }

    /// Posts one receive (`ibv_post_srq_recv(3)`).
    ///
    /// # Errors
    /// `ENOMEM` if the queue is full, `EINVAL` if there are too many segments.
    ///
    /// # Safety
    /// The segments' memory stays registered and mapped, and is not touched by anybody, until the receive's completion has
    /// been polled or this queue has been destroyed. The queue is not that of an [`OwningQueue`](super::OwningQueue).
    #[inline]
    pub unsafe fn post_receive(&self, wr_id: u64, segments: &[Segment]) -> Result<()> {
        let mut request = receive_request(wr_id, segments);
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue exists; one request that ends the list; the caller vouches for the memory.
        let answer = unsafe { ffi::ibv_post_srq_recv(self.raw(), &mut request, &mut bad) };
        Error::check("ibv_post_srq_recv", answer)
    }

    /// Posts receives in one call.
    ///
    /// # Errors
    /// As [`post_receive`](Self::post_receive), with the number that were posted.
    ///
    /// # Safety
    /// For each holds what [`post_receive`](Self::post_receive) asks.
    pub unsafe fn post_receives(&self, receives: &[(u64, &[Segment])]) -> std::result::Result<(), (Error, usize)> {
        post_in_chains(receives, |first| {
            let mut bad = std::ptr::null_mut();
            // SAFETY: the queue exists; the chain lives during the call; the caller vouches for the memory.
            let answer = unsafe { ffi::ibv_post_srq_recv(self.raw(), first, &mut bad) };
            Error::check("ibv_post_srq_recv", answer).map_err(|error| (error, bad))
        })
    }

    /// Holds what is posted until the queue has been destroyed. Only its owning queue does that, once.
    pub(super) fn keep(&self, posted: Box<dyn Any + Send>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(posted);
    }

    /// Destroys the queue; only if that works has the device let go of what is posted. A failure is logged.
    pub(super) fn destroy(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.destroyed, true) || !self.creator.may_destroy("shared receive queue") {
            return Ok(());
        }
        // SAFETY: destroyed once; queue pairs hold an `Arc` of this queue, so none is left on it.
        let answer = unsafe { ffi::ibv_destroy_srq(self.raw()) };
        fork::destroyed("ibv_destroy_srq", answer);
        if answer != 0 {
            // The device may still use it.
            std::mem::forget(self.kept.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
        Error::check("ibv_destroy_srq", answer)
    }

    pub(super) fn raw(&self) -> *mut ffi::ibv_srq {
        self.raw.as_ptr()
    }
}

impl fmt::Debug for SharedReceiveQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReceiveQueue").field("receives", &self.receives).finish_non_exhaustive()
    }
}

impl Drop for SharedReceiveQueue {
    fn drop(&mut self) {
        // An error has been logged.
        let _ = self.end();
    }
}
