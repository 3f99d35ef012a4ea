//! The memory windows of one worker's queue pairs: idle, in a request, or bound.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use super::domain::{Region, remote_rights};
use super::wrap;
use crate::transport::{ChannelKey, Opening, WindowKey};
use crate::verbs::{Access, BoundWindow, CompletedWindow, MemoryRegion, ProtectionDomain, UnboundWindow, WindowKind};
use crate::{Error, ErrorKind, Result};

/// Windows that are bound to nothing and kept for the next grant, for each channel.
const MOST_IDLE: usize = 16;

/// Keeps every window that is not in a request. Each serves one channel, after whose queue pair it was allocated.
#[derive(Debug, Default)]
pub(super) struct Windows {
    idle: HashMap<ChannelKey, Vec<UnboundWindow>>,
    bound: HashMap<WindowKey, (ChannelKey, BoundWindow)>,
    /// Tokens of requests, and whose window they have.
    in_flight: Vec<(u64, WindowKey, ChannelKey)>,
    next: u64,
}

/// All that a channel had, to be dropped after its queue pair.
pub(super) struct Remains {
    _idle: Vec<UnboundWindow>,
    _bound: Vec<BoundWindow>,
}

impl Windows {
    /// A window to be bound, and what of: an idle one or a new one.
    pub(super) fn unbound(&mut self, channel: ChannelKey, domain: &Arc<ProtectionDomain>) -> Result<UnboundWindow> {
        match self.idle.get_mut(&channel).and_then(Vec::pop) {
            Some(window) => Ok(window),
            None => UnboundWindow::allocate(domain, WindowKind::Two).map_err(|error| wrap("grant", error)),
        }
    }

    /// The window was not bound after all.
    pub(super) fn keep(&mut self, channel: ChannelKey, window: UnboundWindow) {
        let idle = self.idle.entry(channel).or_default();
        // One whose keys are used up goes: an old key would come again.
        if idle.len() < MOST_IDLE && window.keys_left() > 0 {
            idle.push(window);
        }
    }

    /// A bind was posted with `token`.
    pub(super) fn binding(&mut self, channel: ChannelKey, token: u64) -> WindowKey {
        let key = WindowKey(self.next);
        self.next += 1;
        self.in_flight.push((token, key, channel));
        key
    }

    /// Takes a bound window out, to be invalidated.
    pub(super) fn take(&mut self, window: WindowKey) -> Option<BoundWindow> {
        self.bound.remove(&window).map(|(_, window)| window)
    }

    /// The invalidation was posted with `token`.
    pub(super) fn invalidating(&mut self, channel: ChannelKey, token: u64, window: WindowKey) {
        self.in_flight.push((token, window, channel));
    }

    /// It was not; the window stays bound.
    pub(super) fn put_back(&mut self, channel: ChannelKey, key: WindowKey, window: BoundWindow) {
        self.bound.insert(key, (channel, window));
    }

    /// A request has ended and gives its window back.
    pub(super) fn completed(&mut self, channel: ChannelKey, token: u64, window: CompletedWindow, is_success: bool) {
        // Each channel has tokens of its own.
        let at = self.in_flight.iter().position(|(posted, _, of)| (*posted, *of) == (token, channel));
        let Some((_, key, _)) = at.map(|at| self.in_flight.swap_remove(at)) else { return };
        match window {
            CompletedWindow::Unbound(window) if is_success => self.keep(channel, window),
            // After a failure it can only be dropped; after its queue pair, or now: that takes the key back for certain.
            CompletedWindow::Unbound(window) => drop(window),
            CompletedWindow::Bound(window) => self.put_back(channel, key, window),
        }
    }

    /// What the channel has, now that its queue pair is to go.
    pub(super) fn leave(&mut self, channel: ChannelKey) -> Remains {
        self.in_flight.retain(|(.., of)| *of != channel);
        let idle = self.idle.remove(&channel).unwrap_or_default();
        let bound = self.bound.extract_if(|_, (of, _)| *of == channel).map(|(_, (_, window))| window).collect();
        Remains { _idle: idle, _bound: bound }
    }
}

/// The memory region behind `opening`, and the rights of the window.
pub(super) fn target(opening: &Opening) -> Result<(&Arc<MemoryRegion>, Access)> {
    let region = opening.region.kept().unwrap_or(&*opening.region) as &dyn Any;
    let region = region.downcast_ref::<Region>();
    let region =
        region.ok_or_else(|| Error::new(ErrorKind::Foreign, "grant").with_detail("a region of another transport"))?;
    Ok((&region.region, remote_rights(opening.access)))
}
