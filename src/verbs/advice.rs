//! Advice about registered memory.

use std::ops::Range;

use rdma_sys as ffi;

use super::{Error, MemoryRegion, Result, Segment};

/// What will happen to the bytes of a region registered on demand (`ibv_advise_mr(3)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// They will be read: their pages are brought in.
    PrefetchRead,
    /// They will be read: pages that are in memory are made known to the device, others are left.
    PrefetchResident,
    /// They will be written: their pages are brought in, writable.
    PrefetchWrite,
}

impl Advice {
    fn raw(self) -> ffi::ibv_advise_mr_advice {
        use ffi::ib_uverbs_advise_mr_advice as advice;
        match self {
            Self::PrefetchRead => advice::IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH,
            Self::PrefetchResident => advice::IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT,
            Self::PrefetchWrite => advice::IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_WRITE,
        }
    }
}

impl MemoryRegion {
    /// Advises the device about `range` (bytes within the region), and goes on at once.
    ///
    /// # Errors
    /// `EINVAL` if the range is empty or leaves the region, `EOPNOTSUPP` if the device takes no advice, and the
    /// device's error, for instance where the region is not registered on demand.
    pub fn advise(&self, advice: Advice, range: Range<usize>) -> Result<()> {
        self.advise_with(advice, range, 0)
    }

    /// As [`advise`](Self::advise), but answers when it is done.
    ///
    /// # Errors
    /// As [`advise`](Self::advise).
    pub fn advise_and_wait(&self, advice: Advice, range: Range<usize>) -> Result<()> {
        /// `IB_UVERBS_ADVISE_MR_FLAG_FLUSH`, which the bindings lack.
        const FLUSH: u32 = 1;
        self.advise_with(advice, range, FLUSH)
    }

    fn advise_with(&self, advice: Advice, range: Range<usize>, flags: u32) -> Result<()> {
        const CALL: &str = "ibv_advise_mr";
        /// Bytes that one segment carries, of whole pages.
        const LARGEST: usize = 1 << 31;
        let length = self.length();
        if range.start >= range.end || range.end > length {
            let Range { start, end } = range;
            return Err(Error::invalid(CALL, format!("{start}..{end} is no range of bytes in a region of {length}")));
        }
        for start in range.clone().step_by(LARGEST) {
            let length = (range.end - start).min(LARGEST) as u32;
            let address = self.address() + start as u64;
            let mut segment = Segment { address, length, local_key: self.local_key() };
            let segments = (&raw mut segment).cast();
            // SAFETY: the domain exists; one segment, which lies within the region.
            let answer = unsafe { ffi::ibv_advise_mr(self.domain().raw(), advice.raw(), flags, segments, 1) };
            Error::check(CALL, answer).map_err(|error| match error.errno() {
                Some(libc::EOPNOTSUPP | libc::ENOSYS) => {
                    let device = self.domain().context().name();
                    error.with_detail(format!("{device} takes no advice about memory, with this kernel and rdma-core"))
                }
                _ => error,
            })?;
        }
        Ok(())
    }
}
