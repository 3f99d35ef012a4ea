//! A device's protection domain, shared by the workers of the process.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::device_events::{DeviceEvents, Reports};
use super::wrap;
use crate::memory::{self, Domain, RegionAccess, Registrable, Registration};
use crate::verbs::{Access, Context, DeviceCapabilities, MemoryRegion, ProtectionDomain};
use crate::{Error, ErrorKind, Result};

/// One protection domain per device and process, so that a buffer is registered once for all workers. The key of a
/// region is good for every connection in it, that of a window for one.
#[derive(Debug)]
pub(super) struct VerbsDomain {
    id: u64,
    /// Itself: a registration keeps its domain, so that a buffer that lives on is not registered again elsewhere.
    this: Weak<VerbsDomain>,
    domain: Arc<ProtectionDomain>,
    nonce: u64,
    has_windows: bool,
    events: DeviceEvents,
}

type Domains = HashMap<(u32, String), Weak<VerbsDomain>>;

static DOMAINS: Mutex<Option<Domains>> = Mutex::new(None);
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl VerbsDomain {
    /// The domain of device `name`, opened if this process has none.
    pub(super) fn of_process(name: &str) -> Result<Arc<Self>> {
        let mut domains = DOMAINS.lock().unwrap_or_else(PoisonError::into_inner);
        let domains = domains.get_or_insert_default();
        // The process is part of the key: a forked child must not use its parent's device.
        let key = (std::process::id(), name.to_owned());
        if let Some(domain) = domains.get(&key).and_then(Weak::upgrade) {
            return Ok(domain);
        }
        let failed = |error| wrap("open device", error).with_device(name);
        let context = Context::open(name).map_err(failed)?;
        let domain = ProtectionDomain::allocate(&context).map_err(failed)?;
        let events = DeviceEvents::watch(&context)?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let capabilities = context.attributes().map_err(failed)?.capabilities;
        let has_windows = capabilities.contains(DeviceCapabilities::MEMORY_WINDOW_TYPE_2A)
            || capabilities.contains(DeviceCapabilities::MEMORY_WINDOW_TYPE_2B);
        let nonce = rand::random();
        let domain = Arc::new_cyclic(|this| Self { id, this: Weak::clone(this), domain, nonce, has_windows, events });
        domains.insert(key, Arc::downgrade(&domain));
        Ok(domain)
    }

    pub(super) fn protection_domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// What the device tells of failed queue pairs from now on.
    pub(super) fn reports(&self) -> Arc<Reports> {
        self.events.reports()
    }

    fn device(&self) -> &str {
        self.domain.context().name()
    }
}

impl Domain for VerbsDomain {
    fn id(&self) -> u64 {
        self.id
    }

    fn nonce(&self) -> u64 {
        self.nonce
    }

    fn has_windows(&self) -> bool {
        self.has_windows
    }

    fn pages_on_demand(&self) -> bool {
        // What Soft-RoCE says it can is put elsewhere.
        MemoryRegion::supports_on_demand(self.domain.context()) && !self.domain.context().is_soft_roce()
    }

    fn register(
        &self,
        memory: &Arc<dyn Registrable>,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<Arc<dyn Registration>> {
        let context = self.domain.context();
        if access.is_on_demand() && MemoryRegion::supports_on_demand(context) && !self.pages_on_demand() {
            let detail = "Soft-RoCE ignores where in its page an access on demand begins (seen in Linux 7.3)";
            let error = Error::new(ErrorKind::Unsupported, "register memory").with_detail(detail);
            return Err(error.with_device(self.device()));
        }
        let region = MemoryRegion::register(&self.domain, Arc::clone(memory), range, rights(access))
            .map_err(|error| wrap("register memory", error).with_device(self.device()))?;
        self.registration(region)
    }

    fn register_dma_buf(
        &self,
        file: OwnedFd,
        offset: u64,
        length: usize,
        access: RegionAccess,
    ) -> Result<Arc<dyn Registration>> {
        let region = MemoryRegion::register_dma_buf(&self.domain, file, offset, length, offset, rights(access))
            .map_err(|error| wrap("register memory", error).with_device(self.device()))?;
        self.registration(region)
    }
}

impl VerbsDomain {
    fn registration(&self, region: MemoryRegion) -> Result<Arc<dyn Registration>> {
        let domain = self.this.upgrade().ok_or_else(|| Error::new(ErrorKind::NoDevice, "register memory"))?;
        Ok(Arc::new(Region { region: Arc::new(region), domain }))
    }
}

fn rights(access: RegionAccess) -> Access {
    let when = |wanted: bool, right: Access| if wanted { right } else { Access::LOCAL_READ };
    match access {
        RegionAccess::Local => Access::LOCAL_WRITE,
        RegionAccess::LocalOnDemand => Access::LOCAL_WRITE | Access::ON_DEMAND,
        RegionAccess::LocalRead => Access::LOCAL_READ,
        RegionAccess::Remote { access, on_demand } => remote_rights(access) | when(on_demand, Access::ON_DEMAND),
        RegionAccess::Windows { write } => Access::MW_BIND | when(write, Access::LOCAL_WRITE),
    }
}

/// What peers may do, as verbs call it.
pub(super) fn remote_rights(access: memory::Access) -> Access {
    let rights = [
        (memory::Access::READ, Access::REMOTE_READ),
        (memory::Access::WRITE, Access::REMOTE_WRITE),
        (memory::Access::ATOMIC, Access::REMOTE_ATOMIC),
    ];
    let given = rights.into_iter().filter(|(right, _)| access.contains(*right));
    given.fold(Access::LOCAL_READ, |all, (_, right)| all | right)
}

/// A region, which windows that are bound to it hold too.
pub(super) struct Region {
    pub(super) region: Arc<MemoryRegion>,
    domain: Arc<VerbsDomain>,
}

impl Registration for Region {
    fn local_key(&self) -> u32 {
        self.region.local_key()
    }

    fn remote_key(&self) -> u32 {
        self.region.remote_key()
    }

    fn end(self: Arc<Self>) -> Result<()> {
        let held = |_| Error::new(ErrorKind::Other, "deregister memory").with_detail("something still uses the region");
        let Self { region, domain } = Arc::try_unwrap(self).map_err(|_| held(()))?;
        let region = Arc::try_unwrap(region).map_err(|_| held(()).with_device(domain.device()))?;
        region.deregister().map_err(|error| wrap("deregister memory", error).with_device(domain.device()))
    }
}
