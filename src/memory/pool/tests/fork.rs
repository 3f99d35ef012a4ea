//! A forked child leaves its parent's pools alone.

#![allow(unsafe_code, reason = "forks; each block carries its proof")]

use std::task::{Context, Poll, Waker};

use super::{MIB, pool};
use crate::memory::pool::Pool;
use crate::{Buffer, ErrorKind};

/// Runs `test` in a forked child.
fn in_child(test: impl FnOnce() -> bool) {
    // SAFETY: the child uses nothing but the allocator, which the C library keeps usable, and ends without a destructor.
    match unsafe { libc::fork() } {
        0 => {
            let status = if test() { 0 } else { 1 };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(status) }
        }
        child => {
            let mut status = -1;
            // SAFETY: waits for the child just made; `status` is writable.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child failed");
        }
    }
}

#[test]
fn a_child_has_another_global_pool_and_drops_the_parents_buffers_without_effect() {
    let pool = pool(MIB);
    let global = Pool::global();
    let mut mine = Buffer::allocate(1000).expect("memory");
    let theirs = pool.allocate(1000).expect("room");
    mine.fill(1);
    let in_use = pool.statistics().in_use_bytes;
    // As if another thread held a lock while this one forks.
    let waiting = pool.allocate_async(2000);
    let mut held = Some((mine, theirs, pool.clone(), waiting));
    in_child(|| {
        let (mine, theirs, pool, waiting) = held.take().expect("held");
        let refused = pool.allocate(1).is_err_and(|error| error.kind() == ErrorKind::Unsupported);
        let mut waiting = waiting;
        let polled = std::pin::Pin::new(&mut waiting).poll(&mut Context::from_waker(Waker::noop()));
        let refused = refused && matches!(polled, Poll::Ready(Err(error)) if error.kind() == ErrorKind::Unsupported);
        drop((mine, theirs, waiting));
        let idle = pool.trim() == 0;
        drop(pool);
        let fresh = Buffer::allocate(1000).is_ok_and(|mut buffer| {
            buffer.fill(2);
            buffer[999] == 2
        });
        refused && idle && fresh && !std::ptr::eq(global, Pool::global())
    });
    let (mine, ..) = held.as_ref().expect("only the child's was taken");
    assert!(mine.iter().all(|&byte| byte == 1));
    assert_eq!(pool.statistics().in_use_bytes, in_use);
    drop(held);
    assert_eq!(pool.statistics().in_use_bytes, 0);
    assert!(std::ptr::eq(global, Pool::global()));
}

#[test]
fn a_child_is_not_held_up_by_locks_that_were_held_when_it_was_forked() {
    let pool = pool(MIB);
    let buffer = pool.allocate(1000).expect("room");
    let mut held = Some(buffer);
    // Every lock that a release takes.
    pool.inner.reservoir.depot.while_locked(|| {
        in_child(|| {
            drop(held.take());
            pool.allocate(1000).is_err()
        });
    });
    drop(held);
    assert_eq!(pool.statistics().in_use_bytes, 0);
}
