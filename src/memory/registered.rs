//! Memory of the program's own that stays registered.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::local_keys::LocalKeys;
use super::{Domain, Exposed, RegionAccess, Registrable};
use crate::{Error, ErrorKind, Result};

/// Memory that the program already has, registered once and reused: a `Vec<u8>`, a `Box<[u8]>`, a writable mapping of a
/// file, or anything else that lends its bytes for writing.
///
/// It is a source and a destination of operations as a [`Buffer`](crate::Buffer) is, and can be exposed. It is registered with a
/// device when it is first used there and stays so until [`into_inner`](Self::into_inner) or drop. It derefs to `[u8]`.
///
/// ```
/// let mut samples = zcmi::Registered::new(vec![0u8; 4096]);
/// samples[..5].copy_from_slice(b"hello");
/// assert_eq!(samples.into_inner()?.len(), 4096);
/// # Ok::<(), zcmi::Error>(())
/// ```
///
/// A file that others can shorten must not be given: access to a part that is gone is a SIGBUS.
pub struct Registered<T> {
    // Boxed, so that what moves with an operation is small.
    core: Box<RegisteredCore>,
    value: PhantomData<T>,
}

impl<T: AsMut<[u8]> + Send + 'static> Registered<T> {
    /// Takes `value` in. Its bytes are asked for once, now.
    pub fn new(value: T) -> Self {
        Self::with(value, RegionAccess::Local)
    }

    /// As [`new`](Self::new), but its pages are not pinned: the device faults them in when it touches them. For memory that is
    /// larger than what may be locked.
    ///
    /// Its first use fails with [`Unsupported`](ErrorKind::Unsupported) where the device has no on-demand paging, or, as Soft-RoCE
    /// (Linux 7.3), puts bytes elsewhere; nothing is chosen silently. So this was never tried on a device that does it right.
    pub fn on_demand(value: T) -> Self {
        Self::with(value, RegionAccess::LocalOnDemand)
    }

    fn with(value: T, access: RegionAccess) -> Self {
        let memory = Arc::new(Owned::new(value));
        Self { core: Box::new(RegisteredCore { keys: LocalKeys::new(access), access, memory }), value: PhantomData }
    }
}

impl<T> Registered<T> {
    /// Deregisters and gives the value back.
    ///
    /// # Errors
    /// [`Other`](ErrorKind::Other) if a device does not let go of the memory, which is then never freed.
    pub fn into_inner(self) -> Result<T> {
        let RegisteredCore { mut keys, memory, .. } = *self.core;
        keys.end().map_err(|error| error.within("into inner"))?;
        let held = || Error::new(ErrorKind::Other, "into inner").with_detail("a device has not let go of the memory");
        let memory = Arc::into_inner(memory).ok_or_else(held)?;
        // SAFETY: `new` and `from_core` make this type of a value of type `T` only.
        Ok(unsafe { memory.into_value() })
    }

    pub(super) fn core(&self) -> &RegisteredCore {
        &self.core
    }

    pub(super) fn into_core(self) -> Box<RegisteredCore> {
        self.core
    }
}

impl<T: Send + 'static> Registered<T> {
    /// Lets peers access the memory through grants. Nobody can have a slice of it from here on.
    pub fn expose(self) -> Exposed<Self> {
        Exposed::new(self)
    }

    /// The value of `core`, if it is of this type.
    pub(super) fn from_core(core: Box<RegisteredCore>) -> Option<Self> {
        (core.memory.kind == TypeId::of::<T>()).then_some(Self { core, value: PhantomData })
    }
}

impl<T> Deref for Registered<T> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let memory = &self.core.memory;
        // SAFETY: the slice was borrowed exclusively from the value, which nobody touches until it is given back; neither an
        // operation nor a peer has it while the `Registered` is in hand.
        unsafe { std::slice::from_raw_parts(memory.address, memory.length) }
    }
}

impl<T> DerefMut for Registered<T> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let memory = &self.core.memory;
        // SAFETY: as in `deref`, and `&mut self` excludes every other slice of it.
        unsafe { std::slice::from_raw_parts_mut(memory.address, memory.length) }
    }
}

