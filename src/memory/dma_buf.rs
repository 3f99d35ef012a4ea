//! Memory of another device that peers may access.

use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::exposure::{Exposure, Grantable};
use super::{Domain, RegionAccess, Registration};
use crate::{Error, ErrorKind, Result};

/// A dma-buf, for instance of a GPU, that peers may read, write or change atomically while grants on it live
/// (`ibv_reg_dmabuf_mr(3)`). The host has no access to its bytes through this.
///
/// Untested on hardware: Soft-RoCE cannot import a dma-buf, and answers that with
/// [`Unsupported`](ErrorKind::Unsupported) when a grant is asked for. A grant is a memory region
/// ([`Isolation::Domain`](crate::Isolation::Domain)).
pub struct ExposedDmaBuf {
    exposure: Exposure,
    memory: Arc<DmaBuf>,
}

struct DmaBuf {
    file: OwnedFd,
    offset: u64,
    length: usize,
}

impl ExposedDmaBuf {
    /// Takes `length` bytes at `offset` of `file`, a dma-buf.
    pub fn new(file: OwnedFd, offset: u64, length: usize) -> Self {
        let memory = Arc::new(DmaBuf { file, offset, length });
        Self { exposure: Exposure::new(Arc::clone(&memory) as Arc<dyn Grantable>), memory }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.memory.length
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Revokes every grant and gives the descriptor back.
    ///
    /// # Errors
    /// If a device does not let go of it.
    pub async fn into_file(self) -> Result<OwnedFd> {
        let Self { exposure, memory } = self;
        exposure.end().await?;
        let stuck = || Error::new(ErrorKind::Other, "revoke").with_detail("the device did not let go of the dma-buf");
        Arc::into_inner(memory).map(|memory| memory.file).ok_or_else(stuck)
    }

    pub(crate) fn exposure(&self) -> &Exposure {
        &self.exposure
    }
}

impl fmt::Debug for ExposedDmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExposedDmaBuf")
            .field("length", &self.len())
            .field("grants", &self.exposure.live_grants())
            .finish()
    }
}

impl Grantable for DmaBuf {
    fn length(&self) -> usize {
        self.length
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn shared(&self) -> Option<super::SharedMemory> {
        None
    }

    fn is_on_demand(&self) -> bool {
        // Its pages are the exporter's matter: `ibv_reg_dmabuf_mr` takes no such flag.
        false
    }

    fn takes_windows(&self) -> bool {
        // Not known to work anywhere.
        false
    }

    fn register(
        self: Arc<Self>,
        domain: &dyn Domain,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<(Arc<dyn Registration>, u64)> {
        let failed = |error| Error::new(ErrorKind::ResourceExhausted, "grant").with_source(error);
        let file = self.file.try_clone().map_err(|error: std::io::Error| failed(error))?;
        let start = self.offset.checked_add(range.start as u64);
        let start = start.ok_or_else(|| Error::new(ErrorKind::OutOfBounds, "grant"))?;
        domain.register_dma_buf(file, start, range.len(), access).map(|registration| (registration, start))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// `ibv_reg_dmabuf_mr(3)` refuses what memory of the host may be registered with.
    #[test]
    fn it_is_registered_with_nothing_but_rights() {
        let file = std::fs::File::open("/dev/null").expect("a file");
        let exposed = ExposedDmaBuf::new(file.into(), 0, 4096);
        let memory = exposed.exposure().memory();
        assert!(!memory.is_on_demand() && !memory.takes_windows() && memory.is_writable());
    }
}
