//! Memory that the program already has, for reading only.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]

use std::fmt;
use std::ops::{Bound, Deref, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;

use super::{Exposed, Registrable};

/// Bytes that the program already has, kept alive by an owner, that everybody may read and nobody write: a
/// `Vec<u8>`, [`Bytes`], an `Arc<[u8]>`, a `&'static [u8]`, a mapped file.
///
/// Making, cloning and slicing it copies no bytes. Sending it registers it with the device, for reading only; the
/// registration is kept for the next time, until the room is needed or nobody but zcmi owns the bytes. Of [`Bytes`] that
/// cannot always be seen, so their registration also ends when it was not used for two seconds.
///
/// ```
/// use zcmi::SharedMemory;
/// let memory = SharedMemory::from(vec![1, 2, 3, 4]);
/// assert_eq!(&memory.slice(1..3)[..], [2, 3]);
/// ```
#[derive(Clone)]
pub struct SharedMemory {
    // Found once: what `as_ref` answers the next time is of no interest.
    address: *const u8,
    length: usize,
    owner: Owner,
}

/// What keeps the bytes where they are.
#[derive(Clone)]
enum Owner {
    /// Exactly the bytes.
    Bytes(Bytes),
    Other(Arc<dyn Token>),
    Slice(Arc<[u8]>),
    Static,
}

/// Anything that lends bytes; only its lifetime matters here.
trait Token: Send + Sync {}
impl<T: Send + Sync> Token for T {}

// SAFETY: the bytes are shared and immutable, and every owner may go to and be used by every thread.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Takes `owner` in, for as long as this, a clone or a registration of it lives.
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::from_arc(Arc::new(owner))
    }

    /// As [`from_owner`](Self::from_owner), of an owner that others hold too.
    pub fn from_arc<T: AsRef<[u8]> + Send + Sync + 'static>(owner: Arc<T>) -> Self {
        let bytes: &[u8] = (*owner).as_ref();
        let (address, length) = (bytes.as_ptr(), bytes.len());
        Self { address, length, owner: Owner::Other(owner) }
    }

    /// A part of it, which shares the owner.
    ///
    /// Exactly what is sent is registered; what was sent as a whole is, in all its parts. To send many parts of something large, keep it
    /// in a [`Registered`](crate::Registered), or send the whole once.
    ///
    /// Owners are dropped where their registration ends, which may be zcmi's service thread: dropping one should not block.
    ///
    /// # Panics
    /// If the range leaves the memory.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.length,
        };
        assert!(start <= end && end <= self.length, "bytes {start}..{end} leave a memory of {} bytes", self.length);
        if let Owner::Bytes(bytes) = &self.owner {
            return bytes.slice(start..end).into();
        }
        Self { address: self.address.wrapping_add(start), length: end - start, owner: self.owner.clone() }
    }

    /// Lets peers read it through grants.
    pub fn expose(self) -> Exposed<Self> {
        Exposed::new(self)
    }

    /// Who owns the bytes besides this.
    pub(crate) fn owners(&self) -> Owners {
        fn count<T: ?Sized>(owner: &Arc<T>) -> Owners {
            // A weak reference can come back.
            match Arc::weak_count(owner) {
                0 => Owners::Counted { id: Arc::as_ptr(owner).addr(), owners: Arc::strong_count(owner) },
                _ => Owners::Unknown,
            }
        }
        match &self.owner {
            Owner::Bytes(bytes) if bytes.is_unique() => Owners::Counted { id: self.address.addr(), owners: 1 },
            Owner::Bytes(_) => Owners::Unknown,
            Owner::Other(owner) => count(owner),
            Owner::Slice(owner) => count(owner),
            Owner::Static => Owners::Eternal,
        }
    }
}

/// Who owns some memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// So many, of what `id` stands for.
    Counted { id: usize, owners: usize },
    /// It never goes.
    Eternal,
    /// Others, and nobody can tell who they are.
    Unknown,
}

impl Deref for SharedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slice was borrowed from what `owner` holds, which neither moves nor is borrowed exclusively as
        // long as `owner` lives, so the borrow holds that long.
        unsafe { std::slice::from_raw_parts(self.address, self.length) }
    }
}

// SAFETY: the slice was borrowed from what `owner` holds, and that borrow holds until drop (see `Deref`), so the
// range stays where it is. Only shared references into it exist, and regions may not allow writing.
unsafe impl Registrable for SharedMemory {
    fn address(&self) -> *mut u8 {
        self.address.cast_mut()
    }

    fn length(&self) -> usize {
        self.length
    }

    fn is_writable(&self) -> bool {
        false
    }
}

impl AsRef<[u8]> for SharedMemory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Bytes> for SharedMemory {
    fn from(bytes: Bytes) -> Self {
        // `Bytes` point to their bytes and stay the same wherever they move.
        Self { address: bytes.as_ptr(), length: bytes.len(), owner: Owner::Bytes(bytes) }
    }
}

