//! Received messages.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use super::conversation::Stored;
use crate::{Buffer, Result};

/// A message that was received. It derefs to `[u8]`.
///
/// It is in a [`Buffer`] of the process' pool, unless it is very short: a long one was fetched there without a copy. One that was
/// [handed over](crate::Channel::hand_over) is in its sender's pages. It is its receiver's, and can be kept, also when the
/// connection has ended.
pub struct Message(Stored);

impl Message {
    pub(super) fn new(stored: Stored) -> Self {
        Self(stored)
    }

    /// Its bytes as [`Bytes`], without a copy of more than 64 bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Stored::Buffer(buffer) => buffer.into_bytes(),
            Stored::Heap(bytes) => bytes.into(),
            tiny @ Stored::Tiny(..) => Bytes::copy_from_slice(tiny.bytes()),
        }
    }

    /// Its bytes in registered memory, without a copy of more than 64 bytes, unless the pool had no room when a short one came.
    ///
    /// # Errors
    /// [`PoolExhausted`](crate::ErrorKind::PoolExhausted), if the pool has no room for it.
    pub fn into_buffer(self) -> Result<Buffer> {
        match self.0 {
            Stored::Buffer(buffer) => Ok(buffer),
            copied => {
                let bytes = copied.bytes();
                let mut buffer = Buffer::allocate(bytes.len())?;
                buffer.copy_from_slice(bytes);
                Ok(buffer)
            }
        }
    }
}

impl Deref for Message {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Message> for Bytes {
    fn from(message: Message) -> Self {
        message.into_bytes()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("length", &self.len()).finish_non_exhaustive()
    }
}
