//! Memory regions: what can be registered, how, and what each refusal says.

#![allow(unsafe_code, reason = "mappings of every kind, and fork")]

use std::ffi::c_void;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use zcmi::verbs::{
    Access, Advice, Device, Error, MemoryRegion, ProtectionDomain, RegionChange, Registrable, Result, SharedBytes,
};

use crate::common::resources::Resources;
use crate::support::{Fixture, with_device};

pub(crate) const PAGE: usize = 4096;

/// Fresh pages that nothing else touches.
pub(crate) struct Pages {
    address: *mut c_void,
    length: usize,
}

// SAFETY: a mapping may be used by and removed from every thread.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn new(length: usize) -> Arc<Self> {
        Self::with(length, ProtFlags::READ | ProtFlags::WRITE)
    }

    fn with(length: usize, protection: ProtFlags) -> Arc<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses an address that nothing else uses.
        let address = unsafe { mmap_anonymous(std::ptr::null_mut(), length, protection, flags) }.expect("a mapping");
        Arc::new(Self { address, length })
    }

    /// Bytes from `offset` on, while no request is in flight.
    pub(crate) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length);
        // SAFETY: within the mapping.
        let first = unsafe { self.address.cast::<u8>().add(offset) };
        // SAFETY: mapped, zeroed at first, and not written meanwhile.
        unsafe { std::slice::from_raw_parts(first, length) }.to_vec()
    }

    /// Puts bytes at `offset`, while no request is in flight.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        // SAFETY: within the mapping.
        let first = unsafe { self.address.cast::<u8>().add(offset) };
        // SAFETY: mapped, and no reference to it exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), first, bytes.len()) };
    }
}

// SAFETY: mapped until drop, and never borrowed.
unsafe impl Registrable for Pages {
    fn address(&self) -> *mut u8 {
        self.address.cast()
    }

    fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `with` and unmapped once.
        unsafe { munmap(self.address, self.length) }.expect("unmaps");
    }
}

fn domain(fixture: &Fixture) -> Arc<ProtectionDomain> {
    ProtectionDomain::allocate(&fixture.context).expect("a domain")
}

fn failure(result: Result<MemoryRegion>) -> (Option<i32>, String) {
    let error: Error = result.expect_err("must be refused");
    (error.errno(), error.to_string())
}

#[track_caller]
fn assert_says(said: &(Option<i32>, String), errno: i32, parts: &[&str]) {
    assert_eq!(said.0, Some(errno), "{}", said.1);
    for part in parts {
        assert!(said.1.contains(part), "{part}: {}", said.1);
    }
}

/// Bytes that this process has pinned.
fn pinned() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).expect("VmPin");
    line.trim_end_matches("kB").trim().parse::<usize>().expect("a number") * 1024
}

#[test]
fn every_combination_of_rights_registers() {
    with_device(|fixture| {
        let domain = domain(fixture);
        let flags = [
            Access::LOCAL_WRITE,
            Access::MW_BIND,
            Access::RELAXED_ORDERING,
            Access::REMOTE_ATOMIC,
            Access::REMOTE_READ,
            Access::REMOTE_WRITE,
        ];
        let pages = Pages::new(4 * PAGE);
        for chosen in 0..1 << flags.len() {
            let mut access = Access::LOCAL_READ;
            for (bit, &flag) in flags.iter().enumerate() {
                if chosen >> bit & 1 == 1 {
                    access |= flag;
                }
            }
            let range = chosen..chosen + PAGE + 1;
            let region = MemoryRegion::register(&domain, pages.clone(), range.clone(), access)
                .unwrap_or_else(|error| panic!("{access}: {error}"));
            assert_eq!(region.access(), access);
            assert_eq!(region.address(), pages.address() as u64 + chosen as u64);
            assert_eq!(region.length(), PAGE + 1);
            assert!(Arc::ptr_eq(region.domain(), &domain));
            region.deregister().expect("deregisters");
        }
    });
}

#[test]
fn a_region_pins_its_pages_until_it_is_dropped() {
    with_device(|fixture| {
        let domain = domain(fixture);
        let before = pinned();
        let region =
            MemoryRegion::register(&domain, Pages::new(8 * PAGE), 0..8 * PAGE, Access::LOCAL_WRITE).expect("registers");
        assert_eq!(pinned(), before + 8 * PAGE);
        let again = MemoryRegion::register(&domain, Pages::new(PAGE), 0..PAGE, Access::LOCAL_WRITE).expect("registers");
        assert_ne!((region.local_key(), region.remote_key()), (again.local_key(), again.remote_key()));
        drop((region, again));
        assert_eq!(pinned(), before);
    });
}

