//! Settings of a pool.

use super::{Budget, Class, Pool};
use crate::memory::mapping::{HUGE_PAGE, Mapping, Pages};
use crate::{Error, ErrorKind, Result};

/// Settings of a [`Pool`]; made by [`Pool::builder`].
///
/// ```
/// use zcmi::{HugePages, Pool};
/// let pool = Pool::builder().limit(16 << 20).huge_pages(HugePages::Try).build()?;
/// let buffer = pool.allocate(1 << 20)?;
/// # Ok::<(), zcmi::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PoolOptions {
    limit: usize,
    huge_pages: HugePages,
    populate: bool,
    shareable: bool,
}

/// Whether a pool takes huge pages (2 MiB) from the kernel's reserve (`vm.nr_hugepages`). They are allocated when a
/// slab is mapped, so there is no fault later that cannot be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HugePages {
    /// No.
    #[default]
    Off,
    /// Yes, and no other: where there are none left, allocating fails.
    Required,
    /// While there are some, and the limit leaves room for one; ordinary pages otherwise.
    Try,
}

impl PoolOptions {
    pub(super) fn new() -> Self {
        Self { limit: physical_memory(), huge_pages: HugePages::Off, populate: false, shareable: false }
    }

    /// The most bytes that the pool ever maps, used or idle. Default: the physical memory of the machine. A registered slab is
    /// pinned whole, so the limit also bounds what the pool takes of `RLIMIT_MEMLOCK` for each device.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Whether to take huge pages. Default [`HugePages::Off`].
    #[must_use]
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// Whether to allocate all pages of a slab when it is mapped. Default no: ordinary pages are allocated as they are
    /// touched, and the process is killed if the machine or its control group has none left then (`SIGBUS` where overcommit is forbidden,
    /// `vm.overcommit_memory=2`). With it such a shortage is an error of the allocation,
    /// short of what a control group's limit kills at once.
    #[must_use]
    pub fn populate(mut self, populate: bool) -> Self {
        self.populate = populate;
        self
    }

    /// Whether the pages of the pool's buffers can be shared with peers, which
    /// [`ConfigBuilder::share_pages_with_peers`](crate::ConfigBuilder::share_pages_with_peers) is about. Default no. Each slab is a file of its own then (a
    /// descriptor, no name anywhere), and all of its pages are allocated when it is mapped. RDMA devices do not take such buffers.
    #[must_use]
    pub fn shareable(mut self, shareable: bool) -> Self {
        self.shareable = shareable;
        self
    }

    /// Makes the pool. It maps nothing until something is allocated.
    ///
    /// # Errors
    /// [`PoolExhausted`](ErrorKind::PoolExhausted) if the limit has no room for a page;
    /// [`ResourceExhausted`](ErrorKind::ResourceExhausted) if huge pages are required and there are none.
    /// [`Unsupported`](ErrorKind::Unsupported) for huge pages that are shareable.
    pub fn build(self) -> Result<Pool> {
        if self.shareable && self.huge_pages != HugePages::Off {
            let detail = "huge pages are not shared with peers";
            return Err(Error::new(ErrorKind::Unsupported, "make a pool").with_detail(detail));
        }
        let least = self.granule();
        if self.limit < least {
            let detail = format!("a limit of {} bytes, and the least slab has {least}", self.limit);
            return Err(Error::new(ErrorKind::PoolExhausted, "make a pool").with_detail(detail));
        }
        if self.huge_pages == HugePages::Required {
            // One page, given back at once: tells now what would fail later.
            Mapping::of(HUGE_PAGE, Pages::Huge).map_err(|error| {
                Error::new(ErrorKind::ResourceExhausted, "make a pool")
                    .with_detail("no huge page to be had; `sysctl vm.nr_hugepages=N` reserves some")
                    .with_source(error)
            })?;
        }
        Ok(Pool::new(Budget::new(self.limit), self))
    }

    /// What the least slab has.
    pub(super) fn granule(&self) -> usize {
        match self.huge_pages {
            HugePages::Required => HUGE_PAGE,
            HugePages::Off | HugePages::Try => rustix::param::page_size(),
        }
    }

    /// The kinds of pages to try, in this order, and the bytes that a slab of each kind is a multiple of.
    pub(super) fn pages(&self) -> &'static [Pages] {
        if self.shareable {
            return &[Pages::Shareable];
        }
        match (self.huge_pages, self.populate) {
            (HugePages::Required, _) => &[Pages::Huge],
            (HugePages::Try, false) => &[Pages::Huge, Pages::Ordinary],
            (HugePages::Try, true) => &[Pages::Huge, Pages::Populated],
            (HugePages::Off, false) => &[Pages::Ordinary],
            (HugePages::Off, true) => &[Pages::Populated],
        }
    }

    pub(super) fn is_shareable(&self) -> bool {
        self.shareable
    }

    /// The least that a block of `class` takes, of a pool that is empty.
    pub(super) fn least(&self, class: Class) -> usize {
        class.size().next_multiple_of(self.granule())
    }
}

fn physical_memory() -> usize {
    let information = rustix::system::sysinfo();
    (information.totalram as usize).saturating_mul(information.mem_unit as usize).max(Class::LARGEST)
}
