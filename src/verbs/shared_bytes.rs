//! Bytes that a program already has, registered without a copy and for reading only.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::Registrable;

/// Bytes of `T` that everybody may read at the same time, the device and peers included, and nobody may write: a
/// `Vec<u8>`, an `Arc<[u8]>`, a `&'static [u8]` or anything else that lends its bytes.
///
/// Regions over it allow [`LOCAL_READ`](super::Access::LOCAL_READ) and [`REMOTE_READ`](super::Access::REMOTE_READ).
/// The pages of a static may be mapped read-only; windows cannot be bound to those.
///
/// ```
/// use zcmi::verbs::SharedBytes;
/// let bytes = SharedBytes::new(vec![1, 2, 3]);
/// assert_eq!(bytes[1], 2);
/// ```
pub struct SharedBytes<T> {
    // Found once: what `as_ref` answers the next time is of no interest.
    address: *const u8,
    length: usize,
    owner: Arc<T>,
}

// SAFETY: the bytes are shared and immutable, and `T` may go to and be used by every thread.
unsafe impl<T: Send + Sync> Send for SharedBytes<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for SharedBytes<T> {}

impl<T: AsRef<[u8]> + Send + Sync + 'static> SharedBytes<T> {
    /// Takes `owner` in, for as long as this or a region over it lives.
    pub fn new(owner: T) -> Arc<Self> {
        let owner = Arc::new(owner);
        let bytes: &[u8] = (*owner).as_ref();
        let (address, length) = (bytes.as_ptr(), bytes.len());
        Arc::new(Self { address, length, owner })
    }

    /// What lends the bytes.
    pub fn owner(&self) -> &T {
        &self.owner
    }
}

impl<T> Deref for SharedBytes<T> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slice was borrowed from what `owner` points to, which neither moves nor is borrowed exclusively
        // as long as `self` lives, so the borrow holds that long.
        unsafe { std::slice::from_raw_parts(self.address, self.length) }
    }
}

// SAFETY: the slice was borrowed from what `owner` points to, and that borrow holds until drop (see `Deref`), so the
// range stays where it is. Only shared references into it exist, and regions may not allow writing.
unsafe impl<T: Send + Sync + 'static> Registrable for SharedBytes<T> {
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

impl<T> fmt::Debug for SharedBytes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytes").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn bytes_inside_the_owner_stay_where_they_are() {
        let bytes = SharedBytes::new([7u8; 32]);
        let address = bytes.address();
        let moved = [bytes];
        assert_eq!((moved[0].address(), moved[0].length()), (address, 32));
        assert_eq!(&moved[0][..], [7; 32]);
        assert!(!moved[0].is_writable());
    }

    #[test]
    fn an_owner_that_answers_differently_each_time_is_asked_once() {
        struct Fickle(Vec<u8>, AtomicUsize);
        impl AsRef<[u8]> for Fickle {
            fn as_ref(&self) -> &[u8] {
                &self.0[..self.0.len() - self.1.fetch_add(1, Ordering::Relaxed)]
            }
        }
        let bytes = SharedBytes::new(Fickle(vec![1, 2, 3], AtomicUsize::new(0)));
        assert_eq!(bytes.owner().as_ref(), [1, 2], "the owner's second answer");
        assert_eq!((bytes.length(), &bytes[..]), (3, &[1, 2, 3][..]));
    }
}
