//! Memory of the host that peers may access.

#![allow(unsafe_code, reason = "the mapping code of DESIGN.md; each block carries its proof")]
#![allow(private_interfaces, reason = "the trait is sealed: nobody outside calls its methods")]

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, RwLock};

use bytes::Bytes;

use super::exposure::{Exposure, Grantable};
use super::holders::Holders;
use super::slab::{Slab, not_for_devices};
use super::{
    Buffer, Domain, GrantState, RegionAccess, Registered, Registrable, Registration, SharedBuffer, SharedMemory,
    Tether, volatile,
};
use crate::{Error, ErrorKind, Result};

/// A [`Buffer`] that peers may access.
pub type ExposedBuffer = Exposed<Buffer>;

/// Exposable that peers may read, write or change atomically while grants on it live.
///
/// There is no slice of it: [`read_at`](Self::read_at) and [`write_at`](Self::write_at) copy. A read that races with
/// a peer's write can see part of it, in any order; a later message on the same connection
/// says that the write is complete.
///
/// Dropping it revokes, in the background; the memory is used again only after that.
pub struct Exposed<M: Exposable> {
    // Before the memory: it ends the grants.
    exposure: Exposure,
    memory: Arc<Host<M>>,
}

/// What can be exposed, or sent without a copy: a [`Buffer`], a [`Registered`]; and, for reading only, [`SharedMemory`],
/// a [`SharedBuffer`] and [`Bytes`].
pub trait Exposable: sealed::Lend {}

pub(crate) mod sealed {
    use super::{Arc, Error, ErrorKind, Result, Slab};

    /// Bytes that can be taken out of everybody's hands.
    pub trait Lend: std::fmt::Debug + Send + 'static {
        /// The first byte.
        fn first_byte(&self) -> *mut u8;
        /// How many there are.
        fn bytes(&self) -> usize;
        /// All of them, while nobody else has them.
        fn lent(&self) -> &[u8];
        /// Whether peers may change them.
        fn may_change(&self) -> bool;
        /// Whether they are registered without being pinned.
        fn is_on_demand(&self) -> bool;
        /// The slab that peers may be given in which they lie, and where they begin there.
        fn shareable(&self) -> Option<(&Arc<Slab>, usize)> {
            None
        }
        /// The same bytes in memory that no peer has; `read` copies them, whoever may be writing.
        fn elsewhere(&self, read: &dyn Fn(&mut [u8])) -> Result<Self>
        where
            Self: Sized,
        {
            let _ = read;
            Err(Error::new(ErrorKind::Unsupported, "revoke"))
        }
        /// Whether peers may have the pages too. A device is not given them.
        fn is_of_peers_too(&self) -> bool {
            false
        }
        /// The same bytes for the registration cache, where nobody ever changes them.
        fn shared(&self) -> Option<crate::SharedMemory> {
            None
        }
    }
}

