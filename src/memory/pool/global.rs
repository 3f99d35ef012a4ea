//! The pool of the process.

use super::Pool;
use crate::memory::Epoch;
use crate::sync::locks::OnceLock;

/// A pool for each process in a line of forks: a child goes past those of its parents and adds its own.
struct Generation {
    epoch: Epoch,
    pool: Pool,
    next: OnceLock<Box<Generation>>,
}

static FIRST: OnceLock<Box<Generation>> = OnceLock::new();

#[cfg(any(test, feature = "internals"))]
thread_local! {
    /// What takes the place of the process' pool on this thread.
    static OF_THREAD: std::cell::RefCell<Option<Pool>> = const { std::cell::RefCell::new(None) };
}

/// Lets `act` use the pool that buffers of no pool in particular come from: the process', or what was put in its place.
#[inline]
pub(super) fn with<R>(act: impl FnOnce(&Pool) -> R) -> R {
    #[cfg(any(test, feature = "internals"))]
    if let Ok(Some(pool)) = OF_THREAD.try_with(|pool| pool.borrow().clone()) {
        return act(&pool);
    }
    act(global())
}

/// From now on buffers come from `pool` on this thread, or from the process' again; answers what it was before.
#[cfg(any(test, feature = "internals"))]
pub(super) fn replace_on_this_thread(pool: Option<Pool>) -> Option<Pool> {
    OF_THREAD.replace(pool)
}

/// The pool of this process.
pub(super) fn global() -> &'static Pool {
    let current = Epoch::current();
    let mut generation = &FIRST;
    loop {
        let there = generation.get_or_init(|| {
            let pool = Pool::builder().build().expect("the default limit has room for a page");
            Box::new(Generation { epoch: current, pool, next: OnceLock::new() })
        });
        if there.epoch == current {
            return &there.pool;
        }
        generation = &there.next;
    }
}
