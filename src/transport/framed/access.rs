//! Who may access what of this process: windows, each of which opens a region to one channel.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use super::domain::{Region, SoftwareDomain, SoftwareRegistration};
use crate::memory::{Registrable, Registration, volatile};
use crate::transport::{ChannelKey, Opening, WindowKey};
use crate::{Access, Error, ErrorKind, Result};

/// What the peers of a queue's channels may reach.
pub(super) struct Accesses {
    domain: Arc<SoftwareDomain>,
    /// By the key that the peer names it by.
    windows: HashMap<u32, Window>,
    next: u64,
}

struct Window {
    name: WindowKey,
    channel: ChannelKey,
    access: Access,
    /// Held for as long as there is the window.
    registration: Arc<dyn Registration>,
    region: Arc<Region>,
}

impl Accesses {
    pub(super) fn new(domain: Arc<SoftwareDomain>) -> Self {
        Self { domain, windows: HashMap::new(), next: 0 }
    }

    /// Opens memory to the peer of `channel`.
    pub(super) fn bind(&mut self, channel: ChannelKey, opening: Opening) -> Result<(WindowKey, u32)> {
        let registration = opening.region.kept().unwrap_or(&*opening.region) as &dyn Any;
        let foreign = || Error::new(ErrorKind::Foreign, "grant").with_detail("a region of another transport");
        let region = Arc::clone(&registration.downcast_ref::<SoftwareRegistration>().ok_or_else(foreign)?.region);
        let (name, key) = (WindowKey(self.next), self.new_key());
        self.next += 1;
        let Opening { region: registration, access } = opening;
        self.windows.insert(key, Window { name, channel, access, registration, region });
        Ok((name, key))
    }

    fn new_key(&self) -> u32 {
        loop {
            let key = self.domain.new_key();
            if !self.windows.contains_key(&key) {
                return key;
            }
        }
    }

    /// Closes a window; answers what it held.
    pub(super) fn invalidate(&mut self, name: WindowKey) -> Option<Arc<dyn Registration>> {
        let key = self.windows.iter().find(|(_, window)| window.name == name).map(|(key, _)| *key)?;
        self.windows.remove(&key).map(|window| window.registration)
    }

    /// Closes all windows of `channel`.
    pub(super) fn leave(&mut self, channel: ChannelKey) -> Vec<Arc<dyn Registration>> {
        let of = self.windows.extract_if(|_, window| window.channel == channel);
        of.map(|(_, window)| window.registration).collect()
    }

    /// Does `act` with the memory that `key` opens to the peer of `channel`, and the place in it of `length` bytes at `address`, in
    /// turns with the other threads of this process. `None` if it does not open all of that for `right`: then nothing was done.
    pub(super) fn with<R>(
        &self,
        channel: ChannelKey,
        target: Target,
        length: usize,
        act: impl FnOnce(&dyn Registrable, usize) -> R,
    ) -> Option<R> {
        let is_writing = target.right.is_writing();
        self.lend(channel, target, length, |memory, at| volatile::in_turn(memory, is_writing, || act(memory, at)))
    }

    /// The same for the kernel, which takes no turns.
    pub(super) fn lend<R>(
        &self,
        channel: ChannelKey,
        target: Target,
        length: usize,
        act: impl FnOnce(&dyn Registrable, usize) -> R,
    ) -> Option<R> {
        let Target { address, key, right } = target;
        if let Some(window) = self.windows.get(&key) {
            let is_open = window.channel == channel && window.access.contains(right);
            return is_open.then(|| window.region.with(address, length, act)).flatten();
        }
        self.domain.find(key, right)?.with(address, length, act)
    }

    /// Whether a peer may do that. No key is needed for no bytes.
    pub(super) fn allows(&self, channel: ChannelKey, target: Target, length: usize) -> bool {
        length == 0 || self.lend(channel, target, length, |_, _| ()).is_some()
    }
}

/// Where a peer wants to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) address: u64,
    pub(super) key: u32,
    pub(super) right: Access,
}

impl Target {
    /// What is `offset` bytes behind it.
    pub(super) fn behind(self, offset: usize) -> Self {
        Self { address: self.address.wrapping_add(offset as u64), ..self }
    }
}