impl<M: Exposable> Exposed<M> {
    pub(crate) fn new(memory: M) -> Self {
        let memory = Arc::new(Host {
            address: memory.first_byte(),
            length: memory.bytes(),
            is_writable: memory.may_change(),
            is_on_demand: memory.is_on_demand(),
            turns: RwLock::default(),
            holders: Holders::default(),
            memory: Some(memory),
        });
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

    /// Copies bytes from `offset` on into `destination`. Aligned 8-byte words are read whole.
    ///
    /// # Panics
    /// If the range leaves the memory.
    pub fn read_at(&self, offset: usize, destination: &mut [u8]) {
        volatile::in_turn(&*self.memory, false, || volatile::load(&*self.memory, offset, destination));
    }

    /// Copies `source` into the memory from `offset` on. Aligned 8-byte words are written whole.
    ///
    /// # Panics
    /// If the range leaves the memory, or it may only be read.
    pub fn write_at(&self, offset: usize, source: &[u8]) {
        volatile::in_turn(&*self.memory, true, || volatile::store(&*self.memory, offset, source));
    }

    /// Revokes every grant and gives the memory back: from then on no peer can access it. Holders have
    /// [`Config::revoke_timeout`](crate::Config::revoke_timeout) to agree. If the future is dropped, it goes on in the
    /// background, and the memory is freed after it.
    ///
    /// # Errors
    /// If a device does not let go of the memory, which is then never used again.
    pub async fn into_inner(self) -> Result<M> {
        let Self { exposure, memory } = self;
        exposure.end().await?;
        let stuck = || Error::new(ErrorKind::Other, "revoke").with_detail("the device did not let go of the memory");
        let mut host = Arc::into_inner(memory).ok_or_else(stuck)?;
        let holders = host.holders.take();
        match host.memory.take() {
            // Somebody has not said that he is done with the pages: they are left to him, until he has unmapped them.
            Some(memory) if !holders.is_empty() => {
                let read = |bytes: &mut [u8]| volatile::in_turn(&host, false, || volatile::load(&host, 0, bytes));
                let copy = memory.elsewhere(&read).map_err(|error| error.within("revoke"));
                Tether::drop_when_all_cut(holders, Box::new(memory));
                copy
            }
            memory => memory.ok_or_else(stuck),
        }
    }

    pub(crate) fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    /// What is registered of it.
    #[cfg(test)]
    pub(crate) fn host(&self) -> Arc<dyn Registrable> {
        Arc::clone(&self.memory) as _
    }
}

impl Exposed<Buffer> {
    /// As [`into_inner`](Self::into_inner).
    ///
    /// # Errors
    /// As [`into_inner`](Self::into_inner).
    pub async fn into_buffer(self) -> Result<Buffer> {
        self.into_inner().await
    }
}

impl<M: Exposable> fmt::Debug for Exposed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposed").field("length", &self.len()).field("grants", &self.exposure.live_grants()).finish()
    }
}

impl Exposable for Buffer {}

impl sealed::Lend for Buffer {
    fn shareable(&self) -> Option<(&Arc<Slab>, usize)> {
        self.shareable()
    }

    fn is_of_peers_too(&self) -> bool {
        self.is_of_peers_too()
    }

    fn elsewhere(&self, read: &dyn Fn(&mut [u8])) -> Result<Self> {
        let mut copy = Self::allocate(self.bytes())?;
        read(&mut copy);
        Ok(copy)
    }

    fn first_byte(&self) -> *mut u8 {
        self.address()
    }

    fn bytes(&self) -> usize {
        self.len()
    }

    fn lent(&self) -> &[u8] {
        self
    }

    fn may_change(&self) -> bool {
        true
    }

    fn is_on_demand(&self) -> bool {
        false
    }
}

impl<T: Send + 'static> Exposable for Registered<T> {}

impl<T: Send + 'static> sealed::Lend for Registered<T> {
    fn first_byte(&self) -> *mut u8 {
        self.core().address()
    }

    fn bytes(&self) -> usize {
        self.len()
    }

    fn lent(&self) -> &[u8] {
        self
    }

    fn may_change(&self) -> bool {
        true
    }

    fn is_on_demand(&self) -> bool {
        self.core().access == RegionAccess::LocalOnDemand
    }
}

impl Exposable for SharedMemory {}

impl sealed::Lend for SharedMemory {
    fn first_byte(&self) -> *mut u8 {
        self.as_ptr().cast_mut()
    }

    fn bytes(&self) -> usize {
        self.len()
    }

    fn lent(&self) -> &[u8] {
        self
    }

    fn may_change(&self) -> bool {
        false
    }

    fn shared(&self) -> Option<SharedMemory> {
        Some(self.clone())
    }

    fn is_on_demand(&self) -> bool {
        false
    }
}

impl Exposable for SharedBuffer {}

impl sealed::Lend for SharedBuffer {
    fn is_of_peers_too(&self) -> bool {
        self.is_of_peers_too()
    }

