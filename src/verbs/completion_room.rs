//! How many completions can come to an owning queue, so that its completion queue is not overrun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Error, Result};

/// The entries of a completion queue that are spoken for.
#[derive(Debug, Default)]
pub(super) struct CompletionRoom {
    reserved: u32,
    /// Queue pairs that were taken out while they had requests: those may still complete, or have.
    retired: Vec<Retired>,
}

#[derive(Debug)]
struct Retired {
    requests: u32,
    has_ended: Arc<AtomicBool>,
    /// Whether it had ended before the present poll.
    is_over: bool,
}

impl CompletionRoom {
    /// Takes entries of a queue that holds `capacity`.
    ///
    /// # Errors
    /// `ENOMEM` if there are not so many left.
    pub(super) fn reserve(&mut self, entries: u32, capacity: u32) -> Result<()> {
        let reserved = self.reserved.saturating_add(entries);
        if reserved > capacity {
            let mut detail = format!("{reserved} requests can be outstanding; the completion queue holds {capacity}");
            if !self.retired.is_empty() {
                let retired: u32 = self.retired.iter().map(|retired| retired.requests).sum();
                detail += &format!(
                    "; {retired} of them are of queue pairs that were taken out: destroy those, poll, and try again"
                );
            }
            return Err(Error::returned("ibv_create_cq", libc::ENOMEM).with_detail(detail));
        }
        self.reserved = reserved;
        Ok(())
    }

    /// Gives back the entries of a queue pair but for those of its outstanding `requests`, which come free when it has ended
    /// and the completion queue was seen empty after that.
    pub(super) fn retire(&mut self, entries: u32, requests: u32, has_ended: Arc<AtomicBool>) {
        self.reserved -= entries;
        if requests > 0 {
            self.reserved += requests;
            self.retired.push(Retired { requests, has_ended, is_over: false });
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_still_complete_keeps_its_room_until_it_has_ended_and_been_polled() {
        let mut room = CompletionRoom::default();
        let ended = Arc::new(AtomicBool::new(false));
        room.reserve(100, 100).expect("fits");
        assert_eq!(room.reserve(1, 100).expect_err("full").errno(), Some(libc::ENOMEM));
        room.retire(100, 30, Arc::clone(&ended));
        room.reserve(70, 100).expect("what was not used is free");
        let error = room.reserve(1, 100).expect_err("30 may still come");
        assert!(error.detail().is_some_and(|detail| detail.contains("30 of them")), "{error}");
        room.before_poll();
        room.after_emptying();
        room.reserve(1, 100).expect_err("it has not ended");
        room.before_poll();
        ended.store(true, Ordering::Release);
        room.after_emptying();
        room.reserve(1, 100).expect_err("it may have completed something behind that poll");
        room.before_poll();
        room.reserve(1, 100).expect_err("the queue was not emptied");
        room.after_emptying();
        room.reserve(30, 100).expect("all of it");
        room.retire(30, 0, ended);
        room.reserve(30, 100).expect("nothing was outstanding");
    }
}
