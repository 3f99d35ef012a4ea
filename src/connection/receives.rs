//! The receives that the connections of an engine share: how many there are to be, and that they are posted.

use super::core::{Core, FRAME, Garbage, LinkKey};
use crate::memory::{Pool, Transfer};
use crate::protocol::CONTROL_RECEIVES;
use crate::transport::Queue;
use crate::{Error, ErrorKind, Result};

/// Counts the receives of a queue that any of its connections may take. Each connection has a share of them, and all shares must be
/// posted: a credit is a receive. There may be more: a posted receive cannot be taken back, so those of a connection that has
/// gone stay until some frame takes them.
#[derive(Debug)]
pub(super) struct Receives {
    capacity: usize,
    wanted: usize,
}

impl Receives {
    /// Of a queue that has room for `capacity`.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, wanted: 0 }
    }

    /// A connection grants so many more; answers whether there are so many.
    #[must_use]
    pub(super) fn add(&mut self, share: u32) -> bool {
        let fits = self.wanted + share as usize <= self.capacity;
        self.wanted += if fits { share as usize } else { 0 };
        fits
    }

    /// A connection that granted so many is gone: no peer can use them any more.
    pub(super) fn give_up(&mut self, share: u32) {
        self.wanted = self.wanted.saturating_sub(share as usize);
    }

    /// Whether one more is to be posted, of a queue that has room for `room` still.
    pub(super) fn is_short(&self, room: usize) -> bool {
        self.capacity.saturating_sub(room) < self.wanted
    }

    /// How many can still be granted.
    pub(super) fn left(&self) -> usize {
        self.capacity - self.wanted
    }
}

impl<Q: Queue> Core<Q> {
    /// Posts a receive again that is free, unless there are enough.
    pub(super) fn recycle(&mut self, memory: Transfer) {
        if !self.receives.is_short(self.queue.receive_room()) {
            return self.garbage.push(Garbage::Memory(memory.into_held()));
        }
        if let Err(error) = self.post_receive(memory) {
            // Without it a peer's credit would name a receive that is not there.
            self.fail_all(&error);
        }
    }

    /// Posts `count` receives more, for a connection that grants them.
    ///
    /// # Errors
    /// If the queue has no room, or one cannot be had or posted: then none counts.
    pub(super) fn add_receives(&mut self, count: u32) -> Result<()> {
        if !self.receives.add(count) {
            let detail = format!("{count} more receives are needed; the queue has {} left", self.receives.left());
            return Err(Error::new(ErrorKind::ResourceExhausted, "open channel").with_detail(detail));
        }
        let added = self.post_missing();
        if added.is_err() {
            self.receives.give_up(count);
        }
        added
    }

    pub(super) fn post_missing(&mut self) -> Result<()> {
        while self.receives.is_short(self.queue.receive_room()) {
            let buffer = Pool::with_global(|pool| pool.allocate(self.frame_size))?;
            let length = buffer.len();
            self.post_receive(Transfer::new(buffer, 0..length, &*self.domain)?)?;
        }
        Ok(())
    }

    /// Gives the peer more receives, if it makes use of those it has and there are some.
    pub(super) fn grow(&mut self, key: LinkKey) {
        let more = self.link(key).map_or(0, |link| link.growth());
        if more == 0 {
            return;
        }
        match self.add_receives(more) {
            Ok(()) => {
                if let Some(link) = self.link(key) {
                    link.share += more;
                    link.credits.grow(more);
                    link.is_in_use = false;
                }
            }
            Err(error) => tracing::debug!(%error, "a connection gets no more receives"),
        }
    }

    /// Whether credit frames of the peer can come in: it sends some when it has got frames of ours.
    pub(super) fn hears_credits(&mut self, key: LinkKey) -> Result<()> {
        if self.link(key).is_none_or(|link| link.hears_credits) {
            return Ok(());
        }
        self.add_receives(CONTROL_RECEIVES)?;
        if let Some(link) = self.link(key) {
            link.hears_credits = true;
            link.share += CONTROL_RECEIVES;
        }
        Ok(())
    }

    fn post_receive(&mut self, memory: Transfer) -> Result<()> {
        self.queue.post_receive(FRAME, memory).map_err(|refused| {
            self.garbage.extend(refused.memory.map(|memory| Garbage::Memory(memory.into_held())));
            refused.error.unwrap_or_else(|| Error::new(ErrorKind::ResourceExhausted, "post receive"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Connections come, get more and go, frames arrive, receives are lost. There is always a posted receive for each
        /// that a connection counts on, and never more than the queue has room for.
        #[test]
        fn every_share_is_posted(
            capacity in 1usize..40,
            steps in proptest::collection::vec((0u8..4, 0usize..8), 0..200),
        ) {
            let mut receives = Receives::new(capacity);
            let mut posted = 0;
            let mut connections: Vec<u32> = Vec::new();
            for (step, number) in steps {
                let at = number % connections.len().max(1);
                match step {
                    0 if receives.add(number as u32) => connections.push(number as u32),
                    1 if !connections.is_empty() && receives.add(number as u32) => connections[at] += number as u32,
                    2 if !connections.is_empty() => receives.give_up(connections.swap_remove(at)),
                    // A frame takes one, or it is lost.
                    3 if posted > 0 => posted -= 1,
                    _ => {}
                }
                while receives.is_short(capacity - posted) {
                    posted += 1;
                }
                let counted_on: usize = connections.iter().map(|share| *share as usize).sum();
                prop_assert!(posted >= counted_on && posted <= capacity);
                prop_assert_eq!(receives.left(), capacity - counted_on);
            }
        }
    }
}
