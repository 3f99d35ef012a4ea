//! The lists of idle blocks and the queue of those who wait, in every order that threads can run in.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use loom::sync::Arc;
use loom::thread;

use super::Class;
use super::depot::Depot;
use super::waiters::{News, Ticket, Waiters};

/// The part of a pool that threads race for. Blocks are numbers.
struct Small {
    depot: Depot<u32>,
    waiters: Waiters<u32>,
}

fn class(length: usize) -> Class {
    Class::of(length).expect("a class")
}

impl Small {
    fn new() -> Arc<Self> {
        Arc::new(Self { depot: Depot::new(2), waiters: Waiters::new() })
    }

    fn release(&self, number: usize, length: usize, block: u32) {
        assert_eq!(self.depot.release(number, class(length), block, &self.waiters), Ok(()));
    }

    fn enter(&self, length: usize, waker: &Waker) -> Ticket {
        self.waiters.enter(Some(class(length)), waker.clone())
    }

    /// As `Allocation::try_again` with no slab to be had.
    fn try_again(&self, number: usize, length: usize, ticket: Ticket) -> Option<u32> {
        let Some(block) = self.depot.steal(number, class(length)) else {
            self.waiters.pass_on(ticket, Some(class(length)));
            return None;
        };
        if let Some(second) = self.waiters.leave(ticket) {
            self.release(number, length, second);
        }
        self.waiters.pass_on(ticket, None);
        Some(block)
    }

    /// As `Allocation::poll`.
    fn wait(&self, number: usize, length: usize) -> u32 {
        let mut ticket = None;
        loom::future::block_on(poll_fn(|context| {
            let block = match ticket {
                None => self.depot.take(number, class(length)).or_else(|| {
                    let place = *ticket.insert(self.enter(length, context.waker()));
                    self.try_again(number, length, place)
                }),
                Some(place) => match self.waiters.ask(place, context.waker()) {
                    News::Granted(block) => Some(block),
                    News::Notified => self.try_again(number, length, place),
                    News::Nothing => None,
                },
            };
            block.map_or(Poll::Pending, Poll::Ready)
        }))
    }
}

#[test]
fn loom_a_release_reaches_one_who_waits() {
    loom::model(|| {
        let small = Small::new();
        let other = Arc::clone(&small);
        let releaser = thread::spawn(move || other.release(0, 64, 7));
        assert_eq!(small.wait(1, 64), 7);
        releaser.join().expect("no panic");
        assert!(!small.waiters.are_there());
    });
}

/// Where the orders are too many to see all of them: those with three preemptions, enough for most bugs to show, or as
/// many as `LOOM_MAX_PREEMPTIONS` says.
fn bounded(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(test);
}

#[test]
fn loom_one_block_serves_two_who_wait_in_turn() {
    bounded(|| {
        let small = Small::new();
        let other = Arc::clone(&small);
        let waiter = thread::spawn(move || {
            let block = other.wait(0, 64);
            other.release(0, 64, block);
        });
        small.release(1, 64, 7);
        let block = small.wait(1, 64);
        small.release(1, 64, block);
        waiter.join().expect("no panic");
        assert_eq!(small.depot.drain(class(64)), [7]);
    });
}

#[test]
fn loom_one_who_gives_up_passes_on_what_it_was_given() {
    bounded(|| {
        let small = Small::new();
        // Goes while the block comes.
        let ticket = small.enter(64, Waker::noop());
        let (releasing, leaving) = (Arc::clone(&small), Arc::clone(&small));
        let releaser = thread::spawn(move || releasing.release(0, 64, 7));
        let leaver = thread::spawn(move || {
            if let Some(block) = leaving.waiters.leave(ticket) {
                leaving.release(1, 64, block);
            }
        });
        assert_eq!(small.wait(1, 64), 7);
        releaser.join().expect("no panic");
        leaver.join().expect("no panic");
    });
}

#[test]
fn loom_a_notification_is_not_lost_with_its_holder() {
    loom::model(|| {
        let small = Small::new();
        let ticket = small.enter(4096, Waker::noop());
        let behind = small.enter(64, Waker::noop());
        let other = Arc::clone(&small);
        let leaver = thread::spawn(move || assert_eq!(other.waiters.leave(ticket), None));
        // Room came back, which the first would have used.
        small.waiters.notify();
        leaver.join().expect("no panic");
        assert!(matches!(small.waiters.ask(behind, Waker::noop()), News::Notified));
    });
}

#[test]
fn loom_nothing_stays_in_a_closed_depot() {
    loom::model(|| {
        let small = Small::new();
        let other = Arc::clone(&small);
        let releaser = thread::spawn(move || other.depot.release(1, class(64), 7, &other.waiters).err());
        let idle = small.depot.close();
        let refused = releaser.join().expect("no panic");
        assert_eq!(idle.into_iter().chain(refused).collect::<Vec<_>>(), [7]);
    });
}
