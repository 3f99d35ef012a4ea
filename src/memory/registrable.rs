//! Memory that a device may be given.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; it declares what implementors promise")]

use std::sync::RwLock;

/// Memory that can be registered and outlives its registrations.
///
/// [`Registered`](crate::Registered) and [`SharedMemory`](crate::SharedMemory) make such of what safe code has;
/// [`verbs::SharedBytes`](crate::verbs::SharedBytes) is one for bytes that are only read.
///
/// # Safety
/// [`address`](Self::address) and [`length`](Self::length) name one mapped range that stays mapped, at that
/// address, until the value is dropped, and both always answer the same. While a region over it exists the
/// implementor lets nobody hold a reference into bytes that the device may be writing: through a local operation
/// in flight, or, where the region was registered for remote writing, remote atomics, or with
/// [`MW_BIND`](crate::verbs::Access::MW_BIND) and local writing, at any time. If it answers
/// [`is_writable`](Self::is_writable) with no, shared references may exist at any time, and exclusive ones never.
pub unsafe trait Registrable: Send + Sync + 'static {
    /// The first byte.
    fn address(&self) -> *mut u8;
    /// The length in bytes.
    fn length(&self) -> usize;
    /// Whether a region over it may allow writing.
    fn is_writable(&self) -> bool {
        true
    }
    /// Where threads of this process take turns that access the bytes, whoever they do it for.
    #[doc(hidden)]
    fn turns(&self) -> Option<&RwLock<()>> {
        None
    }
}
