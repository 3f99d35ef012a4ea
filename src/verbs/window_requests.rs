//! Binding and invalidating windows in the safe tier.

use std::ops::Range;
use std::sync::Arc;

use super::memory_window::WindowRequest;
use super::operation_table::Operation;
use super::window_core::Handle;
use super::work_request::send_request;
use super::{
    Access, Binding, BoundWindow, Error, InFlight, MemoryRegion, OwningQueue, QueuePair, QueuePairKey, QueuePairKind,
    Result, SendFlags, SendOperation, UnboundWindow, WindowKind,
};

/// A request for a window that was not taken.
#[derive(Debug)]
pub struct RefusedWindow<W> {
    /// `None`: the queue is full, which polling mends.
    pub error: Option<Error>,
    /// The window as it was. `None` if the device may have the request all the same: then it comes back with the completion or
    /// with the end of the queue pair.
    pub window: Option<W>,
}

impl<B: InFlight> OwningQueue<B> {
    /// Binds `window` to `range` (bytes within `region`), after what was posted before. The window comes back with the
    /// completion, as a [`BoundWindow`] that has the new key. If the bind fails, an [`UnboundWindow`] comes back that can only
    /// be dropped, and the queue pair is in ERROR.
    ///
    /// A window of type 2 belongs to this queue pair until it is invalidated. Its end frees the window.
    ///
    /// # Errors
    /// Answers the window, with `EINVAL` if window, region and queue pair are not of one protection domain, the region does
    /// not allow [`MW_BIND`](Access::MW_BIND) or what `access` asks ([`LOCAL_WRITE`](Access::LOCAL_WRITE) for writing and
    /// atomics), the range is empty or leaves the region, the queue pair is of type UD, or an earlier request for the window
    /// failed; with `ENOSPC` if its keys are used up; without an error if the queue is full.
    pub fn bind_window(
        &mut self,
        key: QueuePairKey,
        token: u64,
        window: UnboundWindow,
        region: &Arc<MemoryRegion>,
        range: Range<usize>,
        access: Access,
    ) -> std::result::Result<(), RefusedWindow<UnboundWindow>> {
        let binding = match Binding::new(window.core(), region, range, access) {
            Ok(binding) => binding,
            Err(error) => return Err(RefusedWindow { error: Some(error), window: Some(window) }),
        };
        self.post_window(key, token, WindowRequest::Bind(window), Some(binding))
            .map_err(|(error, handle)| RefusedWindow { error, window: handle.map(UnboundWindow) })
    }

    /// Binds a window of type 1 to something else at once, without a time in between when it is bound to nothing. Its old key
    /// ends with the completion.
    ///
    /// # Errors
    /// As [`bind_window`](Self::bind_window); `EINVAL` also if the window is of type 2.
    pub fn rebind_window(
        &mut self,
        key: QueuePairKey,
        token: u64,
        window: BoundWindow,
        region: &Arc<MemoryRegion>,
        range: Range<usize>,
        access: Access,
    ) -> std::result::Result<(), RefusedWindow<BoundWindow>> {
        let binding = match window.kind() {
            WindowKind::One => Binding::new(window.core(), region, range, access),
            WindowKind::Two => {
                Err(Error::invalid("ibv_bind_mw", "a window of type 2 is invalidated before it is bound"))
            }
        };
        let binding = match binding {
            Ok(binding) => binding,
            Err(error) => return Err(RefusedWindow { error: Some(error), window: Some(window) }),
        };
        self.post_bound(key, token, WindowRequest::Rebind(window), Some(binding))
    }