#[test]
fn the_order_of_dropping_does_not_matter() {
    with_device(|fixture| {
        let (domain, pages) = (domain(fixture), Pages::new(PAGE));
        let region = MemoryRegion::register(&domain, pages.clone(), 0..PAGE, Access::LOCAL_WRITE).expect("registers");
        drop(domain);
        assert_eq!(Arc::strong_count(&pages), 2, "the region holds its memory");
        region.deregister().expect("the domain was still there");
        assert_eq!(Arc::strong_count(&pages), 1);
    });
}

#[test]
fn ranges_that_are_empty_or_leave_the_memory_are_refused() {
    with_device(|fixture| {
        let (domain, pages) = (domain(fixture), Pages::new(PAGE));
        let reversed = std::ops::Range { start: 9, end: 8 };
        for range in [0..0, PAGE..PAGE, 0..PAGE + 1, PAGE..PAGE + 1, reversed, usize::MAX - 1..usize::MAX] {
            let said = failure(MemoryRegion::register(&domain, pages.clone(), range, Access::LOCAL_WRITE));
            assert_says(&said, libc::EINVAL, &["ibv_reg_mr", "no range of bytes in a memory of 4096"]);
        }
        let empty = SharedBytes::new(Vec::new());
        let said = failure(MemoryRegion::register(&domain, empty, 0..0, Access::LOCAL_READ));
        assert_says(&said, libc::EINVAL, &["memory of 0"]);
    });
}

#[test]
fn memory_mapped_read_only_registers_for_reading_only() {
    with_device(|fixture| {
        let (domain, pages) = (domain(fixture), Pages::with(PAGE, ProtFlags::READ));
        for access in [Access::LOCAL_READ, Access::REMOTE_READ, Access::REMOTE_READ | Access::RELAXED_ORDERING] {
            drop(MemoryRegion::register(&domain, pages.clone(), 0..PAGE, access).expect("registers"));
        }
        for access in [Access::LOCAL_WRITE, Access::REMOTE_WRITE, Access::REMOTE_ATOMIC, Access::MW_BIND] {
            let said = failure(MemoryRegion::register(&domain, pages.clone(), 0..PAGE, access));
            assert_says(&said, libc::EFAULT, &["4096 bytes", "read-only", &access.to_string()]);
        }
        let forbidden = Pages::with(PAGE, ProtFlags::empty());
        let said = failure(MemoryRegion::register(&domain, forbidden, 0..PAGE, Access::LOCAL_READ));
        assert_says(&said, libc::EFAULT, &["4096 bytes"]);
    });
}

#[test]
fn shared_bytes_register_where_they_lie_and_are_never_written() {
    static CONSTANT: [u8; 5] = *b"const";
    with_device(|fixture| {
        let domain = domain(fixture);
        let (vector, arc): (_, Arc<[u8]>) = (vec![7; 3 * PAGE], Arc::from([1, 2, 3]));
        let (vector_at, arc_at) = (vector.as_ptr() as u64, arc.as_ptr() as u64);
        let sources: [(Arc<dyn Registrable>, u64); 3] = [
            (SharedBytes::new(vector), vector_at),
            (SharedBytes::new(Arc::clone(&arc)), arc_at),
            (SharedBytes::new(&CONSTANT), CONSTANT.as_ptr() as u64),
        ];
        for (bytes, address) in sources {
            for access in [Access::LOCAL_WRITE, Access::REMOTE_WRITE, Access::REMOTE_ATOMIC] {
                let said = failure(MemoryRegion::register(&domain, Arc::clone(&bytes), 0..3, access));
                assert_says(&said, libc::EACCES, &["may only be read"]);
            }
            let region = MemoryRegion::register(&domain, bytes, 1..3, Access::REMOTE_READ).expect("registers");
            assert_eq!((region.address(), region.length()), (address + 1, 2));
        }
        assert_eq!(*arc, [1, 2, 3], "others read on");
    });
}

#[test]
fn a_region_can_be_named_by_another_address() {
    with_device(|fixture| {
        let (domain, pages) = (domain(fixture), Pages::new(2 * PAGE));
        let at = |range: std::ops::Range<usize>, start, access| {
            MemoryRegion::register_at(&domain, pages.clone(), range, start, access)
        };
        for (range, start) in [(0..PAGE, 0), (0..2 * PAGE, 0x7000_0000_0000), (5..PAGE, 0xabc0_0005)] {
            let region = at(range.clone(), start, Access::REMOTE_WRITE).expect("registers");
            assert_eq!((region.address(), region.length()), (start, range.len()));
        }
        let region = MemoryRegion::register(&domain, pages.clone(), PAGE..PAGE + 9, Access::ZERO_BASED);
        let region = region.expect("registers");
        assert_eq!((region.address(), region.length()), (0, 9));
        assert!(region.access().contains(Access::ZERO_BASED));

        assert_says(&failure(at(5..PAGE, 0, Access::LOCAL_WRITE)), libc::EINVAL, &["5 bytes into its page"]);
        assert_says(&failure(at(0..PAGE, 8, Access::LOCAL_WRITE)), libc::EINVAL, &["they must agree"]);
        let last_page = u64::MAX - (PAGE as u64 - 1);
        assert_says(&failure(at(0..2 * PAGE, last_page, Access::LOCAL_WRITE)), libc::EINVAL, &["address space"]);
        let said = failure(at(0..PAGE, PAGE as u64, Access::ZERO_BASED));
        assert_says(&said, libc::EINVAL, &["ZERO_BASED begins at 0"]);
        let said = failure(MemoryRegion::register(&domain, pages.clone(), 1..9, Access::ZERO_BASED));
        assert_says(&said, libc::EINVAL, &["1 bytes into its page"]);
    });
}

