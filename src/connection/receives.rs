//! How many receives the connections of an engine share.

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
