//! What the mix has of the world: here that is the real one.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Everything takes longer than in a simulation: a grant that lives for its milliseconds would never be used.
const SLOWNESS: u32 = 20;

pub(crate) fn sleep(time: Duration) -> tokio::time::Sleep {
    tokio::time::sleep(time * SLOWNESS)
}

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

thread_local! {
    /// What a task has panicked with.
    static PANIC: RefCell<Option<Box<dyn Any + Send>>> = const { RefCell::new(None) };
}

/// Panics as soon as a task has.
pub(crate) async fn panicked() {
    loop {
        if let Some(panic) = PANIC.take() {
            std::panic::resume_unwind(panic);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// A task of this thread.
pub(crate) struct Task<T>(tokio::task::JoinHandle<T>);

pub(crate) fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    Task(tokio::task::spawn_local(async {
        match tokio::task::spawn_local(future).await {
            Err(error) if error.is_panic() => {
                PANIC.set(Some(error.into_panic()));
                std::future::pending().await
            }
            result => result.expect("nobody cancels it"),
        }
    }))
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

/// A simulation would end if nothing happened.
pub(crate) fn note_progress() {}
