//! What the states of a memory window share, and what a queue pair knows of the windows bound to it.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdma_sys as ffi;

use super::fork::{self, Creator};
use super::{Access, Error, MemoryRegion, ProtectionDomain, Remote, Result, WindowKind};

/// Keys that a window goes through before the first one comes again: 8 bits of a key vary.
pub(super) const KEYS: u8 = 255;

/// A window (`ibv_alloc_mw(3)`). Who has it is told by [`Handle`]; the queue pair that it is bound to has it too.
pub(super) struct Core {
    pub(super) kind: WindowKind,
    pub(super) domain: Arc<ProtectionDomain>,
    creator: Creator,
    state: Mutex<State>,
}

struct State {
    /// `None` once it has been freed.
    raw: Option<NonNull<ffi::ibv_mw>>,
    /// Binds that have changed the key.
    binds: u8,
    /// A bind or invalidation failed, and may have happened all the same: whatever is done next may be one too many.
    is_doubtful: bool,
    /// What it is bound to.
    bond: Option<Bond>,
    /// What it is being bound to.
    next: Option<Bond>,
    /// Where it is known as bound, or as being bound. Only type 2: type 1 belongs to no queue pair.
    windows: Option<Arc<BoundWindows>>,
}

/// What a window is bound to.
pub(super) struct Bond {
    /// Held as long as the window may lead to it.
    pub(super) region: Arc<MemoryRegion>,
    pub(super) remote: Remote,
    pub(super) length: u64,
    pub(super) access: Access,
}

// SAFETY: the pointer is only followed under the lock, and verbs calls are thread-safe.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

