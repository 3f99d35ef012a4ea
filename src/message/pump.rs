//! Receiving for those who may change from one message to the next.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::lock;
use crate::sync::locks::Mutex;
use crate::{Channel, Message, Result};

type Slot = Arc<Mutex<Option<Result<Message>>>>;

/// A channel's messages, one by one. Whoever polls, it is one waker that is called: it knows who waits.
pub(crate) struct Pump {
    /// One future for all messages: a waiting one that is dropped would not be woken.
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    slot: Slot,
    waker: Waker,
}

impl Pump {
    /// Of `channel`. `waker` is called when [`next`](Self::next) may have more.
    pub(crate) fn new(channel: Channel, waker: Waker) -> Self {
        let slot = Slot::default();
        Self { future: Box::pin(receive(channel, Arc::clone(&slot))), slot, waker }
    }

    /// A message that is there.
    pub(crate) fn next(&mut self) -> Option<Result<Message>> {
        if lock(&self.slot).is_none() {
            // It never ends.
            let _ = self.future.as_mut().poll(&mut Context::from_waker(&self.waker));
        }
        lock(&self.slot).take()
    }
}

async fn receive(channel: Channel, slot: Slot) {
    loop {
        // Whoever empties the slot polls again.
        poll_fn(|_| if lock(&slot).is_none() { Poll::Ready(()) } else { Poll::Pending }).await;
        let received = channel.recv().await;
        *lock(&slot) = Some(received);
    }
}
