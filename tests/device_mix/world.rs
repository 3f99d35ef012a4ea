//! What the mix has of the world: here that is the real one.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pub(crate) use tokio::time::sleep;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// What follows depends on `seed`, and on when things happen.
pub(crate) fn seed(seed: u64) {
    STATE.set(seed);
}

/// A number below `bound`.
pub(crate) fn random(bound: u64) -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) % bound
}

/// A task of this thread.
pub(crate) struct Task<T>(tokio::task::JoinHandle<T>);

pub(crate) fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    Task(tokio::task::spawn_local(future))
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(result) => Some(result),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        })
    }
}

/// A simulation would end if nothing happened.
pub(crate) fn note_progress() {}
