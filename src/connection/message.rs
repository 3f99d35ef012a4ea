//! Received messages.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::Active;
use super::established::Inner;
use crate::Buffer;
use crate::protocol::HEADER;

/// A message, in the registered memory that it arrived in. It derefs to `[u8]`.
///
/// Dropping it makes room for another: a peer can have only so many messages waiting here
/// ([`Config::receive_depth`](crate::Config::receive_depth)), so do not keep them.
pub struct Message {
    inner: Arc<Inner<Active>>,
    // Some until dropped.
    buffer: Option<Buffer>,
    length: usize,
}

impl Message {
    pub(super) fn new(inner: Arc<Inner<Active>>, buffer: Buffer, length: usize) -> Self {
        Self { inner, buffer: Some(buffer), length }
    }
}

impl Deref for Message {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.buffer.as_deref().and_then(|buffer| buffer.get(HEADER..HEADER + self.length)).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take().filter(|_| self.inner.engine.is_ours()) {
            self.inner.engine.with(|core| core.give_back(self.inner.key, buffer));
        }
    }
}