#[test]
fn a_region_larger_than_any_device_takes_is_refused() {
    with_device(|fixture| {
        // More pages than the kernel pins at once.
        let length = 17 << 40;
        let said = failure(MemoryRegion::register(
            &domain(fixture),
            Pages::with(length, ProtFlags::READ),
            0..length,
            Access::LOCAL_READ,
        ));
        assert!(matches!(said.0, Some(libc::EINVAL | libc::ENOMEM)), "{}", said.1);
        assert!(said.1.contains(&length.to_string()), "{}", said.1);
    });
}

#[test]
fn memory_is_registered_on_demand_where_the_device_can() {
    with_device(|fixture| {
        let (domain, pages) = (domain(fixture), Pages::new(8 * PAGE));
        let access = Access::ON_DEMAND | Access::REMOTE_WRITE | Access::REMOTE_READ;
        let result = MemoryRegion::register(&domain, pages, 0..8 * PAGE, access);
        // Another program's view of the device.
        let told = std::process::Command::new("ibv_devinfo").arg("-v").output().expect("ibverbs-utils").stdout;
        let is_supported = String::from_utf8_lossy(&told).lines().any(|line| line.trim() == "ODP_SUPPORT");
        assert_eq!(MemoryRegion::supports_on_demand(&fixture.context), is_supported);
        if is_supported {
            let before = pinned();
            let region = result.expect("registers");
            drop(region);
            assert_eq!(pinned(), before, "nothing was pinned");
        } else {
            assert_says(&failure(result), libc::EOPNOTSUPP, &["on-demand paging", fixture.context.name()]);
        }
    });
}

#[test]
fn advice_is_checked_and_given_where_the_device_takes_it() {
    with_device(|fixture| {
        let (domain, pages) = (domain(fixture), Pages::new(4 * PAGE));
        let on_demand = MemoryRegion::supports_on_demand(&fixture.context);
        let access = if on_demand { Access::ON_DEMAND | Access::LOCAL_WRITE } else { Access::LOCAL_WRITE };
        let region = MemoryRegion::register(&domain, pages, 0..4 * PAGE, access).expect("registers");
        for range in [0..0, 0..4 * PAGE + 1, 4 * PAGE..4 * PAGE + 1] {
            let error = region.advise(Advice::PrefetchRead, range).expect_err("no range");
            assert_eq!(error.errno(), Some(libc::EINVAL), "{error}");
            assert!(error.to_string().contains("region of 16384"), "{error}");
        }
        for advice in [Advice::PrefetchRead, Advice::PrefetchResident, Advice::PrefetchWrite] {
            for result in [region.advise(advice, 1..PAGE), region.advise_and_wait(advice, 0..4 * PAGE)] {
                let Err(error) = result else {
                    assert!(on_demand, "{advice:?} without on-demand paging");
                    continue;
                };
                assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error}");
                assert!(error.to_string().contains("takes no advice"), "{error}");
            }
        }
    });
}

