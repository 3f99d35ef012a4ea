//! At the limit.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::{MIB, pool};
use crate::ErrorKind;
use crate::memory::pool::{Allocation, Pool};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(allocation: &mut Allocation) -> Poll<crate::Result<crate::Buffer>> {
    pin!(allocation).poll(&mut Context::from_waker(Waker::noop()))
}

/// All of the pool, in buffers of `length`.
fn fill(pool: &Pool, length: usize) -> Vec<crate::Buffer> {
    std::iter::from_fn(|| pool.allocate(length).ok()).collect()
}

#[test]
fn allocate_fails_and_tells_the_figures() {
    let pool = pool(MIB);
    let held = fill(&pool, 100_000);
    let error = pool.allocate(100_000).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::PoolExhausted);
    let text = error.to_string();
    assert!(text.contains("of 1048576 bytes") && text.contains("Hint: "), "{text}");
    assert!(pool.statistics().failures >= 1);
    drop(held);
    assert!(pool.allocate(100_000).is_ok());
}

#[test]
fn what_never_fits_is_an_error_at_once() {
    let pool = pool(MIB);
    let error = pool.allocate_timeout(2 * MIB, Duration::MAX).expect_err("never");
    assert!(error.to_string().contains("never fit"), "{error}");
    let Poll::Ready(Err(error)) = poll(&mut pool.allocate_async(2 * MIB)) else { panic!("it does not wait") };
    assert_eq!(error.kind(), ErrorKind::PoolExhausted);
    assert_eq!(pool.allocate(usize::MAX).expect_err("never").kind(), ErrorKind::MemoryLimit);
    let error = Pool::builder().limit(100).build().expect_err("less than a page");
    assert_eq!(error.kind(), ErrorKind::PoolExhausted);
    assert!(pool.allocate(MIB).is_ok(), "the whole limit");
}

#[test]
fn idle_slabs_of_other_classes_are_given_back() {
    let pool = pool(4 * MIB);
    for length in [64, 4096, 64 << 10, 4 * MIB, 3000, MIB, 100, 4 * MIB] {
        let held = fill(&pool, length);
        assert!(held.len() * length >= 4 * MIB * 3 / 4, "{} of {length}", held.len());
        assert!(pool.statistics().mapped_bytes <= 4 * MIB);
    }
}

#[test]
fn what_other_threads_keep_is_taken() {
    let pool = pool(MIB);
    let held = fill(&pool, 64 << 10);
    let count = held.len();
    std::thread::spawn(move || drop(held)).join().expect("no panic");
    assert_eq!(fill(&pool, 64 << 10).len(), count);
}

#[test]
fn those_who_wait_are_served_in_their_order() {
    let pool = pool(MIB);
    let mut held = fill(&pool, 64 << 10);
    let mut waiting = [(); 3].map(|()| pool.allocate_async(64 << 10));
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
    assert_eq!((pool.statistics().waits, pool.statistics().waiting), (3, 3));
    held.pop();
    assert!(pool.allocate(64 << 10).is_err(), "it was handed over");
    assert!(poll(&mut waiting[1]).is_pending());
    let Poll::Ready(Ok(_first)) = poll(&mut waiting[0]) else { panic!("the first is served") };
    held.pop();
    held.pop();
    assert!(waiting[1..].iter_mut().all(|one| poll(one).is_ready()));
    assert_eq!(pool.statistics().waiting, 0);
}

#[test]
fn one_who_goes_passes_on_what_it_was_given() {
    let pool = pool(MIB);
    let mut held = fill(&pool, 64 << 10);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut first = pool.allocate_async(64 << 10);
    let mut second = Box::pin(pool.allocate_async(60 << 10));
    assert!(poll(&mut first).is_pending());
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    held.pop();
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    drop(first);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    drop(held);
    assert_eq!(pool.statistics().in_use_bytes, 0);
}

#[test]
fn one_who_waits_for_another_class_gets_the_room_of_an_idle_slab() {
    let pool = pool(MIB);
    let held = fill(&pool, 64 << 10);
    let mut large = pool.allocate_async(MIB);
    let mut small = pool.allocate_async(100);
    assert!(poll(&mut large).is_pending() && poll(&mut small).is_pending());
    drop(held);
    assert!(poll(&mut large).is_ready());
    // The large one was dropped.
    assert!(poll(&mut small).is_ready());
}

#[test]
fn one_who_waits_gets_the_room_of_a_slab_of_its_own() {
    let pool = pool(100 * MIB);
    let held = pool.allocate(99 * MIB).expect("room");
    let mut waiting = [64 * MIB, 80 * MIB, 10 * MIB].map(|length| pool.allocate_async(length));
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
    drop(held);
    let Poll::Ready(Ok(first)) = poll(&mut waiting[0]) else { panic!("served") };
    assert!(poll(&mut waiting[1]).is_pending());
    let Poll::Ready(Ok(third)) = poll(&mut waiting[2]) else { panic!("served past the one who cannot be") };
    drop((first, third));
    assert!(poll(&mut waiting[1]).is_ready());
}

/// Both want slabs of their own; what one cannot have, the other can.
#[test]
fn one_who_wants_less_is_not_held_up_by_one_who_wants_more() {
    let pool = pool(512 * MIB);
    let held = [(); 2].map(|()| pool.allocate(200 * MIB).expect("room"));
    let mut waiting = [400 * MIB, 150 * MIB].map(|length| pool.allocate_async(length));
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
    let [first, second] = held;
    drop(first);
    // Told of the room, it finds too little and tells the next.
    assert!(poll(&mut waiting[0]).is_pending());
    assert!(poll(&mut waiting[1]).is_ready());
    drop(second);
    assert!(poll(&mut waiting[0]).is_ready());
}

#[test]
fn a_wait_ends_with_its_patience_or_with_a_release() {
    let pool = pool(MIB);
    let mut held = fill(&pool, 64 << 10);
    let start = Instant::now();
    let error = pool.allocate_timeout(64 << 10, Duration::from_millis(30)).expect_err("full");
    assert!(start.elapsed() >= Duration::from_millis(30) && error.kind() == ErrorKind::PoolExhausted, "{error}");
    assert_eq!(pool.statistics().waiting, 0);
    let last = held.pop();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.allocate_timeout(64 << 10, Duration::from_secs(60)));
        while pool.statistics().waiting == 0 {
            std::thread::yield_now();
        }
        drop(last);
        assert!(waiter.join().expect("no panic").is_ok());
    });
}
