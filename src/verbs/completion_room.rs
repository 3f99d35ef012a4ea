//! How many completions can come to an owning queue, so that its completion queue is not overrun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Error, Result};

/// Send requests that every queue pair can have outstanding, whatever the others have.
pub(super) const GUARANTEED: u32 = 8;

/// The entries of a completion queue that are spoken for: by receives that can be posted, by what each queue pair is guaranteed
/// for its send requests, and by such as are outstanding beyond that.
#[derive(Debug, Default)]
pub(super) struct CompletionRoom {
    reserved: u32,
    /// Queue pairs that were taken out: their requests may still complete, or have.
    retired: Vec<Retired>,
}

/// What the send queue of one queue pair has of the entries.
#[derive(Debug)]
pub(super) struct Share {
    guaranteed: u32,
    /// Of the guaranteed ones.
    used: u32,
    /// Beyond them.
    common: u32,
}

#[derive(Debug)]
struct Retired {
    number: u32,
    requests: u32,
    has_ended: Arc<AtomicBool>,
    /// Whether it had ended before the present poll.
    is_over: bool,
}

impl CompletionRoom {
    /// Takes entries of a queue that holds `capacity`, for good.
    ///
    /// # Errors
    /// `ENOMEM` if there are not so many left.
    pub(super) fn reserve(&mut self, entries: u32, capacity: u32) -> Result<()> {
        let reserved = self.reserved.saturating_add(entries);
        if reserved > capacity {
            let mut detail = format!(
                "{} of its {capacity} entries are free, and {entries} would be needed",
                capacity.saturating_sub(self.reserved)
            );
            let retired: u32 = self.retired.iter().map(|retired| retired.requests).sum();
            if retired > 0 {
                detail +=
                    &format!("; {retired} are for queue pairs that were taken out: destroy those, poll, and try again");
            }
            return Err(Error::returned("ibv_create_cq", libc::ENOMEM).with_detail(detail));
        }
        self.reserved = reserved;
        Ok(())
    }

    /// Gives entries back that were taken for good.
    pub(super) fn release(&mut self, entries: u32) {
        self.reserved -= entries;
    }