#[test]
fn a_region_that_cannot_be_changed_comes_back_as_it_was() {
    with_device(|fixture| {
        let (domain, pages) = (domain(fixture), Pages::new(2 * PAGE));
        let other = ProtectionDomain::allocate(&fixture.context).expect("a domain");
        let foreign_context = Device::list().expect("devices")[0].open().expect("opens");
        let foreign = ProtectionDomain::allocate(&foreign_context).expect("a domain");
        let constant: Arc<dyn Registrable> = SharedBytes::new(vec![0; PAGE]);
        let change = RegionChange::default;
        let memory = |memory: &Arc<Pages>, range| Some((Arc::clone(memory) as Arc<dyn Registrable>, range));
        let cases = [
            (change(), libc::EINVAL, "nothing is to change"),
            (RegionChange { domain: Some(foreign), ..change() }, libc::EINVAL, "another open device"),
            (RegionChange { access: Some(Access::ZERO_BASED), ..change() }, libc::EINVAL, "ZERO_BASED"),
            (RegionChange { memory: memory(&pages, 0..2 * PAGE + 1), ..change() }, libc::EINVAL, "no range"),
            (RegionChange { memory: Some((constant, 0..9)), ..change() }, libc::EACCES, "may only be read"),
            // What follows a device could do; Soft-RoCE's library does not.
            (RegionChange { access: Some(Access::REMOTE_READ), ..change() }, libc::EOPNOTSUPP, "register anew"),
            (RegionChange { domain: Some(other), ..change() }, libc::EOPNOTSUPP, "register anew"),
            (RegionChange { memory: memory(&pages, PAGE..PAGE + 1), ..change() }, libc::EOPNOTSUPP, "register anew"),
        ];
        let mut region =
            MemoryRegion::register(&domain, pages.clone(), 0..PAGE, Access::LOCAL_WRITE).expect("registers");
        let keys = (region.local_key(), region.remote_key());
        for (change, errno, part) in cases {
            let refused = match region.reregister(change) {
                Ok(changed) if errno == libc::EOPNOTSUPP => {
                    eprintln!("SKIPPED: this device changes regions");
                    region = changed;
                    continue;
                }
                result => result.expect_err(part),
            };
            assert_says(&(refused.error.errno(), refused.to_string()), errno, &[part]);
            region = refused.region.expect("the region is as it was");
            assert_eq!((region.local_key(), region.remote_key()), keys);
            assert_eq!((region.length(), region.access()), (PAGE, Access::LOCAL_WRITE));
        }
        region.deregister().expect("it is registered still");
    });
}

/// A dma-buf over pages of a memfd, from the kernel's `udmabuf`.
fn dma_buf() -> Option<OwnedFd> {
    let Ok(maker) = std::fs::File::open("/dev/udmabuf") else {
        eprintln!("SKIPPED in part: this kernel has no /dev/udmabuf");
        return None;
    };
    let file = memfd_create("zcmi-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    ftruncate(&file, PAGE as u64).expect("pages");
    fcntl_add_seals(&file, SealFlags::SHRINK).expect("seals");
    /// `struct udmabuf_create` of linux/udmabuf.h.
    #[repr(C)]
    struct Create {
        file: u32,
        flags: u32,
        offset: u64,
        size: u64,
    }
    const UDMABUF_CREATE: libc::c_ulong = 0x4018_7542;
    let create = Create { file: file.as_raw_fd() as u32, flags: 1, offset: 0, size: PAGE as u64 };
    // SAFETY: the request reads the structure that it names.
    let made = unsafe { libc::ioctl(maker.as_raw_fd(), UDMABUF_CREATE, &raw const create) };
    assert!(made >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and ours.
    Some(unsafe { OwnedFd::from_raw_fd(made) })
}

#[test]
fn a_dma_buf_is_imported_or_honestly_refused() {
    with_device(|fixture| {
        let domain = domain(fixture);
        let import = |file: OwnedFd, offset, length, start| {
            MemoryRegion::register_dma_buf(&domain, file, offset, length, start, Access::REMOTE_READ)
        };
        let memory = memfd_create("zcmi-test", MemfdFlags::CLOEXEC).expect("a memfd");
        assert_says(&failure(import(memory, 0, PAGE, 0)), libc::EINVAL, &["ibv_reg_dmabuf_mr", "not of a dma-buf"]);
        let Some(file) = dma_buf() else { return };
        let copy = || file.try_clone().expect("a descriptor");
        assert_says(&failure(import(copy(), 0, 0, 0)), libc::EINVAL, &["0 bytes"]);
        assert_says(&failure(import(copy(), u64::MAX, PAGE, 0)), libc::EINVAL, &["no range"]);
        assert_says(&failure(import(copy(), 0, PAGE, 1)), libc::EINVAL, &["must agree"]);
        match import(copy(), 0, PAGE, 0) {
            Ok(region) => assert_eq!((region.address(), region.length()), (0, PAGE)),
            result => {
                assert_says(&failure(result), libc::EOPNOTSUPP, &["cannot import a dma-buf", fixture.context.name()]);
            }
        }
    });
}

#[test]
fn a_forked_child_leaves_the_region_to_its_parent() {
    with_device(|fixture| {
        let (domain, pages) = (domain(fixture), Pages::new(PAGE));
        let region = MemoryRegion::register(&domain, pages, 0..PAGE, Access::LOCAL_WRITE).expect("registers");
        let before = Resources::now().of("mr");
        assert!(before >= 1);
        // SAFETY: the child only drops a region, which allocates nothing, and leaves without unwinding.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(region);
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the child is ours and the status is writable.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        assert_eq!(Resources::now().of("mr"), before);
        region.deregister().expect("it is still registered");
    });
}
