//! Changing a registered region instead of registering anew.

use std::ffi::{c_int, c_void};
use std::mem;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use rdma_sys as ffi;

use super::memory_region::{Backing, check};
use super::{Access, Error, MemoryRegion, ProtectionDomain, Registrable, Result};

const CALL: &str = "ibv_rereg_mr";

/// What [`MemoryRegion::reregister`] changes; what is `None` stays.
#[derive(Clone, Default)]
pub struct RegionChange {
    /// What the region may be used for.
    pub access: Option<Access>,
    /// Where it belongs.
    pub domain: Option<Arc<ProtectionDomain>>,
    /// The memory, and which bytes of it.
    pub memory: Option<(Arc<dyn Registrable>, Range<usize>)>,
}

/// A region that was not changed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotReregistered {
    /// Why.
    #[source]
    pub error: Error,
    /// The region as it was; `None` if the device failed half-way, so that the region was deregistered.
    pub region: Option<MemoryRegion>,
}

impl MemoryRegion {
    /// Changes access, domain or memory in place (`ibv_rereg_mr(3)`), which saves some devices work. Keys may change.
    /// New memory is named by its address in this process.
    ///
    /// # Errors
    /// As [`register`](Self::register); `EINVAL` too if nothing is to change, the domain is of another device, or the
    /// region is of a dma-buf; `EOPNOTSUPP` where library or device cannot do it (Soft-RoCE with rdma-core 44). The
    /// answer holds the region if it is as it was.
    pub fn reregister(mut self, change: RegionChange) -> std::result::Result<Self, NotReregistered> {
        let plan = match Plan::of(&self, change) {
            Ok(plan) => plan,
            Err(error) => return Err(NotReregistered { error, region: Some(self) }),
        };
        let Some(function) = function() else {
            let error = Error::returned(CALL, libc::EOPNOTSUPP).with_detail("this libibverbs has no ibv_rereg_mr");
            return Err(NotReregistered { error, region: Some(self) });
        };
        let domain = plan.domain.as_ref().map_or(std::ptr::null_mut(), |domain| domain.raw());
        let (address, length) = plan.range.map_or((std::ptr::null_mut(), 0), |(address, length)| (address, length));
        let access = plan.access.map_or(0, |access| access.raw() as c_int);
        // SAFETY: the region exists; domain and memory, old and new, are held until it is deregistered, and the range
        // lies within the memory.
        let answer = unsafe { function(self.raw(), plan.flags, domain, address.cast(), length, access) };
        let error = Error::last(CALL);
        match Outcome::of(answer, error.errno()) {
            Outcome::Changed => {
                plan.apply(&mut self);
                Ok(self)
            }
            Outcome::Unchanged => Err(NotReregistered { error, region: Some(self) }),
            Outcome::Unsupported => {
                let device = self.domain().context().name();
                let detail = format!("{device} cannot change a region: deregister it and register anew");
                let error = Error::returned(CALL, libc::EOPNOTSUPP).with_detail(detail);
                Err(NotReregistered { error, region: Some(self) })
            }
            Outcome::Unknown => {
                // The device may reach the old memory or the new: both are held until it is deregistered.
                let ended = self.end();
                if ended.is_err() {
                    mem::forget(plan);
                }
                Err(NotReregistered { error, region: None })
            }
        }
    }
}

/// A checked change.
struct Plan {
    flags: c_int,
    access: Option<Access>,
    domain: Option<Arc<ProtectionDomain>>,
    memory: Option<Arc<dyn Registrable>>,
    range: Option<(*mut u8, usize)>,
}

