//! The calls that a server has taken: which wait, which are handled, which are being answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::calls::FIRST_WINDOW;
use super::handling::Stop;

/// Requests of type `Q` that wait, and what stops those that do not.
pub(super) struct Taken<Q> {
    limit: usize,
    /// Calls that are not answered yet.
    calls: BTreeMap<u64, Call>,
    queue: VecDeque<(u64, Q)>,
    handled: usize,
}

struct Call {
    stop: Arc<Stop>,
    deadline: Option<Instant>,
}

impl<Q> Taken<Q> {
    /// Handles up to `limit` at once.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), calls: BTreeMap::new(), queue: VecDeque::new(), handled: 0 }
    }

    /// Calls that a client may have open: so many are handled, and at least as many wait, so that there is always one
    /// to go on with.
    pub(super) fn window(&self) -> usize {
        self.limit.saturating_add(self.limit.max(FIRST_WINDOW))
    }

    /// A new call; `false` if there is one of that name.
    pub(super) fn insert(&mut self, id: u64, deadline: Option<Instant>) -> bool {
        let is_new = !self.calls.contains_key(&id);
        if is_new {
            self.calls.insert(id, Call { stop: Arc::default(), deadline });
        }
        is_new
    }

    /// Its request waits to be handled.
    pub(super) fn enqueue(&mut self, id: u64, request: Q) {
        self.queue.push_back((id, request));
    }

    /// The next request to handle, if one more can be.
    pub(super) fn next(&mut self) -> Option<(u64, Q, Arc<Stop>)> {
        if self.handled >= self.limit {
            return None;
        }
        let (id, request) = self.queue.pop_front()?;
        let stop = Arc::clone(&self.calls.get(&id)?.stop);
        self.handled += 1;
        Some((id, request, stop))
    }

    /// Nobody waits for it any more. Answers whether that is to be confirmed here: one that is handled confirms it
    /// itself.
    pub(super) fn cancel(&mut self, id: u64) -> bool {
        if self.unqueue(id) {
            return true;
        }
        match self.calls.get(&id) {
            Some(call) => {
                call.stop.cancel();
                false
            }
            // It was answered before, or was never sent.
            None => true,
        }
    }

    /// Stops those whose time is over. Answers which of them have not begun, and the earliest deadline of the others.
    pub(super) fn time_out(&mut self, now: Instant) -> (Vec<u64>, Option<Instant>) {
        let mut next: Option<Instant> = None;
        let mut overdue = Vec::new();
        for (id, call) in &self.calls {
            match call.deadline {
                Some(deadline) if deadline <= now => overdue.push(*id),
                Some(deadline) => next = Some(next.map_or(deadline, |next| next.min(deadline))),
                None => {}
            }
        }
        overdue.retain(|id| {
            if let Some(call) = self.calls.get_mut(id) {
                call.deadline = None;
                call.stop.time_out();
            }
            self.unqueue(*id)
        });
        (overdue, next)
    }

    fn unqueue(&mut self, id: u64) -> bool {
        let place = self.queue.iter().position(|(queued, _)| *queued == id);
        place.and_then(|place| self.queue.remove(place)).is_some()
    }

    /// The call is answered.
    pub(super) fn end(&mut self, id: u64, was_handled: bool) {
        self.calls.remove(&id);
        self.handled -= usize::from(was_handled);
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn no_more_are_handled_than_allowed_and_what_is_given_up_is_not_begun() {
        let mut taken = Taken::new(2);
        assert_eq!(taken.window(), 18);
        for id in 1..=5 {
            assert!(taken.insert(id, None));
            taken.enqueue(id, id * 10);
        }
        assert!(!taken.insert(3, None), "there is one of that name");
        let begun: Vec<_> = std::iter::from_fn(|| taken.next()).map(|(id, request, _)| (id, request)).collect();
        assert_eq!((begun, taken.waiting()), (vec![(1, 10), (2, 20)], 3));
        assert!(taken.cancel(3), "it has not begun");
        assert!(!taken.cancel(1), "its handler says so itself");
        assert!(taken.cancel(99), "nobody knows it");
        taken.end(3, false);
        assert!(taken.next().is_none());
        taken.end(1, true);
        assert_eq!(taken.next().map(|(id, ..)| id), Some(4));
        assert!(taken.insert(3, None), "the name is free again");
    }

    #[test]
    fn each_is_stopped_at_its_deadline_once() {
        let mut taken = Taken::new(1);
        let now = Instant::now();
        let at = |seconds| Some(now + Duration::from_secs(seconds));
        for (id, deadline) in [(1, at(1)), (2, at(2)), (3, at(3)), (4, None)] {
            taken.insert(id, deadline);
            taken.enqueue(id, ());
        }
        taken.next();
        assert_eq!(taken.time_out(now), (vec![], at(1)));
        assert_eq!(taken.time_out(now + Duration::from_secs(2)), (vec![2], at(3)));
        assert_eq!(taken.time_out(now + Duration::from_secs(2)), (vec![], at(3)));
        assert_eq!(taken.waiting(), 2);
    }
}
