//! What segments are called. Both ends count alike, so no number goes with a segment.

use crate::memory::MOST_SEGMENTS as NUMBERS;

/// Numbers in turn, around and around: a handle has room for so many. One is used again after all others, so that a handle that
/// comes by another way before the peer is told of its segment does not find one that was called so before.
#[derive(Default)]
pub(super) struct Numbers {
    next: u32,
}

impl Numbers {
    /// The next that no segment has. Far fewer than there are numbers may be there.
    pub(super) fn next(&mut self, is_there: impl Fn(u32) -> bool) -> u32 {
        loop {
            let number = self.next;
            self.next = (number + 1) % NUMBERS;
            if !is_there(number) {
                return number;
            }
        }
    }

    /// Goes on with the last but `count`.
    #[cfg(test)]
    pub(super) fn skip_to_last(&mut self, count: u32) {
        self.next = NUMBERS - count;
    }
}
