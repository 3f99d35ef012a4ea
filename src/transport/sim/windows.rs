//! Memory windows: each opens a region to the peer of one queue pair.

use std::sync::Arc;

use super::domain::Key;
use super::node::NodeId;
use super::pair::PairId;
use super::state::State;
use super::trace::Note;
use crate::Access;
use crate::memory::Registration;
use crate::transport::WindowKey;

pub(super) struct Window {
    pub(super) node: NodeId,
    pair: PairId,
    /// What peers call it, and what it is a window of.
    pub(super) key: u32,
    pub(super) region_key: u32,
    pub(super) access: Access,
    standing: Standing,
    /// Whether the device lets anybody through.
    is_open: bool,
    /// Held for as long as there is the window.
    _region: Arc<dyn Registration>,
}

/// How far a window is, as the software of its owner knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Binding,
    Bound,
    Invalidating,
    Over,
}

/// What a request does to a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowChange {
    pub(super) window: WindowKey,
    pub(super) is_invalidation: bool,
}

impl State {
    /// A window that is about to be bound.
    pub(super) fn new_window(
        &mut self,
        node: NodeId,
        pair: PairId,
        region: Arc<dyn Registration>,
        access: Access,
    ) -> (WindowKey, u32) {
        let window = WindowKey(self.windows.len() as u64);
        let region_key = region.local_key();
        let key = self.nodes[node.0].books.add(Key::Window(window));
        self.windows.push(Some(Window {
            node,
            pair,
            key,
            region_key,
            access,
            standing: Standing::Binding,
            is_open: false,
            _region: region,
        }));
        (window, key)
    }

    /// Whether an open window of `pair` allows `access`, and of which region.
    pub(super) fn through(&self, window: WindowKey, pair: PairId, access: Access) -> Option<u32> {
        let window = self.windows.get(window.0 as usize)?.as_ref()?;
        (window.is_open && window.pair == pair && window.access.contains(access)).then_some(window.region_key)
    }

    /// A window is to be invalidated. It must be bound, or an owner's kernel could crash.
    pub(super) fn begin_invalidation(&mut self, key: WindowKey) -> bool {
        let window = self.windows.get_mut(key.0 as usize).and_then(Option::as_mut);
        let standing = window.as_ref().map(|window| window.standing);
        match window {
            Some(window) if window.standing == Standing::Bound => {
                window.standing = Standing::Invalidating;
                true
            }
            _ => {
                self.bug(format!("window {} is invalidated, which is {standing:?}", key.0));
                false
            }
        }
    }

    /// The device carries out a bind or an invalidation.
    pub(super) fn change_window(&mut self, pair: PairId, change: WindowChange) {
        if let Some(window) = self.windows.get_mut(change.window.0 as usize).and_then(Option::as_mut) {
            window.is_open = !change.is_invalidation;
            self.note(if change.is_invalidation { Note::Invalidated { pair } } else { Note::Bound { pair } });
        }
    }

    /// The owner's software learns that a bind or an invalidation has ended.
    pub(super) fn window_changed(&mut self, change: WindowChange, is_success: bool) {
        let place = change.window.0 as usize;
        let Some(window) = self.windows.get_mut(place).and_then(Option::as_mut) else { return };
        match (change.is_invalidation, is_success) {
            (false, true) => window.standing = Standing::Bound,
            (true, true) => self.end_window(place),
            (_, false) => window.standing = Standing::Over,
        }
    }

    /// A window that was not even posted.
    pub(super) fn drop_window(&mut self, window: WindowKey) {
        self.end_window(window.0 as usize);
    }

    /// Its windows go before a pair does.
    pub(super) fn end_windows_of(&mut self, pair: PairId) {
        for place in 0..self.windows.len() {
            if self.windows[place].as_ref().is_some_and(|window| window.pair == pair) {
                self.end_window(place);
            }
        }
    }

    fn end_window(&mut self, place: usize) {
        if let Some(window) = self.windows[place].take() {
            self.nodes[window.node.0].books.remove(window.key);
            // Its region may be deregistered with it.
            self.discard(window);
        }
    }
}
