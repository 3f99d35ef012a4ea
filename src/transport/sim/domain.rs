//! The memory that a node's device knows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::faults::Fault;
use super::node::NodeId;
use super::pair::PairId;
use super::state::State;
use super::trace::Note;
use super::world::World;
use crate::memory::{Domain, RegionAccess, Registrable, Registration, Transfer};
use crate::service::Service;
use crate::transport::WindowKey;
use crate::{Access, Error, ErrorKind, Result};

/// What is registered with a device, by key.
#[derive(Default)]
pub(super) struct Books {
    keys: BTreeMap<u32, Key>,
    next: u32,
}

pub(super) enum Key {
    Region(Region),
    Window(WindowKey),
}

pub(super) struct Region {
    memory: Arc<dyn Registrable>,
    range: Range<usize>,
    access: RegionAccess,
}

impl Books {
    /// Makes a key, which no other ever is.
    pub(super) fn add(&mut self, what: Key) -> u32 {
        self.next += 1;
        self.keys.insert(self.next, what);
        self.next
    }

    pub(super) fn remove(&mut self, key: u32) -> Option<Key> {
        self.keys.remove(&key)
    }

    fn region(&self, key: u32) -> Option<&Region> {
        match self.keys.get(&key)? {
            Key::Region(region) => Some(region),
            Key::Window(_) => None,
        }
    }

    /// The regions there are.
    pub(super) fn regions(&self) -> impl Iterator<Item = &Region> {
        self.keys.values().filter_map(|key| if let Key::Region(region) = key { Some(region) } else { None })
    }

    /// Whether the pieces of `memory` are registered, to be written if `is_written`.
    pub(super) fn check_local(&self, memory: &Transfer, is_written: bool) -> std::result::Result<(), String> {
        for piece in memory.segments().filter(|piece| piece.length > 0) {
            let region = self.region(piece.local_key).ok_or("its key is not registered")?;
            region.place(piece.address, piece.length as usize).ok_or("its key is of other memory")?;
            let is_allowed = !is_written || matches!(region.access, RegionAccess::Local | RegionAccess::LocalOnDemand);
            if !is_allowed {
                return Err(format!("its key allows {:?}", region.access));
            }
        }
        Ok(())
    }
}

impl Region {
    /// Where in its memory `length` bytes at `address` are, if all are its own.
    fn place(&self, address: u64, length: usize) -> Option<usize> {
        let first = self.memory.address().addr() as u64;
        let offset = usize::try_from(address.checked_sub(first)?).ok()?;
        let end = offset.checked_add(length)?;
        (self.range.start <= offset && end <= self.range.end).then_some(offset)
    }

    pub(super) fn length(&self) -> usize {
        self.range.len()
    }

    pub(super) fn describe(&self) -> String {
        format!("{} bytes for {:?}", self.range.len(), self.access)
    }
}

impl State {
    /// The memory that `key` opens to the peer of `pair`, and where in it `address` is.
    pub(super) fn find_remote(
        &self,
        node: NodeId,
        pair: PairId,
        key: u32,
        address: u64,
        length: usize,
        right: Access,
    ) -> std::result::Result<(Arc<dyn Registrable>, usize), ()> {
        let books = &self.nodes[node.0].books;
        let region = match books.keys.get(&key).ok_or(())? {
            Key::Region(region) => match region.access {
                RegionAccess::Remote { access, .. } if access.contains(right) => region,
                _ => return Err(()),
            },
            Key::Window(window) => {
                let region = self.through(*window, pair, right).ok_or(())?;
                books.region(region).ok_or(())?
            }
        };
        let offset = region.place(address, length).ok_or(())?;
        Ok((Arc::clone(&region.memory), offset))
    }

    fn register(&mut self, node: NodeId, region: Region) -> Result<u32> {
        let length = region.range.len();
        // What the registration cache registers depends on addresses, which differ from run to run.
        if region.access != RegionAccess::LocalRead {
            if self.hit(Fault::Registration) {
                self.discard(region);
                return Err(Error::new(ErrorKind::MemoryLimit, "register memory").with_detail("injected"));
            }
            self.note(Note::Registered { node, length });
        }
        Ok(self.nodes[node.0].books.add(Key::Region(region)))
    }

    fn deregister(&mut self, node: NodeId, key: u32) {
        if let Some(region) = self.nodes[node.0].books.remove(key) {
            // A cache gives up what it has, for reading by us or by windows, in the order of addresses.
            if let Key::Region(Region { access, range, .. }) = &region
                && !matches!(access, RegionAccess::LocalRead | RegionAccess::Windows { write: false })
            {
                let length = range.len();
                self.note(Note::Deregistered { node, length });
            }
            self.discard(region);
        } else if !self.is_dead(node) {
            self.bug(format!("{node} deregisters what is not registered"));
        }
    }
}

/// A node's domain.
pub(super) struct SimDomain {
    world: Arc<World>,
    node: NodeId,
    id: u64,
    nonce: u64,
}

impl SimDomain {
    pub(super) fn new(world: &Arc<World>, node: NodeId) -> Self {
        let (id, nonce) = world.with(|state| (state.nodes[node.0].domain, state.nodes[node.0].nonce));
        Self { world: Arc::clone(world), node, id, nonce }
    }
}

impl Domain for SimDomain {
    fn id(&self) -> u64 {
        self.id
    }

    fn nonce(&self) -> u64 {
        self.nonce
    }

    fn service(&self) -> Option<Arc<Service>> {
        self.world.with(|state| state.nodes[self.node.0].service.clone())
    }

    fn has_windows(&self) -> bool {
        true
    }

    fn pages_on_demand(&self) -> bool {
        false
    }

    fn register(
        &self,
        memory: &Arc<dyn Registrable>,
        range: Range<usize>,
        access: RegionAccess,
    ) -> Result<Arc<dyn Registration>> {
        if access.is_on_demand() || (access.is_writing() && !memory.is_writable()) {
            return Err(Error::new(ErrorKind::Unsupported, "register memory"));
        }
        let region = Region { memory: Arc::clone(memory), range, access };
        let key = self.world.with(|state| {
            if region.range.is_empty() || region.range.end > region.memory.length() {
                state.bug(format!("{} registers bytes {:?} of a memory", self.node, region.range));
            }
            state.register(self.node, region)
        })?;
        Ok(Arc::new(SimRegistration { world: Arc::clone(&self.world), node: self.node, key: Some(key) }))
    }

    fn register_dma_buf(&self, _: OwnedFd, _: u64, _: usize, _: RegionAccess) -> Result<Arc<dyn Registration>> {
        Err(Error::new(ErrorKind::Unsupported, "register memory"))
    }
}

struct SimRegistration {
    world: Arc<World>,
    node: NodeId,
    /// `None` when it was deregistered.
    key: Option<u32>,
}

impl SimRegistration {
    fn deregister(&mut self) {
        if let Some(key) = self.key.take() {
            self.world.with(|state| state.deregister(self.node, key));
        }
    }
}

impl Registration for SimRegistration {
    fn local_key(&self) -> u32 {
        self.key.unwrap_or_default()
    }

    fn remote_key(&self) -> u32 {
        self.key.unwrap_or_default()
    }

    fn end(self: Arc<Self>) -> Result<()> {
        let held = |_| Error::new(ErrorKind::Other, "deregister memory").with_detail("something still uses the region");
        Arc::try_unwrap(self).map_err(held)?.deregister();
        Ok(())
    }
}

impl Drop for SimRegistration {
    fn drop(&mut self) {
        self.deregister();
    }
}
