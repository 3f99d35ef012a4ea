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
