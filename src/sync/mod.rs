//! One shim for what loom can take the place of, and one for what ThreadSanitizer cannot see.

#[cfg(tsan)]
mod annotated;

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use {locks::Mutex, locks::MutexGuard, std::sync::atomic};

/// Those that loom leaves alone.
pub(crate) mod locks {
    #[cfg(tsan)]
    pub(crate) use super::annotated::{Condvar, Mutex, MutexGuard, OnceLock};
    #[cfg(not(tsan))]
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
}

/// Locks; a panic of another holder left nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
