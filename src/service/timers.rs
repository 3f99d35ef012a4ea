//! What is to be done at a time, and can be taken back before.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

/// Cancelled timers that stay in the heap, at least, before it is cleared of them.
const LEAST_STALE: usize = 64;

/// Names a timer, to cancel it; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TimerId(pub(super) u64);

/// Timers in the order of their times; those of one time in the order in which they were set.
pub(super) struct Timers<D> {
    heap: BinaryHeap<Reverse<(Instant, TimerId)>>,
    /// What they do: one that is not here was cancelled.
    pending: HashMap<TimerId, D>,
}

impl<D> Default for Timers<D> {
    fn default() -> Self {
        // So that a few, now and then, allocate nothing.
        Self { heap: BinaryHeap::with_capacity(LEAST_STALE), pending: HashMap::with_capacity(LEAST_STALE) }
    }
}

impl<D> Timers<D> {
    pub(super) fn insert(&mut self, when: Instant, id: TimerId, due: D) {
        self.heap.push(Reverse((when, id)));
        self.pending.insert(id, due);
    }

    /// Takes a timer back; answers what it would have done, unless it has.
    pub(super) fn cancel(&mut self, id: TimerId) -> Option<D> {
        let due = self.pending.remove(&id)?;
        // As many steps as there were cancellations since the last time.
        if self.heap.len() > 2 * self.pending.len() + LEAST_STALE {
            let pending = &self.pending;
            self.heap.retain(|Reverse((_, id))| pending.contains_key(id));
        }
        Some(due)
    }

    /// The next that is due by `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<D> {
        while let Some(&Reverse((when, id))) = self.heap.peek() {
            let is_pending = self.pending.contains_key(&id);
            if is_pending && when > now {
                return None;
            }
            self.heap.pop();
            if let Some(due) = self.pending.remove(&id) {
                return Some(due);
            }
        }
        None
    }

    /// When the next is due.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some(&Reverse((when, id))) = self.heap.peek() {
            if self.pending.contains_key(&id) {
                return Some(when);
            }
            self.heap.pop();
        }
        None
    }

    /// Room that is taken, in timers.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.heap.capacity().max(self.pending.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_million_that_are_cancelled_leave_nothing() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        for number in 0..1_000_000 {
            timers.insert(now + Duration::from_secs(10), TimerId(number), number);
            assert_eq!(timers.cancel(TimerId(number)), Some(number));
        }
        assert!(timers.size() < 1000, "{}", timers.size());
        assert_eq!((timers.next_due(), timers.pop_due(now + Duration::from_secs(20))), (None, None));
    }

    proptest! {
        #[test]
        fn each_comes_once_in_order_unless_it_was_cancelled(
            set in proptest::collection::vec((0u64..50, 0u64..6), 0..300),
        ) {
            let (mut timers, begin) = (Timers::default(), Instant::now());
            let mut expected: Vec<(u64, u64)> = Vec::new();
            for (number, (time, fate)) in (0u64..).zip(set) {
                timers.insert(begin + Duration::from_secs(time), TimerId(number), (time, number));
                expected.push((time, number));
                if fate == 0 {
                    // One of those before, or this.
                    let (_, victim) = expected.remove(expected.len() / 2);
                    prop_assert!(timers.cancel(TimerId(victim)).is_some());
                    prop_assert!(timers.cancel(TimerId(victim)).is_none());
                }
            }
            expected.sort_unstable();
            for now in 0..51 {
                let now = begin + Duration::from_secs(now);
                while let Some(&(time, _)) = expected.first().filter(|(time, _)| begin + Duration::from_secs(*time) <= now) {
                    prop_assert_eq!(timers.next_due(), Some(begin + Duration::from_secs(time)));
                    prop_assert_eq!(timers.pop_due(now), Some(expected.remove(0)));
                }
                prop_assert_eq!(timers.pop_due(now), None);
            }
        }
    }
}