impl<T> fmt::Debug for Registered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("length", &self.core.memory.length).finish_non_exhaustive()
    }
}

/// A `Registered` without its type.
pub(crate) struct RegisteredCore {
    // The registrations end before the memory they are of.
    keys: LocalKeys,
    pub(super) access: RegionAccess,
    memory: Arc<Owned>,
}

impl RegisteredCore {
    pub(super) fn local_key(&self, domain: &dyn Domain) -> Result<u32> {
        let memory = Arc::clone(&self.memory) as Arc<dyn Registrable>;
        self.keys.key(&memory, domain)
    }

    pub(super) fn address(&self) -> *mut u8 {
        self.memory.address
    }

    pub(super) fn length(&self) -> usize {
        self.memory.length
    }
}

impl fmt::Debug for RegisteredCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredCore").field("length", &self.memory.length).finish_non_exhaustive()
    }
}

/// A value on the heap whose bytes are borrowed until it is freed, as if it had been leaked and then borrowed.
struct Owned {
    address: *mut u8,
    length: usize,
    value: NonNull<()>,
    kind: TypeId,
    free: unsafe fn(NonNull<()>),
}

// SAFETY: the value may go to every thread; only its owner touches it, and the bytes are plain memory whose access is
// governed by those who hold this.
unsafe impl Send for Owned {}
// SAFETY: a shared one answers its address and length, and nothing of the value.
unsafe impl Sync for Owned {}

impl Owned {
    fn new<T: AsMut<[u8]> + Send + 'static>(value: T) -> Self {
        let value = NonNull::from(Box::leak(Box::new(value)));
        let mut borrowed = value;
        // SAFETY: the value was just leaked and nobody else knows it. The borrow lasts until `free` or `into_value`.
        let bytes = unsafe { borrowed.as_mut() }.as_mut();
        Self {
            address: bytes.as_mut_ptr(),
            length: bytes.len(),
            value: value.cast(),
            kind: TypeId::of::<T>(),
            free: free::<T>,
        }
    }

    /// # Safety
    /// It was made of a `T`.
    unsafe fn into_value<T>(self) -> T {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: leaked by `new` as a `T`, and freed once: `this` is not dropped. The borrow ends here.
        *unsafe { Box::from_raw(this.value.cast::<T>().as_ptr()) }
    }
}

/// # Safety
/// `value` is a leaked `Box<T>`; it is freed once.
unsafe fn free<T>(value: NonNull<()>) {
    // SAFETY: as the caller promises.
    drop(unsafe { Box::from_raw(value.cast::<T>().as_ptr()) });
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the value is of the type that `free` was made for, and goes once.
        unsafe { (self.free)(self.value) }
    }
}

// SAFETY: the bytes are borrowed exclusively from a value on the heap that nobody touches until drop, so they stay where they
// are. References into them are made by `Registered` alone, which is moved into an operation while the device may write
// them and consumed by exposure before a peer can.
unsafe impl Registrable for Owned {
    fn address(&self) -> *mut u8 {
        self.address
    }

    fn length(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_comes_back_with_what_was_written() {
        let mut registered = Registered::new([1u8; 16]);
        registered[3] = 9;
        let moved = vec![registered];
        let mut expected = [1; 16];
        expected[3] = 9;
        assert_eq!(moved[0][..], expected);
        let value = moved.into_iter().next().expect("one").into_inner().expect("nobody holds it");
        assert_eq!(value, expected);
    }

    #[test]
    fn dropping_frees_the_value_once() {
        struct Counted(Vec<u8>, #[expect(dead_code, reason = "it counts")] Arc<()>);
        impl AsMut<[u8]> for Counted {
            fn as_mut(&mut self) -> &mut [u8] {
                &mut self.0
            }
        }
        let alive = Arc::new(());
        drop(Registered::new(Counted(vec![0; 3], Arc::clone(&alive))));
        assert_eq!(Arc::strong_count(&alive), 1);
        let kept = Registered::new(Counted(vec![0; 3], Arc::clone(&alive))).into_inner().expect("free");
        assert_eq!((Arc::strong_count(&alive), kept.0.len()), (2, 3));
    }
}