    fn first_byte(&self) -> *mut u8 {
        self.address().cast_mut()
    }

    fn bytes(&self) -> usize {
        self.len()
    }

    fn lent(&self) -> &[u8] {
        self
    }

    fn may_change(&self) -> bool {
        false
    }

    fn is_on_demand(&self) -> bool {
        false
    }
}

impl Exposable for Bytes {}

impl sealed::Lend for Bytes {
    fn first_byte(&self) -> *mut u8 {
        self.as_ptr().cast_mut()
    }

    fn bytes(&self) -> usize {
        self.len()
    }

    fn lent(&self) -> &[u8] {
        self
    }

    fn may_change(&self) -> bool {
        false
    }

    fn shared(&self) -> Option<SharedMemory> {
        Some(self.clone().into())
    }

    fn is_on_demand(&self) -> bool {
        false
    }
}

/// Exposed memory, in nobody's hands.
struct Host<M: Send + 'static> {
    address: *mut u8,
    length: usize,
    is_writable: bool,
    is_on_demand: bool,
    /// Our own threads take turns, those too that serve a peer: words and bytes of one place must not be accessed at once within
    /// a process.
    turns: RwLock<()>,
    holders: Holders,
    /// Not touched until it is given back, and there until then.
    memory: Option<M>,
}

/// It is used again when nobody accesses it any more.
impl<M: Send + 'static> Drop for Host<M> {
    fn drop(&mut self) {
        let holders = self.holders.take();
        if let Some(memory) = self.memory.take().filter(|_| !holders.is_empty()) {
            Tether::drop_when_all_cut(holders, Box::new(memory));
        }
    }
}

// SAFETY: the bytes are only accessed by `volatile`, in turns where it is this process that does, for itself or, where no device
// serves the peers, for a peer; the memory itself may go to every thread.
unsafe impl<M: Send + 'static> Send for Host<M> {}
// SAFETY: as above; a shared one lends nothing of `memory`.
unsafe impl<M: Send + 'static> Sync for Host<M> {}

// SAFETY: `Lend` is sealed: each memory keeps its bytes mapped where they are until it is dropped. It was taken by value and
// is not touched here until it is given back, which needs that no region holds this; so nobody has a reference into it, or,
// where it may only be read, shared ones alone.
unsafe impl<M: Exposable> Registrable for Host<M> {
    fn address(&self) -> *mut u8 {
        self.address
    }

    fn length(&self) -> usize {
        self.length
    }

    fn is_writable(&self) -> bool {
        self.is_writable
    }

    fn turns(&self) -> Option<&RwLock<()>> {
        Some(&self.turns)
    }
}

impl<M: Exposable> Grantable for Host<M> {
    fn length(&self) -> usize {
        self.length
    }

    fn is_writable(&self) -> bool {
        self.is_writable
    }

    fn is_on_demand(&self) -> bool {
        self.is_on_demand
    }

    fn takes_windows(&self) -> bool {
        !self.is_on_demand
    }

    fn shared(&self) -> Option<SharedMemory> {
        self.memory.as_ref()?.shared()
    }

    fn shareable(&self) -> Option<(&Arc<Slab>, usize)> {
        self.memory.as_ref()?.shareable()
    }

    fn open_to(&self, tether: &Arc<Tether>, state: &Arc<GrantState>) {
        self.holders.add(tether, state);
    }

    fn register(
        self: Arc<Self>,
        domain: &dyn Domain,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<(Arc<dyn Registration>, u64)> {
        let is_of_peers_too = self.memory.as_ref().is_some_and(sealed::Lend::is_of_peers_too);
        if is_of_peers_too && !domain.takes_pages_of_peers() {
            return Err(not_for_devices("grant"));
        }
        let address = self.address.addr() + range.start;
        let memory = self as Arc<dyn Registrable>;
        domain.register(&memory, range, access).map(|registration| (registration, address as u64))
    }
}
