//! Who waits on a connection, under the engine's lock.

use std::task::Waker;

use super::core::{Core, LinkKey, find};
use crate::transport::Queue;

impl<Q: Queue> Core<Q> {
    pub(super) fn wait_to_receive(&mut self, key: LinkKey, channel: usize, waker: &Waker) {
        let conversation = find(&mut self.links, key).and_then(|link| link.conversations.get_mut(channel));
        if let Some(conversation) = conversation {
            self.waiting += usize::from(register(&mut conversation.receivers, waker));
        }
    }

    pub(super) fn wait_to_send(&mut self, key: LinkKey, waker: &Waker) {
        if let Some(link) = find(&mut self.links, key) {
            self.waiting += usize::from(register(&mut link.senders, waker));
        }
    }

    pub(super) fn wait_for_notification(&mut self, key: LinkKey, waker: &Waker) {
        if let Some(link) = find(&mut self.links, key) {
            self.waiting += usize::from(register(&mut link.watchers, waker));
        }
    }

    /// As [`wait_to_send`](Self::wait_to_send), on every connection: something may come from any.
    pub(super) fn wait_on_all(&mut self, waker: &Waker) {
        for key in self.keys() {
            self.wait_to_send(key, waker);
        }
    }

    /// Takes back a waker whose future was dropped. It is called once more: another future of the same task may have
    /// shared its place, and takes a new one when it is polled.
    pub(super) fn stop_waiting(&mut self, key: LinkKey, waker: &Waker) {
        let Some(link) = find(&mut self.links, key) else { return };
        let receivers = link.conversations.iter_mut().map(|conversation| &mut conversation.receivers);
        for wakers in receivers.chain([&mut link.senders, &mut link.watchers]) {
            if let Some(index) = wakers.iter().position(|known| known.will_wake(waker)) {
                self.woken.push(wakers.swap_remove(index));
                self.waiting -= 1;
            }
        }
    }

    pub(super) fn wake_receivers(&mut self, key: LinkKey, channel: usize) {
        let conversation = find(&mut self.links, key).and_then(|link| link.conversations.get_mut(channel));
        if let Some(conversation) = conversation {
            self.waiting -= conversation.receivers.len();
            self.woken.append(&mut conversation.receivers);
        }
    }

    pub(super) fn wake_all_receivers(&mut self, key: LinkKey) {
        for channel in 0..self.link(key).map_or(0, |link| link.conversations.len()) {
            self.wake_receivers(key, channel);
        }
        self.wake_watchers(key);
    }

    /// Wakes those who wait for notifications.
    pub(super) fn wake_watchers(&mut self, key: LinkKey) {
        if let Some(link) = find(&mut self.links, key) {
            self.waiting -= link.watchers.len();
            self.woken.append(&mut link.watchers);
        }
    }

    pub(super) fn wake_senders(&mut self, key: LinkKey) {
        if let Some(link) = find(&mut self.links, key) {
            self.waiting -= link.senders.len();
            self.woken.append(&mut link.senders);
        }
    }
}

/// Adds `waker` unless it is there; answers whether it was added.
fn register(wakers: &mut Vec<Waker>, waker: &Waker) -> bool {
    let is_new = !wakers.iter().any(|known| known.will_wake(waker));
    if is_new {
        wakers.push(waker.clone());
    }
    is_new
}