impl From<Vec<u8>> for SharedMemory {
    fn from(bytes: Vec<u8>) -> Self {
        // Of `Bytes` the owners cannot always be counted.
        Self::from_owner(bytes)
    }
}

impl From<Arc<[u8]>> for SharedMemory {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self { address: bytes.as_ptr(), length: bytes.len(), owner: Owner::Slice(bytes) }
    }
}

impl From<Arc<Vec<u8>>> for SharedMemory {
    fn from(bytes: Arc<Vec<u8>>) -> Self {
        Self::from_arc(bytes)
    }
}

impl From<&'static [u8]> for SharedMemory {
    fn from(bytes: &'static [u8]) -> Self {
        Self { address: bytes.as_ptr(), length: bytes.len(), owner: Owner::Static }
    }
}

impl From<SharedMemory> for Bytes {
    /// Copies nothing.
    fn from(memory: SharedMemory) -> Self {
        match memory.owner {
            Owner::Bytes(bytes) => bytes,
            _ => Bytes::from_owner(memory),
        }
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_source_keeps_its_bytes_where_they_are() {
        static FIXED: [u8; 4] = [1, 2, 3, 4];
        let vector = vec![1u8, 2, 3, 4];
        let address = vector.as_ptr();
        let memory = SharedMemory::from(vector);
        assert_eq!(memory.address().cast_const(), address);
        let slice: Arc<[u8]> = Arc::from([1u8, 2, 3, 4]);
        let shared = Arc::new(vec![1u8, 2, 3, 4]);
        let sources: [SharedMemory; 6] = [
            memory,
            Bytes::from_static(&FIXED).into(),
            slice.into(),
            shared.into(),
            FIXED[..].into(),
            SharedMemory::from_owner([1u8, 2, 3, 4]),
        ];
        for memory in sources {
            let address = memory.address();
            let moved = Box::new(memory);
            assert_eq!((&moved[..], moved.address(), moved.is_writable()), (&FIXED[..], address, false));
            let part = moved.slice(1..=2);
            assert_eq!((&part[..], part.address()), (&[2u8, 3][..], address.wrapping_add(1)));
            let bytes = Bytes::from(part);
            assert_eq!((bytes.as_ptr(), bytes.len()), (address.wrapping_add(1).cast_const(), 2));
            assert!(moved.slice(4..).is_empty() && moved.slice(..)[..] == FIXED);
        }
    }

    #[test]
    fn an_owner_that_answers_differently_each_time_is_asked_once() {
        struct Fickle(Vec<u8>, AtomicUsize);
        impl AsRef<[u8]> for Fickle {
            fn as_ref(&self) -> &[u8] {
                &self.0[..self.0.len() - self.1.fetch_add(1, Ordering::Relaxed)]
            }
        }
        let owner = Arc::new(Fickle(vec![1, 2, 3], AtomicUsize::new(0)));
        let memory = SharedMemory::from_arc(Arc::clone(&owner));
        assert_eq!((*owner).as_ref(), [1, 2], "the owner's second answer");
        assert_eq!((memory.length(), &memory[..]), (3, &[1, 2, 3][..]));
    }

    #[test]
    fn owners_are_counted_where_they_can_be() {
        let owners = |memory: &SharedMemory| match memory.owners() {
            Owners::Counted { owners, .. } => Some(owners),
            _ => None,
        };
        let bytes = Bytes::from(vec![0; 9]);
        let memory = SharedMemory::from(bytes.clone());
        assert_eq!(memory.owners(), Owners::Unknown);
        drop(bytes);
        assert_eq!(owners(&memory), Some(1));

        let owner = Arc::new(vec![0; 9]);
        let memory = SharedMemory::from(Arc::clone(&owner)).slice(2..5);
        assert_eq!(owners(&memory), Some(2));
        let weak = Arc::downgrade(&owner);
        drop(owner);
        assert_eq!(memory.owners(), Owners::Unknown, "a weak reference can come back");
        drop(weak);
        assert_eq!(owners(&memory), Some(1));
        let part = memory.slice(1..2);
        assert_eq!((part.owners(), owners(&part)), (memory.owners(), Some(2)));

        let slice: Arc<[u8]> = Arc::from([7; 3]);
        assert_eq!(owners(&SharedMemory::from(Arc::clone(&slice))), Some(2));
        assert_eq!(owners(&SharedMemory::from(slice)), Some(1));
        assert_eq!(SharedMemory::from(&[1u8][..]).owners(), Owners::Eternal);
    }

    #[test]
    fn debug_shows_no_contents() {
        assert_eq!(format!("{:?}", SharedMemory::from(vec![42; 2])), "SharedMemory { length: 2, .. }");
    }

    #[test]
    #[should_panic(expected = "leave a memory of 2 bytes")]
    fn a_slice_beyond_the_end_panics() {
        let _ = SharedMemory::from(vec![0; 2]).slice(1..4);
    }
}