impl Core {
    pub(super) fn allocate(domain: &Arc<ProtectionDomain>, kind: WindowKind) -> Result<Handle> {
        let type_ = match kind {
            WindowKind::One => ffi::ibv_mw_type::IBV_MW_TYPE_1,
            WindowKind::Two => ffi::ibv_mw_type::IBV_MW_TYPE_2,
        };
        // SAFETY: the domain exists, and the window keeps it alive.
        let raw = unsafe { ffi::ibv_alloc_mw(domain.raw(), type_) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let (error, device) = (Error::last("ibv_alloc_mw"), domain.context().name());
            match error.errno() {
                Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {
                    error.with_detail(format!("{device} has no memory windows of type {kind:?}"))
                }
                Some(libc::ENOMEM | libc::ENOSPC) => error.with_detail(format!("{device} has no window left")),
                _ => error,
            }
        })?;
        let state = State { raw: Some(raw), binds: 0, is_doubtful: false, bond: None, next: None, windows: None };
        let (domain, creator) = (Arc::clone(domain), Creator::here());
        Ok(Handle(Arc::new(Self { kind, domain, creator, state: Mutex::new(state) })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The window, if it can be bound or invalidated.
    pub(super) fn usable(&self, call: &'static str) -> Result<NonNull<ffi::ibv_mw>> {
        let state = self.state();
        match state.raw {
            None => Err(Error::invalid(call, "the window was freed together with its queue pair")),
            Some(_) if state.is_doubtful => Err(Error::invalid(
                call,
                "an earlier bind or invalidation of the window failed: it can only be dropped",
            )),
            Some(raw) => Ok(raw),
        }
    }

    /// The window; null if it was freed.
    pub(super) fn raw(&self) -> *mut ffi::ibv_mw {
        self.state().raw.map_or(std::ptr::null_mut(), NonNull::as_ptr)
    }

    pub(super) fn keys_left(&self) -> u8 {
        KEYS - self.state().binds
    }

    /// What `read` finds in what the window is bound to.
    pub(super) fn bond<R>(&self, read: impl FnOnce(&Bond) -> R) -> Option<R> {
        self.state().bond.as_ref().map(read)
    }

    /// Whether it is bound, or being bound, to the queue pair of `windows`.
    pub(super) fn is_among(&self, windows: &Arc<BoundWindows>) -> bool {
        self.state().windows.as_ref().is_some_and(|known| Arc::ptr_eq(known, windows))
    }

    /// Notes what is about to be posted.
    pub(super) fn begin(self: &Arc<Self>, next: Option<Bond>, windows: &Arc<BoundWindows>) {
        if self.kind == WindowKind::Two && next.is_some() {
            windows.all().insert(Arc::as_ptr(self) as usize, Arc::clone(self));
            self.state().windows = Some(Arc::clone(windows));
        }
        self.state().next = next;
    }

    /// Takes back what `begin` noted: nothing was posted.
    pub(super) fn take_back(self: &Arc<Self>) {
        let next = self.state().next.take();
        if next.is_some() {
            self.leave();
        }
    }

    /// The key that the device gave a window of type 1, now that its bind is posted.
    pub(super) fn note_key(&self) {
        let mut state = self.state();
        if self.kind == WindowKind::One
            && let (Some(raw), Some(next)) = (state.raw, &mut state.next)
        {
            // SAFETY: the window has not been freed, and its structure changes under the lock only.
            next.remote.key = unsafe { raw.as_ref() }.rkey;
        }
    }

    /// A bind has succeeded.
    pub(super) fn bound(&self) {
        let mut state = self.state();
        state.binds = state.binds.saturating_add(1);
        let next = state.next.take();
        let old = std::mem::replace(&mut state.bond, next);
        if let (Some(mut raw), Some(bond)) = (state.raw, &state.bond) {
            // SAFETY: the window has not been freed, and its structure changes under the lock only.
            unsafe { raw.as_mut() }.rkey = bond.remote.key;
        }
        drop(state);
        // The last owner deregisters.
        drop(old);
    }

    /// An invalidation has succeeded.
    pub(super) fn invalidated(self: &Arc<Self>) {
        let mut state = self.state();
        if self.kind == WindowKind::One {
            // It was a bind of no bytes.
            state.binds = state.binds.saturating_add(1);
        }
        let old = state.bond.take();
        drop(state);
        self.leave();
        drop(old);
    }

    /// A bind or an invalidation has failed, as far as can be told.
    pub(super) fn doubt(&self) {
        self.state().is_doubtful = true;
    }

    /// Is no longer known at a queue pair.
    fn leave(self: &Arc<Self>) {
        let Some(windows) = self.state().windows.take() else { return };
        windows.all().remove(&(Arc::as_ptr(self) as usize));
    }

    /// Frees the window, once. Then no peer can reach what it was bound to, which is the answer: dropping that may run code of
    /// the program, so no lock is held then.
    #[must_use]
    fn free(&self) -> [Option<Bond>; 2] {
        let mut state = self.state();
        let Some(raw) = state.raw.take() else { return [None, None] };
        // SAFETY: the window is freed once; its domain and region are still held.
        let answer = unsafe { ffi::ibv_dealloc_mw(raw.as_ptr()) };
        let bonds = [state.bond.take(), state.next.take()];
        drop(state);
        fork::destroyed("ibv_dealloc_mw", answer);
        if answer == 0 {
            return bonds;
        }
        // A peer may still reach the memory: it is never given back.
        std::mem::forget(bonds);
        [None, None]
    }
}

/// The one owner of a window. Dropping it frees the window, whatever it is bound to.
pub(super) struct Handle(pub(super) Arc<Core>);

impl Drop for Handle {
    fn drop(&mut self) {
        let core = &self.0;
        // First of all: in a forked child the locks may be held by threads that it does not have.
        if !core.creator.may_destroy("memory window") {
            return;
        }
        let windows = core.state().windows.take();
        // While the window is being freed, the end of its queue pair waits.
        let mut all = windows.as_ref().map(|windows| windows.all());
        if let Some(all) = &mut all {
            all.remove(&(Arc::as_ptr(core) as usize));
        }
        let bonds = core.free();
        drop(all);
        drop(bonds);
    }
}

/// The windows of type 2 that are bound, or may be bound, to one queue pair.
#[derive(Default)]
pub(super) struct BoundWindows(Mutex<HashMap<usize, Arc<Core>>>);

impl BoundWindows {
    fn all(&self) -> MutexGuard<'_, HashMap<usize, Arc<Core>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees all of them, after `prepare` if there are any.
    pub(super) fn free(&self, prepare: impl FnOnce()) {
        let mut all = self.all();
        if !all.is_empty() {
            prepare();
        }
        let bonds: Vec<_> = all.drain().map(|(_, core)| core.free()).collect();
        drop(all);
        drop(bonds);
    }
}
