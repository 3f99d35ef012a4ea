//! Grants to the peer of a connection.

use std::ops::Range;

use super::Connection;
use crate::{Access, ExposedBuffer, Grant, Result};

impl ExposedBuffer {
    /// Lets the peer of `connection` access `range` (bytes of this buffer, not empty). The right covers these bytes
    /// and no others; send the peer [`Grant::remote_buffer`].
    ///
    /// In this version the key is a memory region's: it works for every connection in the same protection domain,
    /// that is of this process on this device, if a peer learns it.
    ///
    /// # Errors
    /// [`OutOfBounds`](crate::ErrorKind::OutOfBounds), [`MemoryLimit`](crate::ErrorKind::MemoryLimit).
    pub fn grant(&self, connection: &Connection, range: Range<usize>, access: Access) -> Result<Grant> {
        let inner = &connection.0;
        self.grant_in(&*inner.engine.domain, inner.session, range, access).map_err(|error| inner.refine(error))
    }
}