impl Plan {
    fn of(region: &MemoryRegion, change: RegionChange) -> Result<Self> {
        use ffi::ibv_rereg_mr_flags as flags;
        let RegionChange { access, domain, memory } = change;
        let old = match &region.backing {
            Backing::Memory(memory) => memory,
            Backing::DmaBuf(_) => return Err(Error::invalid(CALL, "the region is of a dma-buf")),
        };
        if access.is_some_and(|access| access.contains(Access::ZERO_BASED)) {
            return Err(Error::invalid(CALL, "a region cannot be made ZERO_BASED afterwards"));
        }
        if let Some(domain) = &domain
            && !Arc::ptr_eq(domain.context(), region.domain().context())
        {
            return Err(Error::invalid(CALL, "the new protection domain is of another open device"));
        }
        let kept = access.unwrap_or(region.access());
        let range = match &memory {
            Some((memory, range)) => Some((check(CALL, &**memory, range, kept)?, range.len())),
            // What the old memory allows decides too, if it stays.
            None => check(CALL, &**old, &(0..old.length()), kept).map(|_| None)?,
        };
        let mut bits = 0;
        for (is_asked, flag) in [
            (access.is_some(), flags::IBV_REREG_MR_CHANGE_ACCESS),
            (domain.is_some(), flags::IBV_REREG_MR_CHANGE_PD),
            (range.is_some(), flags::IBV_REREG_MR_CHANGE_TRANSLATION),
        ] {
            bits |= if is_asked { flag.0 as c_int } else { 0 };
        }
        if bits == 0 {
            return Err(Error::invalid(CALL, "nothing is to change"));
        }
        Ok(Self { flags: bits, access, domain, memory: memory.map(|(memory, _)| memory), range })
    }

    fn apply(self, region: &mut MemoryRegion) {
        let Self { access, domain, memory, range, flags: _ } = self;
        if let Some(access) = access {
            region.access = access;
        }
        if let Some(domain) = domain {
            region.domain = domain;
        }
        if let (Some(memory), Some((address, length))) = (memory, range) {
            (region.start, region.length) = (address.addr() as u64, length);
            region.backing = Backing::Memory(memory);
        }
    }
}

/// What an answer of `ibv_rereg_mr` says of the region.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Changed,
    Unchanged,
    Unknown,
    Unsupported,
}

impl Outcome {
    fn of(answer: c_int, errno: Option<i32>) -> Self {
        use ffi::ibv_rereg_mr_err_code as code;
        match answer {
            // The second: only the fork protection of the old range could not be taken back.
            0 | code::IBV_REREG_MR_ERR_DO_FORK_OLD => Self::Changed,
            code::IBV_REREG_MR_ERR_INPUT | code::IBV_REREG_MR_ERR_DONT_FORK_NEW => Self::Unchanged,
            // Neither library nor driver got as far as to touch anything.
            code::IBV_REREG_MR_ERR_CMD if matches!(errno, Some(libc::EOPNOTSUPP | libc::ENOSYS)) => Self::Unsupported,
            _ => Self::Unknown,
        }
    }
}

type Function = unsafe extern "C" fn(
    *mut ffi::ibv_mr,
    c_int,
    *mut ffi::ibv_pd,
    *mut c_void,
    usize,
    c_int,
) -> ffi::ibv_rereg_mr_err_code::Type;

/// `ibv_rereg_mr` of the library that is open, which the bindings declare and do not forward.
fn function() -> Option<Function> {
    static FUNCTION: OnceLock<Option<Function>> = OnceLock::new();
    *FUNCTION.get_or_init(|| {
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
        // SAFETY: a string that ends in zero; a library that is loaded already runs no code of its own again.
        let library = unsafe { libc::dlopen(c"libibverbs.so.1".as_ptr(), flags) };
        if library.is_null() {
            return None;
        }
        // SAFETY: the library is open, and never closed.
        let symbol = unsafe { libc::dlsym(library, c"ibv_rereg_mr".as_ptr()) };
        // SAFETY: a null pointer is `None`, any other is the function, whose C declaration the type repeats.
        unsafe { mem::transmute::<*mut c_void, Option<Function>>(symbol) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_has_become_of_the_region() {
        let of = |answer, errno| Outcome::of(answer, Some(errno));
        assert_eq!(of(0, 0), Outcome::Changed);
        assert_eq!(of(-1, libc::EINVAL), Outcome::Unchanged);
        assert_eq!(of(-2, libc::ENOMEM), Outcome::Unchanged);
        assert_eq!(of(-3, libc::ENOMEM), Outcome::Changed);
        assert_eq!(of(-4, libc::EOPNOTSUPP), Outcome::Unsupported);
        assert_eq!(of(-4, libc::EINVAL), Outcome::Unknown);
        assert_eq!(of(-5, libc::EOPNOTSUPP), Outcome::Unknown);
        assert_eq!(of(7, 0), Outcome::Unknown);
    }
}