    /// Makes the window's key invalid, after what was posted before. The window comes back with the completion, as an
    /// [`UnboundWindow`]: from then on no peer can use the old key. If it fails, a [`BoundWindow`] comes back that can only be
    /// dropped, which takes its key back for certain.
    ///
    /// # Errors
    /// Answers the window, with `EINVAL` if it is bound to another queue pair (type 2) or of another protection domain, or if an
    /// earlier request for it failed; without an error if the queue is full.
    pub fn invalidate_window(
        &mut self,
        key: QueuePairKey,
        token: u64,
        window: BoundWindow,
    ) -> std::result::Result<(), RefusedWindow<BoundWindow>> {
        let call = "ibv_post_send";
        let binding = match window.kind() {
            WindowKind::One => Binding::nothing(window.core()).map(Some),
            WindowKind::Two => window.core().usable(call).map(|_| None),
        };
        match binding {
            Ok(binding) => self.post_bound(key, token, WindowRequest::Invalidate(window), binding),
            Err(error) => Err(RefusedWindow { error: Some(error), window: Some(window) }),
        }
    }

    fn post_bound(
        &mut self,
        key: QueuePairKey,
        token: u64,
        request: WindowRequest,
        binding: Option<Binding>,
    ) -> std::result::Result<(), RefusedWindow<BoundWindow>> {
        self.post_window(key, token, request, binding)
            .map_err(|(error, handle)| RefusedWindow { error, window: handle.map(BoundWindow) })
    }

    fn post_window(
        &mut self,
        key: QueuePairKey,
        token: u64,
        request: WindowRequest,
        binding: Option<Binding>,
    ) -> std::result::Result<(), (Option<Error>, Option<Handle>)> {
        if let Some(pair) = self.queue_pair(key)
            && let Err(error) = check(pair, &request)
        {
            return Err((Some(error), Some(request.into_handle())));
        }
        let core = Arc::clone(request.core());
        let window_key = core.bond(|bond| bond.remote.key);
        let operation = Operation { token, memory: None, address: None, window: Some(request) };
        self.post_alone(key, operation, |pair, wr_id| {
            core.begin(binding.as_ref().and_then(Binding::bond), pair.windows());
            let answer = match (&binding, window_key) {
                // SAFETY: `check` and `Binding` have checked what is asked. The entry owns the window, so that nothing else is
                // posted for it before its completion, and the window holds the region.
                (Some(binding), _) => unsafe { binding.post(pair, wr_id, SendFlags::SIGNALED) },
                (None, Some(window_key)) => {
                    let operation = SendOperation::LocalInvalidate(window_key);
                    let mut request = send_request(wr_id, operation, std::ptr::null_mut(), 0, SendFlags::SIGNALED);
                    let this = &raw mut request;
                    // SAFETY: one request without memory. The window is bound to this queue pair, and the entry owns it, so
                    // that nobody else invalidates it; had an earlier invalidation been tried, it would not be usable.
                    unsafe { pair.post_send_chain(this) }.map_err(|(error, bad)| (error, !std::ptr::eq(bad, this)))
                }
                (None, None) => Err((Error::invalid("ibv_post_send", "the window is bound to nothing"), false)),
            };
            match &answer {
                Ok(()) => core.note_key(),
                Err((_, true)) => {}
                Err((_, false)) => core.take_back(),
            }
            answer
        })
        .map_err(|(error, operation)| {
            (error, operation.and_then(|operation| operation.window).map(WindowRequest::into_handle))
        })
    }
}

/// Whether the queue pair can be given the request.
fn check(pair: &QueuePair, request: &WindowRequest) -> Result<()> {
    let core = request.core();
    let detail = if !matches!(pair.kind(), QueuePairKind::Rc | QueuePairKind::Uc) {
        "a queue pair of this type has no windows"
    } else if !Arc::ptr_eq(pair.domain(), &core.domain) {
        "window and queue pair are of different protection domains"
    } else if matches!(request, WindowRequest::Invalidate(_))
        && core.kind == WindowKind::Two
        && !core.is_among(pair.windows())
    {
        "the window is bound to another queue pair"
    } else {
        return Ok(());
    };
    Err(Error::invalid("ibv_bind_mw", detail))
}