    /// Takes what a queue pair with `receives` of its own and room for `sends` is guaranteed.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub(super) fn open(&mut self, sends: u32, receives: u32, capacity: u32) -> Result<Share> {
        let guaranteed = sends.min(GUARANTEED);
        self.reserve(receives.saturating_add(guaranteed), capacity)?;
        Ok(Share { guaranteed, used: 0, common: 0 })
    }

    /// Send requests that the queue pair of `share` can have on top.
    #[inline]
    pub(super) fn left(&self, share: &Share, capacity: u32) -> u32 {
        self.common(capacity) + share.guaranteed - share.used
    }

    /// Whether there is only what the queue pair is guaranteed. A request that takes of that must complete: others may keep all
    /// the rest for long, and then nothing else would give it back.
    #[inline]
    pub(super) fn is_tight(&self, capacity: u32) -> bool {
        self.common(capacity) == 0
    }

    /// Takes an entry for a send request; there must be some left.
    #[inline]
    pub(super) fn take(&mut self, share: &mut Share, capacity: u32) {
        debug_assert!(self.left(share, capacity) > 0);
        if self.is_tight(capacity) {
            share.used += 1;
        } else {
            share.common += 1;
            self.reserved += 1;
        }
    }

    /// So many send requests have completed, or were not posted.
    #[inline]
    pub(super) fn give_back(&mut self, share: &mut Share, requests: u32) {
        let guaranteed = requests.min(share.used);
        share.used -= guaranteed;
        share.common -= requests - guaranteed;
        self.reserved -= requests - guaranteed;
    }

    /// Gives back the entries of a queue pair with so many `receives` of its own, but for those of its outstanding `requests`,
    /// which come free when it has ended and the completion queue was seen empty after that.
    pub(super) fn retire(
        &mut self,
        number: u32,
        share: Share,
        receives: u32,
        requests: u32,
        has_ended: Arc<AtomicBool>,
    ) {
        self.reserved -= share.guaranteed + share.common + receives;
        self.reserved += requests;
        self.retired.push(Retired { number, requests, has_ended, is_over: false });
    }

    /// Whether completions of a queue pair of this number, which was taken out, may still come.
    pub(super) fn may_still_complete(&self, number: u32) -> bool {
        self.retired.iter().any(|retired| retired.number == number)
    }

    /// To be called before a poll.
    #[inline]
    pub(super) fn before_poll(&mut self) {
        for retired in &mut self.retired {
            retired.is_over = retired.has_ended.load(Ordering::Acquire);
        }
    }

    /// To be called after a poll that emptied the completion queue.
    #[inline]
    pub(super) fn after_emptying(&mut self) {
        if !self.retired.is_empty() {
            self.retired.retain(|retired| {
                self.reserved -= if retired.is_over { retired.requests } else { 0 };
                !retired.is_over
            });
        }
    }

    fn common(&self, capacity: u32) -> u32 {
        capacity.saturating_sub(self.reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_may_still_complete_keeps_its_room_until_it_has_ended_and_been_polled() {
        let mut room = CompletionRoom::default();
        let ended = Arc::new(AtomicBool::new(false));
        let mut share = room.open(50, 92, 100).expect("fits");
        assert_eq!(room.reserve(1, 100).expect_err("full").errno(), Some(libc::ENOMEM));
        (0..8).for_each(|_| room.take(&mut share, 100));
        room.retire(7, share, 92, 30, Arc::clone(&ended));
        room.reserve(70, 100).expect("what was not used is free");
        let error = room.reserve(1, 100).expect_err("30 may still come");
        assert!(error.detail().is_some_and(|detail| detail.contains("30 are for")), "{error}");
        room.before_poll();
        room.after_emptying();
        room.reserve(1, 100).expect_err("it has not ended");
        room.before_poll();
        ended.store(true, Ordering::Release);
        room.after_emptying();
        room.reserve(1, 100).expect_err("it may have completed something behind that poll");
        room.before_poll();
        room.reserve(1, 100).expect_err("the queue was not emptied");
        assert!(room.may_still_complete(7) && !room.may_still_complete(8));
        room.after_emptying();
        assert!(!room.may_still_complete(7));
        room.reserve(30, 100).expect("all of it");
    }

    #[test]
    fn one_queue_pair_cannot_take_what_another_is_guaranteed() {
        let mut room = CompletionRoom::default();
        let (mut greedy, mut modest) = (room.open(100, 0, 40).expect("fits"), room.open(3, 0, 40).expect("fits"));
        assert_eq!((room.left(&greedy, 40), room.left(&modest, 40)), (37, 32));
        while room.left(&greedy, 40) > 0 {
            room.take(&mut greedy, 40);
        }
        assert!(room.is_tight(40));
        assert_eq!(room.left(&modest, 40), 3);
        (0..3).for_each(|_| room.take(&mut modest, 40));
        assert_eq!(room.left(&modest, 40), 0);
        // What comes back is first what is guaranteed.
        room.give_back(&mut greedy, 8);
        assert!(room.is_tight(40));
        assert_eq!((room.left(&greedy, 40), room.left(&modest, 40)), (8, 0));
        room.give_back(&mut greedy, 1);
        assert_eq!((room.left(&greedy, 40), room.left(&modest, 40)), (9, 1));
    }

    proptest! {
        /// Queue pairs come, post, complete and go, in any order. There are never more entries than the queue has that a completion can
        /// still come for, and each queue pair can always post what it is guaranteed.
        #[test]
        fn never_more_can_complete_than_fits(
            capacity in 1u32..60,
            steps in proptest::collection::vec((0u8..7, 0usize..6, 1u32..20), 0..300),
        ) {
            let mut room = CompletionRoom::default();
            // Share, sends that fit, own receives, outstanding sends and receives.
            let mut pairs: Vec<(Share, u32, u32, u32, u32)> = Vec::new();
            // Requests of those that were taken out, and whether they have ended.
            let mut gone: Vec<(u32, Arc<AtomicBool>)> = Vec::new();
            for (step, number, count) in steps {
                let at = number % pairs.len().max(1);
                match step {
                    0 => if let Ok(share) = room.open(count, number as u32, capacity) {
                        pairs.push((share, count, number as u32, 0, 0));
                    },
                    1 if !pairs.is_empty() => {
                        let (share, sends, _, outstanding, _) = &mut pairs[at];
                        for _ in 0..count {
                            if *outstanding < *sends && room.left(share, capacity) > 0 {
                                room.take(share, capacity);
                                *outstanding += 1;
                            }
                        }
                    }
                    2 if !pairs.is_empty() => {
                        let (share, _, _, outstanding, _) = &mut pairs[at];
                        let done = count.min(*outstanding);
                        room.give_back(share, done);
                        *outstanding -= done;
                    }
                    3 if !pairs.is_empty() => pairs[at].4 = count.min(pairs[at].2),
                    4 if !pairs.is_empty() => {
                        let (share, _, receives, outstanding, posted) = pairs.swap_remove(at);
                        let has_ended = Arc::new(AtomicBool::new(false));
                        room.retire(0, share, receives, outstanding + posted, Arc::clone(&has_ended));
                        gone.push((outstanding + posted, has_ended));
                    }
                    5 if !gone.is_empty() => gone[number % gone.len()].1.store(true, Ordering::Release),
                    6 => {
                        room.before_poll();
                        room.after_emptying();
                        gone.retain(|(_, has_ended)| !has_ended.load(Ordering::Acquire));
                    }
                    _ => {}
                }
                let can_complete = pairs.iter().map(|pair| pair.3 + pair.4).sum::<u32>()
                    + gone.iter().map(|(requests, _)| requests).sum::<u32>();
                prop_assert!(can_complete <= capacity);
                prop_assert!(room.reserved <= capacity);
                for (share, sends, _, outstanding, _) in &pairs {
                    prop_assert_eq!(share.used + share.common, *outstanding);
                    prop_assert!(*outstanding + room.left(share, capacity) >= (*sends).min(GUARANTEED));
                }
            }
        }
    }
}
