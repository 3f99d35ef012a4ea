//! Who waits for a block, first come first served.

use std::collections::VecDeque;
use std::task::Waker;

use super::Class;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// A queue of those who wait. A released block is handed to the first who waits for its class, so nobody can snatch it away.
/// If there is none, or room came back, the first in the queue is notified to try again (it may find that a
/// whole slab has become idle), and passes the notification on to the next afterwards, so that none is lost when it does not
/// need it, or goes.
pub(super) struct Waiters<T> {
    /// How many have no block yet.
    count: AtomicUsize,
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    next: u64,
    /// In the order of tickets.
    entries: VecDeque<Entry<T>>,
}

struct Entry<T> {
    ticket: Ticket,
    /// `None` for what has a slab of its own.
    class: Option<Class>,
    waker: Waker,
    is_notified: bool,
    granted: Option<T>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What has happened to a waiter.
pub(super) enum News<T> {
    /// It has got a block, and its place in the queue is gone.
    Granted(T),
    /// It is to try again.
    Notified,
    Nothing,
}

impl<T> Waiters<T> {
    pub(super) fn new() -> Self {
        let queue = Queue { next: 0, entries: VecDeque::new() };
        Self { count: AtomicUsize::new(0), queue: Mutex::new(queue) }
    }

    /// Whether somebody waits who has nothing yet.
    #[inline]
    pub(super) fn are_there(&self) -> bool {
        self.count() > 0
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes the last place in the queue. The caller tries once more after this: what was released before is not told.
    pub(super) fn enter(&self, class: Option<Class>, waker: Waker) -> Ticket {
        let mut queue = lock(&self.queue);
        let ticket = Ticket(queue.next);
        queue.next += 1;
        queue.entries.push_back(Entry { ticket, class, waker, is_notified: false, granted: None });
        self.count.fetch_add(1, Ordering::Relaxed);
        ticket
    }

    /// What is new for `ticket`; `waker` is woken for what comes later.
    pub(super) fn ask(&self, ticket: Ticket, waker: &Waker) -> News<T> {
        let mut queue = lock(&self.queue);
        let Some(at) = queue.find(ticket) else { return News::Nothing };
        let entry = &mut queue.entries[at];
        if let Some(block) = entry.granted.take() {
            let was_notified = entry.is_notified;
            queue.entries.remove(at);
            drop(queue);
            if was_notified {
                self.pass_on(ticket, None);
            }
            return News::Granted(block);
        }
        if !entry.waker.will_wake(waker) {
            entry.waker = waker.clone();
        }
        match std::mem::take(&mut entry.is_notified) {
            true => News::Notified,
            false => News::Nothing,
        }
    }

    /// Gives up the place of `ticket`. The block that it was given meanwhile, if any, is the caller's to put back.
    pub(super) fn leave(&self, ticket: Ticket) -> Option<T> {
        let mut queue = lock(&self.queue);
        let at = queue.find(ticket)?;
        let entry = queue.entries.remove(at)?;
        if entry.granted.is_none() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        drop(queue);
        if entry.is_notified {
            self.pass_on(ticket, None);
        }
        entry.granted
    }

    /// Hands `block` to the first who waits for its class; gives it back if nobody does.
    pub(super) fn offer(&self, class: Class, block: T) -> Option<T> {
        let mut queue = lock(&self.queue);
        let wants = |entry: &&mut Entry<T>| entry.granted.is_none() && entry.class == Some(class);
        let Some(entry) = queue.entries.iter_mut().find(wants) else { return Some(block) };
        entry.granted = Some(block);
        let waker = entry.waker.clone();
        self.count.fetch_sub(1, Ordering::Relaxed);
        drop(queue);
        waker.wake();
        None
    }

    /// Something that anybody may have use for came back: lets the first try.
    pub(super) fn notify(&self) {
        self.notify_first(|_| true);
    }

    /// Lets the next behind `ticket` try. Where `ticket` has just failed for a class, others who wait for the same would
    /// fail too; of those without a class one may want less.
    pub(super) fn pass_on(&self, ticket: Ticket, failed: Option<Class>) {
        self.notify_first(|entry| entry.ticket > ticket && (entry.class.is_none() || entry.class != failed));
    }

    fn notify_first(&self, may: impl Fn(&Entry<T>) -> bool) {
        let mut queue = lock(&self.queue);
        let Some(entry) = queue.entries.iter_mut().find(|entry| entry.granted.is_none() && may(entry)) else { return };
        // One that was told and has not looked yet will see this too.
        if std::mem::replace(&mut entry.is_notified, true) {
            return;
        }
        let waker = entry.waker.clone();
        drop(queue);
        waker.wake();
    }
}

impl<T> Queue<T> {
    fn find(&self, ticket: Ticket) -> Option<usize> {
        self.entries.binary_search_by_key(&ticket, |entry| entry.ticket).ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn small() -> Option<Class> {
        Class::of(64)
    }

    fn large() -> Option<Class> {
        Class::of(1 << 20)
    }

    fn enter(waiters: &Waiters<u32>, class: Option<Class>) -> Ticket {
        waiters.enter(class, Waker::noop().clone())
    }

    fn ask(waiters: &Waiters<u32>, ticket: Ticket) -> News<u32> {
        waiters.ask(ticket, Waker::noop())
    }

    #[test]
    fn blocks_go_to_the_first_of_their_class() {
        let waiters = Waiters::new();
        let tickets = [large(), small(), small()].map(|class| enter(&waiters, class));
        let class = small().expect("a class");
        assert_eq!(waiters.offer(class, 1), None);
        assert_eq!(waiters.offer(class, 2), None);
        assert_eq!(waiters.offer(class, 3), Some(3));
        assert_eq!(waiters.count(), 1);
        assert!(matches!(ask(&waiters, tickets[0]), News::Nothing));
        assert!(matches!(ask(&waiters, tickets[1]), News::Granted(1)));
        assert_eq!(waiters.leave(tickets[2]), Some(2));
    }

    #[test]
    fn a_notification_is_passed_on_when_its_holder_goes() {
        let waiters = Waiters::new();
        let [first, second] = [large(), small()].map(|class| enter(&waiters, class));
        waiters.notify();
        assert_eq!(waiters.leave(first), None);
        assert!(matches!(ask(&waiters, second), News::Notified));
        assert!(matches!(ask(&waiters, second), News::Nothing));
    }

    #[test]
    fn after_a_failure_another_class_tries() {
        let waiters = Waiters::new();
        let tickets = [large(), large(), small()].map(|class| enter(&waiters, class));
        waiters.notify();
        assert!(matches!(ask(&waiters, tickets[0]), News::Notified));
        waiters.pass_on(tickets[0], large());
        assert!(matches!(ask(&waiters, tickets[1]), News::Nothing));
        assert!(matches!(ask(&waiters, tickets[2]), News::Notified));
    }
}
